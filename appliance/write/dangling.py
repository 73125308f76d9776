"""References to what is not there: what was deleted elsewhere meanwhile, or has not come yet.

A reference is wrong when neither author can have known of the other: nobody writes a reference to
what they know to be deleted, so it is one that whoever deleted had not seen (pointing). No clock is
asked and nothing depends on what came first, so all nodes with the same entries note the same; a
deletion that knew of a reference is no fault. What has not come is awaited (`pending_ref`); on a
node that holds everything that is noted too, until it comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import msgspec

from appliance.base.clock import now
from appliance.db.columns import Column
from appliance.db.database import Transaction
from appliance.db.wire import Call, Param, Rows, Statement
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Field, Json, Kind, Policy
from appliance.kernel.ledger import REVERSES
from appliance.kernel.record import RecordState
from appliance.kernel.registers import Leaf, leaf_of, qualified
from appliance.kernel.stamps import EXISTS, Stamps
from appliance.write.draft import Draft
from appliance.write.known import read_leaves
from appliance.write.pointing import (
    Pointer,
    Seen,
    is_unseen,
    pointer_of,
    read_unseen,
    reference_fields,
    seen_by,
)

DANGLING = "dangling_ref"

_POINTS_NOWHERE = (
    "EXISTS (SELECT FROM jsonb_array_elements(c.sides) AS side(one), LATERAL ("
    "SELECT r.data FROM record r WHERE r.tenant_id = $1 AND r.id = c.record_id{alive} "
    "UNION ALL SELECT e.data FROM entry e WHERE e.tenant_id = $1 "
    "AND e.id = c.record_id AND NOT EXISTS (SELECT FROM entry v WHERE v.tenant_id = $1 "
    "AND v.kind = c.kind AND v.reverses = e.id)) AS held "
    "WHERE held.data->c.register ? (side.one->>'target') "
    "AND NOT EXISTS (SELECT FROM record t WHERE t.tenant_id = $1 "
    "AND t.id = (side.one->>'target')::uuid AND t.deleted_at IS NULL) "
    "AND NOT EXISTS (SELECT FROM entry t WHERE t.tenant_id = $1 "
    "AND t.id = (side.one->>'target')::uuid))"
)
# Of a row c of `conflict`: it still points there, and there is nothing.
DANGLING_LIVE = _POINTS_NOWHERE.format(alive=" AND r.deleted_at IS NULL")
# It would stand if its record was restored: that may happen where nobody looks again.
DANGLING_KEPT = _POINTS_NOWHERE.format(alive="")
ABSENT = {
    "record": Statement(
        "SELECT u.id::text, t.stream::text, t.stamps FROM unnest($2::uuid[]) AS u(id) "
        "LEFT JOIN LATERAL (SELECT id, stream, stamps, deleted_at FROM record "
        "WHERE tenant_id = $1 AND record.id = u.id OFFSET 0) AS t ON true "
        "WHERE t.id IS NULL OR t.deleted_at IS NOT NULL"
    ),
    "entry": Statement(
        "SELECT u.id::text, NULL, NULL FROM unnest($2::uuid[]) AS u(id) WHERE NOT coalesce("
        "(SELECT true FROM entry t WHERE t.tenant_id = $1 AND t.id = u.id), false)"
    ),
}
_AWAIT = Statement(
    "INSERT INTO pending_ref (tenant_id, target, record_id, fid) SELECT $1, t, r, f "
    "FROM unnest($2::uuid[], $3::uuid[], $4::text[]) AS u(t, r, f) ON CONFLICT DO NOTHING"
)
_ARRIVED = Statement(
    "WITH came AS (DELETE FROM pending_ref WHERE tenant_id = $1 AND target = ANY($2::uuid[]) "
    "RETURNING record_id, fid) SELECT DISTINCT h.id::text, h.stream::text, h.stamps, h.kind, "
    "c.fid, h.data->c.fid FROM came c CROSS JOIN LATERAL ("
    "SELECT id, stream, stamps, kind, data FROM record WHERE tenant_id = $1 AND id = c.record_id "
    "UNION ALL SELECT id, stream, stamps, kind, data FROM entry WHERE tenant_id = $1 "
    "AND id = c.record_id) AS h"
)
_NOTE = Statement(
    "INSERT INTO conflict (tenant_id, record_id, sort, register, kind, stream, sides, since) "
    "SELECT $1, r, 'dangling_ref', f, k, s, v::jsonb, $2 "
    "FROM unnest($3::uuid[], $4::text[], $5::text[], $6::uuid[], $7::text[]) AS u(r, f, k, s, v) "
    "ON CONFLICT (tenant_id, record_id, sort, register) DO UPDATE "
    "SET sides = EXCLUDED.sides, stream = EXCLUDED.stream"
)
_END = Statement(
    "DELETE FROM conflict c USING unnest($2::uuid[], $3::text[]) AS u(r, f) WHERE c.tenant_id = $1 "
    "AND c.sort = 'dangling_ref' AND c.record_id = u.r AND c.register = u.f"
)


@dataclass(slots=True)
class _Targets:
    """What is known of what is pointed to: `absent` is not here, `gone` is deleted, with what its
    deleters had seen (None: they did not say).
    """

    asked: set[UUID] = field(default_factory=set)
    absent: set[UUID] = field(default_factory=set)
    gone: dict[UUID, Seen | None] = field(default_factory=dict)
    leaves: dict[str, Leaf] = field(default_factory=dict)
    dots: dict[UUID, tuple[str, ...]] = field(default_factory=dict)

    def calls(self, ctx: Ctx, pointers: Iterable[Pointer]) -> list[Call]:
        """Ask for those that were not asked for yet."""
        tables: dict[str, set[UUID]] = {}
        for pointer in pointers:
            new = pointer.dots.keys() - self.asked
            if new:
                tables.setdefault(_table_of(ctx, pointer), set()).update(new)
        for ids in tables.values():
            self.asked |= ids
        return [(ABSENT[t], (ctx.tenant, sorted(ids))) for t, ids in sorted(tables.items())]

    def take(self, answers: Iterable[Rows]) -> None:
        """The answers of `calls`."""
        for rows in answers:
            for ident, stream, stamps in (rows.values(n) for n in range(len(rows))):
                if stream is None:
                    self.absent.add(UUID(ident))
                else:
                    self.delete(UUID(ident), UUID(stream), Stamps.parse(str(stamps)))

    def delete(self, ident: UUID, stream: UUID, stamps: Stamps | None) -> None:
        """A target is deleted, by these entries."""
        assert stamps is not None, "stamps of our own tables"
        self.dots[ident] = tuple(qualified(d, stream) for d in stamps.of(EXISTS))

    async def hear_deleters(self, tx: Transaction, ctx: Ctx) -> None:
        """Read what deleters have said of those of which that is not known."""
        new = {i: dots for i, dots in self.dots.items() if i not in self.gone}
        unread = sorted({d for dots in new.values() for d in dots} - self.leaves.keys())
        if unread:
            self.leaves |= await read_leaves(tx, ctx.tenant, unread, sorted(new))
        nothing = Leaf({}, 0, UUID(int=0))
        for ident, dots in new.items():
            self.gone[ident] = seen_by(self.leaves.get(d, nothing) for d in dots)

    def wrong(self, pointer: Pointer, *, is_whole: bool) -> list[UUID]:
        """Where a reference points in vain and its author cannot have known."""
        return sorted(
            target
            for target, dots in pointer.dots.items()
            if (is_whole and target in self.absent)
            or ((seen := self.gone.get(target)) is not None and is_unseen(dots, seen))
        )


async def note_dangling(
    tx: Transaction, ctx: Ctx, written: Sequence[Draft], *, is_whole: bool
) -> None:
    """Await and note what drafts point to in vain, what points in vain to those that are deleted,
    and end what their coming has mended.
    """
    born = [d.id for d in written if d.before is None]
    # By record and field, and whether it may be noted already.
    found = {(p.record, p.fid): (p, is_old) for d in written for p, is_old in _changed(d)}
    targets = _Targets()
    calls: list[Call] = [(_ARRIVED, (ctx.tenant, Column("uuid", born)))] if born else []
    calls += targets.calls(ctx, [p for p, _ in found.values()])
    gone = [d for d in written if _is_deleted(d)]
    if not calls and not gone and not found:
        return
    answers = await tx.run(*calls) if calls else []
    targets.take(answers[1:] if born else answers)
    for draft in gone:
        assert draft.after is not None, "deleted ones have a state"
        targets.delete(draft.id, draft.after.stream, draft.after.stamps)
    for draft in written if targets.dots else ():
        targets.leaves |= {qualified(e.dot, e.stream): leaf_of(e, {}) for e in draft.entries}
    await targets.hear_deleters(tx, ctx)
    others = [(p, True) for p in (_waiting(ctx, answers[0]) if born else ())]
    others += await _pointing(tx, ctx, gone, targets)
    found = {(p.record, p.fid): (p, is_old) for p, is_old in others} | found
    if more := targets.calls(ctx, [p for p, _ in others]):
        targets.take(await tx.run(*more))
        await targets.hear_deleters(tx, ctx)
    if notes := _notes(ctx, found.values(), targets, is_whole=is_whole):
        await tx.run(*notes)


def _notes(
    ctx: Ctx, found: Iterable[tuple[Pointer, bool]], targets: _Targets, *, is_whole: bool
) -> list[Call]:
    wrong: list[tuple[Param, ...]] = []
    ended: list[Pointer] = []
    missing: list[tuple[Param, ...]] = []
    for pointer, is_old in found:
        missing += [(t, pointer.record, pointer.fid) for t in pointer.dots if t in targets.absent]
        sides = [{"target": str(t)} for t in targets.wrong(pointer, is_whole=is_whole)]
        if sides:
            told = msgspec.json.encode(sides).decode()
            wrong.append((pointer.record, pointer.fid, pointer.kind, pointer.stream, told))
        elif is_old and targets.absent.isdisjoint(pointer.dots):
            ended.append(pointer)
    calls: list[Call] = []
    if missing:
        calls.append((_AWAIT, (ctx.tenant, *map(list, zip(*missing, strict=True)))))
    if wrong:
        calls.append((_NOTE, (ctx.tenant, now(), *map(list, zip(*wrong, strict=True)))))
    if ended:
        calls.append((_END, (ctx.tenant, [p.record for p in ended], [p.fid for p in ended])))
    return calls


def _changed(draft: Draft) -> Iterator[tuple[Pointer, bool]]:
    """Where a draft points by another entry, or from another stream, than before."""
    kind, before, after = draft.kind, draft.before, draft.after
    assert kind is not None and after is not None, "only what was written is looked at"
    if kind.ledger is not None and after.data.get(REVERSES):
        return
    for one in reference_fields(kind):
        value = after.data.get(one.fid)
        if value is None if before is None else not _differs(before, after, one):
            continue
        pointer = pointer_of(draft.id, after.stream, after.stamps, kind, one, value)
        yield pointer, before is not None


def _differs(before: RecordState, after: RecordState, one: Field) -> bool:
    value = after.data.get(one.fid)
    if before.stream != after.stream or before.data.get(one.fid) != value:
        return True
    if one.policy is not Policy.SET:
        return before.stamps.of(one.register) != after.stamps.of(one.register)
    members = [f"{one.fid}/{m}" for m in value] if isinstance(value, list) else []
    return any(before.stamps.of(m) != after.stamps.of(m) for m in members)


def _table_of(ctx: Ctx, pointer: Pointer) -> str:
    one = ctx.schema.kinds[pointer.kind].by_fid[pointer.fid]
    target = ctx.schema.kinds.get(str(one.option("target")))
    return target.table if target is not None else "record"


def _is_deleted(draft: Draft) -> bool:
    """Whether a draft is deleted by other entries than before."""
    before, after = draft.before, draft.after
    if after is None or after.deleted_at is None:
        return False
    was = before is not None and before.deleted_at is not None
    return not was or before.stamps.of(EXISTS) != after.stamps.of(EXISTS)  # type: ignore[union-attr]


def _waiting(ctx: Ctx, rows: Rows) -> Iterator[Pointer]:
    """What waited for something that has come."""
    for ident, stream, text, key, fid, value in (rows.values(n) for n in range(len(rows))):
        kind: Kind | None = ctx.schema.kinds.get(str(key))
        one = kind.by_fid.get(str(fid)) if kind is not None else None
        stamps = Stamps.parse(str(text))
        assert stamps is not None, "stamps of our own tables"
        if kind is not None and one is not None:
            held: Json = msgspec.json.decode(value or "null")
            yield pointer_of(UUID(ident), UUID(stream), stamps, kind, one, held)


async def _pointing(
    tx: Transaction, ctx: Ctx, gone: Sequence[Draft], targets: _Targets
) -> list[tuple[Pointer, bool]]:
    """What points to the records that were just deleted without having been seen, or is noted."""
    by_kind: dict[str, list[UUID]] = {}
    seen: dict[UUID, Seen] = {}
    for draft in gone:
        told = targets.gone.get(draft.id)
        if told is not None:
            by_kind.setdefault(draft.command.kind, []).append(draft.id)
            seen[draft.id] = told
    return await read_unseen(tx, ctx, by_kind, seen) if by_kind else []
