"""What a node holds of a tenant: the streams it is given, what is kept from it, what it gives up.

The hub decides (`node_scope`), the site is told (`hold`). Widening adds streams, which the site
pulls from their beginning; narrowing leaves a withdrawal that stands until the site has proved
that nothing is left (sync/purge). Each change raises the epoch of the scope.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from typing import TypeVar
from uuid import UUID

import msgspec

from appliance.access.load import descend
from appliance.base.errors import Clash, Invalid
from appliance.base.ids import parse_uuid
from appliance.db.database import Connection, Database, translated
from appliance.db.values import text_of
from appliance.db.wire import Row, Statement
from appliance.kernel.arrival import MARKS, OPEN
from appliance.kernel.beside import fields_in, without_fields
from appliance.kernel.change import Body, EntryOp, Logged
from appliance.kernel.hold import Mask, make_mask
from appliance.kernel.kind import Home, Json, Kind
from appliance.kernel.stamps import Stamps
from appliance.meta import load_schema
from appliance.write.incoming import STRIPPED
from appliance.write.log import common_stream

T = TypeVar("T")
_ScopeRow = tuple[list[UUID] | None, dict[str, list[str]], int, str]
COMMON = ("shared", "schema")
_SCOPE = (
    "SELECT unit_ids, masks, epoch, state FROM node_scope WHERE node_id = %s AND tenant_id = %s"
)
_LEAVING = (
    "SELECT stream FROM stream_withdrawal "
    "WHERE node_id = %s AND tenant_id = %s AND purged_at IS NULL"
)
_REV = Statement("SELECT schema_rev FROM tenant_state WHERE tenant_id = $1")
_STREAMS = Statement("SELECT id::text, name FROM stream WHERE tenant_id = $1 ORDER BY id")
# Units that are below another, deleted ones too: their streams hold what was done in them. By the
# column of the parent: no index holds all units, and every question asks this.
PARENTS = Statement(
    "SELECT id::text, r1::text FROM record WHERE tenant_id = $1 AND kind = 'sys.unit' "
    "AND r1 IS NOT NULL"
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
            return await read_scope(conn, node, tenant)


async def streams_for(db: Database, node_id: UUID, tenant: UUID) -> dict[UUID, StreamGrant]:
    """Every stream the node holds of the tenant, by id; none once the scope is withdrawn.

    The units of its scope and every unit below them, `shared` and `schema`. What it may not write
    in them says the mask (`refuses`): kinds of the hub's authority, hidden fields. A stream that
    it first has to purge, to get it under another mask, is not among them until it has.
    """
    with translated():
        async with db.control.connection() as conn:
            scope = await read_scope(conn, node_id, tenant)
            rows = await (await conn.execute(_LEAVING, (node_id, tenant))).fetchall()
    if scope is None or scope.state != "active":
        return {}
    leaving = {msgspec.convert(row, tuple[UUID])[0] for row in rows}
    (revs,) = await db.read(tenant, (_REV, (tenant,)))
    streams, below = await reach_of(db, tenant, scope.units)
    # The revision is read first: at worst the schema is newer than it.
    rev = int((revs.first() or (b"0",))[0] or 0)
    mask = make_mask(scope.masks, (await load_schema(db, tenant, rev)).kinds)
    return {
        stream: StreamGrant(stream, streams[stream], "rw", mask, scope.epoch)
        for stream in sorted(below)
        if stream in streams and stream not in leaving
    }


async def read_scope(
    conn: Connection, node: UUID, tenant: UUID, *, lock: bool = False
) -> Scope | None:
    """The scope on a connection of the caller, locked if asked for."""
    text = _SCOPE + (" FOR UPDATE" if lock else "")
    row = await (await conn.execute(text, (node, tenant))).fetchone()
    if row is None:
        return None
    units, masks, epoch, state = msgspec.convert(row, _ScopeRow)
    return Scope(frozenset(units) if units is not None else None, masks, epoch, state)


async def reach_of(
    db: Database, tenant: UUID, units: frozenset[UUID] | None
) -> tuple[dict[UUID, str], frozenset[UUID]]:
    """All streams of the tenant by id, and those that units reach, with the common ones."""
    streams, parents = await db.read(tenant, (_STREAMS, (tenant,)), (PARENTS, (tenant,)))
    names = {UUID(text_of(ident)): text_of(name) for ident, name in streams}
    common = frozenset(common_stream(tenant, name) for name in COMMON)
    if units is None:
        return names, frozenset(names) | common
    return names, units_below(parents, units) | common


def units_below(parents: Iterable[Row], units: Iterable[UUID]) -> frozenset[UUID]:
    """The units themselves and all below them; `parents` are rows of unit and parent."""
    pairs = ((UUID(text_of(i)), parse_uuid(text_of(p)) if p else None) for i, p in parents)
    return descend(pairs, units)


def check_masks(
    masks: Mapping[str, list[str]], kinds: Mapping[str, Kind], before: Mapping[str, list[str]]
) -> None:
    """Refuse masks that name nothing, break a ledger, or change for a kind that every node holds
    already. Raises Invalid, Clash.
    """
    for key, names in masks.items():
        kind = kinds.get(key)
        known = {n for f in kind.fields for n in (f.fid, f.name)} if kind else set()
        if kind is None or not set(names) <= known:
            raise Invalid(f"A mask names fields of a kind; {key} has no such.", code="scope.mask")
        if kind.system:
            raise Invalid(f"Records of {key} are needed whole on every node.", code="scope.mask")
        if kind.ledger and set(names) & {kind.ledger.at, *kind.ledger.key, *kind.ledger.values}:
            raise Invalid(f"The ledger {key} adds up by that field.", code="scope.mask")
    for key in masks.keys() | before.keys():
        kind = kinds.get(key)
        changed = set(masks.get(key, ())) != set(before.get(key, ()))
        if kind is not None and kind.home is not Home.UNIT and changed:
            raise Clash(
                f"Records of {key} are in the shared stream, which a node holds as long as it is one: "
                "say what is kept from it when it is invited.", code="scope.mask_fixed",
            )  # fmt: skip


def strip(mask: Mask, logged: Logged) -> Logged:
    """The entry without what is kept from the node; untouched when there is nothing of it in it.

    The dot stays, so that the node knows that something was written; the hash goes, because over
    what is left it would not verify. `ext["stripped"]` names the fields.
    """
    hidden = mask.kinds.get(logged.entry.kind)
    if hidden is None:
        return logged
    body, fids = logged.entry.body, hidden.fids
    gone = sorted(fids & {*body.fields, *body.sets, *body.deltas, *_in_ext(body)})
    if not gone:
        return logged
    left = msgspec.structs.replace(
        body,
        fields=_without(body.fields, fids),
        sets=_without(body.sets, fids),
        deltas=_without(body.deltas, fids),
        # The dots of a field say nothing; the members of a set stand in the names themselves.
        base={r: d for r, d in body.base.items() if not _is_member(r, fids)},
        ext={name: _strip_ext(name, value, fids) for name, value in body.ext.items()}
        | {STRIPPED: list[Json](gone)},
    )
    entry = msgspec.structs.replace(logged.entry, body=left)
    return msgspec.structs.replace(logged, entry=entry, hash=b"")


def refuses(mask: Mask, logged: Logged) -> str | None:
    """Why the hub does not take an entry of the node's: a kind of its own, a field that is kept
    from the node. None when nothing speaks against it.
    """
    entry = logged.entry
    if entry.kind in mask.hub_only:
        return f"hub_only: records of {entry.kind} are written at the hub"
    hidden = mask.kinds.get(entry.kind)
    if hidden is None:
        return None
    if entry.op in (EntryOp.MOVE, EntryOp.ARRIVE):
        return f"masked: records of {entry.kind} are moved at the hub"
    body = entry.body
    touched = hidden.fids & {*body.fields, *body.sets, *body.deltas, *_in_ext(body)}
    touched |= hidden.registers & {r.partition("/")[0] for r in (*body.base, *body.groups)}
    if touched:
        return f"masked: {', '.join(sorted(touched))} of {entry.kind} is kept from this node"
    return None


def _without(values: dict[str, T], fids: frozenset[str]) -> dict[str, T]:
    return {fid: value for fid, value in values.items() if fid not in fids}


def _is_member(register: str, fids: frozenset[str]) -> bool:
    fid, slash, _ = register.partition("/")
    return bool(slash) and fid in fids


def _in_ext(body: Body) -> set[str]:
    """Fields that an extension speaks of: the whole record of an arrival, and whatever comes."""
    found: set[str] = set()
    for name, value in body.ext.items():
        if isinstance(value, dict):
            found.update(value)
        elif name == OPEN and isinstance(value, str):
            found |= fields_in(b64decode(value))
        elif name == MARKS and isinstance(value, list):
            found.update(*(part for row in value for part in _mappings(row)))
        elif name == "stamps" and (stamps := Stamps.parse(str(value))) is not None:
            found.update(r.partition("/")[0] for r in stamps.live if "/" in r)
    return found


def _mappings(row: Json) -> list[dict[str, Json]]:
    """What a value replaced, by field: it stands in the row of its clock."""
    return [part for part in row if isinstance(part, dict)] if isinstance(row, list) else []


def _strip_ext(name: str, value: Json, fids: frozenset[str]) -> Json:
    if isinstance(value, dict):
        return {k: v for k, v in value.items() if k not in fids and not _is_member(k, fids)}
    if name == OPEN and isinstance(value, str):
        return b64encode(without_fields(b64decode(value), fids)).decode()
    if name == MARKS and isinstance(value, list):
        return [
            [_strip_ext("", p, fids) if isinstance(p, dict) else p for p in row]
            if isinstance(row, list) else row
            for row in value
        ]  # fmt: skip
    stamps = Stamps.parse(value) if isinstance(value, str) else None
    if stamps is None:
        return value
    return str(
        Stamps(stamps.born, {r: d for r, d in stamps.live.items() if not _is_member(r, fids)})
    )
