"""Compile `sys.profile` and `sys.grant` records to a Profile. What cannot be read stays closed.

Profiles are allow-lists: several grants for one kind add up, and a grant never takes anything
away. `*` is a way to write a grant, not a right: `expand_star` spells it out over the kinds and
fields there are when it is saved, so that a later kind or field is closed until it is granted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from appliance.access.rules import Reach, is_understood, unite_scopes
from appliance.kernel.kind import Json, Kind
from appliance.kernel.profile import ACTIONS, KindGrant, Mode, Profile, Scope, ScopeKind

__all__ = [
    "Reach",
    "compile_profile",
    "expand_star",
    "read_actions",
    "read_modes",
    "read_scope",
    "unite",
]

Data = dict[str, Json]
STAR = "*"


def compile_profile(
    ident: str,
    profile: Data,
    grants: Iterable[Data],
    rev: int,
    *,
    reach: Reach | None = None,
    kinds: Mapping[str, Kind] | None = None,
) -> Profile:
    """One profile. `reach` is whose rights they are; `kinds` lets rules be checked against them.

    Without a `reach` the profile is for showing and comparing: a union of a rule with `own` or
    `unit` is then a rule that grants nothing when evaluated.
    """
    compiled: dict[str, KindGrant] = {}
    for grant in grants:
        key = grant.get("kind")
        if not isinstance(key, str):
            continue
        actions = read_actions(grant.get("actions"))
        kind = kinds.get(key) if kinds is not None else None
        open_ = {a: s for a, s in actions.items() if _is_open(s, kind)}
        found = KindGrant(open_, read_modes(grant.get("fields")))
        known = compiled.get(key)
        compiled[key] = unite(known, found, reach) if known else found
    named = profile.get("capabilities")
    capabilities = (
        frozenset(c for c in named if isinstance(c, str))
        if isinstance(named, list)
        else frozenset()
    )
    return Profile(ident, str(profile.get("key")), rev, compiled, capabilities)


def _is_open(scope: Scope, kind: Kind | None) -> bool:
    return scope.kind is not ScopeKind.WHERE or is_understood(scope.where, kind)


def read_actions(raw: Json) -> dict[str, Scope]:
    """Row scopes by action; an unknown action or scope is left out."""
    if not isinstance(raw, dict):
        return {}
    return {a: scope for a in ACTIONS if (scope := read_scope(raw.get(a))) is not None}


def read_scope(raw: Json) -> Scope | None:
    """A scope by name, or a row rule."""
    if isinstance(raw, str) and raw in ScopeKind.__members__.values() and raw != ScopeKind.WHERE:
        return Scope(ScopeKind(raw))
    if isinstance(raw, dict) and raw.keys() == {"where"}:
        return Scope(ScopeKind.WHERE, raw["where"])
    return None


def read_modes(raw: Json) -> dict[str, Mode]:
    """Field modes by field id; an unknown mode is left out, which hides the field."""
    if not isinstance(raw, dict):
        return {}
    return {fid: mode for fid, text in raw.items() if (mode := Mode.parse(text)) is not None}


def unite(one: KindGrant, two: KindGrant, reach: Reach | None = None) -> KindGrant:
    """The union of two grants: rows of either scope, the higher mode."""
    actions = dict(one.actions)
    for action, scope in two.actions.items():
        actions[action] = (
            unite_scopes(actions[action], scope, reach) if action in actions else scope
        )
    fields = dict(one.fields)
    for fid, mode in two.fields.items():
        fields[fid] = max(mode, fields.get(fid, Mode.HIDDEN))
    return KindGrant(actions, fields)


def expand_star(grant: Data, kinds: Sequence[Kind]) -> list[Data]:
    """A grant written with `*`, one entry per kind with every action and field named.

    What is said by name wins over `*`; a kind that is not among `kinds` gets nothing.
    """
    wanted = [k for k in kinds if grant.get("kind") in (STAR, k.key)]
    rest = {k: v for k, v in grant.items() if k not in ("kind", "actions", "fields")}
    return [
        {
            **rest,
            "kind": kind.key,
            "actions": _spell_out(grant.get("actions"), ACTIONS),
            "fields": _spell_out(grant.get("fields"), [f.fid for f in kind.fields]),
        }
        for kind in wanted
    ]


def _spell_out(given: Json, names: Sequence[str]) -> dict[str, Json]:
    if not isinstance(given, dict):
        return {}
    named = {k: v for k, v in given.items() if k != STAR}
    if STAR not in given:
        return named
    return {**dict.fromkeys(names, given[STAR]), **named}
