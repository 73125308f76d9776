"""A record as the log makes it: `fold` applies one entry to a state, and nothing else does.

The write path and replication project with this function and the rebuild replays the log with it,
so tables and log cannot disagree, and neither can two nodes. A record that nobody wrote beside
another takes an entry straight; else its registers decide (`appliance.kernel.beside`).
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from functools import partial
from uuid import UUID

import msgspec

from appliance.base.clock import hlc_moment
from appliance.base.ids import uuid_of
from appliance.kernel.arrival import GOT, HAD, LATER, OPEN, is_late, knew
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
from appliance.kernel.registers import Leaf, Registers, join, merge, qualified
from appliance.kernel.shown import Conflict, show
from appliance.kernel.stamps import EXISTS, NUMBER, OWNER, UNIT, Stamps

__all__ = [
    "GOT", "HAD", "NUMBER", "OWNER", "UNIT", "RecordState", "closed", "conflicts_of", "fold",
    "registers_of",
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


_NOTHING: Mapping[str, object] = {}


class _All:
    """What whoever writes here knows: everything that is live."""

    def has(self, dot: str) -> bool:
        return True

    heard = has

    def leaf(self, dot: str) -> Leaf:
        raise AssertionError("an author here has seen what is live")


def fold(
    state: RecordState | None,
    entry: Entry,
    kind: Kind | None = None,
    known: Known | None = None,
    *,
    brings: bool = False,
) -> RecordState:
    """The state after `entry`. The log guarantees that a state exists for all but NEW.

    `kind` and `known` are needed where somebody may have written beside somebody else: `kind` is
    that of the record (one with no fields where the schema does not know it). `brings`: a move from
    where this node does not look, whose state is joined with what is here.
    """
    at = hlc_moment(entry.hlc)
    if state is None:
        assert entry.op in (EntryOp.NEW, EntryOp.ARRIVE), f"{entry.op} of a record not created"
        if entry.op is EntryOp.NEW:
            return _born(entry, at)
        return _arrived(entry, kind or Kind(key=entry.kind), known or _All())
    is_deleted = state.deleted_at is not None
    joins = entry.op is EntryOp.NEW or is_late(entry) or brings
    straight = state.open is None and not joins
    if not straight or not is_straight(state.stamps, state.stream, entry, is_deleted=is_deleted):
        kind, known = kind or Kind(key=state.kind), known or _All()
        if entry.op is EntryOp.ARRIVE and joins:
            return _joined(state, entry, kind, known)
        return _beside(state, entry, kind, known)
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


def touch(state: RecordState, entry: Entry) -> RecordState:
    """The state after an entry that it knows of already, but perhaps not when that was."""
    at, actor = touched_by(entry)
    return msgspec.structs.replace(state, **_touched(state, at, actor))


def touched_by(entry: Entry) -> tuple[datetime, UUID]:
    """Who touched a record last as an entry has it. A mover's word of who was before it counts only
    where that was later: it may be of a clock that was ahead of all others.
    """
    at, touched = (hlc_moment(entry.hlc), entry.actor), entry.body.ext.get("touched")
    if not isinstance(touched, list):
        return at
    before = datetime.fromisoformat(str(touched[0])), UUID(str(touched[1]))
    if is_late(entry):
        return before
    return max(at, before) if entry.body.ext.get(LATER) is True else at


def _beside(state: RecordState, entry: Entry, kind: Kind, known: Known) -> RecordState:
    """The state after an entry whose author saw something else than what is here."""
    record = registers_of(state, kind, known)
    at = hlc_moment(entry.hlc)
    home = entry.stream if entry.op is EntryOp.ARRIVE else state.stream
    touched = _touched(state, at, entry.actor)
    if entry.op is not EntryOp.MOVE:
        merge(record, entry, known.has)
    if entry.op is EntryOp.NEW and at < state.created_at:
        touched |= {"created_at": at, "created_by": entry.actor}
    return closed(msgspec.structs.replace(state, stream=home, **touched), record, kind, known)


def _joined(state: RecordState, entry: Entry, kind: Kind, known: Known) -> RecordState:
    """The state after an arrival that brings what was written where this node does not look."""
    carried = _carried(entry)
    record, other = registers_of(state, kind, known), registers_of(carried, kind, known)
    join(record, other, known.heard, partial(knew, entry))
    if not is_late(entry):
        merge(record, entry, known.has)
    changes = _touched(state, *touched_by(entry))
    if carried.created_at < state.created_at:
        # Of a clock that was ahead, where whoever moved it first had not heard that it was cut.
        changes |= {"created_at": carried.created_at, "created_by": carried.created_by}
    after = msgspec.structs.replace(state, stream=entry.stream, **changes)
    return closed(after, record, kind, known)


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


def _arrived(entry: Entry, kind: Kind, known: Known) -> RecordState:
    """A record that was moved here from a stream that this node does not hold."""
    state = _carried(entry)
    if is_late(entry):
        return state
    at, actor = touched_by(entry)
    state = msgspec.structs.replace(state, updated_at=at, updated_by=actor)
    if state.open is not None:
        return _beside(state, entry, kind, known)
    return _put(state, entry)


def _carried(entry: Entry) -> RecordState:
    """The state that a move carries, read from its new home."""
    ext = entry.body.ext
    data, born, touched, registers = ext["data"], ext["born"], ext["touched"], ext.get(OPEN)
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
