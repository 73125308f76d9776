"""What an installation would do to a tenant: base × theirs × ours, item by item, before anything.

Promises: what the tenant changed stays unless somebody chose to take the template's; nothing with
data in it is taken away by a new version; the same versions again are no change at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from appliance.base.ids import uuid7
from appliance.install.bundle import SORTS, Bundle, Item
from appliance.install.merge import Difference, Merge
from appliance.install.snapshot import Held, Snapshot
from appliance.kernel.kind import Json
from appliance.write import Command, Op

Choice = Literal["keep", "take"]
# These never change once they are there: a difference in them can only be kept.
_FIXED = {
    "kind": frozenset({"key", "home", "ledger"}),
    "field": frozenset({"kind", "name", "type"}),
    "grant": frozenset({"profile", "kind"}),
}
# Nothing takes these away: people work with them, and data may be in them. What an earlier, other
# template brought is switched off, so that it can be switched on again.
_KEPT = frozenset({"module", "kind", "field", "profile"})
_SWITCHED = frozenset({"module", "kind"})


class Conflict(msgspec.Struct, frozen=True):
    """Template and tenant both changed one place. `fixed`: only keeping is possible."""

    at: str
    sort: str
    key: str
    path: str
    base: Json
    theirs: Json
    ours: Json
    choice: Choice
    fixed: bool = False


class Step(msgspec.Struct, frozen=True):
    """One record to create, update or delete; `values` are what is written, by field name."""

    op: Op
    item: Item
    values: dict[str, Json]
    held: Held | None = None


class Plan(msgspec.Struct, frozen=True):
    """All of it. `left` are items that the template no longer has and the tenant keeps."""

    theirs: Bundle
    steps: list[Step]
    conflicts: list[Conflict]
    left: list[str]

    @property
    def is_empty(self) -> bool:
        """Whether nothing but stamps would be written."""
        return not any(s.op is not Op.UPDATE or s.values for s in self.steps)

    def counts(self) -> dict[str, dict[str, int]]:
        """How many records of each sort are created, updated, deleted."""
        found: dict[str, dict[str, int]] = {}
        for step in self.steps:
            if step.op is not Op.UPDATE or step.values:
                of_sort = found.setdefault(step.item.sort, {})
                of_sort[step.op.value] = of_sort.get(step.op.value, 0) + 1
        return found


class Chooser:
    """Choices by place (`field/customer.city#labels.en`), and one for all other places."""

    def __init__(self, choices: Mapping[str, Choice], rest: Choice = "keep") -> None:
        self.choices = choices
        self.rest = rest

    def takes(self, at: str) -> bool:
        """Whether the template's side is taken at a place."""
        return self.choices.get(at, self.rest) == "take"


def make_plan(
    theirs: Bundle, snapshot: Snapshot, chooser: Chooser, *, switch: bool = False
) -> Plan:
    """Compare; `switch` also switches off what an earlier, other template brought."""
    plan = Plan(theirs, [], [], [])
    base, wanted = snapshot.base.by_key(), theirs.by_key()
    reborn: dict[str, set[str]] = {}
    off = {h.item.key for h in snapshot.live("module") if not h.enabled} if not switch else set()
    for key, one in wanted.items():
        held = snapshot.held.get(key)
        if held is not None and held.live:
            before = _unless_reborn(base.get(key), reborn)
            _update(plan, before, one, held, chooser)
            if switch and one.sort in _SWITCHED and not held.enabled:
                plan.steps[-1].values["enabled"] = True
        elif key not in base or _returns(plan, base[key], one, chooser):
            # A kind of a module that is off comes with the module, when it is switched on.
            hidden = one.sort == "kind" and one.values.get("module") in off
            values = {**one.values, "enabled": False} if hidden else one.values
            plan.steps.append(Step(Op.CREATE, one, values))
            if one.sort == "field" and held is not None:
                reborn.setdefault(str(one.values["kind"]), set()).add(str(one.values["name"]))
    for key, was in base.items():
        held = snapshot.held.get(key)
        if key not in wanted and held is not None and held.live:
            _drop(plan, was, held, chooser, switch=switch)
    plan.steps.sort(key=lambda s: [*SORTS].index(s.item.sort))
    return plan


def _unless_reborn(base: Item | None, reborn: Mapping[str, set[str]]) -> Item | None:
    """A grant as it was, but for fields that are made anew: their modes are new as well."""
    modes = base.values.get("fields") if base is not None and base.sort == "grant" else None
    names = reborn.get(str(base.values["kind"])) if base is not None and modes else None
    if base is None or not names or not isinstance(modes, dict):
        return base
    kept: dict[str, Json] = {n: m for n, m in modes.items() if n not in names}
    return msgspec.structs.replace(base, values={**base.values, "fields": kept})


