"""Profiles and grants of a template: shipped ones, those it adds, and what each may do where.

A shipped profile stands to a kind as it is shipped, unless the kind, its module or the template
says otherwise; the nearest word counts. Everything is spelled out kind by kind and field by
field, as a person would do it, and edited in the tenant from then on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NoReturn

import msgspec

from appliance.access.shipped import Shipped, grant_of, mode_of, shipped
from appliance.base.errors import FieldFault, Invalid
from appliance.install.template import LEVELS, Access, Module, ProfileEntry, Template
from appliance.kernel.kind import Json, Kind
from appliance.kernel.profile import ACTIONS

# Who may read the views of the company may read its dashboards and what its modules are called.
_READ_WITH_VIEWS = ("sys.dashboard", "sys.module")
_UNDER_HUB = frozenset({"unit", "subtree"})


def profiles_of(template: Template) -> dict[str, Shipped]:
    """The shipped profiles and those of the template, by key. Raises Invalid."""
    found = dict(shipped())
    for entry in template.profiles:
        like = shipped().get(entry.like)
        if like is None:
            _fail(
                f"/profiles/{entry.key}/like", f"There is no shipped profile {entry.like[:60]!r}."
            )
        found[entry.key] = _made_after(like, entry)
    return found


def _made_after(like: Shipped, entry: ProfileEntry) -> Shipped:
    return msgspec.structs.replace(
        like,
        labels=entry.labels or like.labels,
        help=entry.help or like.help,
        capabilities=like.capabilities if entry.capabilities is None else entry.capabilities,
        ceiling={**like.ceiling, **entry.ceiling},
    )


class Rules:
    """How profiles stand to kinds in one template."""

    def __init__(self, template: Template, modules: Iterable[Module]) -> None:
        self._rules: dict[tuple[str, str], Access] = {}
        modules = list(modules)
        self._profiles = {*shipped(), *(e.key for e in template.profiles)}
        kinds = {k.key for m in modules for k in m.kinds} | {k.key for k in template.kinds}
        members = {m.key: [k.key for k in m.kinds] for m in modules}
        # Far words first: a nearer one overwrites them. A profile that is made after a shipped
        # one follows the rules of that one.
        after: dict[str, list[str]] = {}
        for entry in template.profiles:
            after.setdefault(entry.like, []).append(entry.key)
        for module in modules:
            for kind in module.kinds:
                for profile, access in {**module.access, **kind.access}.items():
                    for key in (profile, *after.get(profile, ())):
                        self._set(key, kind.key, access)
        named = [(e.key, e.access) for e in template.profiles] + [*template.access.items()]
        for profile, by_kind in named:
            for name, access in by_kind.items():
                if name not in kinds and name not in members:
                    _fail(f"/access/{profile}/{name}", "There is no such kind or module here.")
                for kind_key in members.get(name, []) if name not in kinds else [name]:
                    self._set(profile, kind_key, access)

    def _set(self, profile: str, kind: str, access: Access) -> None:
        if profile not in self._profiles:
            _fail(f"/access/{profile[:60]}", "There is no such profile.")
        wrong = access not in LEVELS if isinstance(access, str) else access.keys() - set(ACTIONS)
        if wrong:
            _fail(f"/access/{profile}/{kind}", f"Use {', '.join(LEVELS)} or scopes by action.")
        self._rules[(profile, kind)] = access

    def grant(self, key: str, profile: Shipped, kind: Kind) -> dict[str, Json] | None:
        """Actions and field modes of a profile on a kind; None for nothing."""
        found = grant_of(profile, kind)
        if kind.system:
            return found or _with_views(profile, kind)
        access = self._rules.get((key, kind.key), "shipped")
        if access == "shipped":
            return found
        if access == "none":
            return None
        if access == "read":
            given = found["actions"] if found else {}
            scopes = given if isinstance(given, dict) else {}
            actions = {a: s for a, s in scopes.items() if a in ("read", "export")}
        else:
            actions = _for_home(access, kind) if isinstance(access, dict) else {}
        if "read" not in actions:
            return None
        writes = bool({"create", "update"} & actions.keys())
        modes: dict[str, Json] = {f.fid: mode_of(profile, f, writes=writes) for f in kind.fields}
        return {"actions": {**actions}, "fields": modes}


def _with_views(profile: Shipped, kind: Kind) -> dict[str, Json] | None:
    if kind.key not in _READ_WITH_VIEWS or "sys.view" not in profile.system:
        return None
    modes: dict[str, Json] = {f.fid: "read" for f in kind.fields}
    return {"actions": {"read": "all"}, "fields": modes}


def _for_home(actions: dict[str, str], kind: Kind) -> dict[str, Json]:
    """Records of the whole tenant belong to no unit: a scope of units means all of them."""
    shared = kind.home != "unit"
    return {a: "all" if shared and s in _UNDER_HUB else s for a, s in actions.items()}


def grants_of(
    rules: Rules, profiles: Mapping[str, Shipped], kinds: Iterable[Kind]
) -> Iterator[tuple[str, str, dict[str, Json]]]:
    """Profile, kind and values of every grant, spelled out."""
    known = list(kinds)
    for key, profile in profiles.items():
        for kind in known:
            found = rules.grant(key, profile, kind)
            if found is not None:
                yield key, kind.key, found


def _fail(pointer: str, detail: str) -> NoReturn:
    raise Invalid(
        f"The template cannot be used: {pointer}: {detail}", code="template.malformed",
        faults=(FieldFault(pointer, "template", detail),),
    )  # fmt: skip
