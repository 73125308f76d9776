"""Row rules of a profile (`where` scopes) tested in memory, as the read path tests them in SQL."""

from __future__ import annotations

from appliance.fields.matching import matches
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json, Kind
from appliance.kernel.predicate import RecordView, parse_row_rule
from appliance.kernel.record import RecordState


def holds(ctx: Ctx, rule: Json, state: RecordState, kind: Kind) -> bool:
    """Whether the rule is true of the record; a rule that cannot be read grants nothing."""
    cond = parse_row_rule(rule)
    return cond is not None and matches(cond, view_of(state), ctx, kind)


def view_of(state: RecordState) -> RecordView:
    """The columns a row rule may look at."""
    return RecordView(
        kind=state.kind,
        id=state.id,
        data=state.data,
        unit=state.unit,
        owner=state.owner,
        number=state.number,
        created_at=state.created_at,
        created_by=state.created_by,
        updated_at=state.updated_at,
        updated_by=state.updated_by,
    )
