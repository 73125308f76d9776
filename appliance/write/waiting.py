"""Rows of `conflict` for what waits in a record: a projection of its registers, like a slot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from appliance.base.clock import hlc_moment
from appliance.db.columns import Column
from appliance.db.wire import Call, Statement
from appliance.kernel.beside import unpack
from appliance.kernel.context import Ctx
from appliance.kernel.record import RecordState
from appliance.kernel.registers import Leaf, Registers
from appliance.kernel.shown import Conflict, show
from appliance.write.draft import Draft

_DROP = Statement(
    "DELETE FROM conflict WHERE tenant_id = $1 AND record_id = ANY($2::uuid[]) "
    "AND sort IN ('field', 'edit_vs_delete', 'proposal')"
)
_ADD = Statement(
    "INSERT INTO conflict (tenant_id, record_id, sort, register, kind, stream, sides, since) "
    "SELECT $1, r, s, g, k, t, d::jsonb, a FROM unnest($2::uuid[], $3::text[], $4::text[], "
    "$5::text[], $6::uuid[], $7::text[], $8::timestamptz[]) AS u(r, s, g, k, t, d, a)"
)
# Of a record that is closed: clashes with others, which stay with it.
_FOLLOW = Statement(
    "UPDATE conflict c SET stream = u.s FROM unnest($2::uuid[], $3::uuid[]) AS u(r, s) "
    "WHERE c.tenant_id = $1 AND c.record_id = u.r AND c.stream <> u.s"
)
_TYPES = ("uuid", "text", "text", "text", "uuid", "text", "timestamptz")


def waiting_calls(ctx: Ctx, drafts: Sequence[Draft]) -> list[Call]:
    """Bring the rows of records that are or were open to what their registers say; all rows of a
    record are of the stream that it is in.
    """
    moved = [
        (d.id, d.after.stream) for d in drafts
        if d.before and d.after and d.before.stream != d.after.stream
    ]  # fmt: skip
    follow: list[Call] = [
        (_FOLLOW, (ctx.tenant, *map(list, zip(*moved, strict=True)))) for _ in moved[:1]
    ]
    touched = [
        d for d in drafts if (d.before and d.before.open is not None) or (d.after and d.after.open)
    ]
    if not touched:
        return follow
    rows = [row for d in touched if d.after is not None for row in _rows(d, d.after)]
    calls: list[Call] = []
    if any(d.before is not None and d.before.open is not None for d in touched):
        calls.append((_DROP, (ctx.tenant, [d.id for d in touched])))
    if rows:
        columns = [Column(t, c) for t, c in zip(_TYPES, zip(*rows, strict=True), strict=True)]
        calls.append((_ADD, (ctx.tenant, *columns)))
    return [*calls, *follow]


def _rows(draft: Draft, state: RecordState) -> list[tuple[Any, ...]]:
    if state.open is None or draft.kind is None:
        return []
    record = unpack(state.open)
    return [
        (
            state.id, conflict.sort.value, conflict.register, state.kind, state.stream,
            msgspec.json.encode([_side(s.dot, s.values, record, conflict) for s in conflict.sides])
            .decode(),
            hlc_moment(max(_leaf(s.dot, record, conflict).hlc for s in conflict.sides)),
        )
        for conflict in show(record, draft.kind).conflicts
    ]  # fmt: skip


def _side(
    dot: str, values: dict[str, Any], record: Registers, conflict: Conflict
) -> dict[str, Any]:
    leaf = _leaf(dot, record, conflict)
    at = hlc_moment(leaf.hlc).isoformat(timespec="milliseconds")
    return {"dot": dot, "values": values, "actor": leaf.actor, "at": at}


def _leaf(dot: str, record: Registers, conflict: Conflict) -> Leaf:
    """The entry of a side: in its register, or, against a deletion, in any other one."""
    for cell in (record.cell(conflict.register), record.born, *record.cells.values()):
        if dot in cell:
            return cell[dot]
    raise AssertionError(f"{dot} is live nowhere in the record")
