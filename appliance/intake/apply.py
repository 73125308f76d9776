"""Apply an approved plan through the one write path, block by block, each block exactly once.

A block's commands and its idempotency key follow from the run and the block alone, so a worker
that is killed goes on where it was; what the write path refuses stays behind as a faulty row.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID, uuid5

import msgspec

from appliance.base.errors import Clash
from appliance.base.ids import uuid7
from appliance.db.columns import Column
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.intake.runs import IntakeRun, applied_call
from appliance.intake.stage import Change, Report
from appliance.intake.target import Phase, Row, Step, Target
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from appliance.write import Applied, Command, Rejected, Result, Unchanged, apply, undo

BLOCK = 1_500
# With the rows that this run was refused, as what they were: its blocks are the same each time.
_ROWS = Statement(
    "SELECT no::text, entity, key, data, target::text, changes, coalesce(faults->0->>'was', sort) "
    "FROM intake_row WHERE tenant_id = $1 AND run = $2 AND no > $4 AND (sort = ANY($3::text[]) "
    "OR sort = 'faulty' AND faults->0->>'was' IS NOT NULL) "
    "AND (cardinality($6::text[]) = 0 OR entity = ANY($6::text[])) "
    "ORDER BY intake_row.no LIMIT $5"
)
_REFUSED = Statement(
    "UPDATE intake_row r SET sort = 'faulty', faults = u.f::jsonb "
    "FROM unnest($3::bigint[], $4::text[]) AS u(n, f) "
    "WHERE r.tenant_id = $1 AND r.run = $2 AND r.no = u.n"
)
_MADE = Statement(
    "UPDATE intake_row r SET target = u.t FROM unnest($3::bigint[], $4::uuid[]) AS u(n, t) "
    "WHERE r.tenant_id = $1 AND r.run = $2 AND r.no = u.n"
)
_decode = msgspec.json.Decoder(dict[str, Json]).decode
_decode_changes = msgspec.json.Decoder(tuple[Change, ...]).decode


class _Work:
    """One run on its way: what is written of it, block by block."""

    def __init__(self, db: Database, ctx: Ctx, run: IntakeRun, target: Target) -> None:
        self.db, self.ctx, self.run, self.target = db, ctx, run, target

    async def prepare(self) -> None:
        """What stands before all rows. Raises Clash when it is refused."""
        commands = await self.target.prologue()
        if not commands:
            return
        result = await self._write("document", commands)
        refused = [f.detail for o in result.outcomes if isinstance(o, Rejected) for f in o.faults]
        if refused:
            raise Clash(f"The import cannot be written: {refused[0]}", code="intake.refused")

    async def read(self, sorts: Sequence[str], last: int, phase: Phase) -> list[Row]:
        """The next rows of a phase."""
        tenant = self.ctx.tenant
        args = (tenant, self.run.id, list(sorts), last, BLOCK, list(phase.entities))
        (page,) = await self.db.read(tenant, (_ROWS, args))
        return [_read(r) for r in page]

    async def write(self, rows: list[Row], phase: Phase) -> set[int]:
        """Write a block; the numbers of the rows of which something was refused."""
        steps = await self.target.compose(rows, phase)
        owned = [(s.row, c) for s in steps for c in s.commands]
        prefix = f"apply:{phase.name}:" if phase.name else "apply:"
        result = None
        if owned:
            result = await self._write(f"{prefix}{rows[0].no}", [c for _, c in owned])
        await self._note_made(steps)
        return await self._note_refused(steps, [row for row, _ in owned], result)

    async def _write(self, name: str, commands: Sequence[Command]) -> Result:
        tenant, run = self.ctx.tenant, self.run.id
        step = msgspec.structs.replace(self.ctx, request_id=uuid7())
        key = uuid5(run, name)
        result = await apply(self.db, step, commands, command_id=key, atomic=False)
        if result.committed and any(isinstance(o, Applied) for o in result.outcomes):
            async with self.db.transaction(tenant) as tx:
                await tx.run(applied_call(tenant, run, result.change_set), commit=True)
        return result

    async def _note_made(self, steps: list[Step]) -> None:
        """Rows of new records say which ones they have become."""
        made = {s.row.no: s.made for s in steps if s.made is not None}
        if made:
            columns = (Column("bigint", list(made)), Column("uuid", list(made.values())))
            async with self.db.transaction(self.ctx.tenant) as tx:
                await tx.run((_MADE, (self.ctx.tenant, self.run.id, *columns)), commit=True)

    async def _note_refused(
        self, steps: list[Step], owners: list[Row], result: Result | None
    ) -> set[int]:
        """Rows of which something was refused: they say what and why, and which class they `was`."""
        bad: dict[int, list[dict[str, Json]]] = {
            s.row.no: [{**f, "was": s.row.sort} for f in s.faults] for s in steps if s.faults
        }
        for owner, outcome in zip(owners, result.outcomes if result else (), strict=True):
            if isinstance(outcome, Applied | Unchanged):
                continue
            faults = getattr(outcome, "faults", ())
            said = [(f.code, f.detail, f.pointer) for f in faults]
            bad.setdefault(owner.no, []).extend(
                {"code": code, "expected": expected, "found": found, "was": owner.sort}
                for code, expected, found in said or [("conflict", "an unchanged record", "")]
            )
        if bad:
            columns = (
                Column("bigint", list(bad)),
                Column("text", [msgspec.json.encode(f).decode() for f in bad.values()]),
            )
            async with self.db.transaction(self.ctx.tenant) as tx:
                await tx.run((_REFUSED, (self.ctx.tenant, self.run.id, *columns)), commit=True)
        return set(bad)


async def apply_plan(
    db: Database, ctx: Ctx, run: IntakeRun, target: Target, *, suspicious: bool, report: Report
) -> dict[str, int]:
    """Write the plan; counts of rows applied and refused. Raises what the write path raises."""
    sorts = [*target.written, *(["suspicious"] if suspicious else [])]
    work = _Work(db, ctx, run, target)
    await work.prepare()
    total = sum(run.counts.get(s, 0) for s in sorts)
    seen: set[int] = set()
    refused: set[int] = set()
    for phase in target.phases:
        last = -1
        while rows := await work.read(sorts, last, phase):
            refused |= await work.write(rows, phase)
            seen.update(r.no for r in rows)
            last = rows[-1].no
            await report(len(seen), total)
    return {"applied": len(seen - refused), "refused": len(refused)}


async def revert_run(db: Database, ctx: Ctx, run: IntakeRun, report: Report) -> list[str]:
    """Take a run's change sets back, the last first; what somebody changed since is listed."""
    held: list[str] = []
    for n, change_set in enumerate(reversed(run.change_sets)):
        step = msgspec.structs.replace(ctx, request_id=uuid5(run.id, f"revert:{change_set}"))
        try:
            result = await undo(db, step, change_set)
        except Clash as clash:
            held.append(f"{change_set}: {clash.detail}")
            continue
        if not result.committed:
            held += [
                f"{o.id}: {'; '.join(f.detail for f in getattr(o, 'faults', ())) or 'changed since'}"
                for o in result.outcomes
                if not isinstance(o, Applied | Unchanged)
            ]
        await report(n + 1, len(run.change_sets))
    return held


def _read(row: tuple[bytes | None, ...]) -> Row:
    no, entity, key, data, target, changes, sort = row
    return Row(
        int(no or 0), (entity or b"").decode(), (key or b"").decode(), _decode(data or b"{}"),
        UUID(target.decode()) if target else None, _decode_changes(changes or b"[]"),
        (sort or b"").decode(),
    )  # fmt: skip
