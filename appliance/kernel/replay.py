"""One record out of its entries, in whatever order they come, as far as a node holds their streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from appliance.kernel.beside import Known
from appliance.kernel.change import Entry, EntryOp
from appliance.kernel.kind import Kind
from appliance.kernel.record import GOT, RecordState, fold
from appliance.kernel.registers import Leaf, leaf_of, qualified


def begins(entry: Entry, holds: Callable[[UUID], bool]) -> bool:
    """Whether a record can begin here with an entry. One that was moved begins in the stream that
    it came from where that is held: what was written there and is not here yet could not be told
    from what its author saw.
    """
    if entry.op is EntryOp.ARRIVE:
        return not holds(came_from(entry))
    return entry.op is EntryOp.NEW


def came_from(entry: Entry) -> UUID:
    """The former home that an arrival names."""
    return UUID(str(entry.body.ext["from"]))


def is_told(entry: Entry) -> bool:
    """Whether an arrival tells what came late through a former home."""
    return entry.op is EntryOp.ARRIVE and GOT in entry.body.ext


def told_of(entry: Entry) -> set[str]:
    """The entries that one says are there, or replaces."""
    found = {qualified(dot, entry.stream) for base in entry.body.base.values() for dot in base}
    if entry.op is EntryOp.ARRIVE:
        found |= {qualified(dot, entry.stream) for dot in entry.body.seen}
    return found


class Keeps(Known, Protocol):
    """What a node has of the log, and which streams it holds."""

    def take(self, entry: Entry) -> None:
        """From now on the entry has come."""

    def hear(self, entry: Entry) -> None:
        """What an entry said of others is known from now on."""

    def holds(self, stream: UUID) -> bool:
        """Whether this node holds a stream."""


class Replay:
    """One record out of its entries, in whatever order they come. `has_left`: its unit is none of
    this node's any more.

    Without `known` these are all there are, and every stream is looked at by itself.
    """

    def __init__(
        self, kind: Kind | None, known: Keeps | None = None, state: RecordState | None = None
    ) -> None:
        self._kind, self._known = kind, known or Taken()
        self._is_held = known.holds if known else None
        self._early: list[Entry] = []
        self.state = state
        self.has_left = False

    def take(self, entry: Entry) -> RecordState | None:
        """The state after an entry; None while its creation has not come."""
        if self.state is None and not begins(entry, self._known.holds):
            self._early.append(entry)
            return None
        is_first = self.state is None
        self._fold(entry)
        early, self._early = self._early, []
        for waiting in early:
            if is_first and entry.op is EntryOp.ARRIVE and waiting.hlc < entry.hlc:
                # What was before it came here is in what it brought.
                self._known.take(waiting)
            else:
                self._fold(waiting)
        return self.state

    def _fold(self, entry: Entry) -> None:
        self._known.take(entry)
        if entry.op is EntryOp.MOVE and self._leaves(entry):
            self.has_left = True
            return
        if entry.op is EntryOp.ARRIVE:
            if self._is_told_twice(entry):
                return
            if self.has_left and GOT not in entry.body.ext:
                # It comes back as it became where this node does not look.
                self.state = None
            self.has_left = False
        self.state = fold(self.state, entry, self._kind, self._known)
        self._known.hear(entry)

    def _leaves(self, entry: Entry) -> bool:
        return self._is_held is not None and not self._is_held(UUID(str(entry.body.ext["to"])))

    def _is_told_twice(self, entry: Entry) -> bool:
        """What came late through a former home comes by that stream, where it is held."""
        return is_told(entry) and self.state is not None and self._known.holds(came_from(entry))


class Taken:
    """What is known of a log that is read from its beginning."""

    def __init__(self, holds: Callable[[UUID], bool] | None = None) -> None:
        self._is_held = holds
        self._leaves: dict[str, Leaf] = {}
        self._heard: set[str] = set()

    def take(self, entry: Entry) -> None:
        """From now on the entry has come."""
        self._leaves[qualified(entry.dot, entry.stream)] = leaf_of(entry, entry.body.fields)

    def hear(self, entry: Entry) -> None:
        """What an entry said of others is known from now on."""
        self._heard |= told_of(entry)

    def has(self, dot: str) -> bool:
        """Whether an entry has been taken here; one of a stream that is not is not waited for."""
        return dot in self._leaves or not self._is_here(dot)

    def holds(self, stream: UUID) -> bool:
        """Whether a stream is looked at; a record may begin with an arrival from any other."""
        return self._is_held is not None and self._is_held(stream)

    def heard(self, dot: str) -> bool:
        """Whether an entry has been taken or, of a stream that is not here, told of."""
        return dot in (self._leaves if self._is_here(dot) else self._heard)

    def _is_here(self, dot: str) -> bool:
        return self._is_held is None or self._is_held(UUID(dot.rpartition("@")[2]))

    def leaf(self, dot: str) -> Leaf:
        """Clock and author of an entry that was taken here."""
        return self._leaves.get(dot) or Leaf({}, 0, UUID(int=0))
