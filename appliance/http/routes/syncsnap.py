"""What a site asks for when the log will not do: a stream's cut, and its records piece by piece."""

from __future__ import annotations

from uuid import UUID

from litestar.response.base import ASGIResponse

from appliance.base.errors import Clash
from appliance.http.ask import Ask
from appliance.http.route import Book
from appliance.http.routes.sync import BETWEEN, HERE, prove, signed, tenant_of
from appliance.sync.digest import AskDigest, answer
from appliance.sync.nodes import PeerNode
from appliance.sync.scope import StreamGrant, streams_for
from appliance.sync.snapshot import AskCut, AskPart, read_cut, read_piece

book = Book("sync")


@book.route("POST", f"{HERE}/snap/manifest", **BETWEEN)
async def tell_cut(ask: Ask) -> ASGIResponse:
    """Where a snapshot of a stream is cut, and how far each origin is there."""
    peer, asked = await prove(ask, AskCut)
    tenant, db = tenant_of(peer), ask.node.db
    if asked.stream not in await _grants(ask, peer):
        raise Clash("This node does not hold the stream.", code="stream.not_granted")
    return signed(ask, await read_cut(db, tenant, asked.stream))


@book.route("POST", f"{HERE}/snap/chunk", **BETWEEN)
async def tell_piece(ask: Ask) -> ASGIResponse:
    """The records of a stream after an id, as the site may see them."""
    peer, asked = await prove(ask, AskPart)
    tenant, node = tenant_of(peer), ask.node
    with node.hub.enter(tenant):
        piece = await read_piece(node.db, tenant, asked, await _grants(ask, peer))
        answer = signed(ask, piece)
    await node.hub.count(peer, tenant, sent=len(answer.body), received=len(ask.visit.body))
    return answer


@book.route("POST", f"{HERE}/digest", **BETWEEN)
async def tell_digest(ask: Ask) -> ASGIResponse:
    """Whether a stream is alike on both sides, and if not where."""
    peer, asked = await prove(ask, AskDigest)
    tenant, node = tenant_of(peer), ask.node
    with node.hub.enter(tenant):
        grant = (await _grants(ask, peer)).get(asked.stream)
        if grant is None:
            raise Clash("This node does not hold the stream.", code="stream.not_granted")
        return signed(ask, await answer(node.db, tenant, asked, grant.mask))


async def _grants(ask: Ask, peer: PeerNode) -> dict[UUID, StreamGrant]:
    """What the node may have now: nothing once it is revoked."""
    if peer.state != "active":
        return {}
    return await streams_for(ask.node.db, peer.id, tenant_of(peer))
