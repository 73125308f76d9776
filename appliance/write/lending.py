"""Nobody hands out more than they hold, and somebody always manages rights.

Checked where rights are written (memberships, profiles, grants), so it holds at every door that
a person comes through: the API, imports, undo, restore. Kinds and fields that the same batch
makes are nobody's yet, so their maker may grant them.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from appliance.access.compile import compile_profile
from appliance.access.rights import (
    OWNING,
    Manager,
    lendable_units,
    managers_calls,
    may_lend,
    profiles_call,
    read_managers,
    read_profiles,
)
from appliance.base.clock import now
from appliance.db.database import Transaction
from appliance.db.wire import Call
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from appliance.kernel.profile import Profile
from appliance.write.command import Op
from appliance.write.draft import Draft
from appliance.write.hooks import merged
from appliance.write.validate import UNPROFILED

_RIGHTS = frozenset({"sys.membership", "sys.profile", "sys.grant", "sys.unit"})
_ENDING = frozenset({"sys.membership", "sys.profile", "sys.person"})
MANAGE = "profiles.manage"
_NOBODY = UUID(int=0)
# A profile that this batch makes: its grants are checked one by one.
_NEW = Profile(id="", key="")


async def check_lending(tx: Transaction, ctx: Ctx, drafts: Sequence[Draft]) -> None:
    """Add faults to drafts that would give more than the actor has, or leave nobody in charge."""
    open_ = [d for d in drafts if d.is_open and d.kind is not None]
    given = [d for d in open_ if d.command.kind in _RIGHTS and d.command.op is not Op.DELETE]
    ending = [d for d in open_ if d.command.kind in _ENDING and d.command.op is not Op.CREATE]
    if ctx.door in UNPROFILED or not (given or ending):
        return
    wanted = sorted({p for d in given if (p := _profile_of(d)) is not None})
    calls: list[Call] = managers_calls(ctx.tenant) if ending else []
    profiles, *managers = await tx.run(profiles_call(ctx.tenant, wanted, deleted=True), *calls)
    known = read_profiles(profiles, ctx.profile.rev)
    born = _born(ctx, open_)
    for draft in given:
        _check_given(ctx, draft, known, born)
    if ending:
        _check_managers(ending, read_managers(managers[-1], now()))


def _check_given(ctx: Ctx, draft: Draft, known: dict[UUID, Profile], born: frozenset[str]) -> None:
    values = merged(draft)
    match draft.command.kind:
        case "sys.membership":
            profile = known.get(_profile_of(draft) or _NOBODY, _NEW)
            if not may_lend(profile, ctx.profile):
                _refuse(draft, "/fields/profile", "This profile allows more than your own.")
            _check_units(ctx, draft, values.get("units"), lendable_units(ctx, profile))
        case "sys.unit":
            _check_moved(ctx, draft)
        case "sys.profile":
            named = values.get("capabilities")
            beyond = (
                {str(c) for c in named} - ctx.profile.capabilities
                if isinstance(named, list)
                else set()
            )
            if beyond and not ctx.profile.capabilities >= OWNING:
                listed = ", ".join(sorted(beyond))
                _refuse(draft, "/fields/capabilities", f"You do not have {listed} yourself.")
            elif draft.command.op is Op.RESTORE and not may_lend(
                known.get(draft.id, _NEW), ctx.profile
            ):
                _refuse(draft, "/id", "This profile allows more than your own.")
        case _:
            if str(values.get("kind")) in born:
                return
            lent = compile_profile("", {}, [_without(values, born)], ctx.profile.rev)
            if not may_lend(lent, ctx.profile):
                _refuse(draft, "/fields", "This grant reaches further than your own rights.")


def _check_moved(ctx: Ctx, draft: Draft) -> None:
    """A unit under another one is reached from there: nobody draws one in that is not theirs."""
    is_moved = draft.command.op is Op.UPDATE and "parent" in draft.values
    if is_moved and draft.id not in ctx.subtree and not ctx.profile.capabilities >= OWNING:
        _refuse(draft, "/fields/parent", "This unit is not below your own.")


def _check_units(ctx: Ctx, draft: Draft, named: Json, own: frozenset[UUID]) -> None:
    """A membership without units reaches the whole tree."""
    units = (
        {UUID(str(u)) for u in named} if isinstance(named, list) and named else set(ctx.unit_tree)
    )
    if not units <= own:
        _refuse(draft, "/fields/units", "These units reach further than your own.")


def _check_managers(ending: Sequence[Draft], managers: Sequence[Manager]) -> None:
    ended = {d.id: d for d in ending if _ends(d)}
    left = [m for m in managers if ended.keys().isdisjoint((m.membership, m.profile, m.person))]
    if left or not managers:
        return
    for manager in managers:
        for ident in (manager.membership, manager.profile, manager.person):
            if ident in ended and not ended[ident].faults:
                ended[ident].fault(
                    "/id", "last_manager",
                    "Nobody would be left who manages profiles; give that to somebody first.",
                    status=409,
                )  # fmt: skip


def _ends(draft: Draft) -> bool:
    """Whether a draft may take the management of profiles from somebody."""
    if draft.command.op is Op.DELETE:
        return True
    if draft.command.kind == "sys.membership":
        return not draft.values.keys().isdisjoint({"profile", "person", "valid_from", "valid_to"})
    if draft.command.kind == "sys.profile":
        named = merged(draft).get("capabilities")
        return not (isinstance(named, list) and MANAGE in named)
    return False


def _profile_of(draft: Draft) -> UUID | None:
    if draft.command.kind == "sys.profile":
        return draft.id if draft.command.op is Op.RESTORE else None
    found = merged(draft).get("profile") if draft.command.kind == "sys.membership" else None
    return UUID(found) if isinstance(found, str) else None


def _born(ctx: Ctx, drafts: Sequence[Draft]) -> frozenset[str]:
    """Keys of kinds and `kind/fid` of fields that this batch makes.

    What there is already is not made, whatever a batch says that will be refused for it later.
    """
    made = [d for d in drafts if d.command.op is Op.CREATE]
    kinds = {str(d.values.get("key")) for d in made if d.command.kind == "sys.kind"}
    fields = {
        f"{d.values.get('kind')}/{d.values.get('fid') or d.values.get('name')}"
        for d in made
        if d.command.kind == "sys.field"
    }
    known = {f"{k.key}/{f.fid}" for k in ctx.schema.kinds.values() for f in k.fields}
    return frozenset((kinds - ctx.schema.kinds.keys()) | (fields - known))


def _without(values: dict[str, Json], born: frozenset[str]) -> dict[str, Json]:
    """A grant but for the fields that are only being made."""
    fields = values.get("fields")
    if not isinstance(fields, dict):
        return values
    kept: dict[str, Json] = {
        f: m for f, m in fields.items() if f"{values.get('kind')}/{f}" not in born
    }
    return {**values, "fields": kept}


def _refuse(draft: Draft, pointer: str, detail: str) -> None:
    draft.fault(pointer, "wider_than_yours", detail, status=403)
