"""Three-way merge of values: what a template said, what it says now, what the tenant made of it.

Objects merge member by member, lists of keyed objects (choices, widgets) by their keys; all else
is one value. Where both sides changed one value it is a conflict: the tenant's stays, unless the
choice for that place is to take the template's.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import UNSET, UnsetType

from appliance.kernel.kind import Json

# Half of one query and half of another is no query: these merge as wholes.
_WHOLE = frozenset({"query", "ledger", "default", "condition", "trigger", "layout", "steps"})
Value = Json | UnsetType


class Difference(msgspec.Struct, frozen=True):
    """Both sides changed one place since `base`; None stands for nothing there."""

    path: str
    base: Json
    theirs: Json
    ours: Json


class Merge:
    """One merge: collects where both sides differ, and asks `takes` for each such path."""

    def __init__(self, takes: Callable[[str], bool]) -> None:
        self._takes = takes
        self.differences: list[Difference] = []

    def values(self, base: Value, theirs: Value, ours: Value, path: str = "") -> Value:
        """The merged value; UNSET when there is none."""
        if theirs in (ours, base):
            return ours
        if ours == base:
            return theirs
        if path.rpartition(".")[2] not in _WHOLE:
            if isinstance(theirs, dict) and isinstance(ours, dict):
                return self._objects(base, theirs, ours, path)
            new, own = _by_key(theirs), _by_key(ours)
            if new is not None and own is not None:
                return [*self._objects(_by_key(base) or {}, new, own, path).values()]
        self.differences.append(Difference(path, _none(base), _none(theirs), _none(ours)))
        return theirs if self._takes(path) else ours

    def _objects(
        self, base: Value, theirs: dict[str, Json], ours: dict[str, Json], path: str
    ) -> dict[str, Json]:
        """Members in the template's order, the tenant's own behind."""
        before = base if isinstance(base, dict) else {}
        found: dict[str, Json] = {}
        for key in (*theirs, *(k for k in ours if k not in theirs)):
            inner = f"{path}.{key}" if path else key
            value = self.values(
                before.get(key, UNSET), theirs.get(key, UNSET), ours.get(key, UNSET), inner
            )
            if value is not UNSET:
                found[key] = value
        return found


def _by_key(value: Value) -> dict[str, Json] | None:
    """A list of objects with a key each, by those keys; None for any other value."""
    found: dict[str, Json] = {}
    for member in value if isinstance(value, list) else ():
        key = member.get("key") if isinstance(member, dict) else None
        if not isinstance(key, str) or key in found:
            return None
        found[key] = member
    return found or None


def _none(value: Value) -> Json:
    return None if value is UNSET else value
