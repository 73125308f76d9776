"""What a node that holds a part of a tenant refuses, because the hub would.

Pure but for the compiled hold in the context's schema. A node that holds everything has none and
is asked nothing here. What the hub sends has passed there.
"""

from __future__ import annotations

from appliance.kernel.context import Ctx, Door
from appliance.kernel.hold import Hidden, Hold
from appliance.kernel.kind import Kind
from appliance.write.command import Op
from appliance.write.draft import Draft


def check_held(ctx: Ctx, draft: Draft) -> None:
    """Refuse kinds of the hub, fields that are kept from this node, units it does not hold."""
    hold, kind = ctx.schema.hold, draft.kind
    if hold is None or kind is None or ctx.door is Door.SYNC:
        return
    if hold.leaving:
        draft.fault(
            "/unit", "node_withdrawn",
            "This node gives this tenant back to its head office and takes no more changes.",
            status=409,
        )  # fmt: skip
        return
    if kind.key in hold.mask.hub_only:
        draft.fault(
            "/kind", "hub_only", f"Records of {kind.key} are changed at the head office only.",
            status=409,
        )  # fmt: skip
        return
    _check_units(ctx, draft, kind, hold)
    if (hidden := hold.mask.kinds.get(kind.key)) is not None:
        _check_fields(draft, kind, hidden)


def _check_units(ctx: Ctx, draft: Draft, kind: Kind, hold: Hold) -> None:
    if kind.home != "unit":
        return
    units = {draft.unit} if draft.command.op in (Op.CREATE, Op.UPDATE) else set()
    if draft.before is not None:
        units.add(draft.before.unit)
    for unit in units - {None}:
        assert unit is not None, "filtered above"
        if not hold.has(unit, ctx.unit_tree):
            draft.fault(
                "/unit", "unit_elsewhere",
                "This node does not hold that unit's records; make the change at the head office.",
                status=409,
            )  # fmt: skip
        elif unit in hold.waiting:
            draft.fault(
                "/unit", "unit_arriving",
                "This unit's records are still on their way to this node; repeat when they are "
                "here, or work at the head office.", status=409,
            )  # fmt: skip


def _check_fields(draft: Draft, kind: Kind, hidden: Hidden) -> None:
    """A register of which a part is hidden is not written: half a group is not a value."""
    asked = set(draft.command.fields)
    for field in kind.fields:
        if field.fid not in draft.values or field.register not in hidden.registers:
            continue
        if field.name in asked:
            draft.fault(
                f"/fields/{field.name}", "masked_here",
                "This field is kept at the head office and is not changed on this node.",
                status=409,
            )  # fmt: skip
        else:
            # A default or a computed value: the head office works it out from what it knows.
            del draft.values[field.fid]
    moved = draft.before is not None and draft.unit != draft.before.unit
    if moved and draft.command.op is Op.UPDATE:
        draft.fault(
            "/unit", "masked_here",
            "A record of which fields are kept at the head office is moved there.", status=409,
        )  # fmt: skip