def _returns(plan: Plan, base: Item, theirs: Item, chooser: Chooser) -> bool:
    """Whether something the tenant deleted comes back: only by choice, if the template changed it."""
    if base.values == theirs.values:
        return False
    at = f"{theirs.sort}/{theirs.key}#"
    taken = chooser.takes(at)
    plan.conflicts.append(
        Conflict(at, theirs.sort, theirs.key, "", base.values, theirs.values, None, _word(taken))
    )
    return taken


def _update(plan: Plan, base: Item | None, theirs: Item, held: Held, chooser: Chooser) -> None:
    place, ours = f"{theirs.sort}/{theirs.key}", held.item.values
    fixed = _FIXED.get(theirs.sort, frozenset())

    def takes(path: str) -> bool:
        return path.partition(".")[0] not in fixed and chooser.takes(f"{place}#{path}")

    merge, values = Merge(takes), dict[str, Json]()
    for name in {**theirs.values, **ours, **(base.values if base else {})}:
        was = base.values.get(name, UNSET) if base else UNSET
        now, mine = theirs.values.get(name, UNSET), ours.get(name, UNSET)
        if name in fixed and now != mine:
            merge.differences.append(Difference(name, _none(was), _none(now), _none(mine)))
            continue
        merged = merge.values(was, now, mine, name)
        if merged != mine:
            values[name] = _none(merged)
    for found in merge.differences:
        at = f"{place}#{found.path}"
        plan.conflicts.append(
            Conflict(
                at,
                theirs.sort,
                theirs.key,
                found.path,
                found.base,
                found.theirs,
                found.ours,
                _word(takes(found.path)),
                fixed=found.path.partition(".")[0] in fixed,
            )
        )
    plan.steps.append(Step(Op.UPDATE, theirs, values, held))


def _drop(plan: Plan, base: Item, held: Held, chooser: Chooser, *, switch: bool) -> None:
    at = f"{base.sort}/{base.key}#"
    if base.sort in _KEPT or (switch and base.sort == "grant"):
        if base.sort != "grant":
            plan.left.append(at.rstrip("#"))
        if switch and base.sort in _SWITCHED and held.enabled:
            plan.steps.append(Step(Op.UPDATE, held.item, {"enabled": False}, held))
        return
    taken = True
    if held.item.values != base.values and not switch:
        taken = chooser.takes(at)
        plan.conflicts.append(
            Conflict(at, base.sort, base.key, "", base.values, None, held.item.values, _word(taken))
        )
    if taken:
        plan.steps.append(Step(Op.DELETE, held.item, {}, held))


def commands_of(plan: Plan, snapshot: Snapshot, origin: int) -> list[Command]:
    """The plan in commands of the write path: one batch."""
    profiles = {h.item.key: h.id for h in snapshot.live("profile")}
    born = {s.item.key: uuid7() for s in plan.steps
            if s.op is Op.CREATE and s.item.sort == "profile"}  # fmt: skip
    fids, theirs = dict(snapshot.fids), plan.theirs.by_key()
    for step in plan.steps:
        if step.op is Op.CREATE and step.item.sort == "field":
            kind, name = str(step.values["kind"]), str(step.values["name"])
            fids[(kind, name)] = snapshot.next_fid(kind, name, origin)
    commands = []
    for step in plan.steps:
        kind = SORTS[step.item.sort]
        values = _worded(step, profiles | born, fids)
        stamp = (
            stamp_of(plan.theirs, step.item) if (step.item.sort, step.item.key) in theirs else {}
        )
        if step.op is Op.UPDATE and not values and step.held and step.held.origin == stamp:
            continue
        if step.op is not Op.DELETE and stamp:
            values["origin"] = stamp
        if step.held is None:
            ident = born.get(step.item.key) if step.item.sort == "profile" else None
            commands.append(Command(op=step.op, kind=kind, id=ident, fields=values))
        else:
            commands.append(
                Command(op=step.op, kind=kind, id=step.held.id, fields=values,
                        expect=step.held.version)
            )  # fmt: skip
    return commands


def stamp_of(bundle: Bundle, one: Item) -> dict[str, Json]:
    """Where a record came from, and what it was then."""
    return {
        "template": bundle.name, "version": bundle.version, "key": one.key,
        "checksum": one.checksum,
    }  # fmt: skip


def _worded(
    step: Step, profiles: Mapping[str, UUID], fids: Mapping[tuple[str, str], str]
) -> dict[str, Json]:
    """What is written: profiles by id, fields of grants by their stable ids."""
    if step.op is Op.DELETE:
        return {}
    values = dict(step.values)
    if step.item.sort == "grant":
        kind, modes = str(step.item.values["kind"]), values.get("fields")
        if isinstance(modes, dict):
            values["fields"] = {fids.get((kind, n), n): m for n, m in modes.items()}
        if "profile" in values:
            values["profile"] = str(profiles[str(values["profile"])])
    return values


def _word(taken: bool) -> Choice:  # noqa: FBT001 - the one thing it is about
    return "take" if taken else "keep"


def _none(value: Json | UnsetType) -> Json:
    return None if value is UNSET else value
