"""Two suppliers of a reading: a child of this node, or what a worker elsewhere has posted.

Whoever stages asks both alike, so there is one path from frames to the plan.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Protocol
from uuid import UUID

import msgspec

from appliance.base.errors import Unavailable
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.intake import lease
from appliance.intake.runs import IntakeRun
from connectors.sdk import parent
from connectors.sdk.contract import Done, Found, Mapping, Progress, Rows

_FRAME = Statement("SELECT data FROM intake_frame WHERE tenant_id = $1 AND run = $2 AND no = $3")
_decode = msgspec.msgpack.Decoder(Rows | Done).decode


class Looked(Protocol):
    """Who has looked at an input."""

    async def inspect(self, learned: dict[str, str]) -> Found:
        """What the input holds. Raises connectors.sdk.contract.Refused."""
        ...


class Supplier(Looked, Protocol):
    """See connectors.sdk.parent.Reading."""

    def read(self, mapping: Mapping) -> AsyncIterator[Rows | Progress | Done]:
        """The frames of a reading, its end last. Raises connectors.sdk.contract.Refused."""
        ...


class Answered:
    """A worker elsewhere that has just said what it found."""

    def __init__(self, found: Found) -> None:
        self._found = found

    async def inspect(self, learned: dict[str, str]) -> Found:
        """It was told the learned words when it took the run."""
        return self._found


class Posted:
    """The frames of a run that a worker elsewhere has read, in their order."""

    def __init__(self, db: Database, tenant: UUID, run: UUID, work: lease.Work) -> None:
        self._db, self._tenant, self._run, self._work = db, tenant, run, work

    async def inspect(self, learned: dict[str, str]) -> Found:
        """What the worker found, with the words that were learned when it took the run."""
        assert self._work.found is not None, "frames are only taken after it"
        return self._work.found

    async def read(self, mapping: Mapping) -> AsyncIterator[Rows | Progress | Done]:
        """One frame at a time, so that memory is flat."""
        for no in range(self._work.next):
            (rows,) = await self._db.read(self._tenant, (_FRAME, (self._tenant, self._run, no)))
            row = rows.first()
            if row is None or row[0] is None:
                text = "The rows of this run have moved on; it is read again."
                raise Unavailable(text, dependency="connector worker")
            yield _decode(bytes.fromhex(row[0][2:].decode()))


@contextlib.asynccontextmanager
async def open_reading(
    db: Database, tenant: UUID, run: IntakeRun, path: Path
) -> AsyncGenerator[Supplier, None]:
    """The reading of a run, from whoever does it."""
    if run.options.worker:
        yield Posted(db, tenant, run.id, await lease.get_work(db, tenant, run.id))
        return
    budget = run.options.budget
    async with parent.open_input(
        run.connector, path, memory=budget.memory_mb << 20, cpu_s=budget.cpu_s
    ) as reading:
        yield reading
