"""What a change of the schema does to tables: field ids, index slots, and jobs for old data.

Adding a field writes no data. A field that becomes filterable, searchable or unique while its
kind has records gets its slot at once and its projection by a job; until that is done queries
over it are refused by name instead of answering from half an index.
"""

from __future__ import annotations

from collections.abc import Sequence

from appliance.db.database import Transaction
from appliance.db.wire import Statement
from appliance.fields import TYPES
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from appliance.write.command import Op
from appliance.write.draft import Draft
from appliance.write.hooks import merged

_SLOTS = {
    "t": [f"t{n}" for n in range(1, 11)],
    "n": [f"n{n}" for n in range(1, 9)],
    "d": [f"d{n}" for n in range(1, 7)],
    "r": [f"r{n}" for n in range(1, 9)],
}
_TAKE = Statement(
    "INSERT INTO slot (tenant_id, kind, fid, slot, is_ready) SELECT $1, $2, $3, u.name, $5 "
    "FROM unnest($4::text[]) WITH ORDINALITY AS u(name, place) WHERE NOT EXISTS (SELECT 1 FROM "
    "slot s WHERE s.tenant_id = $1 AND s.kind = $2 AND s.slot = u.name) ORDER BY u.place LIMIT 1 "
    "ON CONFLICT (tenant_id, kind, fid) DO UPDATE SET is_retired = false RETURNING slot"
)
_RETIRE = Statement(
    "UPDATE slot SET is_retired = true WHERE tenant_id = $1 AND kind = $2 AND fid = $3"
)
_FORMER = Statement(
    "SELECT count(*) FROM record WHERE tenant_id = $1 AND kind = 'sys.field' "
    "AND data->>'kind' = $2 AND (data->>'fid' = $3 OR data->>'fid' LIKE $3 || '~%')"
)
Job = tuple[str, dict[str, object]]


async def name_fields(tx: Transaction, ctx: Ctx, drafts: Sequence[Draft]) -> None:
    """Give each new field its id: its name, marked when the name was used before or when the
    field was born on another node than the first (two branches may choose one name offline).
    """
    for draft in drafts:
        if draft.command.kind != "sys.field" or draft.command.op is not Op.CREATE or draft.faults:
            continue
        kind, name = str(draft.values.get("kind")), str(draft.values.get("name"))
        (rows,) = await tx.run((_FORMER, (ctx.tenant, kind, name)))
        used = int((rows.first() or (b"0",))[0] or 0)
        parts = [name, *([str(ctx.origin)] if ctx.origin != 1 or used else [])]
        draft.values["fid"] = "~".join(parts) + (f".{used}" if used else "")


async def apply(tx: Transaction, ctx: Ctx, drafts: Sequence[Draft]) -> list[Job]:
    """Take and retire slots; which jobs bring old records up to date."""
    jobs: list[Job] = []
    for draft in drafts:
        if draft.command.kind != "sys.field":
            continue
        values = merged(draft)
        kind, fid = str(values.get("kind")), str(values.get("fid"))
        if draft.command.op is Op.DELETE:
            await tx.run((_RETIRE, (ctx.tenant, kind, fid)))
            jobs.append(("reproject", {"kind": kind, "retired": fid}))
            continue
        type_ = TYPES[str(values.get("type"))]
        is_new = draft.command.op is Op.CREATE
        if type_.slot in _SLOTS and _wants_slot(values, type_.slot):
            (rows,) = await tx.run((_TAKE, (ctx.tenant, kind, fid, _SLOTS[type_.slot], is_new)))
            if rows.first() is None:
                draft.fault(
                    "/fields/filterable", "slots_exhausted",
                    f"The kind {kind} has no free index of this sort left; make another field "
                    "not filterable first.",
                )  # fmt: skip
        watched = {"filterable", "searchable", "unique"}
        if not is_new and watched & draft.values.keys():
            jobs.append(("reproject", {"kind": kind}))
    return jobs


def _wants_slot(values: dict[str, Json], slot: str) -> bool:
    return slot == "r" or values.get("filterable") is True or values.get("unique") is True
