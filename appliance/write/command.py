"""What a door asks for: a command is one intended change of one record."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from appliance.kernel.kind import Json


class Op(StrEnum):
    """The verbs of the write path."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    RESTORE = "restore"


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """`fields` by API name; a null clears. `expect` is the version the author saw: it is the
    base of the edit. `unit` and `owner` left UNSET stay as they are (or take the defaults).
    `restoring`: an undo, which brings back also what the server had filled in. `into`: of a
    deletion, the record this one was merged into. `resolves`: it decides what is open in the
    registers that it names, also where it leaves what is shown as it is.
    """

    op: Op
    kind: str
    id: UUID | None = None
    fields: dict[str, Json] = {}
    unit: UUID | None | UnsetType = UNSET
    owner: UUID | None | UnsetType = UNSET
    expect: str | None = None
    restoring: bool = False
    into: UUID | None = None
    resolves: bool = False
