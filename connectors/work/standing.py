"""How a source stands: kept beside its book, so that a restart forgets neither a stop nor a failure.

Transient trouble is tried again later and later, permanent trouble stops the source until a person
says go on. What became of single files is told to the node until it has heard it.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec

from connectors.sdk.retry import Policy, Trouble, wait_before
from connectors.sdk.schedule import Schedule, next_look, spread_s
from connectors.sdk.wire import FILES_MAX, FileTold, FileWish, SourceWish

# After a look that failed: half of a doubling bound for sure, up to all of it by chance.
REST = Policy(first_s=15.0, most_s=1_800.0)
# What was seen for the first time is looked at again after this, whatever the schedule says.
SETTLE_S = 30.0
_FAULTS_MAX = 50
_FAILED_MAX = 1_000


class Failed(msgspec.Struct, omit_defaults=True):
    """A file that failed for good. `known`: what the transport remembered before it was met."""

    at: datetime
    known: dict[str, str] = {}


class Standing(msgspec.Struct, omit_defaults=True):
    """See connectors.sdk.wire.SourceTold. `asked`: the last wish for each file that was heard."""

    is_stopped: bool = False
    last_look_at: datetime | None = None
    last_good_at: datetime | None = None
    last_file_at: datetime | None = None
    next_look_at: datetime | None = None
    failures: int = 0
    code: str = ""
    detail: str = ""
    looks: int = 0
    files: int = 0
    bytes: int = 0
    faults: dict[str, int] = {}
    heard_look: int = 0
    heard_resume: int = 0
    is_unsettled: bool = False
    failed: dict[str, Failed] = {}
    ended: dict[str, FileTold] = {}
    asked: dict[str, int] = {}

    def note_look(
        self, schedule: Schedule, at: datetime, trouble: Trouble | None, *, spread: float
    ) -> None:
        """A look has ended at `at`. `spread`: 0 to 1, how far within the jitter the next one is."""
        self.looks += 1
        self.last_look_at = at
        due = next_look(schedule, at)
        assert due is not None, "there was a look"
        due += timedelta(seconds=spread * spread_s(schedule))
        if trouble is None:
            self.failures, self.code, self.detail = 0, "", ""
            self.last_good_at = at
            soon = at + timedelta(seconds=SETTLE_S)
            self.next_look_at = min(due, soon) if self.is_unsettled else due
            return
        self.failures += 1
        self.code, self.detail = trouble.code, trouble.detail
        self._count(trouble.code)
        self.is_stopped = trouble.is_permanent
        rest = at + timedelta(seconds=rest_s(self.failures, trouble.after_s))
        # A source of a few looks a day is not left until the next of them.
        self.next_look_at = rest if schedule.at else max(due, rest)

    def note_file(self, name: str, told: FileTold, *, size: int, known: dict[str, str]) -> None:
        """What became of one file."""
        was_failed = self.failed.pop(name, None) is not None
        if told.end == "failed":
            self._count(told.code)
            self.failed[name] = Failed(told.at, known)
            if len(self.failed) > _FAILED_MAX:
                self.failed.pop(next(iter(self.failed)))
            self.ended[name] = told
            return
        if told.end == "given":
            self.files += 1
            self.bytes += size
            self.last_file_at = told.at
        # Of a file that was never told as failed the node need not hear: it has its run.
        self.ended.pop(name, None)
        if was_failed or told.asked or name in self.asked:
            self.ended[name] = told

    def take_wish(self, wish: SourceWish, at: datetime) -> bool:
        """Note what people want; whether a look is due now."""
        if wish.resume > self.heard_resume:
            self.heard_resume = wish.resume
            self.is_stopped, self.failures = False, 0
            self.next_look_at = at
        if wish.look > self.heard_look:
            self.heard_look = wish.look
            self.next_look_at = at
        return self.next_look_at is None or self.next_look_at <= at

    def new_wishes(self, wish: SourceWish) -> list[FileWish]:
        """Wishes for files that were not heard before."""
        return [f for f in wish.files if f.asked > self.asked.get(f.name, 0)]

    def note_heard(self, told: tuple[FileTold, ...]) -> None:
        """The node has heard what became of these files."""
        for one in told:
            if self.ended.get(one.name) == one:
                del self.ended[one.name]
                if one.end != "failed":
                    self.asked.pop(one.name, None)

    def to_tell(self) -> tuple[FileTold, ...]:
        """What the node has not heard of files."""
        return tuple(self.ended.values())[:FILES_MAX]

    def _count(self, code: str) -> None:
        code = code[:60]
        key = code if code in self.faults or len(self.faults) < _FAULTS_MAX - 1 else "other"
        self.faults[key] = self.faults.get(key, 0) + 1


def rest_s(failures: int, after_s: float = 0.0) -> float:
    """Seconds before a source that has failed so often in a row is looked at again."""
    bound = min(REST.most_s, REST.first_s * 2.0 ** min(failures, 30))
    return max(after_s, bound / 2 + min(bound / 2, wait_before(REST, failures)))


def ended(
    name: str, end: Literal["failed", "given", "dismissed"], at: datetime, *,
    trouble: Trouble | None = None, asked: int = 0,
) -> FileTold:  # fmt: skip
    """What became of a file, in the words that the node is told."""
    code, detail = (trouble.code, trouble.detail) if trouble is not None else ("", "")
    return FileTold(name=name, end=end, at=at, code=code[:60], detail=detail[:300], asked=asked)


def read_standing(data: Path, key: str) -> Standing:
    """How a source stood when it was kept last; an unreadable note is as good as none."""
    try:
        return msgspec.json.decode(_path(data, key).read_bytes(), type=Standing)
    except (OSError, msgspec.DecodeError):
        return Standing()


def write_standing(data: Path, key: str, standing: Standing) -> None:
    """Keep it, whole or as it was."""
    path = _path(data, key)
    draft = path.with_name(path.name + ".part")
    with draft.open("wb") as file:
        file.write(msgspec.json.encode(standing))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _path(data: Path, key: str) -> Path:
    # A key has no dot, so no book is called like it.
    return data / "books" / f"{key}.standing.json"
