"""The nodes of a tenant for its administrators, and the doors through which nodes come in.

An administrator sees and touches the nodes of their own tenant. What a node says here stands by
itself: a code with a proof of its key, a key that the one before has signed. Answers to nodes are
MessagePack and signed for the question, as everything between nodes.
"""

from __future__ import annotations

import ipaddress
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import msgspec
from litestar.response.base import ASGIResponse
from msgspec import UNSET, UnsetType

from appliance.access.bounds import check_not_staff
from appliance.base.errors import Forbidden, Malformed
from appliance.base.roles import HUB
from appliance.http.answers import Answer, raw, reply
from appliance.http.ask import Ask
from appliance.http.bodies import check_storable
from appliance.http.route import API, PUBLIC, Book
from appliance.http.visit import Scope, address_of, is_secure
from appliance.sync import enrol, joining, nodes
from appliance.sync.foreseen import Purge, foresee
from appliance.sync.keys import KeyFile, Rotation, fingerprint
from appliance.sync.scope import find_scope
from appliance.sync.signing import refusal, sign_answer

T = TypeVar("T")
book = Book("nodes")
PATH = f"{API}/nodes"
ONE = f"{PATH}/{{id}}"
MANAGE: dict[str, Any] = {"capability": "nodes.manage", "placed": HUB}
BETWEEN: dict[str, Any] = {
    "capability": PUBLIC, "placed": HUB, "answers": {200: bytes}, "media": (joining.MEDIA,),
    "refuses": (401, 409, 422), "body_most": joining.QUESTION_BYTES_MAX,
}  # fmt: skip


class NodeView(msgspec.Struct, frozen=True):
    """A node of the tenant. `units` null: all. `holds` is active, withdrawn or purged."""

    id: UUID
    name: str
    prefix: str
    state: str
    holds: str
    units: list[UUID] | None
    epoch: int
    fingerprint: str
    joined_at: datetime | None
    seen_at: datetime | None
    revoked_at: datetime | None
    revoked_reason: str


class NodeList(msgspec.Struct, frozen=True):
    """By name, with those that were revoked. `hub` is the fingerprint of this node's own key."""

    nodes: list[NodeView]
    hub: str


class NewInvitation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A node to come: its name, its number prefix, the units it will hold (all, if none named)."""

    name: str
    prefix: str
    units: list[UUID] | None = None
    minutes: int = enrol.MINUTES
    masks: dict[str, list[str]] = {}


class MadeInvitation(msgspec.Struct, frozen=True):
    """The code is shown this once; the fingerprint is what the new node has to show too."""

    code: str
    expires_at: datetime
    fingerprint: str


class Revoking(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why."""

    reason: str


