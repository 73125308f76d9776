"""The same file again: its plan follows from the former one, as long as nobody touched anything.

The former run has read and judged the very same bytes under the same mapping and options. When
the log says that no product, price or price type was written since it was planned, but by that
run itself, every row that it applied is unchanged, and neither the file nor the catalogue has to
be looked at.
"""

from __future__ import annotations

from uuid import UUID

from appliance.base import limits
from appliance.base.clock import now
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.intake import runs
from appliance.intake.runs import IntakeRun
from appliance.write.log import common_stream

# What a plan is judged by, all of the shared stream.
_GROUNDS = ("product", "variant", "price", "price_type", "unit_conversion")
_NOTE_HEAD = Statement(
    "UPDATE intake_run SET head = (SELECT s.head FROM stream s WHERE s.tenant_id = $1 "
    "AND s.id = $3) WHERE tenant_id = $1 AND id = $2"
)
_TOUCHED = Statement(
    "SELECT 1 FROM intake_run r WHERE r.tenant_id = $1 AND r.id = $2 AND (r.head IS NULL OR EXISTS ("
    "SELECT 1 FROM change c WHERE c.tenant_id = $1 AND c.stream = $3 AND c.seq > r.head "
    "AND c.kind = ANY($4::text[]) AND c.change_set <> ALL($5::uuid[])) OR EXISTS ("
    "SELECT 1 FROM entry e WHERE e.tenant_id = $1 AND e.kind = 'price' AND e.at > $6 "
    "AND e.at <= $7))"
)
_CLEAR = Statement("DELETE FROM intake_row WHERE tenant_id = $1 AND run = $2")
_COPY_ROWS = Statement(
    "INSERT INTO intake_row (tenant_id, run, no, sheet, line, entity, key, data, faults, sort, target) "
    "SELECT tenant_id, $2, no, sheet, line, entity, key, data, faults, "
    "CASE WHEN sort IN ('new', 'changed') THEN 'unchanged' ELSE sort END, target "
    "FROM intake_row WHERE tenant_id = $1 AND run = $3"
)
_COPY_READING = Statement(
    "UPDATE intake_run r SET inspection = f.inspection, mapping = f.mapping, told = f.told FROM intake_run f "
    "WHERE r.tenant_id = $1 AND r.id = $2 AND f.tenant_id = $1 AND f.id = $3"
)


async def note_head(db: Database, tenant: UUID, run: UUID) -> None:
    """Remember where the log stands before a plan is made."""
    async with db.transaction(tenant) as tx:
        await tx.run((_NOTE_HEAD, (tenant, run, common_stream(tenant, "shared"))))


async def copy_plan(db: Database, tenant: UUID, run: IntakeRun) -> bool:
    """Take the plan over from the run that applied the same file; False when it has to be made."""
    former = await runs.find_twin(db, tenant, run)
    found = await runs.get_run(db, tenant, former) if former else None
    if found is None or not _same(found, run) or await _is_touched(db, tenant, found):
        return False
    async with db.transaction(tenant, timeout_ms=limits.EXPORT_TIMEOUT_MS) as tx:
        await tx.run(
            (_CLEAR, (tenant, run.id)),
            (_COPY_ROWS, (tenant, run.id, found.id)),
            (_COPY_READING, (tenant, run.id, found.id)),
        )
    return True


def _same(former: IntakeRun, run: IntakeRun) -> bool:
    """Whether the former run was asked the same, and did all of what it had planned."""
    planned = sum(former.counts.get(sort, 0) for sort in ("new", "changed"))
    whole = former.counts.get("applied") == planned and not former.counts.get("suspicious")
    mapped = run.mapping is None or run.mapping == former.mapping
    return whole and mapped and former.options == run.options


async def _is_touched(db: Database, tenant: UUID, former: IntakeRun) -> bool:
    """Whether anybody else wrote what the plan was judged by, or a price came into force."""
    args = (
        tenant, former.id, common_stream(tenant, "shared"), list(_GROUNDS), former.change_sets,
        former.created_at, now(),
    )  # fmt: skip
    (rows,) = await db.read(tenant, (_TOUCHED, args), timeout_ms=limits.EXPORT_TIMEOUT_MS)
    return rows.first() is not None
