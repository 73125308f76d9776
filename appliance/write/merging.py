"""Entries of a frame folded into their records, and what follows from that written.

Each record is locked and folded once for all its entries of the frame. An entry whose record is
not here yet waits in the log (`early`); one that takes the record out of what this node holds
removes it; one that comes through a record's former home is told to those who only hold the new
one (research/sync 2.7, 2.11).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from uuid import UUID

import msgspec

from appliance.base.errors import Invalid
from appliance.base.ids import uuid_of
from appliance.db.columns import Column
from appliance.db.database import Transaction
from appliance.db.wire import Call, Statement
from appliance.kernel.change import Entry, EntryOp, Logged
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json, Kind
from appliance.kernel.record import RecordState
from appliance.kernel.registers import qualified
from appliance.kernel.replay import Replay, begins, is_beyond, told_of
from appliance.write import schema_effects
from appliance.write.clashes import note_clashes
from appliance.write.command import Command, Op
from appliance.write.draft import Draft
from appliance.write.emit import Job, received_calls
from appliance.write.known import Missing, NodeKnown, ahead_call, cut_call, known_calls
from appliance.write.load import LOCK_ROWS, READ_ENTRIES, read_state
from appliance.write.project import project_calls
from appliance.write.trail import read_trail

_EARLY = Statement(
    "SELECT record_id::text FROM early WHERE tenant_id = $1 AND record_id = ANY($2::uuid[])"
)
_WAIT = Statement(
    "INSERT INTO early (tenant_id, record_id) SELECT $1, unnest($2::uuid[]) ON CONFLICT DO NOTHING"
)
_CAME = Statement("DELETE FROM early WHERE tenant_id = $1 AND record_id = ANY($2::uuid[])")
_LEAVE = tuple(
    Statement(f"DELETE FROM {table} WHERE tenant_id = $1 AND {column} = ANY($2::uuid[])")
    for table, column in (
        ("record_link", "record_id"), ("unique_claim", "record_id"), ("conflict", "record_id"),
        ("pending_ref", "record_id"), ("record_base", "record_id"), ("record", "id"),
    )
)  # fmt: skip
_HAS_RECORDS = Statement(
    "SELECT k FROM unnest($2::text[]) AS k WHERE EXISTS "
    "(SELECT FROM record r WHERE r.tenant_id = $1 AND r.kind = k)"
)


# Records that are sent at a time: a third of a part at least, so that most of them are written
# while others are folded, and few enough statements, each of which opens all the indexes.
BLOCK, BLOCKS = 250, 3
_NO_DATA: Mapping[str, Json] = {}


@dataclass(slots=True)
class Merged:
    """Records with their new states, and what else a frame says of this node's tables."""

    known: NodeKnown | None
    drafts: list[Draft] = field(default_factory=list)
    leaving: list[Draft] = field(default_factory=list)
    early: list[UUID] = field(default_factory=list)
    came: list[UUID] = field(default_factory=list)
    decisions: list[Entry] = field(default_factory=list)
    # How many of the drafts are on their way into the tables, and how many go at a time.
    sent: int = 0
    block: int = BLOCK


@dataclass(slots=True)
class Course:
    """What is folded of one record: `trail` onto `start`; `told` came in this frame, `before` is
    what the tables say.
    """

    told: Sequence[Entry]
    trail: Sequence[Entry]
    start: RecordState | None
    before: RecordState | None

    def begin_anew(self, older: Sequence[Entry], known: NodeKnown, *, in_order: bool) -> None:
        """Fold the history too. Where the log no longer tells of the beginning, what is here is
        gone on with.
        """
        whole = [*older, *self.told]
        if in_order:
            whole = _in_course(whole)
        if self.before is not None and not _begins(whole, known):
            return
        known.expect(older)
        self.trail, self.start = whole, None
        if not in_order:
            self.told = whole


