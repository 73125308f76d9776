"""The inbox: what several people said of one thing beside one another, and nobody has decided yet.

A conflict is read as its record is: through the guard of the read path, so one of a record out of
reach does not exist, a hidden field has none, a masked value stays masked. Clashes that a later
write has ended are left out (write/clashes). Deciding is an edit like any other: see resolving.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from appliance.base.errors import Refused
from appliance.db.database import Database
from appliance.db.wire import Rows, Statement
from appliance.fields import type_of
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json, Kind
from appliance.kernel.profile import Mode
from appliance.kernel.record import NUMBER, OWNER, UNIT
from appliance.kernel.stamps import Stamps
from appliance.read.guard import guarded
from appliance.read.names import visible_fields
from appliance.read.sql import Sql
from appliance.write.clashes import NEGATIVE, UNIQUE, live_calls, read_live
from appliance.write.dangling import DANGLING
from appliance.write.shown import narrow_version

FIELD, PROPOSAL, DELETED = "field", "proposal", "edit_vs_delete"
SORTS = (FIELD, DELETED, PROPOSAL, UNIQUE, DANGLING, NEGATIVE, "schema")
CLASHES = frozenset({UNIQUE, DANGLING, NEGATIVE})
COUNT_CAP = 1_000
PAGE_MAX = 200
SYSTEM_NAMES = {UNIT: "unit", OWNER: "owner", NUMBER: "number"}

_COLUMNS = (
    "c.record_id::text, c.sort, c.register, c.kind, c.stream::text, c.sides, c.since::text, "
    "a.unit_id::text, a.owner_id::text, a.number, a.data, a.stamps, (a.deleted_at IS NOT NULL)"
)
_KINDS = Statement("SELECT DISTINCT kind FROM conflict WHERE tenant_id = $1")
_PLACE = "(c.since, c.record_id, c.sort, c.register)"

Place = tuple[str, str, str, str]
"""Where a page goes on: since, record, sort, register of the last row."""


class Filter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which conflicts. `mine`: of records that I own, or with a side that I wrote."""

    kind: str | None = None
    sort: str | None = None
    unit: UUID | None = None
    record: UUID | None = None
    register: str | None = None
    mine: bool = False


class Side(msgspec.Struct, frozen=True):
    """A row's side as it is stored: the fields that its sort has."""

    dot: str = ""
    values: dict[str, Json] = {}
    actor: UUID | None = None
    at: str | None = None
    record: UUID | None = None
    target: UUID | None = None


class Held(msgspec.Struct, frozen=True):
    """A conflict with its record, for this module and resolving: nothing of it may leave as it is.

    `stamps` are those of the whole record, `data` is by field id.
    """

    record: UUID
    sort: str
    register: str
    kind: Kind
    stream: UUID
    sides: tuple[Side, ...]
    since: str
    unit: UUID | None
    owner: UUID | None
    number: str | None
    data: dict[str, Json]
    stamps: str
    is_deleted: bool

    @property
    def place(self) -> Place:
        """Where it stands in the list."""
        return self.since, str(self.record), self.sort, self.register

    @property
    def fids(self) -> tuple[str, ...]:
        """The fields of its register."""
        if self.register in SYSTEM_NAMES:
            return (self.register,)
        if self.register in self.kind.by_fid and self.sort in (UNIQUE, DANGLING):
            return (self.register,)
        return tuple(f.fid for f in self.kind.registers().get(self.register, ()))

    def shown(self) -> dict[str, Json]:
        """What the record shows of the register now, by field id."""
        system = {UNIT: _text(self.unit), OWNER: _text(self.owner), NUMBER: self.number}
        return {fid: {**self.data, **system}.get(fid) for fid in self.fids}


_sides = msgspec.json.Decoder(tuple[Side, ...]).decode
_data = msgspec.json.Decoder(dict[str, Json]).decode


