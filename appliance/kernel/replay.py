"""One record out of its entries, in whatever order they come, as far as a node holds their streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from appliance.kernel.arrival import has_past, is_late, knew, learn, vectors_of
from appliance.kernel.beside import Known
from appliance.kernel.change import Entry, EntryOp
from appliance.kernel.kind import Kind
from appliance.kernel.record import RecordState, fold, touch
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


def is_beyond(entry: Entry, holds: Callable[[UUID], bool]) -> bool:
    """Whether an arrival tells of streams that a node does not hold: what it brings is joined then,
    because that node has not all the entries it follows from.
    """
    if entry.op is not EntryOp.ARRIVE:
        return False
    streams = {came_from(entry), *(stream for stream, _ in vectors_of(entry))}
    return not all(map(holds, streams))


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
        # Moves from where this node does not look, that say what their author had.
        self._brought: list[Entry] = []
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
            if is_first and _is_in(entry, waiting):
                # What was before it came here is in what it brought.
                self._known.take(waiting)
                self._touch(waiting)
            else:
                self._fold(waiting)
        return self.state

    def _fold(self, entry: Entry) -> None:
        self._known.take(entry)
        if any(knew(a, qualified(entry.dot, entry.stream)) for a in self._brought):
            # It is in what was brought, also if its clock says that it was later.
            self._known.hear(entry)
            self._touch(entry)
            return
        if entry.op is EntryOp.MOVE and self._leaves(entry):
            self.has_left = True
            return
        brings = False
        if entry.op is EntryOp.ARRIVE:
            if self._is_told_twice(entry):
                return
            brings = is_late(entry) or self._brings(entry)
            if brings:
                self._brought.append(entry)
            elif self.has_left and is_beyond(entry, self._known.holds):
                # It comes back as it became where this node does not look.
                self.state = None
            self.has_left = False
        self.state = fold(self.state, entry, self._kind, self._known, brings=brings)
        self._known.hear(entry)

    def _touch(self, entry: Entry) -> None:
        if self.state is not None:
            self.state = touch(self.state, entry)

    def _brings(self, entry: Entry) -> bool:
        """Whether a move is of a record that was where this node does not look, and says what its
        author knew.
        """
        return self._is_held is not None and has_past(entry) and is_beyond(entry, self._is_held)

    def _leaves(self, entry: Entry) -> bool:
        return self._is_held is not None and not self._is_held(UUID(str(entry.body.ext["to"])))

    def _is_told_twice(self, entry: Entry) -> bool:
        """What came late through a former home comes by that stream, where it is held."""
        return is_late(entry) and self.state is not None and not is_beyond(entry, self._known.holds)


def _is_in(arrival: Entry, entry: Entry) -> bool:
    """Whether an entry was before a move; by the clock where the move does not say what it knew."""
    if has_past(arrival):
        return knew(arrival, qualified(entry.dot, entry.stream))
    return arrival.op is EntryOp.ARRIVE and entry.hlc < arrival.hlc


class Taken:
    """What is known of a log that is read from its beginning."""

    def __init__(self, holds: Callable[[UUID], bool] | None = None) -> None:
        self._is_held = holds
        self._leaves: dict[str, Leaf] = {}
        self._marks: dict[str, Leaf] = {}
        self._heard: set[str] = set()

    def take(self, entry: Entry) -> None:
        """From now on the entry has come."""
        learn(self._marks, [entry])
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
        """Clock and author of an entry that was taken here, or that a move has told of."""
        return self._leaves.get(dot) or self._marks.get(dot) or Leaf({}, 0, UUID(int=0))
