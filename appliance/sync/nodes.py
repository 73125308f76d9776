"""The nodes of an installation and what each may hold, in the control plane.

Promises: a node is known by an id that never changes and by the origin it writes under now; what
it held of a tenant is never forgotten, only withdrawn, and each change of it counts up an epoch
that the node is told; a revoked node has no session from that moment on; the hub itself cannot be
revoked. Who may do this is the caller's to know; an administrator of a tenant gives it, and then
nodes of other tenants do not exist.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from appliance.audit import audit_calls
from appliance.base import logs
from appliance.base.errors import ApplianceError, Clash, FieldFault, Invalid, Refused
from appliance.db.database import Database, translated
from appliance.sync.keys import Rotation, follow
from appliance.sync.scope import find_scope
from appliance.sync.withdrawal import change_scope, withdraw_node

ACTIVE, REVOKED, WITHDRAWN = "active", "revoked", "withdrawn"
SESSION_HOURS = 12
# Sessions that were opened and never used: a replayed opening costs no more than this.
UNUSED_MAX = 32
REASON_CHARS_MAX = 500

_COLUMNS = (
    "n.id, n.name, n.origin, n.former_origins, n.role, n.state, n.prefix, n.public_key, n.url, "
    "n.incarnation, n.is_self, n.joined_at, n.seen_at, n.revoked_at, n.revoked_reason"
)
_PEER = (
    f"SELECT {_COLUMNS}, s.tenant_id, s.unit_ids, coalesce(s.epoch, 0), coalesce(s.state, '') "
    "FROM node n LEFT JOIN node_scope s ON s.node_id = n.id AND s.tenant_id = %s "
)
_LIST = (
    f"SELECT {_COLUMNS}, s.tenant_id, s.unit_ids, coalesce(s.epoch, 0), coalesce(s.state, '') "
    "FROM node n LEFT JOIN node_scope s ON s.node_id = n.id "
)
# Above what was ever issued, and above whatever stands in a row all the same.
ISSUE_ORIGIN = "UPDATE origin_issued SET last = greatest(last, (SELECT max(origin) FROM node)) + 1 RETURNING last"
# One statement: of two requests with one counter the second finds it taken.
_COUNT = (
    "UPDATE node_session SET counter = %s WHERE nonce = %s AND node_id = %s AND counter < %s "
    "AND expires_at > now() RETURNING 1"
)


class PeerNode(msgspec.Struct, frozen=True):
    """A node as another one knows it; `tenant` and what follows only where a tenant was named.

    `unit_ids` None means all. `scope_state` is "" for a node that never held the tenant.
    """

    id: UUID
    name: str
    origin: int
    former_origins: tuple[int, ...]
    role: str
    state: str
    prefix: str
    public_key: bytes | None = None
    url: str = ""
    incarnation: int = 1
    is_self: bool = False
    joined_at: datetime | None = None
    seen_at: datetime | None = None
    revoked_at: datetime | None = None
    revoked_reason: str = ""
    tenant: UUID | None = None
    unit_ids: tuple[UUID, ...] | None = None
    epoch: int = 0
    scope_state: str = ""
    session: bytes = b""

    @property
    def origins(self) -> frozenset[int]:
        """All origins the node ever wrote under: what it may push."""
        return frozenset((self.origin, *self.former_origins))


async def find_peer(db: Database, node_id: UUID, tenant: UUID | None = None) -> PeerNode | None:
    """A node, with what it holds of a tenant."""
    return await _one(db, f"{_PEER} WHERE n.id = %s AND NOT n.is_self", tenant, node_id)


async def find_self(db: Database) -> PeerNode | None:
    """The row of this node."""
    return await _one(db, f"{_PEER} WHERE n.is_self", None)


async def hub_of(db: Database) -> PeerNode | None:
    """The hub of this site; None on a hub and on a node that is alone."""
    return await _one(db, f"{_PEER} WHERE n.role = 'hub' AND NOT n.is_self", None)


async def hub_origins(db: Database) -> frozenset[int]:
    """All origins that the hub ever wrote under; a node that is alone is its own hub."""
    hub = await hub_of(db) or await find_self(db)
    return hub.origins if hub is not None else frozenset({1})


async def list_nodes(db: Database, tenant: UUID | None = None) -> list[PeerNode]:
    """Nodes by name, one row for each tenant a node holds; those of one tenant where it is named."""
    where = "WHERE s.tenant_id = %s" if tenant else "WHERE %s::uuid IS NULL"
    rows = await run_control(db, f"{_LIST} {where} ORDER BY n.name, s.tenant_id", tenant)
    return [_peer(row) for row in rows]


async def find_named(db: Database, name: str, tenant: UUID | None = None) -> PeerNode:
    """A node by name or id; the one at work when a revoked one had the name. Raises Refused."""
    found = [n for n in await list_nodes(db, tenant) if name in (n.name, str(n.id))]
    if not found:
        raise unknown(name)
    return min(found, key=lambda n: (n.state != ACTIVE, n.is_self))


async def open_session(db: Database, node_id: UUID) -> bytes:
    """The nonce of a new conversation; expired ones go, and so do many that nobody ever used."""
    nonce = secrets.token_bytes(16)
    await run_control(
        db,
        "WITH unused AS (SELECT nonce FROM node_session WHERE node_id = %s AND counter = 0 "
        "ORDER BY expires_at DESC OFFSET %s), gone AS (DELETE FROM node_session WHERE "
        "expires_at < now() OR nonce IN (SELECT nonce FROM unused)), seen AS (UPDATE node "
        "SET seen_at = now() WHERE id = %s) INSERT INTO node_session (nonce, node_id, expires_at) "
        "VALUES (%s, %s, now() + make_interval(hours => %s))",
        node_id, UNUSED_MAX - 1, node_id, nonce, node_id, SESSION_HOURS,
    )  # fmt: skip
    return nonce


async def count_request(db: Database, node_id: UUID, nonce: bytes, counter: int) -> bool:
    """Take a counter of a session; False when it, or a later one, was taken, or the session ended."""
    return bool(await run_control(db, _COUNT, counter, nonce, node_id, counter))


async def revoke(
    db: Database,
    node_id: UUID,
    reason: str,
    *,
    tenant: UUID | None = None,
    actor: UUID | None = None,
) -> PeerNode:
    """Take a node's right to a tenant (to all, without `tenant`); without any it is revoked whole.

    Repeated, it changes nothing. Raises Refused (no such node), Clash (the hub), Invalid.
    """
    _check_reason(reason)
    peer = await find_of_tenant(db, node_id, tenant)
    held = [n.tenant for n in await list_nodes(db) if n.id == node_id and n.tenant]
    tenants = [tenant] if tenant else held
    for one in tenants:
        # What it has to give up is named stream by stream where the tenant can be read. Where it
        # cannot, being suspended or away, the node is shut out all the same.
        with contextlib.suppress(ApplianceError):
            await withdraw_node(db, node_id, one)
    async with control_transaction(db) as conn:
        # A join of the same node waits for this row.
        await conn.execute("SELECT FROM node WHERE id = %s FOR UPDATE", (node_id,))
        await conn.execute(
            "UPDATE node_scope SET state = 'withdrawn', epoch = epoch + 1, changed_at = now() "
            "WHERE node_id = %s AND state = 'active' AND (%s::uuid IS NULL OR tenant_id = %s)",
            (node_id, tenant, tenant),
        )
        await conn.execute(
            "UPDATE node SET state = 'revoked', revoked_at = now(), revoked_reason = %s "
            "WHERE id = %s AND state = 'active' AND NOT EXISTS (SELECT FROM node_scope "
            "WHERE node_id = %s AND state = 'active')",
            (reason, node_id, node_id),
        )
        await conn.execute("DELETE FROM node_session WHERE node_id = %s", (node_id,))
    for one in tenants:
        await note(db, one, "node.revoked", actor=actor, subject=node_id)
    logs.event("sync.node_revoked", level="warning", node=node_id, tenant=tenant)
    return await find_of_tenant(db, peer.id, tenant)


async def set_units(
    db: Database,
    node_id: UUID,
    tenant: UUID,
    units: Sequence[UUID] | None,
    *,
    masks: Mapping[str, list[str]] | None = None,
    actor: UUID | None = None,
) -> PeerNode:
    """Say anew which units a node holds of a tenant, with all below them; None is all. `masks` are
    the fields kept from it, by kind; None leaves them as they are.

    What it loses it has to purge and prove (sync/withdrawal). Raises Refused, Clash, Invalid.
    """
    before = await find_of_tenant(db, node_id, tenant)
    if before.scope_state != ACTIVE:
        raise Clash("This node holds the tenant no more; invite it anew.", code="node.revoked")
    wanted = frozenset(units) if units is not None else None
    held = frozenset(before.unit_ids) if before.unit_ids is not None else None
    scope = await find_scope(db, node_id, tenant)
    if wanted == held and (masks is None or scope is None or masks == scope.masks):
        return before
    changed = await change_scope(db, node_id, tenant, units=wanted, masks=masks)
    details: dict[str, object] = {
        "epoch": changed.epoch, "added": len(changed.added), "withdrawn": len(changed.withdrawn),
        "masked": sum(map(len, masks.values())) if masks is not None else None,
    }  # fmt: skip
    await note(db, tenant, "node.scope_changed", actor=actor, subject=node_id, details=details)
    return await find_of_tenant(db, node_id, tenant)


async def take_rotation(db: Database, rotation: Rotation) -> bool:
    """Replace a node's key when the one it has signed for the next; the same again is harmless.

    False when it does not fit what is known: nothing is changed then.
    """
    if follow(rotation.old_key, rotation.node, [rotation]) != rotation.new_key:
        return False
    async with control_transaction(db) as conn:
        found: Any = await conn.execute(
            "UPDATE node SET public_key = %s WHERE id = %s AND public_key = %s AND state = 'active'",
            (rotation.new_key, rotation.node, rotation.old_key),
        )
        if not found.rowcount:
            cursor: Any = await conn.execute(
                "SELECT FROM node WHERE id = %s AND public_key = %s",
                (rotation.node, rotation.new_key),
            )
            return await cursor.fetchone() is not None
        await keep_rotation(conn, rotation)
    for peer in await list_nodes(db):
        if peer.id == rotation.node and peer.tenant and not peer.is_self:
            await note(db, peer.tenant, "node.key_rotated", subject=peer.id)
    logs.event("sync.key_rotated", node=rotation.node)
    return True


async def keep_rotation(conn: Any, rotation: Rotation) -> None:
    """Keep the proof, for whoever still trusts the older key."""
    await conn.execute(
        "INSERT INTO node_key_rotation (node_id, old_key, new_key, by_old, by_new) "
        "VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (rotation.node, rotation.old_key, rotation.new_key, rotation.by_old, rotation.by_new),
    )


async def read_rotations(db: Database, node_id: UUID) -> list[Rotation]:
    """All proofs of a node's keys, oldest first."""
    rows = await run_control(
        db,
        "SELECT node_id, old_key, new_key, by_old, by_new FROM node_key_rotation "
        "WHERE node_id = %s ORDER BY at",
        node_id,
    )
    return [Rotation(*row) for row in rows]