async def read_page(
    db: Database, ctx: Ctx, asked: Filter, *, limit: int = 50, after: Place | None = None
) -> tuple[list[Held], Place | None]:
    """Open conflicts, newest first, and where the next page goes on."""
    found: list[Held] = []
    while True:
        rows = await _read(db, ctx, asked, limit + 1, after)
        found += await _standing(db, ctx, rows)
        if len(rows) <= limit or len(found) > limit:
            break
        after = rows[-1].place
    if len(found) <= limit:
        return found, None
    return found[:limit], found[limit - 1].place


async def count(db: Database, ctx: Ctx, asked: Filter) -> dict[str, int]:
    """How many are open by sort, up to COUNT_CAP in all."""
    found, _ = await read_page(db, ctx, asked, limit=COUNT_CAP)
    counts: dict[str, int] = {}
    for held in found:
        counts[held.sort] = counts.get(held.sort, 0) + 1
    return counts


async def find(db: Database, ctx: Ctx, record: UUID, sort: str, register: str) -> Held:
    """One open conflict. Raises Refused, alike for unknown, ended and out of reach."""
    asked = Filter(record=record, sort=sort, register=register)
    found, _ = await read_page(db, ctx, asked, limit=1)
    if not found:
        raise Refused(
            "There is no such conflict for you; it may have been decided.", code="conflict.unknown"
        )
    return found[0]


def narrowed(ctx: Ctx, held: Held) -> str:
    """The version token of the record for this reader."""
    return narrow_version(ctx, held.kind, held.stamps)


def visible(ctx: Ctx, kind: Kind, values: dict[str, Json]) -> dict[str, Json]:
    """Values by name as the reader may see them: hidden ones are not there, masked stay masked."""
    modes = {f.fid: (f, mode) for f, mode in visible_fields(ctx, kind)}
    found: dict[str, Json] = {}
    for fid, value in values.items():
        if fid in SYSTEM_NAMES:
            found[SYSTEM_NAMES[fid]] = value
        elif fid in modes:
            field, mode = modes[fid]
            is_masked = mode is Mode.MASKED and value is not None
            found[field.name] = type_of(field.type).mask(field, value) if is_masked else value
    return found


def display_text(ctx: Ctx, held: Held) -> str | None:
    """What the record is called: its display field if the reader may read it, else its number."""
    field = held.kind.by_name.get(held.kind.display or "")
    if field is not None and ctx.profile.mode(held.kind.key, field) >= Mode.READ:
        value = held.data.get(field.fid)
        return str(value) if value is not None else held.number
    return held.number


def is_same(seen: Stamps, now: Stamps, held: Held) -> bool:
    """Whether a reader who saw one version of the record saw this conflict as it is."""
    if held.sort == DELETED:
        return seen.all_dots() == now.all_dots()
    return seen.of(held.register) == now.of(held.register)


async def _read(
    db: Database, ctx: Ctx, asked: Filter, most: int, after: Place | None
) -> list[Held]:
    """Rows of the reader's kinds and fields, whether they stand or not."""
    (rows,) = await db.read(ctx.tenant, (_KINDS, (ctx.tenant,)))
    keys = sorted((value or b"").decode() for value in rows.column())
    sql = Sql()
    branches = [
        _branch(ctx, sql, kind, asked, most, after)
        for kind in (ctx.schema.kind(key) for key in keys if asked.kind in (None, key))
        if kind is not None and ctx.profile.sees(kind)
    ]
    if not branches:
        return []
    text = " UNION ALL ".join(f"({b})" for b in branches)
    listed = f"SELECT * FROM ({text}) AS f ORDER BY f.order_since DESC, 1 DESC, 2 DESC, 3 DESC"
    statement, params = sql.finish(f"{listed} LIMIT {sql.shared('most', most, 'int')}")
    (answer,) = await db.read(ctx.tenant, (statement, params))
    return _helds(ctx, answer)


