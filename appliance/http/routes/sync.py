"""What a site asks its hub: hello, exchange, wait; and for people, how replication stands.

The node proves itself by its signature, and that it may speak of this tenant, before a byte of the
body is read as anything; the body and the answer are MessagePack (sync/messages.py), and the answer is
signed for this one question.
"""

from __future__ import annotations

from typing import Any, TypeVar
from uuid import UUID

from litestar.response.base import ASGIResponse

from appliance.base import limits
from appliance.base.roles import HUB
from appliance.http.answers import Answer, raw, reply
from appliance.http.ask import Ask
from appliance.http.route import API, NODE, Book
from appliance.sync import messages as say
from appliance.sync.nodes import PeerNode, open_session
from appliance.sync.signing import sign_answer, verify
from appliance.sync.status import SyncState, read_status

book = Book("sync")
HERE = f"{API}/sync"
T = TypeVar("T", bound=say.Message)
BETWEEN: dict[str, Any] = {
    "capability": NODE, "placed": HUB, "answers": {200: bytes}, "media": (say.MEDIA,),
    "refuses": (409, 422), "body_most": limits.BODY_BYTES_MAX,
}  # fmt: skip


@book.route("POST", f"{HERE}/hello", **BETWEEN)
async def sync_hello(ask: Ask) -> ASGIResponse:
    """Open a conversation about a tenant: its streams, where both stand, the session's nonce."""
    peer, hello = await prove(ask, say.Hello, opening=True)
    node = ask.node
    session = await open_session(node.db, peer.id)
    welcome = await node.hub.greet(
        peer, tenant_of(peer), hello, session=session, version=node.version
    )
    return signed(ask, welcome)


@book.route("POST", f"{HERE}/exchange", **BETWEEN)
async def sync_exchange(ask: Ask) -> ASGIResponse:
    """Take what the site made, give it what it lacks."""
    peer, asked = await prove(ask, say.Exchange)
    tenant, hub = tenant_of(peer), ask.node.hub
    answer = signed(ask, await hub.exchange(peer, tenant, ask.node.origin, asked))
    await hub.count(peer, tenant, sent=len(answer.body), received=len(ask.visit.body))
    return answer


@book.route("POST", f"{HERE}/compare", **BETWEEN)
async def sync_compare(ask: Ask) -> ASGIResponse:
    """Say which of a site's entries this hub has as well."""
    peer, asked = await prove(ask, say.Compare)
    return signed(ask, await ask.node.hub.compare(peer, tenant_of(peer), asked))


@book.route("POST", f"{HERE}/wait", **BETWEEN)
async def sync_wait(ask: Ask) -> ASGIResponse:
    """Answer when something is new for the site, or when it has waited as long as it wanted."""
    peer, asked = await prove(ask, say.Waiting)
    tenant = tenant_of(peer)
    await ask.node.hub.note(peer, tenant, asked.cursors)
    return signed(ask, await ask.node.waits.wait(peer, tenant, asked))


@book.route("GET", f"{HERE}/status", capability="sync.manage", answers={200: SyncState})
async def read_sync_status(ask: Ask) -> ASGIResponse:
    """How replication of this tenant stands: each peer, each stream, what went wrong last."""
    return reply(await read_status(ask.node.db, ask.node.redis, ask.ctx.tenant))


async def prove(ask: Ask, shape: type[T], *, opening: bool = False) -> tuple[PeerNode, T]:
    """Who asks, and what. Raises Unauthenticated before the body is read, then Malformed."""
    visit = ask.visit
    peer = await verify(
        ask.node.db, ask.scope, visit.body, opening=opening, leaving=True,
        body_bytes_max=limits.BODY_BYTES_MAX,
    )  # fmt: skip
    visit.tenant, visit.actor = peer.tenant, peer.id
    await ask.node.db.routes.seek(tenant_of(peer))
    return peer, say.decode(visit.body, shape)


def signed(ask: Ask, message: say.Message) -> Answer:
    """An answer that fits the question's signature and no other."""
    body = say.encode(message)
    question = ask.header("signature") or ""
    return raw(body, 200, sign_answer(ask.node.key.current(), 200, body, question), say.MEDIA)


def tenant_of(peer: PeerNode) -> UUID:
    """The tenant that the node proved to speak of."""
    assert peer.tenant is not None, "a proved node names its tenant"
    return peer.tenant
