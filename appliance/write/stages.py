"""Moves of a deal through the stages of a pipeline: where one may go, and what must be known there.

A reference with the option `steps` points to records that are steps: `next` says where one may go
from there (nothing: anywhere), `needs` which fields must be filled to be there, `pipeline` to
which pipeline it belongs, `probability` and `class` what it means. The rules are the tenant's
data; a move against them is refused with what stands in the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from uuid import UUID

import msgspec

from appliance.db.wire import Statement
from appliance.fields import type_of
from appliance.kernel.context import Ctx, Door
from appliance.kernel.kind import FILLS, Field, Json, Kind
from appliance.pricing.shelf import Data, Read, decimal, reference, value_of
from appliance.write.command import Op
from appliance.write.draft import Draft
from appliance.write.shown import hides

_OF_KINDS = Statement(
    "SELECT id::text, kind, data FROM record WHERE tenant_id = $1 AND deleted_at IS NULL "
    "AND kind = ANY($2::text[])"
)
_decode = msgspec.json.Decoder(dict[str, Json]).decode
_LAST = Decimal("Infinity")


@dataclass(slots=True)
class Steps:
    """The steps of all pipelines, by kind and id, and the pipelines themselves."""

    steps: dict[str, dict[UUID, Data]] = field(default_factory=dict)


async def load_steps(read: Read, ctx: Ctx, drafts: Sequence[Draft]) -> Steps:
    """What there is of steps, those of the batch included, if anything in it moves; they are few."""
    kinds: set[str] = set()
    for draft in drafts:
        found = draft.kind.stepped if draft.kind and not draft.faults else None
        if found is not None and _moves(ctx, draft, found):
            target = ctx.schema.kind(str(found.option("target")))
            pipeline = target.by_name.get("pipeline") if target else None
            kinds |= {str(f.option("target")) for f in (found, pipeline) if f is not None}
    loaded = Steps({kind: {} for kind in kinds})
    if kinds:
        (rows,) = await read([(_OF_KINDS, (ctx.tenant, sorted(kinds)))])
        for ident, kind, raw in rows:
            of = loaded.steps[(kind or b"").decode()]
            of[UUID((ident or b"").decode())] = _decode(raw or b"{}")
    for draft in drafts:
        if draft.command.kind in kinds and not draft.faults:
            before = draft.before.data if draft.before else {}
            loaded.steps[draft.command.kind][draft.id] = {**before, **draft.values}
    return loaded


def check_move(ctx: Ctx, draft: Draft, loaded: Steps) -> None:
    """Refuse a move against the rules; fill in what follows from an allowed one."""
    kind, found = draft.kind, draft.kind.stepped if draft.kind else None
    if kind is None or found is None or not _moves(ctx, draft, found):
        return
    target = ctx.schema.kind(str(found.option("target")))
    known = loaded.steps.get(target.key, {}) if target else {}
    if target is None or not known:
        return
    begins = draft.command.op is Op.CREATE or _changes_pipeline(draft)
    if begins and draft.values.get(found.fid) is None:
        _begin(ctx, draft, kind, found, target, loaded)
    step_id = reference(draft.values.get(found.fid))
    step = known.get(step_id) if step_id else None
    if step is None:
        return
    before = draft.before.data.get(found.fid) if draft.before else None
    if not _changes_pipeline(draft):
        _check_next(draft, found, target, known, reference(before), step_id)
    _check_pipeline(draft, kind, found, target, step)
    _check_needs(ctx, draft, kind, target, step)
    if draft.is_open:
        _follow(ctx, draft, kind, found, target, step)


def _moves(ctx: Ctx, draft: Draft, found: Field) -> bool:
    if ctx.door is Door.SYNC or draft.command.restoring:
        return False
    if draft.command.op is Op.CREATE:
        return True
    if draft.command.op is not Op.UPDATE:
        return False
    before = draft.before.data.get(found.fid) if draft.before else None
    return draft.values.get(found.fid, before) != before or _changes_pipeline(draft)


def _changes_pipeline(draft: Draft) -> bool:
    own = draft.kind.by_name.get("pipeline") if draft.kind else None
    before = draft.before.data if draft.before else {}
    return own is not None and draft.values.get(own.fid, before.get(own.fid)) != before.get(own.fid)


def _begin(ctx: Ctx, draft: Draft, kind: Kind, found: Field, target: Kind, loaded: Steps) -> None:
    """A new record without a step stands at the first open one of its pipeline."""
    field_ = target.by_name.get("pipeline")
    of = ctx.schema.kind(str(field_.option("target"))) if field_ else None
    wanted = reference(value_of(kind, draft.values, "pipeline"))
    if wanted is None and of is not None:
        units = {None, draft.unit}
        open_to = {
            i: data for i, data in loaded.steps.get(of.key, {}).items()
            if value_of(of, data, "active") is not False
            and reference(value_of(of, data, "branch")) in units
        }  # fmt: skip
        wanted = min(open_to, key=lambda i: _place(of, open_to[i], i), default=None)
    ours = {
        i: data for i, data in loaded.steps[target.key].items()
        if reference(value_of(target, data, "pipeline")) == wanted
        and value_of(target, data, "class") in (None, "open")
    }  # fmt: skip
    first = min(ours, key=lambda i: _place(target, ours[i], i), default=None)
    if first is not None:
        draft.values[found.fid] = str(first)


def _place(kind: Kind, data: Data, ident: UUID) -> tuple[Decimal, str]:
    order = value_of(kind, data, "order")
    return (_LAST if order is None else decimal(order), str(ident))


def _check_next(
    draft: Draft, found: Field, target: Kind, known: dict[UUID, Data], before: UUID | None,
    after: UUID | None,
) -> None:  # fmt: skip
    allowed = value_of(target, known.get(before) if before else None, "next")
    if not isinstance(allowed, list) or str(after) in allowed:
        return
    names = [
        str(value_of(target, known[i], "name")) for a in allowed if (i := UUID(str(a))) in known
    ]
    draft.fault(
        f"/fields/{found.name}", "move_denied",
        f"From here it goes to: {', '.join(names) or 'nowhere'}.",
    )  # fmt: skip


def _check_pipeline(draft: Draft, kind: Kind, found: Field, target: Kind, step: Data) -> None:
    """A step belongs to one pipeline; a record without one takes that of its step."""
    theirs = value_of(target, step, "pipeline")
    ours = kind.by_name.get("pipeline")
    if ours is None or theirs is None:
        return
    held = draft.values.get(ours.fid, draft.before.data.get(ours.fid) if draft.before else None)
    if held is None or (held != theirs and ours.fid not in draft.values):
        draft.values[ours.fid] = theirs
    elif held != theirs:
        draft.fault(f"/fields/{found.name}", "other_pipeline", "This stage is of another pipeline.")


def _check_needs(ctx: Ctx, draft: Draft, kind: Kind, target: Kind, step: Data) -> None:
    needed = value_of(target, step, "needs")
    before = draft.before.data if draft.before else {}
    values = {**before, **draft.values}
    for name in needed if isinstance(needed, list) else ():
        field_ = kind.by_name.get(str(name))
        if field_ is None or not type_of(field_.type).stored or values.get(field_.fid) is not None:
            continue
        hidden = hides(ctx, kind, field_.name)
        place = "/fields" if hidden else f"/fields/{field_.name}"
        label = str(value_of(target, step, "name"))
        draft.fault(place, "needed_here", f"{label}: this has to be filled in first.")


def _follow(ctx: Ctx, draft: Draft, kind: Kind, found: Field, target: Kind, step: Data) -> None:
    """The step's probability, unless one was typed; the moment from which it stands there."""
    chance, own = value_of(target, step, "probability"), kind.by_name.get("probability")
    if own is not None and chance is not None and "probability" not in draft.command.fields:
        draft.values[own.fid] = chance
    since = next((f for f in kind.fields if f.options.get(FILLS) == found.name), None)
    if since is not None and since.type == "moment":
        draft.values[since.fid] = type_of("moment").accept(since, ctx.at.isoformat())
