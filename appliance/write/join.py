"""States of a peer joined with what is here: how a node begins, comes back, and is repaired.

Promises: a piece of a snapshot is one transaction and may come any number of times; what was
written here and the sender has not had stays; what the sender has had and does not show is gone
here as well, so nothing that was deleted comes back; rows, slots, links, claims and conflicts follow
by the functions of the write path. An entry that a piece knew already is logged when it comes by
the tail, and not folded again (research/sync 2.10, docs/adr/0019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from uuid import UUID

import msgspec

from appliance.db.columns import Column
from appliance.db.database import Database, Transaction
from appliance.db.wire import Call, Statement
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Kind
from appliance.kernel.record import RecordState, closed, fold, registers_of
from appliance.kernel.registers import Leaf, join, leaf_of, qualified
from appliance.write.carried import (
    Carried,
    Had,
    dots_of,
    encoder,
    kept_leaves,
    leaf_from,
    live_dots,
    state_of,
)
from appliance.write.command import Command, Op
from appliance.write.known import NodeKnown, known_calls, read_leaves
from appliance.write.load import COLUMNS, LOCK_ROWS, READ_ENTRIES, read_state
from appliance.write.log import CLOCK
from appliance.write.merging import Merged, make_draft, write_merged
from appliance.write.trail import read_trail

RECORDS, ENTRIES = "record", "entry"
LAST = UUID(int=2**128 - 1)
BUCKETS = 4096
# The last twelve bits of an id: random ones.
BUCKET = "('x' || right({id}::text, 3))::bit(12)::int"

_HOME = (
    f"SELECT {COLUMNS} FROM record WHERE tenant_id = $1 AND stream = $2 AND id > $3 AND id <= $4 "
)
_IN_RANGE = Statement(_HOME + "ORDER BY id FOR UPDATE")
_IN_BUCKETS = Statement(
    _HOME + f"AND {BUCKET.format(id='id')} = ANY($5::int[]) ORDER BY id FOR UPDATE"
)
_EARLY = Statement(
    "SELECT record_id::text FROM early WHERE tenant_id = $1 AND record_id = ANY($2::uuid[])"
)
_BASE = Statement(
    "INSERT INTO record_base (tenant_id, record_id, leaves, part) SELECT $1, r, l, $4 "
    "FROM unnest($2::uuid[], $3::bytea[]) AS u(r, l) ON CONFLICT (tenant_id, record_id) "
    "DO UPDATE SET leaves = EXCLUDED.leaves, part = EXCLUDED.part"
)
_AHEAD = Statement(
    "INSERT INTO stream_ahead (tenant_id, id, known) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
)


class Part(msgspec.Struct, frozen=True, array_like=True):
    """A piece of a stream's snapshot: all records (or ledger entries) of it with ids above `low`
    up to `high`, only those in some `buckets` if any are named, and what their sender had.
    """

    stream: UUID
    table: str
    low: UUID
    high: UUID
    states: list[Carried]
    had: Had
    buckets: list[int] = []


class Joined(msgspec.Struct, frozen=True):
    """What a piece changed here."""

    new: int = 0
    changed: int = 0
    gone: int = 0


@dataclass(slots=True)
class _Work:
    """One call of `join_part`."""

    ctx: Ctx
    part: Part
    known: NodeKnown
    merged: Merged
    leaves: dict[str, Leaf] = field(default_factory=dict)
    # Leaves that this node knows of the records that it has.
    own: dict[str, Leaf] = field(default_factory=dict)


class _Both:
    """What the two know together: what is live is told apart by each one's own."""

    def __init__(self, known: NodeKnown, had: Had) -> None:
        self._known, self._had = known, had

    def has(self, dot: str) -> bool:
        return self._known.has(dot) or self._had.has(dot)

    def heard(self, dot: str) -> bool:
        return self._known.heard(dot) or self._had.has(dot)

    def leaf(self, dot: str) -> Leaf:
        return self._known.leaf(dot)


async def join_part(db: Database, ctx: Ctx, part: Part, *, progress: Sequence[Call] = ()) -> Joined:
    """Join one piece; `progress` is written in the same transaction."""
    async with db.transaction(ctx.tenant, timeout_ms=120_000) as tx:
        if part.table == ENTRIES:
            merged, calls = await _take_entries(tx, ctx, part), list[Call]()
        else:
            merged, calls = await _join_records(tx, ctx, part)
        # What is kept of live entries first: what clashes is told by it.
        if calls:
            await tx.send(*calls)
        written = await write_merged(tx, ctx, merged, is_hub=False)
        await tx.run(*written, *progress, commit=True)
    if clocks := [mark.hlc for c in part.states for mark in c.leaves.values()]:
        CLOCK.receive(max(clocks))
    new = sum(d.before is None for d in merged.drafts)
    return Joined(new, len(merged.drafts) - new, len(merged.leaving))


async def _take_entries(tx: Transaction, ctx: Ctx, part: Part) -> Merged:
    """Entries of ledgers never change: those that are not here are added."""
    ids = sorted(c.id for c in part.states)
    (rows,) = await tx.run((READ_ENTRIES, (ctx.tenant, ids)))
    there = {read_state(row).id for row in rows}
    merged = Merged(None)
    for carried in part.states:
        if carried.id not in there:
            kind, state = _kind(ctx, carried.kind), state_of(carried)
            merged.drafts.append(make_draft(len(merged.drafts), kind, None, state, ()))
            merged.came.append(carried.id)
    return merged


