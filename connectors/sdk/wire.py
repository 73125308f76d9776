"""What a worker and a node say to each other, both sides of `/api/v1/intake/work`.

One place for both, so that neither can change alone. What the worker says is closed, what the node
answers may grow.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec

from connectors.sdk.contract import Mapping
from connectors.sdk.schedule import Schedule

# A worker says how its sources are this often, and at once when something has happened.
TELL_S = 5.0
# Who says nothing for so long loses its sources to another worker, and is shown as silent.
SOURCE_LEASE_S = 60
SOURCES_MAX = 200
FILES_MAX = 200
Name = Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9_-]{0,39}$")]
_Short = Annotated[str, msgspec.Meta(max_length=60)]
_Text = Annotated[str, msgspec.Meta(max_length=300)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
# Aware: both sides count in UTC.
Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Budget(msgspec.Struct, frozen=True):
    """What a run may cost: memory and processor time of the child that parses it, seconds from its
    file to its last row, rows.
    """

    memory_mb: int
    cpu_s: int
    seconds: int
    rows: int


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who takes: its name, its program (a digest: only the same one goes on where it was), and the
    connectors that it has.
    """

    worker: Name
    reader: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    connectors: Annotated[list[Name], msgspec.Meta(min_length=1, max_length=200)]


class Taken(msgspec.Struct, frozen=True):
    """A run to read: every question about it names `epoch`. `mapping` and `next` say how far the
    same program was before it died; `lease_s`: say something before, or another one takes it.
    """

    run: UUID
    epoch: int
    connector: str
    name: str
    sha256: str
    size: int
    learned: dict[str, str]
    mapping: Mapping | None
    next: int
    lease_s: int
    budget: Budget


class Kept(msgspec.Struct, frozen=True):
    """`next`: the number of the frame that is awaited; `mapping`: how to read, after what was found."""

    next: int
    mapping: Mapping | None = None


class FileTold(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What became of one file, told until the node has heard it. `asked`: the number of the wish
    that it answers, 0 for none.
    """

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    end: Literal["failed", "given", "dismissed"]
    at: Moment
    code: _Short = ""
    detail: _Text = ""
    asked: _Count = 0


class SourceTold(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One source as its worker sees it; nothing secret and nobody's name.

    `place` and `address`: which way, and where in short. `failures`: looks that failed in a row, the
    last one with `code` and `detail`; `is_stopped`: for good, until a person says go on. `looks`,
    `files`, `bytes` and `faults` (failures by code) are counted since the worker knows the source.
    `heard_look`, `heard_resume`: the numbers of the wishes that were carried out.
    """

    key: Name
    connector: Name
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    place: _Short
    address: _Text
    schedule: Schedule
    is_looking: bool = False
    is_stopped: bool = False
    last_look_at: Moment | None = None
    last_good_at: Moment | None = None
    last_file_at: Moment | None = None
    next_look_at: Moment | None = None
    failures: _Count = 0
    code: _Short = ""
    detail: _Text = ""
    looks: _Count = 0
    files: _Count = 0
    bytes: _Count = 0
    faults: Annotated[dict[_Short, _Count], msgspec.Meta(max_length=50)] = {}
    heard_look: _Count = 0
    heard_resume: _Count = 0
    ended: Annotated[tuple[FileTold, ...], msgspec.Meta(max_length=FILES_MAX)] = ()


class SourcesTold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All sources of a worker. `instance`: its data folder, which one process has at a time.
    `no` grows from one to the next: what comes late is left out. `is_leaving`: it ends, another one
    may have them at once.
    """

    worker: Name
    instance: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
    sources: Annotated[tuple[SourceTold, ...], msgspec.Meta(max_length=SOURCES_MAX)]
    no: _Count = 0
    is_leaving: bool = False


class FileWish(msgspec.Struct, frozen=True):
    """Somebody wants a file that failed fetched again, or put aside for good."""

    name: str
    wish: Literal["replay", "dismiss"]
    asked: int


class SourceWish(msgspec.Struct, frozen=True):
    """What the node wants of one source. `is_yours`: this worker looks at it; else `held_by` does.
    `look`, `resume`: numbers of the last wishes to look now and to go on after a stop.
    """

    key: str
    is_yours: bool
    held_by: str
    is_paused: bool
    look: int
    resume: int
    files: tuple[FileWish, ...] = ()


class Wishes(msgspec.Struct, frozen=True):
    """The answer to a report. `tell_s`: say something again within it."""

    sources: tuple[SourceWish, ...]
    tell_s: float
    lease_s: int
