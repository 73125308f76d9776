"""What became of each command, and what the whole batch set in motion."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from appliance.base.errors import FieldFault
from appliance.kernel.kind import Json
from appliance.write.command import Op


class Applied(msgspec.Struct, frozen=True, tag="applied", tag_field="status"):
    """Written and in the log."""

    id: UUID
    version: str
    number: str | None
    op: Op


class Unchanged(msgspec.Struct, frozen=True, tag="unchanged", tag_field="status"):
    """Nothing differs from what is there; nothing was written."""

    id: UUID
    version: str


class FieldConflict(msgspec.Struct, frozen=True):
    """A field that someone else changed since the author looked: both values are kept."""

    field: str
    mine: Json
    theirs: Json
    base: Json
    who: UUID
    at: datetime


class Conflict(msgspec.Struct, frozen=True, tag="conflict", tag_field="status"):
    """The edit was made from a stale base; nothing of it was written."""

    id: UUID
    version: str
    fields: tuple[FieldConflict, ...]


class Rejected(msgspec.Struct, frozen=True, tag="rejected", tag_field="status"):
    """Not acceptable, with every fault at once. `status` is that of the HTTP contract."""

    id: UUID | None
    faults: tuple[FieldFault, ...]
    http_status: int = 422


Outcome = Applied | Unchanged | Conflict | Rejected


class Effect(msgspec.Struct, frozen=True):
    """Something queued in the outbox by this batch."""

    topic: str
    count: int


class Result(msgspec.Struct, frozen=True):
    """Outcomes in the order of the commands. Not `committed`: nothing at all was written."""

    change_set: UUID
    outcomes: tuple[Outcome, ...]
    effects: tuple[Effect, ...] = ()
    committed: bool = True
