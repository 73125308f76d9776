"""What hello brings about counts only inside a session: an old opening that was kept does nothing."""

import httpx
import msgspec
import pytest

from appliance.base.errors import Clash
from appliance.db.wire import Statement
from appliance.sync.attesting import Kept
from appliance.sync.nodes import find_peer, find_self
from appliance.sync.site import Begun, make_hello

pytestmark = pytest.mark.anyio
_VECTOR = Statement(
    "INSERT INTO stream_vector (tenant_id, stream, origin, got, hash) VALUES ($1, $2, $3, 9, $4)"
)


async def test_a_replayed_opening_makes_no_new_incarnation(pair):
    await pair.sync()
    me, hub, tenant = pair.parts.me, pair.hub.db, pair.hub.id
    opening = next(
        b for b, verb in zip(pair.line.bodies, pair.line.asked, strict=True) if verb == "hello"
    )
    # The hub has what the site no longer knows to have made.
    async with hub.transaction(tenant) as tx:
        await tx.run((_VECTOR, (tenant, pair.hub.units["north"], me.origin, b"h" * 32)))
    kept = httpx.Request("POST", opening.url, headers=opening.headers, content=opening.content)
    answer = await pair.line.handle_async_request(kept)
    assert answer.status_code == 200
    assert (await find_peer(hub, me.id)).origin == me.origin

    with pytest.raises(Begun):
        await pair.sync()
    peer, now = await find_peer(hub, me.id), await find_self(pair.site.db)
    assert peer.origin == now.origin != me.origin
    assert peer.former_origins == now.former_origins == (me.origin,)


@pytest.mark.parametrize(("spoken", "who"), [((7, 9), "the hub"), ((0, 0), "the site")])
async def test_an_unknown_protocol_is_refused_in_words(pair, spoken, who):
    kept = Kept(pair.site.db, pair.hub.id, pair.parts.hub)
    hello = await make_hello(kept, pair.parts.me, {})
    talk = pair.talk()
    with pytest.raises(Clash) as refused:
        await talk.client.greet(msgspec.structs.replace(hello, protocols=spoken))
    await talk.close()
    assert refused.value.code == "sync.protocol_unknown"
    assert refused.value.detail.endswith(f"upgrade {who}.")