async def merge_frame(
    tx: Transaction,
    ctx: Ctx,
    good: Sequence[Logged],
    *,
    beside: Sequence[Logged] = (),
    at_once: bool = False,
) -> Merged:
    """Lock the records of a frame and fold its entries into them. `beside` are others of the same
    transaction that were folded, or wait, and are not in the log yet. `at_once`: what is folded is
    being written while the rest is folded.
    """
    entries = _counted(good)
    trails: dict[UUID, list[Entry]] = {}
    decisions: list[Entry] = []
    for entry in entries:
        if not isinstance(entry.op, EntryOp):
            raise Invalid(
                f"The operation {entry.op[:40]!r} is of a newer program.", code="sync.op_unknown"
            )
        if entry.op == EntryOp.DECIDE:
            decisions.append(entry)
        else:
            trails.setdefault(entry.record_id, []).append(entry)
    facts = {i for i, t in trails.items() if _is_ledger(ctx, t[0].kind)}
    documents, others = _documents(ctx, trails, facts)
    *found, stored, waiting, vectors, parked, ahead = await tx.run(
        *((LOCK_ROWS, (ctx.tenant, Column("uuid", ids))) for ids in (documents, others)),
        (READ_ENTRIES, (ctx.tenant, Column("uuid", [*facts]))),
        (_EARLY, (ctx.tenant, Column("uuid", [*trails]))),
        *known_calls(ctx.tenant),
        ahead_call(ctx.tenant, trails),
    )
    states = {s.id: s for rows in found for s in map(read_state, rows)}
    there = {read_state(row).id for row in stored}
    early = {UUID((row[0] or b"").decode()) for row in waiting}
    known = NodeKnown(vectors, parked, entries, ahead)
    merged = Merged(known, decisions=decisions)
    late = {i for i in early if _begins(trails[i], known)}
    about = {i for i in trails.keys() - there if _goes_about(trails[i], known, is_here=i in states)}
    if about:
        (rows,) = await tx.run(cut_call(ctx.tenant, about))
        about -= {uuid_of((i or b"").decode()) for i in rows.column()}
    older = await _older(tx, ctx, known, late | about, entries, _counted(beside))
    if any(e.op is EntryOp.ARRIVE for e in entries):
        await _hear(tx, ctx, known, [t for i, t in trails.items() if i not in older])
    courses: list[Course] = []
    for ident, told in trails.items():
        course = Course(told, told, states.get(ident), states.get(ident))
        if ident in older:
            course.begin_anew(older[ident], known, in_order=ident in about)
        if ident not in there:
            courses.append(course)
    # A field's index slot comes before what is written with it.
    at_once = at_once and all(t[0].kind != "sys.field" for t in trails.values())
    await _fold_records(tx, ctx, merged, courses, at_once=at_once)
    return merged


