"""Who acts, where, in which door: passed first, never global.

A `Ctx` is frozen and complete: the tenant, the compiled rights and schema it was checked
against, the units, the node. A job, a sync batch and a schedule rebuild theirs from a message.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from appliance.kernel.kind import Schema
from appliance.kernel.profile import Profile


class Door(StrEnum):
    """Through which of the few doors a change came."""

    HTTP = "http"
    INTAKE = "intake"
    SYNC = "sync"
    FLOW = "flow"
    INSTALL = "install"
    SYSTEM = "system"


class UnitNode(msgspec.Struct, frozen=True):
    """One org unit in the tree; `tz` is an IANA zone name."""

    id: UUID
    parent: UUID | None
    name: str
    tz: str = "UTC"
    currency: str = ""
    prefix: str = ""


class Ctx(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a rule may ask about the one who acts.

    `units` are those of the membership, `subtree` those and all below them; `unit` is the one
    that new records go to. `tz` and `locale` are for relative dates and texts.
    """

    tenant: UUID
    origin: int
    actor: UUID
    profile: Profile
    schema: Schema
    units: frozenset[UUID] = frozenset()
    subtree: frozenset[UUID] = frozenset()
    unit: UUID | None = None
    unit_tree: dict[UUID, UnitNode] = msgspec.field(default_factory=dict)
    tz: str = "UTC"
    locale: str = "en"
    door: Door = Door.HTTP
    request_id: UUID
    session: UUID | None = None
    at: datetime
    staff_grant: UUID | None = None
    node_prefix: str = ""
