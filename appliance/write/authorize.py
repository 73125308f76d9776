"""Stage 3: may this actor do this to this row, as it was and as it will be.

A row outside the scope reads as unknown. A reference may only point to a record the actor may
read, so that a link is never a way to probe for one.
"""

from __future__ import annotations

from uuid import UUID

import msgspec

from appliance.base.ids import uuid_of
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Field, Kind
from appliance.kernel.profile import Scope, ScopeKind
from appliance.kernel.record import RecordState
from appliance.write.command import Op
from appliance.write.draft import Draft, changed_fields
from appliance.write.load import Loaded, references_in
from appliance.write.rowrule import holds
from appliance.write.validate import UNPROFILED

_USABLE = frozenset({"released", "restricted"})


def authorize(ctx: Ctx, draft: Draft, loaded: Loaded, born: dict[UUID, Kind]) -> None:
    """Refuse what the row scopes do not allow; `born` are the records this batch creates."""
    op = draft.command.op
    if op is Op.CREATE:
        if draft.before is not None:
            draft.fault("/id", "id_taken", "A record with this id exists already.", status=409)
            return
    elif not _reaches(ctx, draft):
        draft.refuse_unknown()
        return
    _check_references(ctx, draft, loaded, born)


def _reaches(ctx: Ctx, draft: Draft) -> bool:
    before, op = draft.before, draft.command.op
    if before is None or draft.kind is None or before.kind != draft.kind.key:
        return False
    if (before.deleted_at is not None) != (op is Op.RESTORE):
        # Where it is open whether the record is there, either can be said of it as it stands.
        if op is Op.UPDATE or not draft.command.resolves:
            return False
    if ctx.door in UNPROFILED:
        return True
    key = draft.kind.key
    return in_scope(ctx, ctx.profile.scope(key, "read"), before, draft.kind) and in_scope(
        ctx, ctx.profile.scope(key, op), before, draft.kind
    )


def check_settled(ctx: Ctx, draft: Draft) -> None:
    """The same scope over the record as it will be: nobody writes a row out of their reach."""
    if draft.after is None or draft.kind is None or ctx.door in UNPROFILED:
        return
    if draft.is_consequence:
        return  # The document's own draft was asked.
    after, leader = draft.after, draft.follows
    if leader is not None and leader.before is not None:
        # A line is judged where its document was: that one answers for the unit it goes to.
        after = msgspec.structs.replace(after, unit=leader.before.unit)
    scope = ctx.profile.scope(draft.kind.key, draft.command.op)
    if not in_scope(ctx, scope, after, draft.kind):
        draft.fault(
            "/fields",
            "out_of_scope",
            "With these values, unit and owner the record would be outside your access.",
        )


def in_scope(ctx: Ctx, scope: Scope, state: RecordState, kind: Kind) -> bool:
    """Whether a row scope covers a record."""
    match scope.kind:
        case ScopeKind.ALL:
            return True
        case ScopeKind.SUBTREE:
            return state.unit in ctx.subtree
        case ScopeKind.UNIT:
            return state.unit in ctx.units
        case ScopeKind.OWN:
            return state.owner == ctx.actor
        case ScopeKind.WHERE:
            return holds(ctx, scope.where, state, kind)
        case _:
            return False


def _check_references(ctx: Ctx, draft: Draft, loaded: Loaded, born: dict[UUID, Kind]) -> None:
    for field in changed_fields(draft):
        if field.type == "file":
            _check_file(ctx, draft, field, loaded)
        if field.type not in ("reference", "references"):
            continue
        target_key = str(field.option("target"))
        target_kind = ctx.schema.kind(target_key)
        for text in references_in(field, draft.values[field.fid]):
            if not _may_point(ctx, uuid_of(text), target_kind, loaded, born):
                draft.fault(
                    f"/fields/{field.name}",
                    "reference_unknown",
                    f"There is no such {target_key} for you.",
                )


def _check_file(ctx: Ctx, draft: Draft, field: Field, loaded: Loaded) -> None:
    """A file that is released, and that its writer brought or that was brought for this record."""
    value = draft.values[field.fid]
    for text in references_in(field, value):
        file = loaded.targets.get(uuid_of(text))
        data = file.data if file is not None and file.deleted_at is None else {}
        is_ready = file is not None and file.kind == "sys.file" and data.get("state") in _USABLE
        is_ours = data.get("for_record") == str(draft.id) or (
            file is not None and file.owner == ctx.actor and data.get("for_record") is None
        )
        if not (is_ready and (is_ours or ctx.door in UNPROFILED)):
            draft.fault(
                f"/fields/{field.name}", "file_unknown",
                "There is no such released file for you; bring it with POST /files first.",
            )  # fmt: skip


def _may_point(
    ctx: Ctx, target: UUID, kind: Kind | None, loaded: Loaded, born: dict[UUID, Kind]
) -> bool:
    if kind is None:
        return False
    if target in born:
        return born[target].key == kind.key
    state = loaded.targets.get(target)
    if state is None or state.kind != kind.key or state.deleted_at is not None:
        return False
    if ctx.door in UNPROFILED:
        return True
    return in_scope(ctx, ctx.profile.scope(kind.key, "read"), state, kind)
