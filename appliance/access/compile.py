"""Compile `sys.profile` and `sys.grant` records to a Profile. What cannot be read stays closed."""

from __future__ import annotations

from collections.abc import Iterable

from appliance.kernel.kind import Json
from appliance.kernel.profile import ACTIONS, KindGrant, Mode, Profile, Scope, ScopeKind

Data = dict[str, Json]


def compile_profile(ident: str, profile: Data, grants: Iterable[Data], rev: int) -> Profile:
    """One profile; several grants for one kind add up (a grant never takes away)."""
    compiled: dict[str, KindGrant] = {}
    for grant in grants:
        kind = str(grant.get("kind"))
        found = KindGrant(read_actions(grant.get("actions")), read_modes(grant.get("fields")))
        known = compiled.get(kind)
        compiled[kind] = unite(known, found) if known else found
    named = profile.get("capabilities")
    capabilities = frozenset(map(str, named)) if isinstance(named, list) else frozenset()
    return Profile(ident, str(profile.get("key")), rev, compiled, capabilities)


def read_actions(raw: Json) -> dict[str, Scope]:
    """Row scopes by action."""
    if not isinstance(raw, dict):
        return {}
    return {a: scope for a in ACTIONS if (scope := read_scope(raw.get(a))) is not None}


def read_scope(raw: Json) -> Scope | None:
    """A scope by name, or a row rule."""
    if isinstance(raw, str) and raw in ScopeKind.__members__.values() and raw != "where":
        return Scope(ScopeKind(raw))
    if isinstance(raw, dict) and raw.keys() == {"where"}:
        return Scope(ScopeKind.WHERE, raw["where"])
    return None


def read_modes(raw: Json) -> dict[str, Mode]:
    """Field modes by field id."""
    if not isinstance(raw, dict):
        return {}
    return {fid: mode for fid, text in raw.items() if (mode := Mode.parse(text)) is not None}


def unite(one: KindGrant, two: KindGrant) -> KindGrant:
    """The union of two grants: the wider scope, the higher mode. Rules unite by `or`."""
    actions = dict(one.actions)
    for action, scope in two.actions.items():
        actions[action] = _wider(actions[action], scope) if action in actions else scope
    fields = dict(one.fields)
    for fid, mode in two.fields.items():
        fields[fid] = max(mode, fields.get(fid, Mode.HIDDEN))
    return KindGrant(actions, fields)


_RANK = {s: n for n, s in enumerate(("none", "where", "own", "unit", "subtree", "all"))}


def _wider(one: Scope, two: Scope) -> Scope:
    if one.kind is ScopeKind.WHERE and two.kind is ScopeKind.WHERE:
        return Scope(ScopeKind.WHERE, {"or": [one.where, two.where]})
    return max(one, two, key=lambda s: _RANK[s.kind])