async def learn_key(db: Database, node_id: UUID, rotations: list[Rotation]) -> bool:
    """Follow a peer's rotations from the key that is trusted; whether they led to another."""
    peer = await find_peer(db, node_id)
    if peer is None or peer.public_key is None:
        return False
    found = follow(peer.public_key, node_id, rotations)
    if found == peer.public_key:
        return False
    await run_control(
        db, "UPDATE node SET public_key = %s WHERE id = %s AND public_key = %s",
        found, node_id, peer.public_key,
    )  # fmt: skip
    logs.event("sync.key_learned", node=node_id)
    return True


async def note(
    db: Database,
    tenant: UUID | None,
    action: str,
    *,
    actor: UUID | None = None,
    subject: object = "",
    details: dict[str, object] | None = None,
) -> None:
    """Write what was done to a tenant's nodes into its audit; one not open here has none."""
    if tenant is None or all(r.tenant != tenant for r in db.routes.open()):
        return
    async with db.transaction(tenant) as tx:
        await tx.run(
            *audit_calls(tenant, action, actor=actor, subject=subject, details=details), commit=True
        )


@contextlib.asynccontextmanager
async def control_transaction(db: Database) -> AsyncIterator[Any]:
    """A connection to the control plane inside one transaction."""
    with translated():
        async with db.control.connection() as conn, conn.transaction():
            yield conn