async def _join_records(tx: Transaction, ctx: Ctx, part: Part) -> tuple[Merged, list[Call]]:
    ids = sorted(c.id for c in part.states)
    place = (ctx.tenant, part.stream, part.low, part.high)
    ranged: Call = (_IN_BUCKETS, (*place, part.buckets)) if part.buckets else (_IN_RANGE, place)
    named, here, early, vectors, parked = await tx.run(
        (LOCK_ROWS, (ctx.tenant, ids)), ranged, (_EARLY, (ctx.tenant, ids)),
        *known_calls(ctx.tenant),
    )  # fmt: skip
    mine = {s.id: s for rows in (named, here) for s in map(read_state, rows)}
    work = _Work(ctx, part, NodeKnown(vectors, parked, ()), Merged(None))
    for carried in part.states:
        work.leaves |= {dot: leaf_from(mark) for dot, mark in carried.leaves.items()}
    theirs = {c.id: state_of(c) for c in part.states}
    differing = [s for s in mine.values() if s.id in theirs and _differ(s, theirs[s.id])]
    if differing:
        found = [s.id for s in differing]
        work.own = await read_leaves(tx, ctx.tenant, dots_of(differing), found)
        unknown = dict.fromkeys(dots_of(differing), Leaf({}, 0, UUID(int=0)))
        work.known.learn(unknown | work.own)
    work.known.learn(work.leaves)
    for ident, their in theirs.items():
        _join_one(work, mine.get(ident), their)
    waiting = [UUID((row[0] or b"").decode()) for row in early]
    await _fold_waiting(tx, work, waiting)
    _leave(work, [s for s in mine.values() if s.id not in theirs])
    return work.merged, _base_calls(work)


def _differ(mine: RecordState, their: RecordState) -> bool:
    return _content(mine) != _content(their)


def _content(state: RecordState) -> tuple[object, ...]:
    """What two nodes with the same entries have alike."""
    named = (state.unit, state.owner, state.number, state.data)
    return str(state.stamps), state.stream, state.open, *named


def _join_one(work: _Work, mine: RecordState | None, their: RecordState) -> None:
    kind = _kind(work.ctx, their.kind)
    if mine is None:
        _add(work, kind, None, their)
        work.merged.came.append(their.id)
        return
    if not _differ(mine, their):
        return
    had, both = work.part.had, _Both(work.known, work.part.had)
    record = registers_of(mine, kind, both)
    join(record, registers_of(their, kind, both), work.known.has, had.has)
    newer = max(mine, their, key=lambda s: (s.updated_at, s.updated_by))
    older = min(mine, their, key=lambda s: (s.created_at, s.created_by))
    plain = msgspec.structs.replace(
        their, updated_at=newer.updated_at, updated_by=newer.updated_by,
        created_at=older.created_at, created_by=older.created_by,
    )  # fmt: skip
    after = closed(plain, record, kind, both)
    _add(work, kind, mine, after)


def _add(work: _Work, kind: Kind, before: RecordState | None, after: RecordState) -> None:
    draft = make_draft(len(work.merged.drafts), kind, before, after, ())
    if before is None and after.deleted_at is not None:
        # What came deleted takes no index and makes no stream.
        draft.command = Command(op=Op.DELETE, kind=kind.key, id=after.id)
    work.merged.drafts.append(draft)


async def _fold_waiting(tx: Transaction, work: _Work, ids: Sequence[UUID]) -> None:
    """Entries that waited for their record, as far as the state does not know them."""
    if not ids:
        return
    trails = await read_trail(tx, work.ctx.tenant, ids)
    both = _Both(work.known, work.part.had)
    for draft in work.merged.drafts:
        for entry in trails.get(draft.id, ()):
            dot = qualified(entry.dot, entry.stream)
            work.known.learn({dot: leaf_of(entry, entry.body.fields)})
            if not work.part.had.has(dot) and draft.after is not None and draft.kind is not None:
                draft.after = fold(draft.after, entry, draft.kind, both)
    work.merged.came = sorted({*work.merged.came, *ids})


def _leave(work: _Work, left: Sequence[RecordState]) -> None:
    """Records that the sender had and has no longer in the stream have moved to where this node
    does not look, unless something of them is not known there.
    """
    for state in left:
        if state.stream != work.part.stream:
            continue
        if all(work.part.had.has(dot) for dot in live_dots(state)):
            kind = _kind(work.ctx, state.kind)
            work.merged.leaving.append(make_draft(0, kind, state, state, ()))


def _base_calls(work: _Work) -> list[Call]:
    tenant, merged = work.ctx.tenant, work.merged
    calls: list[Call] = []
    if not merged.drafts:
        return calls
    known = encoder.encode(work.part.had)
    part = UUID(bytes=sha256(known).digest()[:16])
    states = [d.after for d in merged.drafts if d.after is not None]
    kept = [kept_leaves(live_dots(s), work.leaves, work.own) for s in states]
    calls.append(
        (_BASE, (tenant, Column("uuid", [s.id for s in states]), Column("bytea", kept), part))
    )
    calls.append((_AHEAD, (tenant, part, known)))
    return calls


def _kind(ctx: Ctx, key: str) -> Kind:
    """A kind that nobody here knows is kept by its fields' ids until somebody does."""
    return ctx.schema.kinds.get(key) or Kind(key=key)
