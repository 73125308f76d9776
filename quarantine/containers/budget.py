"""What unpacking may cost, counted on real bytes, and how a walk says no.

One budget serves a whole upload with everything inside it. Parts are written below the scratch
folder and removed as soon as they were looked at, so that a walk holds one part per level.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from quarantine.contract import Policy, Verdict


class Refused(Exception):
    """The container, or one entry of it, is not taken; `name` is the entry's, if it is one's."""

    def __init__(
        self, code: str, sentence: str, verdict: Verdict = Verdict.REJECTED, name: str = ""
    ) -> None:
        super().__init__(sentence)
        self.code, self.sentence, self.verdict, self.name = code, sentence, verdict, name


class Part(msgspec.Struct, frozen=True):
    """One regular file of a container, unpacked; `name` is its path inside, with slashes."""

    name: str
    path: Path


class Note(msgspec.Struct, frozen=True):
    """Something odd about one entry that does not end the walk."""

    name: str
    code: str
    sentence: str
    verdict: Verdict = Verdict.SUSPICIOUS


class Sink:
    """One part being written; refuses the byte that is too much."""

    def __init__(self, budget: Budget, packed: int, path: Path) -> None:
        self._budget, self._packed = budget, packed
        self._file = path.open("xb")
        self.path, self.size = path, 0

    def write(self, data: bytes) -> None:
        """Take these bytes. Raises Refused when a budget is gone."""
        self.size += len(data)
        self._budget.spend(len(data), self.size, self._packed)
        self._file.write(data)

    def close(self) -> None:
        """The part is whole."""
        self._file.close()


class Budget:
    """The allowance of one upload: entries, bytes of one entry, bytes in all, ratio."""

    def __init__(self, policy: Policy, scratch: Path) -> None:
        self._policy, self._scratch = policy, scratch
        self._entries = self._bytes = self._parts = 0

    @property
    def depth_max(self) -> int:
        """How many containers deep a part may lie."""
        return self._policy.depth_max

    @property
    def entries_left(self) -> int:
        """How many more entries the upload may have."""
        return self._policy.entries_max - self._entries

    @property
    def entry_bytes_max(self) -> int:
        """How large one part may become."""
        return self._policy.entry_bytes_max

    def count_entry(self, number: int = 1) -> None:
        """Count entries, directories too. Raises Refused beyond the policy's number."""
        self._entries += number
        if self._entries > self._policy.entries_max:
            raise Refused(
                "container.entries",
                f"It has more than {self._policy.entries_max} entries. "
                "Pack fewer files into one archive.",
            )

    def spend(self, number: int, entry: int, packed: int) -> None:
        """Count `number` bytes of an entry that is now `entry` long, unpacked from `packed`."""
        policy = self._policy
        self._bytes += number
        if entry > policy.entry_bytes_max:
            raise Refused(
                "container.bomb", f"An entry unpacks to more than {policy.entry_bytes_max} bytes."
            )
        if self._bytes > policy.unpacked_bytes_max:
            raise Refused(
                "container.bomb", f"It unpacks to more than {policy.unpacked_bytes_max} bytes."
            )
        if entry > policy.ratio_after_bytes and entry > policy.ratio_max * max(packed, 1):
            raise Refused(
                "container.bomb", f"An entry unpacks to more than {policy.ratio_max} times itself."
            )

    @contextlib.contextmanager
    def sink(self, packed: int) -> Iterator[Sink]:
        """A place for one part, unpacked from `packed` bytes. The part goes when the block ends."""
        self._parts += 1
        path = self._scratch / f"part-{self._parts}"
        sink = Sink(self, packed, path)
        try:
            yield sink
        finally:
            sink.close()
            path.unlink(missing_ok=True)
