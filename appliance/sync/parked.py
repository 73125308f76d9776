"""Entries of peers that wait for a person: why they were not applied, and what somebody decides.

Two sorts. What could not be applied keeps its place in the log: a decision about it is an entry of
the same stream, so that every node does the same (write/receive). What a revoked node still sends
is held before the log: released it is received like anything else, skipped it never comes in. What
its reader may not see of an entry is not shown to them either, whoever they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID, uuid5

import msgspec

from appliance.base.clock import hlc_moment
from appliance.base.errors import Clash, Refused
from appliance.db.database import Database, Transaction
from appliance.db.values import bytea_of
from appliance.db.wire import Row, Statement
from appliance.kernel.change import Entry, EntryOp, Logged, op_of
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from appliance.kernel.profile import Mode
from appliance.kernel.record import OWNER, UNIT, fold
from appliance.read import fetch
from appliance.sync.conflicts import visible
from appliance.sync.showing import names_of_people
from appliance.write.authorize import in_scope
from appliance.write.trail import COLUMNS, read_entry

REVOKED = "late_write_after_revoke"
PAGE_MAX = 200
_ENTRIES_SHOWN = 100
_COLUMNS = (
    "id::text, stream::text, origin, abs(oseq), peer, entries, reason, detail, is_logged, state, "
    "(extract(epoch FROM at) * 1000)::bigint, decided_by::text, "
    "(extract(epoch FROM decided_at) * 1000)::bigint"
)
_LIST = Statement(
    f"SELECT {_COLUMNS} FROM parked WHERE tenant_id = $1 AND state = $2 AND ($3::uuid IS NULL OR "
    "(at, id) < (SELECT at, id FROM parked WHERE tenant_id = $1 AND id = $3)) "
    "ORDER BY at DESC, id DESC LIMIT $4"
)
_ONE = Statement(f"SELECT {_COLUMNS}, body FROM parked WHERE tenant_id = $1 AND id = $2")
_LOGGED = Statement(
    f"SELECT {COLUMNS} FROM change WHERE tenant_id = $1 AND stream = $2 AND origin = $3 "
    "AND oseq >= $4 AND oseq < $4 + $5 ORDER BY oseq LIMIT $6"
)
_HOLD = Statement(
    "INSERT INTO parked (tenant_id, id, stream, origin, oseq, peer, entries, reason, body, "
    "is_logged) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, false) ON CONFLICT DO NOTHING"
)
_COUNT = Statement("SELECT count(*) FROM parked WHERE tenant_id = $1 AND state = 'waiting'")
_OPS = {"new": "create", "put": "update", "del": "delete", "undel": "restore"}
_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(list[Logged]).decode


class Change(msgspec.Struct, frozen=True):
    """One entry as its reader may see it; without values where its record is out of reach.

    `fields`, `unit` and `owner` are what an ordinary command would say instead.
    """

    kind: str
    record: UUID
    op: str
    who: UUID
    who_text: str | None
    at: datetime
    door: str
    is_readable: bool
    fields: dict[str, Json] = {}
    text: str | None = None


class Waiting(msgspec.Struct, frozen=True):
    """A transaction that waits, or was decided. `is_held`: it never came into the log."""

    id: UUID
    stream: UUID
    origin: int
    oseq: int
    peer: int
    entries: int
    reason: str
    detail: str
    is_held: bool
    state: str
    at: datetime
    decided_by: UUID | None
    decided_at: datetime | None


class Told(msgspec.Struct, frozen=True):
    """One of them with what it would change, and the same as steps of `POST /changes`."""

    parked: Waiting
    changes: list[Change]
    steps: list[dict[str, Json]]


async def list_parked(
    db: Database, ctx: Ctx, *, state: str = "waiting", limit: int = 50, before: UUID | None = None
) -> list[Waiting]:
    """A page, newest first; `before` is the id of the last one of the page before."""
    (rows,) = await db.read(ctx.tenant, (_LIST, (ctx.tenant, state, before, limit)))
    return [_waiting(row) for row in rows]


async def count_parked(db: Database, tenant: UUID) -> int:
    """How many wait."""
    (rows,) = await db.read(tenant, (_COUNT, (tenant,)))
    row = rows.first()
    return int(row[0] or 0) if row else 0


async def show_parked(db: Database, ctx: Ctx, ident: UUID) -> Told:
    """One with its entries. Raises Refused."""
    parked, body = await find_parked(db, ctx, ident)
    entries = await _entries(db, ctx, parked, body)
    readable = await _readable(db, ctx, entries)
    people = await names_of_people(db, ctx, {e.actor for e in entries})
    changes = [_change(ctx, e, readable, people) for e in entries]
    steps = [s for e, c in zip(entries, changes, strict=True) if (s := _step(ctx, e, c))]
    return Told(parked, changes, steps)


async def find_parked(db: Database, ctx: Ctx, ident: UUID) -> tuple[Waiting, bytes]:
    """One, with its body as it is stored. Raises Refused."""
    (rows,) = await db.read(ctx.tenant, (_ONE, (ctx.tenant, ident)))
    row = rows.first()
    if row is None:
        raise Refused("There is nothing parked with this id.", code="parked.unknown")
    return _waiting(row[:-1]), bytea_of(row[-1])


async def hold(
    tx: Transaction, ctx: Ctx, stream: UUID, peer: int, entries: Sequence[Logged],
    *, reason: str = REVOKED,
) -> None:  # fmt: skip
    """Keep one transaction of a node out of the log until somebody decides; once however often."""
    first = entries[0].entry
    ident = uuid5(stream, f"held {first.origin}.{first.oseq}")
    place = (stream, first.origin, -first.oseq, peer, len(entries), reason)
    await tx.run((_HOLD, (ctx.tenant, ident, *place, _encode(list(entries)))))


async def _entries(db: Database, ctx: Ctx, parked: Waiting, body: bytes) -> list[Entry]:
    if parked.is_held:
        return [logged.entry for logged in read_held(body)[:_ENTRIES_SHOWN]]
    place = (parked.stream, parked.origin, parked.oseq, parked.entries, _ENTRIES_SHOWN)
    (rows,) = await db.read(ctx.tenant, (_LOGGED, (ctx.tenant, *place)))
    return [read_entry(row) for row in rows]


def read_held(body: bytes) -> list[Logged]:
    """The entries of what is held. Raises Clash for what this program cannot read."""
    try:
        return [_known(logged) for logged in _decode(body)]
    except msgspec.MsgspecError:
        raise Clash("This node cannot read these entries; a newer one can.") from None


def _known(logged: Logged) -> Logged:
    """What is decoded names its operation by a text."""
    entry = msgspec.structs.replace(logged.entry, op=op_of(logged.entry.op))
    return msgspec.structs.replace(logged, entry=entry)


async def _readable(db: Database, ctx: Ctx, entries: Sequence[Entry]) -> dict[UUID, str | None]:
    """Records of entries that the reader may read here, with their texts; and those of units in
    reach that the entries would make.
    """
    by_kind: dict[str, set[UUID]] = {}
    for entry in entries:
        by_kind.setdefault(entry.kind, set()).add(entry.record_id)
    found: dict[UUID, str | None] = {}
    for key, ids in by_kind.items():
        kind = ctx.schema.kind(key)
        if kind is None or not ctx.profile.sees(kind):
            continue
        for ident, row in (await fetch(db, ctx, key, sorted(ids), display=False)).items():
            record = msgspec.json.decode(row)
            display = kind.by_name.get(kind.display or "")
            is_open = display and ctx.profile.mode(key, display) >= Mode.READ
            text = record["fields"].get(kind.display) if is_open else None
            found[ident] = str(text or record.get("number") or "")
    for entry in entries:
        kind = ctx.schema.kind(entry.kind)
        if kind is None or not ctx.profile.sees(kind) or entry.op != EntryOp.NEW:
            continue
        try:
            made = fold(None, entry)
        except (ValueError, ArithmeticError):
            # It may be parked for just that.
            continue
        if in_scope(ctx, ctx.profile.scope(kind.key, "read"), made, kind):
            found.setdefault(entry.record_id, None)
    return found


def _change(
    ctx: Ctx, entry: Entry, readable: dict[UUID, str | None], people: dict[UUID, str]
) -> Change:
    kind = ctx.schema.kind(entry.kind)
    is_readable = kind is not None and entry.record_id in readable
    values: dict[str, Json] = {}
    if kind is not None and is_readable:
        sets: dict[str, Json] = {
            fid: {"add": list(added), "remove": list(removed)}
            for fid, (added, removed) in entry.body.sets.items()
        }
        deltas: dict[str, Json] = {f: {"by": by} for f, by in entry.body.deltas.items()}
        modes = {f.fid: ctx.profile.mode(kind.key, f) for f in kind.fields}
        whole = {f: v for f, v in (sets | deltas).items() if modes.get(f, Mode.HIDDEN) >= Mode.READ}
        values = visible(ctx, kind, dict(entry.body.fields))
        values |= {kind.by_fid[f].name: v for f, v in whole.items()}
    return Change(
        kind=entry.kind, record=entry.record_id, op=str(entry.op), who=entry.actor,
        who_text=people.get(entry.actor), at=hlc_moment(entry.hlc), door=str(entry.door),
        is_readable=is_readable, fields=values, text=readable.get(entry.record_id),
    )  # fmt: skip


def _step(ctx: Ctx, entry: Entry, change: Change) -> dict[str, Json] | None:
    """The command that would say the same, with the fields that its reader may write."""
    kind = ctx.schema.kind(entry.kind)
    op = _OPS.get(str(entry.op))
    if kind is None or op is None or not change.is_readable:
        return None
    step: dict[str, Json] = {"kind": entry.kind, "op": op, "id": str(entry.record_id)}
    fields = entry.body.fields
    if op in ("create", "update"):
        step["fields"] = {
            kind.by_fid[fid].name: value
            for fid, value in fields.items()
            if fid in kind.by_fid and ctx.profile.mode(kind.key, kind.by_fid[fid]) is Mode.WRITE
        }
        step |= {n: fields[fid] for fid, n in ((UNIT, "unit"), (OWNER, "owner")) if fid in fields}
    return step


def _waiting(row: Row) -> Waiting:
    text = [value.decode() if value is not None else "" for value in row]
    return Waiting(
        id=UUID(text[0]), stream=UUID(text[1]), origin=int(text[2]), oseq=int(text[3]),
        peer=int(text[4]), entries=int(text[5]), reason=text[6], detail=text[7],
        is_held=text[8] == "f", state=text[9], at=_moment(text[10]),
        decided_by=UUID(text[11]) if text[11] else None,
        decided_at=_moment(text[12]) if text[12] else None,
    )  # fmt: skip


def _moment(text: str) -> datetime:
    return datetime.fromtimestamp(int(text) / 1000, UTC)