async def run_control(db: Database, text: str, *params: object) -> list[Any]:
    """One statement in the control plane, committed at once; its rows."""
    with translated():
        async with db.control.connection() as conn:
            cursor: Any = await conn.execute(text.encode(), params)
            return list(await cursor.fetchall()) if cursor.description else []


def unknown(name: object) -> Refused:
    """No such node, or none of this tenant."""
    return Refused(
        f"There is no node {name} here; `nexus node list` shows them.", code="node.unknown"
    )


async def find_of_tenant(db: Database, node_id: UUID, tenant: UUID | None) -> PeerNode:
    """A site that one may touch, with what it holds. Raises Refused, Clash (it is the hub)."""
    peer = await _one(db, f"{_PEER} WHERE n.id = %s", tenant, node_id)
    if peer is None or (tenant and not peer.scope_state and not peer.is_self):
        raise unknown(node_id)
    if peer.is_self or peer.role != "site":
        raise Clash(
            f"{peer.name} is the hub; only a site can be revoked or given units.", code="node.hub"
        )
    return peer


async def _one(db: Database, text: str, *params: object) -> PeerNode | None:
    rows = await run_control(db, text, *params)
    return _peer(rows[0]) if rows else None


def _peer(row: Sequence[Any]) -> PeerNode:
    peer = PeerNode(*row)
    held = tuple(peer.unit_ids) if peer.unit_ids is not None else None
    return msgspec.structs.replace(peer, former_origins=tuple(peer.former_origins), unit_ids=held)


def _check_reason(reason: str) -> None:
    if not 0 < len(reason.strip()) <= REASON_CHARS_MAX:
        detail = f"1 to {REASON_CHARS_MAX} characters."
        raise Invalid(
            "Say why the node is revoked.",
            faults=(FieldFault("/reason", "reason_form", detail),),
        )
