"""How a site opens a conversation: what it says of itself, and whose answer it believes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from uuid import UUID

import httpx

from appliance import __version__
from appliance.base.errors import Clash, Unauthenticated
from appliance.db.database import Database
from appliance.sync import messages as say
from appliance.sync.attesting import Kept
from appliance.sync.client import HubClient
from appliance.sync.incarnation import read_epoch, read_hub_tips, read_own_tips
from appliance.sync.joining import ask_for_keys
from appliance.sync.nodes import PeerNode, learn_key
from appliance.sync.positions import read_heard
from appliance.sync.signing import UNTRUSTED


class Begun(Clash):
    """One of the two begins anew: what was read before hello does not hold any more."""

    code = "sync.begun_anew"


async def make_hello(
    kept: Kept, me: PeerNode, cursors: Mapping[UUID, int], proof: bytes = b""
) -> say.Hello:
    """What a site says first to the hub whose words it `kept`: what it made, what it took, and how
    far it is.
    """
    db, tenant, hub = kept.db, kept.tenant, kept.hub
    own, epoch = sorted(me.origins), await read_epoch(db)
    made = await read_own_tips(db, tenant, own)
    return say.Hello(
        say.PROTOCOLS, __version__, time.time_ns() // 1_000_000,
        {s: dict(tips) for s, tips in made.items()},
        dict(await read_hub_tips(db, tenant, hub.origin, own)), epoch,
        dict(cursors), proof, await read_heard(db, tenant, hub.origin, own),
        kept.find_lacking(epoch, [s for s, cursor in cursors.items() if cursor]),
    )  # fmt: skip


async def say_hello(
    db: Database, client: HubClient, hub: PeerNode, hello: say.Hello,
    transport: httpx.AsyncBaseTransport | None,
) -> say.Welcome:  # fmt: skip
    """Ask. An answer under a key that is not known may be under one that the known key has signed
    for: it is followed then. Raises Begun, Unauthenticated, and what `client.greet` does.
    """
    try:
        return await client.greet(hello)
    except Unauthenticated as untrusted:
        if untrusted.code != UNTRUSTED:
            raise
        found = await ask_for_keys(hub, transport=transport)
        if not await learn_key(db, hub.id, found):
            raise
        raise Begun("The hub has a new key, which its old one signed for.") from None
