"""What a node holds of a tenant: the streams it is given, what is kept from it, what it gives up.

The hub decides (`node_scope`), the site is told (`hold`). Widening adds streams, which the site
pulls from their beginning; narrowing leaves a withdrawal that stands until the site has proved
that nothing is left (sync/purge). Each change raises the epoch of the scope.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

import msgspec

from appliance.base.ids import parse_uuid
from appliance.db.database import Connection, Database, translated
from appliance.db.wire import Rows, Statement
from appliance.kernel.hold import Mask, make_mask
from appliance.meta import load_schema
from appliance.write.log import common_stream

COMMON = ("shared", "schema")
_SCOPE = (
    "SELECT unit_ids, masks, epoch, state FROM node_scope WHERE node_id = %s AND tenant_id = %s"
)
_STREAMS = Statement("SELECT id::text, name FROM stream WHERE tenant_id = $1 ORDER BY id")
# Deleted units too: their streams hold what was done in them.
_PARENTS = Statement(
    "SELECT id::text, data->>'parent' FROM record WHERE tenant_id = $1 AND kind = 'sys.unit'"
)


class StreamGrant(msgspec.Struct, frozen=True):
    """One stream that a node holds: `mode` is rw or r, `mask` what is kept from it there."""

    stream: UUID
    name: str
    mode: str
    mask: Mask
    epoch: int


class Scope(msgspec.Struct, frozen=True):
    """What `node_scope` says. `units` None: all. `masks` names fields by kind."""

    units: frozenset[UUID] | None
    masks: dict[str, list[str]]
    epoch: int
    state: str


async def find_scope(db: Database, node: UUID, tenant: UUID) -> Scope | None:
    """The scope of a node in a tenant; None where it has none."""
    with translated():
        async with db.control.connection() as conn:
            return await _scope(conn, node, tenant)


async def streams_for(db: Database, node_id: UUID, tenant: UUID) -> dict[UUID, StreamGrant]:
    """Every stream the node holds of the tenant, by id; none once the scope is withdrawn.

    The units of its scope and every unit below them, `shared` and `schema`. What it may not write
    in them says the mask (`refuses`): kinds of the hub's authority, hidden fields.
    """
    scope = await find_scope(db, node_id, tenant)
    if scope is None or scope.state != "active":
        return {}
    streams, below = await _reach(db, tenant, scope.units)
    mask = make_mask(scope.masks, (await load_schema(db, tenant)).kinds)
    return {
        stream: StreamGrant(stream, streams[stream], "rw", mask, scope.epoch)
        for stream in sorted(below)
        if stream in streams
    }


async def _scope(conn: Connection, node: UUID, tenant: UUID, *, lock: bool = False) -> Scope | None:
    text = _SCOPE + (" FOR UPDATE" if lock else "")
    row = await (await conn.execute(text, (node, tenant))).fetchone()
    if row is None:
        return None
    units, masks, epoch, state = row  # type: ignore[misc]
    named = frozenset(units) if units is not None else None
    return Scope(named, msgspec.convert(masks, dict[str, list[str]]), epoch, state)


async def _reach(
    db: Database, tenant: UUID, units: frozenset[UUID] | None
) -> tuple[dict[UUID, str], frozenset[UUID]]:
    """All streams of the tenant by id, and those that units reach, with the common ones."""
    streams, parents = await db.read(tenant, (_STREAMS, (tenant,)), (_PARENTS, (tenant,)))
    names = {UUID(_text(ident)): _text(name) for ident, name in streams}
    common = frozenset(common_stream(tenant, name) for name in COMMON)
    if units is None:
        return names, frozenset(names) | common
    return names, units_below(parents, units) | common


def units_below(parents: Rows, units: Iterable[UUID]) -> frozenset[UUID]:
    """The units themselves and all below them; `parents` are rows of unit and parent."""
    children: dict[UUID | None, list[UUID]] = {}
    for ident, parent in parents:
        above = parse_uuid(_text(parent)) if parent else None
        children.setdefault(above, []).append(UUID(_text(ident)))
    found: set[UUID] = set()
    fresh = list(units)
    while fresh:
        unit = fresh.pop()
        if unit not in found:
            found.add(unit)
            fresh += children.get(unit, [])
    return frozenset(found)


def _text(value: bytes | None) -> str:
    return value.decode() if value is not None else ""