def _branch(ctx: Ctx, sql: Sql, kind: Kind, asked: Filter, most: int, after: Place | None) -> str:
    """The conflicts of one kind: under the guard of its rows, of the fields that the reader has."""
    table = guarded(ctx, sql, kind, deleted=None)
    a = table.alias
    tests = [
        f"c.tenant_id = {sql.shared('tenant', ctx.tenant, 'uuid')}",
        f"c.kind = {sql.shared(f'kind {kind.key}', kind.key, 'text')}",
        f"c.record_id = {a}.id",
        table.guard,
        f"({a}.deleted_at IS NULL OR c.sort = '{DELETED}')",
        _of_fields(ctx, sql, kind),
    ]
    if asked.sort is not None:
        tests.append(f"c.sort = {sql.shared('sort', asked.sort, 'text')}")
    if asked.register is not None:
        tests.append(f"c.register = {sql.shared('register', asked.register, 'text')}")
    if asked.record is not None:
        tests.append(f"c.record_id = {sql.shared('record id', asked.record, 'uuid')}")
    if asked.unit is not None:
        tests.append(f"{a}.unit_id = {sql.shared('unit', asked.unit, 'uuid')}")
    if asked.mine:
        me = sql.shared("actor", ctx.actor, "uuid")
        by_me = f"jsonb_build_array(jsonb_build_object('actor', {me}))"
        tests.append(f"({a}.owner_id = {me} OR c.sides @> {by_me})")
    if after is not None:
        since, record, sort, register = (
            sql.shared(f"after {n}", value, type_)
            for n, (value, type_) in enumerate(
                zip(after, ("timestamptz", "uuid", "text", "text"), strict=True)
            )
        )
        tests.append(f"{_PLACE} < ({since}, {record}, {sort}, {register})")
    columns = _COLUMNS.replace("a.", f"{a}.")
    return (
        f"SELECT {columns}, c.since AS order_since FROM conflict c, {table.source} "
        f"WHERE {' AND '.join(tests)} "
        f"ORDER BY c.since DESC, c.record_id DESC, c.sort DESC, c.register DESC "
        f"LIMIT {sql.shared('most', most, 'int')}"
    )


def _of_fields(ctx: Ctx, sql: Sql, kind: Kind) -> str:
    """A conflict of a field that is hidden does not exist; nor one of a balance nobody shows."""
    seen = {f.fid for f, _ in visible_fields(ctx, kind)}
    registers = {f.register for f in kind.fields if f.fid in seen} | seen | set(SYSTEM_NAMES)
    names = sql.value(sorted(registers), "text[]")
    open_ = [DELETED, "schema"]
    if kind.ledger and any(kind.by_name[v].fid in seen for v in kind.ledger.values):
        open_.append(NEGATIVE)
    sorts = ", ".join(f"'{s}'" for s in open_)
    closed = "" if NEGATIVE in open_ else f" AND c.sort <> '{NEGATIVE}'"
    return f"(c.sort IN ({sorts}) OR c.register = ANY({names}){closed})"


async def _standing(db: Database, ctx: Ctx, rows: Sequence[Held]) -> list[Held]:
    """Without clashes that a later write has ended."""
    calls = live_calls(ctx, [(h.record, h.sort, h.register, h.kind.key) for h in rows])
    live = read_live(await db.read(ctx.tenant, *calls)) if calls else set()
    return [h for h in rows if h.sort not in CLASHES or (h.record, h.sort, h.register) in live]


def _helds(ctx: Ctx, rows: Rows) -> list[Held]:
    found: list[Held] = []
    for n in range(len(rows)):
        v = rows.values(n)
        kind = ctx.schema.kinds[str(v[3])]
        found.append(
            Held(
                UUID(str(v[0])), str(v[1]), str(v[2]), kind, UUID(str(v[4])),
                _sides(v[5] or "[]"), str(v[6]), UUID(v[7]) if v[7] else None,
                UUID(v[8]) if v[8] else None, v[9], _data(v[10] or "{}"), str(v[11]),
                v[12] == "t",
            )
        )  # fmt: skip
    return found


def moment_of(held: Held) -> datetime:
    """When it was noted here."""
    return datetime.fromisoformat(held.since)


def _text(value: UUID | None) -> str | None:
    return str(value) if value is not None else None
