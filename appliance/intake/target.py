"""What a run is for: a target judges staged rows, finishes the plan and says what is written.

One file per target under targets/, chosen by the vocabulary that the connector stages its rows in.
A target writes nothing itself: its commands go through the one write path, in phases, so that a
record is there before another one points to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

import msgspec

from appliance.intake.runs import Unmapped
from appliance.intake.stage import Change, Judged
from appliance.kernel.kind import Json
from appliance.write import Command, Op
from connectors.sdk.contract import Fault, StagedRow, Summary


class Row(msgspec.Struct, frozen=True):
    """One planned row."""

    no: int
    entity: str
    key: str
    data: dict[str, Json]
    target: UUID | None
    changes: tuple[Change, ...]
    sort: str

    def after(self, field: str) -> Json:
        """What a field shall be; None when the row says nothing of it."""
        return next((c.after for c in self.changes if c.field == field), None)


class Step(msgspec.Struct, frozen=True):
    """What a row does in one phase: its commands, the record it makes, or why it cannot be done."""

    row: Row
    commands: tuple[Command, ...] = ()
    made: UUID | None = None
    faults: tuple[dict[str, Json], ...] = ()


class Finished(msgspec.Struct, frozen=True):
    """The end of a plan: rows by class, what holds it in words, values that nobody has mapped."""

    counts: dict[str, int]
    held: tuple[str, ...] = ()
    warnings: tuple[Fault, ...] = ()
    unmapped: tuple[Unmapped, ...] = ()


class Phase(msgspec.Struct, frozen=True):
    """Rows that are written together, before those of the next phase. No `entities`: all rows."""

    name: str = ""
    entities: tuple[str, ...] = ()


class Target(Protocol):
    """What the rows of one vocabulary become."""

    @property
    def phases(self) -> Sequence[Phase]:
        """In which order its rows are written."""
        ...

    @property
    def written(self) -> Sequence[str]:
        """Classes of rows that are written; suspicious ones besides when somebody asks for it."""
        ...

    async def judge(self, rows: Sequence[StagedRow]) -> list[Judged]:
        """What a block of rows would do. Raises Invalid when the tenant lacks what it needs."""
        ...

    async def finish(self, summary: Summary) -> Finished:
        """What only the whole of the input shows."""
        ...

    async def prologue(self) -> Sequence[Command]:
        """Commands before all rows, the same each time: all are written, or the run is refused."""
        ...

    async def compose(self, rows: Sequence[Row], phase: Phase) -> list[Step]:
        """The steps of a block, the same each time it is asked for."""
        ...


def create(kind: str, ident: UUID, values: dict[str, Json], unit: UUID | None = None) -> Command:
    """A command that makes a record of what is given; empty values are left out."""
    fields: dict[str, Json] = {k: v for k, v in values.items() if v is not None}
    if unit is None:
        return Command(op=Op.CREATE, kind=kind, id=ident, fields=fields)
    return Command(op=Op.CREATE, kind=kind, id=ident, fields=fields, unit=unit)


def fault(code: str, expected: str, found: str = "") -> dict[str, Json]:
    """A fault of a row as it is kept."""
    return {"code": code, "expected": expected, "found": found}
