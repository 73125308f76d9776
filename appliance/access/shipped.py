"""The shipped profiles, and what each grants on a kind, spelled out field by field.

Nothing here is consulted when a right is checked: the result is written into `sys.grant` records
when a tenant or a kind is made, and a new field or kind stays closed until it is granted.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from functools import lru_cache
from importlib import resources

import msgspec

from appliance.base.errors import Refused
from appliance.kernel.kind import Authority, Field, Json, Kind, Labels

CAPABILITIES = frozenset(
    "records.use query.run export.run schema.read schema.manage people.read people.manage "
    "profiles.manage units.manage sessions.own sessions.manage keys.manage audit.read "
    "tenant.manage nodes.manage staff.grant jobs.read live.read import.run import.approve import.work files.use files.review "
    "conflicts.resolve sync.manage webhooks.manage channels.manage channels.push "
    "channels.feed".split()
)
_MANAGE = dict.fromkeys(("read", "create", "update", "delete", "restore", "export"), "all")
_LEVELS = {"manage": (_MANAGE, "write"), "read": ({"read": "all"}, "read")}


class Shipped(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One profile of profiles.toml."""

    labels: Labels
    help: Labels
    capabilities: list[str]
    business: dict[str, str]
    system: dict[str, str]
    ceiling: dict[str, str]


@lru_cache(maxsize=1)
def shipped() -> dict[str, Shipped]:
    """All shipped profiles by key."""
    text = resources.files("appliance.access").joinpath("profiles.toml").read_text("utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, Shipped])


def grant_of(profile: Shipped, kind: Kind) -> dict[str, Json] | None:
    """The actions and field modes a profile has on a kind; None when it has nothing there."""
    if kind.system:
        level = profile.system.get(kind.key) or profile.system.get("*")
        if level is None:
            return None
        actions, mode = _LEVELS[level]
        return {"actions": dict(actions), "fields": {f.fid: mode for f in kind.fields}}
    actions = dict(profile.business)
    if kind.home != "unit":
        # Records of the whole tenant belong to no unit: reading them is reading all of them. What
        # no side has the last word on (a customer's card) is written by whoever writes at all.
        open_ = (
            {"read", "create", "update"}
            if kind.home == "shared" and not _is_hubs(kind)
            else {"read"}
        )
        actions = {
            a: "own" if scope == "own" and a != "read" else "all"
            for a, scope in actions.items()
            if a in open_ or scope == "all"
        }
    modes = {f.fid: mode_of(profile, f, writes=_writes(actions)) for f in kind.fields}
    return {"actions": {**actions}, "fields": {**modes}}


def grants_for(profile_key: str, kinds: Iterable[Kind]) -> list[dict[str, Json]]:
    """All grants of a shipped profile over the kinds there are, as values of `sys.grant` records
    but for `profile`. Raises Refused for a profile that is not shipped.
    """
    known = shipped().get(profile_key)
    if known is None:
        raise Refused(
            f"There is no shipped profile {profile_key!r}; known: {', '.join(sorted(shipped()))}.",
            code="profile.unknown",
        )
    found = ((kind, grant_of(known, kind)) for kind in kinds)
    return [{"kind": kind.key, **grant} for kind, grant in found if grant is not None]


def _is_hubs(kind: Kind) -> bool:
    """Whether the head office alone writes a kind."""
    return kind.authority is Authority.HUB


def _writes(actions: dict[str, str]) -> bool:
    return bool({"create", "update"} & actions.keys())


def mode_of(profile: Shipped, field: Field, *, writes: bool) -> str:
    """The mode of a field by its sensitivity; a profile that never writes has nothing to write."""
    mode = profile.ceiling.get(field.sensitivity, "hidden")
    return "read" if mode == "write" and not writes else mode