async def _fold_records(
    tx: Transaction, ctx: Ctx, merged: Merged, courses: Sequence[Course], *, at_once: bool
) -> None:
    """Fold each record; those of which leaves have to be read first, last."""
    known, again = merged.known, list[Course]()
    assert known is not None, "a frame is folded by what the node knows"
    merged.block = min(BLOCK, len(courses) // BLOCKS + 1)
    for course in courses:
        if not _fold_record(ctx, merged, course):
            again.append(course)
        if at_once and len(merged.drafts) - merged.sent >= merged.block:
            await _send_rows(tx, ctx, merged)
    if again:
        dots = {d for course in again if course.before for d in live_dots(course.before)}
        dots |= {
            d for c in again for e in c.trail if e.op == EntryOp.ARRIVE for d in told_of(e)
        }  # fmt: skip
        ids = [course.trail[0].record_id for course in again]
        await known.read_leaves(tx, ctx.tenant, sorted(dots), ids)
        for course in again:
            done = _fold_record(ctx, merged, course)
            assert done, "every live leaf was read"


def _counted(logged: Sequence[Logged]) -> list[Entry]:
    return [
        e.entry if e.ehlc == e.entry.hlc else msgspec.structs.replace(e.entry, hlc=e.ehlc)
        for e in logged
    ]


async def _older(
    tx: Transaction,
    ctx: Ctx,
    known: NodeKnown,
    late: Collection[UUID],
    entries: Sequence[Entry],
    beside: Sequence[Entry],
) -> dict[UUID, list[Entry]]:
    """What waited for records that begin now: it is folded with the rest, and has not come yet."""
    if not late:
        known.expect(beside)
        for entry in beside:
            known.take(entry)
        return {}
    trails = await read_trail(tx, ctx.tenant, sorted(late))
    # What was parked until now is in the log already.
    frame = {(e.stream, e.dot) for e in entries}
    found = {i: [e for e in t if (e.stream, e.dot) not in frame] for i, t in trails.items()}
    known.expect(beside)
    for entry in beside:
        if entry.record_id in found:
            found[entry.record_id].append(entry)
        else:
            known.take(entry)
    return found


def _in_course(entries: Sequence[Entry]) -> list[Entry]:
    """By the clock, but never against the order of a stream (as write/trail reads them)."""
    highest: dict[UUID, int] = {}
    placed: list[tuple[int, int, Entry]] = []
    for number, entry in enumerate(entries):
        highest[entry.stream] = max(highest.get(entry.stream, 0), entry.hlc)
        placed.append((highest[entry.stream], number, entry))
    return [entry for _, _, entry in sorted(placed, key=lambda p: p[:2])]


async def _hear(
    tx: Transaction, ctx: Ctx, known: NodeKnown, trails: Sequence[Sequence[Entry]]
) -> None:
    """Of records that are told of from streams which are not here: what they have said so far."""
    told = [
        t[0].record_id for t in trails
        if any(is_beyond(e, known.holds) for e in t)
    ]  # fmt: skip
    if told:
        for trail in (await read_trail(tx, ctx.tenant, told)).values():
            for entry in trail:
                known.hear(entry)


def _fold_record(ctx: Ctx, merged: Merged, course: Course) -> bool:
    """Fold one record's entries; False when leaves have to be read first."""
    known, trail = merged.known, course.trail
    kind = ctx.schema.kinds.get(trail[0].kind)
    assert known is not None, "a frame is folded by what the node knows"
    ident = trail[0].record_id
    if kind is None or (course.start is None and not _begins(trail, known)):
        # The kind, or the creation, will come; the entries wait in the log until then.
        merged.early.append(ident)
        for entry in trail:
            known.take(entry)
        return True
    if course.before is None:
        merged.came.append(ident)
    replay = Replay(kind, known, course.start)
    try:
        for entry in trail:
            if course.start is not None and known.is_in_state(entry):
                known.take(entry)
            else:
                replay.take(entry)
    except Missing:
        known.forget(trail)
        return False
    state, leaves = replay.state, replay.has_left
    assert state is not None, "what begins has a state"
    draft = make_draft(len(merged.drafts), kind, course.before, state, course.told)
    (merged.leaving if leaves else merged.drafts).append(draft)
    return True


def _begins(trail: Sequence[Entry], known: NodeKnown) -> bool:
    return trail[0].op is EntryOp.NEW or any(begins(e, known.holds) for e in trail)


def _goes_about(trail: Sequence[Entry], known: NodeKnown, *, is_here: bool) -> bool:
    """Whether a record comes and goes by streams that this node does not hold, or begins behind
    what is here: streams come in any order, so the order of what is told says nothing of where the
    record is. It is folded from its whole history then, as a rebuild does.
    """
    for e in trail:
        if e.op is EntryOp.NEW:
            if is_here:
                return True
        elif e.op is EntryOp.MOVE:
            if not known.holds(UUID(str(e.body.ext["to"]))):
                return True
        elif is_beyond(e, known.holds):
            return True
    return False


def make_draft(
    place: int, kind: Kind, before: RecordState | None, after: RecordState, trail: Sequence[Entry]
) -> Draft:
    """A record on its way into the tables, with what its entries change."""
    old, new = before.data if before else _NO_DATA, after.data
    values = {fid: value for fid, value in new.items() if old.get(fid) != value} if old else {**new}
    values |= dict.fromkeys(old.keys() - new.keys())
    op = Op.CREATE if before is None else Op.DELETE if after.deleted_at else Op.UPDATE
    draft = Draft(place, Command(op=op, kind=kind.key, id=after.id), after.id, kind, values)
    draft.before, draft.after, draft.unit, draft.owner = before, after, after.unit, after.owner
    draft.entries = list(trail)
    return draft


def live_dots(state: RecordState) -> list[str]:
    """The dots of a record's live values, each with its stream."""
    return [qualified(dot, state.stream) for dot in state.stamps.all_dots()]


def _is_ledger(ctx: Ctx, kind_key: str) -> bool:
    kind = ctx.schema.kinds.get(kind_key)
    return kind is not None and kind.ledger is not None


def _documents(
    ctx: Ctx, trails: dict[UUID, list[Entry]], facts: set[UUID]
) -> tuple[list[UUID], list[UUID]]:
    """Documents are locked before their lines, as the write path does (write/load)."""
    kinds = {str(f.option("target")) for k in ctx.schema.kinds.values() if (f := k.belonging)}
    ids = sorted(trails.keys() - facts, key=attrgetter("int"))
    documents = [i for i in ids if trails[i][0].kind in kinds]
    return documents, [i for i in ids if trails[i][0].kind not in kinds]


async def write_merged(tx: Transaction, ctx: Ctx, merged: Merged, *, is_hub: bool) -> list[Call]:
    """Write the tables; what is left to run with the commit."""
    jobs = await write_rows(tx, ctx, merged)
    return await finish_merged(tx, ctx, merged, jobs, is_hub=is_hub)


async def write_rows(tx: Transaction, ctx: Ctx, merged: Merged) -> list[Job]:
    """Write the tables, block by block, while the next block is made; what follows from it."""
    drafts = merged.drafts
    jobs = await schema_effects.apply(tx, ctx, drafts)
    new = sorted(
        {
            str(d.after.data.get("kind"))
            for d in drafts
            if d.command.kind == "sys.field" and d.before is None and d.after is not None
        }
    )
    calls: list[Call] = []
    gone = [d.id for d in merged.leaving if d.before is not None]
    if gone:
        calls += [(statement, (ctx.tenant, gone)) for statement in _LEAVE]
    if merged.early:
        calls.append((_WAIT, (ctx.tenant, sorted(set(merged.early)))))
    if merged.came:
        calls.append((_CAME, (ctx.tenant, Column("uuid", merged.came))))
    while merged.sent < len(drafts):
        # With the last ones goes the rest: nobody waits here for what they take.
        last = merged.sent + merged.block >= len(drafts)
        await _send_rows(tx, ctx, merged, calls if last else ())
        calls = [] if last else calls
    if calls:
        await tx.send(*calls)
    if new:
        (rows,) = await tx.run((_HAS_RECORDS, (ctx.tenant, new)))
        jobs += [("reproject", {"kind": (row[0] or b"").decode()}) for row in rows]
    return jobs


async def _send_rows(
    tx: Transaction, ctx: Ctx, merged: Merged, behind: Sequence[Call] = ()
) -> None:
    block = merged.drafts[merged.sent : merged.sent + merged.block]
    await tx.send(*project_calls(ctx, block), *behind)
    merged.sent += len(block)


async def finish_merged(
    tx: Transaction, ctx: Ctx, merged: Merged, jobs: Sequence[Job], *, is_hub: bool
) -> list[Call]:
    """Note what clashes, now that the tables are written; what is left to run with the commit."""
    drafts = merged.drafts
    if drafts:
        await note_clashes(tx, ctx, drafts, is_whole=is_hub)
    return received_calls(ctx, [*drafts, *merged.leaving], jobs, adds_streams=is_hub)
