"""A record as the log makes it: `fold` applies one entry to a state, and nothing else does.

The write path and replication project with this function and the rebuild replays the log with it,
so tables and log cannot disagree, and neither can two nodes. A record that nobody wrote beside
another takes an entry straight; else its registers decide (`appliance.kernel.beside`).
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Protocol
from uuid import UUID

import msgspec

from appliance.base.clock import hlc_moment
from appliance.base.ids import uuid_of
from appliance.kernel.beside import (
    Known,
    deletion,
    is_settled,
    is_straight,
    open_closed,
    pack,
    stamps_of,
    unpack,
)
from appliance.kernel.change import Entry, EntryOp
from appliance.kernel.kind import Home, Json, Kind
from appliance.kernel.registers import Leaf, Registers, join, leaf_of, merge, qualified
from appliance.kernel.shown import Conflict, show
from appliance.kernel.stamps import EXISTS, NUMBER, OWNER, UNIT, Stamps

__all__ = [
    "NUMBER", "OWNER", "UNIT", "RecordState", "Replay", "Taken", "begins", "closed", "conflicts_of",
    "fold", "registers_of",
]  # fmt: skip


class RecordState(msgspec.Struct, frozen=True, kw_only=True):
    """One record; `data` by field id holds no nulls."""

    id: UUID
    kind: str
    stream: UUID
    unit: UUID | None
    owner: UUID | None
    number: str | None
    data: dict[str, Json]
    stamps: Stamps
    created_at: datetime
    created_by: UUID
    updated_at: datetime
    updated_by: UUID
    deleted_at: datetime | None = None
    deleted_by: UUID | None = None
    # Registers, while somebody has written beside somebody else.
    open: bytes | None = None


# Key of an arrival's `ext` when it brings what came late through the former home: the entries of
# the new one that its sender had, by origin.
GOT = "got"
_NOTHING: Mapping[str, object] = {}


class _All:
    """What whoever writes here knows: everything that is live."""

    def has(self, dot: str) -> bool:
        return True

    def leaf(self, dot: str) -> Leaf:
        raise AssertionError("an author here has seen what is live")


def fold(
    state: RecordState | None, entry: Entry, kind: Kind | None = None, known: Known | None = None
) -> RecordState:
    """The state after `entry`. The log guarantees that a state exists for all but NEW.

    `kind` and `known` are needed where somebody may have written beside somebody else: `kind` is
    that of the record (one with no fields where the schema does not know it).
    """
    at = hlc_moment(entry.hlc)
    if state is None:
        assert entry.op in (EntryOp.NEW, EntryOp.ARRIVE), f"{entry.op} of a record not created"
        if entry.op is EntryOp.NEW:
            return _born(entry, at)
        return _arrived(entry, at, kind or Kind(key=entry.kind), known or _All())
    is_deleted = state.deleted_at is not None
    joins = entry.op is EntryOp.NEW or GOT in entry.body.ext
    straight = state.open is None and not joins
    if not straight or not is_straight(state.stamps, state.stream, entry, is_deleted=is_deleted):
        return _beside(state, entry, kind or Kind(key=state.kind), known or _All())
    if entry.op is EntryOp.PUT:
        return _put(state, entry, _touched(state, at, entry.actor))
    after = msgspec.structs.replace(state, **_touched(state, at, entry.actor))
    match entry.op:
        case EntryOp.DEL:
            stamps = state.stamps.with_(_dot(state, entry), [EXISTS])
            return msgspec.structs.replace(
                after, stamps=stamps, deleted_at=at, deleted_by=entry.actor
            )
        case EntryOp.UNDEL:
            stamps = state.stamps.with_(_dot(state, entry), [EXISTS])
            return msgspec.structs.replace(after, stamps=stamps, deleted_at=None, deleted_by=None)
        case EntryOp.MOVE:
            # The record has left this stream; its arrival in the next one follows.
            return after
        case EntryOp.ARRIVE:
            stamps = state.stamps.qualified(leaving=state.stream, entering=entry.stream)
            after = msgspec.structs.replace(after, stream=entry.stream, stamps=stamps)
            return _put(after, entry)
        case _:
            return _put(after, entry)


def _touched(state: RecordState, at: datetime, actor: UUID) -> dict[str, object]:
    """Who touched it last: the same whichever of two came first."""
    if at > state.updated_at:
        return {"updated_at": at, "updated_by": actor}
    return {"updated_by": max(actor, state.updated_by)} if at == state.updated_at else {}


def _beside(state: RecordState, entry: Entry, kind: Kind, known: Known) -> RecordState:
    """The state after an entry whose author saw something else than what is here."""
    record = registers_of(state, kind, known)
    at = hlc_moment(entry.hlc)
    home = entry.stream if entry.op is EntryOp.ARRIVE else state.stream
    touched = _touched(state, at, entry.actor)
    if entry.op is EntryOp.ARRIVE and GOT in entry.body.ext:
        carried = _carried(entry)
        other = registers_of(carried, kind, known)
        join(record, other, known.has, partial(_sender_has, entry))
        touched = _touched(state, carried.updated_at, carried.updated_by)
    elif entry.op is not EntryOp.MOVE:
        merge(record, entry, known.has)
    if entry.op is EntryOp.NEW and at < state.created_at:
        touched |= {"created_at": at, "created_by": entry.actor}
    return closed(msgspec.structs.replace(state, stream=home, **touched), record, kind, known)


def registers_of(state: RecordState, kind: Kind, known: Known) -> Registers:
    """The registers of a record, whether it is open or closed."""
    if state.open is not None:
        return unpack(state.open)
    held: dict[str, Json] = {
        **state.data,
        UNIT: str(state.unit) if state.unit else None,
        OWNER: str(state.owner) if state.owner else None,
        NUMBER: state.number,
    }
    if EXISTS in state.stamps.live:
        held[EXISTS] = state.deleted_at is None
    return open_closed(kind, state.stream, state.stamps, held, known)


def closed(state: RecordState, record: Registers, kind: Kind, known: Known) -> RecordState:
    """A state that says what its registers say; they stay with it while they are needed."""
    shown = show(record, kind)
    data = {fid: value for fid, value in shown.data.items() if not fid.startswith("@")}
    unit = _uuid(shown.data.get(UNIT))
    # A record lives in the stream of its unit; of two moves one wins, and it lives there.
    home = unit if unit is not None and kind.fields and kind.home is Home.UNIT else state.stream
    gone = deletion(record) if shown.is_deleted else None
    return msgspec.structs.replace(
        state, stream=home, data=data, unit=unit, owner=_uuid(shown.data.get(OWNER)),
        number=_text(shown.data.get(NUMBER)), stamps=stamps_of(record, home),
        deleted_at=hlc_moment(gone.hlc) if gone else None, deleted_by=gone.actor if gone else None,
        open=None if is_settled(record, shown, known.has) else pack(record, kind, known.has),
    )  # fmt: skip


def conflicts_of(state: RecordState, kind: Kind) -> tuple[Conflict, ...]:
    """What waits for somebody to decide in a record."""
    return show(unpack(state.open), kind).conflicts if state.open is not None else ()


def begins(entry: Entry, holds: Callable[[UUID], bool]) -> bool:
    """Whether a record can begin here with an entry. One that was moved begins in the stream that
    it came from where that is held: what was written there and is not here yet could not be told
    from what its author saw.
    """
    if entry.op is EntryOp.ARRIVE:
        return not holds(UUID(str(entry.body.ext["from"])))
    return entry.op is EntryOp.NEW


class Keeps(Known, Protocol):
    """What a node has of the log, and which streams it holds."""

    def take(self, entry: Entry) -> None:
        """From now on the entry has come."""

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
        self._kind, self._known = kind, known or Taken(lambda _: False)
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

    def _leaves(self, entry: Entry) -> bool:
        return self._is_held is not None and not self._is_held(UUID(str(entry.body.ext["to"])))

    def _is_told_twice(self, entry: Entry) -> bool:
        """What came late through a former home comes by that stream, where it is held."""
        return (
            GOT in entry.body.ext
            and self.state is not None
            and self._known.holds(UUID(str(entry.body.ext["from"])))
        )


class Taken:
    """What is known of a log that is read from its beginning."""

    def __init__(self, holds: Callable[[UUID], bool]) -> None:
        self.holds = holds
        self._leaves: dict[str, Leaf] = {}

    def take(self, entry: Entry) -> None:
        """From now on the entry has come."""
        self._leaves[qualified(entry.dot, entry.stream)] = leaf_of(entry, entry.body.fields)

    def has(self, dot: str) -> bool:
        """Whether an entry has been taken here."""
        return dot in self._leaves

    def leaf(self, dot: str) -> Leaf:
        """Clock and author of an entry that was taken here."""
        return self._leaves.get(dot) or Leaf({}, 0, UUID(int=0))


def _arrived(entry: Entry, at: datetime, kind: Kind, known: Known) -> RecordState:
    """A record that was moved here from a stream that this node does not hold."""
    state = _carried(entry)
    if GOT in entry.body.ext:
        return state
    if state.open is not None:
        return _beside(state, entry, kind, known)
    return _put(msgspec.structs.replace(state, **_touched(state, at, entry.actor)), entry)


def _carried(entry: Entry) -> RecordState:
    """The state that a move carries, read from its new home."""
    ext = entry.body.ext
    data, born, touched, registers = ext["data"], ext["born"], ext["touched"], ext.get("open")
    stamps = Stamps.parse(str(ext["stamps"]))
    assert isinstance(data, dict) and isinstance(born, list) and stamps is not None
    assert isinstance(touched, list)
    deleted = ext.get("deleted")
    gone = deleted if isinstance(deleted, list) else None
    return RecordState(
        id=entry.record_id, kind=entry.kind, stream=entry.stream,
        unit=_uuid(ext.get(UNIT)), owner=_uuid(ext.get(OWNER)), number=_text(ext.get("number")),
        data=dict(data), stamps=stamps,
        created_at=datetime.fromisoformat(str(born[0])), created_by=UUID(str(born[1])),
        updated_at=datetime.fromisoformat(str(touched[0])), updated_by=UUID(str(touched[1])),
        deleted_at=datetime.fromisoformat(str(gone[0])) if gone else None,
        deleted_by=UUID(str(gone[1])) if gone else None,
        open=b64decode(registers) if isinstance(registers, str) else None,
    )  # fmt: skip


def _sender_has(entry: Entry, dot: str) -> bool:
    """Whether the node that carried a state over had taken an entry by then."""
    name, _, stream = dot.partition("@")
    origin, _, oseq = name.partition(".")
    got = entry.body.ext[GOT]
    if stream != entry.stream.hex or not isinstance(got, dict):
        return True
    return int(oseq) <= int(str(got.get(origin, 0)))


def _born(entry: Entry, at: datetime) -> RecordState:
    fields = entry.body.fields
    data: dict[str, Json] = {
        k: v for k, v in fields.items() if not k.startswith("@") and v is not None
    }
    return RecordState(
        id=entry.record_id,
        kind=entry.kind,
        stream=entry.stream,
        unit=_uuid(fields.get(UNIT)),
        owner=_uuid(fields.get(OWNER)),
        number=_text(fields.get(NUMBER)),
        data=data,
        stamps=Stamps((entry.dot,)),
        created_at=at,
        created_by=entry.actor,
        updated_at=at,
        updated_by=entry.actor,
    )


def _put(state: RecordState, entry: Entry, touched: Mapping[str, object] = _NOTHING) -> RecordState:
    """Values of an entry over a state; each register it names is covered by its dot."""
    data = dict(state.data)
    system = dict(touched)
    body = entry.body
    for fid, value in body.fields.items():
        if fid == UNIT:
            system["unit"] = _uuid(value)
        elif fid == OWNER:
            system["owner"] = _uuid(value)
        elif fid == NUMBER:
            system["number"] = _text(value)
        else:
            _set(data, fid, value)
    for fid, (added, removed) in body.sets.items():
        now = data.get(fid)
        members = {m for m in now if isinstance(m, str)} if isinstance(now, list) else set()
        _set(data, fid, [*sorted((members | set(added)) - set(removed))] or None)
    for fid, delta in body.deltas.items():
        _set(data, fid, str(Decimal(str(data.get(fid, "0"))) + Decimal(delta)))
    stamps = state.stamps.with_(_dot(state, entry), body.base)
    return msgspec.structs.replace(state, data=data, stamps=stamps, **system)


def _dot(state: RecordState, entry: Entry) -> str:
    """The dot of an entry as the record writes it: an edit may come through a former home."""
    return entry.dot if entry.stream == state.stream else qualified(entry.dot, entry.stream)


def _set(data: dict[str, Json], fid: str, value: Json) -> None:
    if value is None:
        data.pop(fid, None)
    else:
        data[fid] = value


def _uuid(value: Json) -> UUID | None:
    return uuid_of(value) if isinstance(value, str) else None


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) else None
