"""Access profile, compiled: allow-lists only, nothing is called bypass.

A profile grants actions on kinds, each with a row scope, and a mode for each field. What is not
granted does not exist for the reader: a new field or kind is closed until granted. Effective
rights of a session are one profile over one set of units (design 5, research/security 2.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum

import msgspec

from appliance.kernel.kind import Field, Json, Kind

ACTIONS = ("read", "create", "update", "delete", "restore", "purge", "export", "import")


class ScopeKind(StrEnum):
    """How far an action reaches over rows, from nothing to the whole tenant."""

    NONE = "none"
    OWN = "own"
    UNIT = "unit"
    SUBTREE = "subtree"
    ALL = "all"
    WHERE = "where"


class Scope(msgspec.Struct, frozen=True):
    """`where` holds a condition over the record's own columns (JSON of the query language)."""

    kind: ScopeKind = ScopeKind.NONE
    where: Json = None


class Mode(IntEnum):
    """What a field is to the reader; ordered, a union takes the higher."""

    HIDDEN = 0
    MASKED = 1
    READ = 2
    WRITE = 3

    @classmethod
    def parse(cls, text: object) -> Mode | None:
        """From its name in data."""
        return cls.__members__.get(text.upper()) if isinstance(text, str) else None


class KindGrant(msgspec.Struct, frozen=True):
    """What one profile may do with one kind."""

    actions: Mapping[str, Scope] = msgspec.field(default_factory=dict)
    fields: Mapping[str, Mode] = msgspec.field(default_factory=dict)


NO_GRANT = KindGrant()


class Profile(msgspec.Struct, frozen=True, dict=True):
    """Rights of one profile at one revision; `capabilities` are for routes that are no records."""

    id: str
    key: str
    rev: int = 0
    grants: Mapping[str, KindGrant] = msgspec.field(default_factory=dict)
    capabilities: frozenset[str] = frozenset()

    def grant(self, kind: str) -> KindGrant:
        """The grant for a kind; an ungranted kind grants nothing."""
        return self.grants.get(kind, NO_GRANT)

    def scope(self, kind: str, action: str) -> Scope:
        """The row scope of an action."""
        return self.grant(kind).actions.get(action, Scope())

    def mode(self, kind: str, field: Field) -> Mode:
        """The mode of a field; ungranted is hidden."""
        return self.grant(kind).fields.get(field.fid, Mode.HIDDEN)

    def may(self, capability: str) -> bool:
        """Whether a route's declared capability is granted."""
        return capability in self.capabilities

    def sees(self, kind: Kind | None) -> bool:
        """Whether the kind exists for this profile at all."""
        return bool(
            kind and kind.enabled and self.scope(kind.key, "read").kind is not ScopeKind.NONE
        )