class NewScope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The units a node holds from now on, with all below them (null: all), and the fields that are
    kept from it, by kind. What is left out stays as it is; with `dry_run` everything does.
    """

    units: list[UUID] | None | UnsetType = UNSET
    masks: dict[str, list[str]] | UnsetType = UNSET
    dry_run: bool = False


class ScopeView(NodeView, frozen=True):
    """The node, the fields that are kept from it, and what the change does there: units that it
    gets, and those whose records it deletes and proves gone.
    """

    masks: dict[str, list[str]]
    adds: list[str]
    purges: list[Purge]


@book.route("GET", PATH, **MANAGE, answers={200: NodeList})
async def list_nodes(ask: Ask) -> ASGIResponse:
    """The nodes that hold something of this tenant, or did."""
    found = await nodes.list_nodes(ask.node.db, ask.ctx.tenant)
    key = _key(ask)
    return reply(NodeList([_view(n) for n in found], fingerprint(key.current().public)))


@book.route("POST", f"{PATH}/invitations", **MANAGE, writes=True, body=NewInvitation,
            answers={201: MadeInvitation})  # fmt: skip
async def invite_node(ask: Ask) -> ASGIResponse:
    """A one-time code for a new node."""
    check_not_staff(ask.ctx)
    new, public = ask.read(NewInvitation), _key(ask).current().public
    check_storable(new.name, "/name")
    made = await enrol.invite(
        ask.node.db, ask.ctx.tenant, new.name, new.prefix, hub_key=public, units=new.units,
        masks=new.masks, minutes=new.minutes, actor=ask.ctx.actor,
    )  # fmt: skip
    return reply(MadeInvitation(made.code, made.expires_at, fingerprint(public)), 201)


@book.route("POST", f"{ONE}/revoke", **MANAGE, writes=True, body=Revoking, answers={200: NodeView})
async def revoke_node(ask: Ask) -> ASGIResponse:
    """Take the tenant from a node: it is out at once, and is told to forget what it holds."""
    given = ask.read(Revoking)
    check_storable(given.reason, "/reason")
    ctx = ask.ctx
    found = await nodes.revoke(
        ask.node.db, ask.ident(), given.reason, tenant=ctx.tenant, actor=ctx.actor
    )
    return reply(_view(found))


@book.route("PATCH", f"{ONE}/scope", **MANAGE, writes=True, body=NewScope, answers={200: ScopeView})
async def change_node_scope(ask: Ask) -> ASGIResponse:
    """Say anew which units a node holds and what is kept from it; or ask what that would do."""
    check_not_staff(ask.ctx)
    given, ctx, ident, db = ask.read(NewScope), ask.ctx, ask.ident(), ask.node.db
    before = await nodes.find_of_tenant(db, ident, ctx.tenant)
    units = before.unit_ids if given.units is UNSET else given.units
    masks = None if given.masks is UNSET else given.masks
    await enrol.check_units(db, ctx.tenant, units)
    told = await foresee(db, ident, ctx.tenant, units=units, masks=masks)
    found = before
    if not given.dry_run:
        found = await nodes.set_units(db, ident, ctx.tenant, units, masks=masks, actor=ctx.actor)
    scope = await find_scope(db, ident, ctx.tenant)
    kept = masks if given.dry_run and masks is not None else scope.masks if scope else {}
    view = msgspec.structs.asdict(_view(found))
    return reply(ScopeView(**view, masks=kept, adds=told.adds, purges=told.purges))


@book.route("POST", f"{API}/sync/join", **BETWEEN)
async def join_hub(ask: Ask) -> ASGIResponse:
    """Let a node in that has a code; the same key may ask again while the code lives."""
    _check_line(ask.scope)
    asked = _read(ask, enrol.Joining)
    node = ask.node
    joined = await enrol.join(
        node.db, asked, hub_key=_key(ask).current(), version=node.version,
        address=address_of(ask.scope), policy=node.settings.login,
    )  # fmt: skip
    return _signed(ask, joined, joining.signature_of(asked.proof))


@book.route("POST", f"{API}/sync/rotate", **BETWEEN)
async def rotate_node_key(ask: Ask) -> ASGIResponse:
    """Take a node's new key, signed by the one it has."""
    rotation = _read(ask, Rotation)
    if not await nodes.take_rotation(ask.node.db, rotation):
        raise refusal()
    return _signed(ask, joining.Rotated(rotation.new_key), joining.signature_of(rotation.by_new))


@book.route("POST", f"{API}/sync/keys", **BETWEEN)
async def read_hub_keys(ask: Ask) -> ASGIResponse:
    """How this hub's keys followed each other, for a node that still trusts an older one."""
    hub = await nodes.find_self(ask.node.db)
    found = await nodes.read_rotations(ask.node.db, hub.id) if hub else []
    return raw(msgspec.msgpack.encode(joining.KeyChain(found)), media=joining.MEDIA)


def _view(node: nodes.PeerNode) -> NodeView:
    units = list(node.unit_ids) if node.unit_ids is not None else None
    return NodeView(
        id=node.id, name=node.name, prefix=node.prefix, state=node.state, holds=node.scope_state,
        units=units, epoch=node.epoch, fingerprint=fingerprint(node.public_key or b""),
        joined_at=node.joined_at, seen_at=node.seen_at, revoked_at=node.revoked_at,
        revoked_reason=node.revoked_reason,
    )  # fmt: skip


def _key(ask: Ask) -> KeyFile:
    return _key_of(ask.node.settings.data_dir)


@lru_cache(maxsize=8)
def _key_of(data: Path) -> KeyFile:
    return KeyFile(data)


def _read(ask: Ask, shape: type[T]) -> T:
    """What a node says. Raises Malformed."""
    body = ask.visit.body
    if len(body) <= joining.QUESTION_BYTES_MAX:
        try:
            return msgspec.msgpack.decode(body, type=shape)
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
            pass
    raise Malformed("The body is not what a node says here.", code="sync.message_unreadable")


def _signed(ask: Ask, value: object, question: str) -> Answer:
    body = msgspec.msgpack.encode(value)
    return raw(body, 200, sign_answer(_key(ask).current(), 200, body, question), joining.MEDIA)


def _check_line(scope: Scope) -> None:
    """A code and a tenant's secret cross no public network in the open. Raises Forbidden."""
    try:
        is_near = is_secure(scope) or ipaddress.ip_address(address_of(scope)).is_private
    except ValueError:
        is_near = False
    if not is_near:
        raise Forbidden("Nodes join over HTTPS only.", code="request.insecure")
