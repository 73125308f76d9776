"""A record as the log makes it: `fold` applies one entry to a state, and nothing else does.

The write path projects with this function and the rebuild replays the log with it, so tables
and log cannot disagree (tests/write/test_rebuild.py).
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec

from appliance.base.clock import hlc_moment
from appliance.base.ids import uuid_of
from appliance.kernel.change import Entry, EntryOp
from appliance.kernel.kind import Json
from appliance.kernel.stamps import EXISTS, Stamps

UNIT, OWNER, NUMBER = "@unit", "@owner", "@number"


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


def fold(state: RecordState | None, entry: Entry) -> RecordState:
    """The state after `entry`. The log guarantees that a state exists for all but NEW."""
    at = hlc_moment(entry.hlc)
    if entry.op is EntryOp.NEW:
        return _born(entry, at)
    assert state is not None, f"{entry.op} of a record that the log has not created"
    after = msgspec.structs.replace(
        state, updated_at=max(state.updated_at, at), updated_by=entry.actor
    )
    match entry.op:
        case EntryOp.DEL:
            stamps = state.stamps.with_(entry.dot, [EXISTS])
            return msgspec.structs.replace(
                after, stamps=stamps, deleted_at=at, deleted_by=entry.actor
            )
        case EntryOp.UNDEL:
            stamps = state.stamps.with_(entry.dot, [EXISTS])
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


def _put(state: RecordState, entry: Entry) -> RecordState:
    """Values of an entry over a state; each register it names is covered by its dot."""
    data = dict(state.data)
    system: dict[str, object] = {}
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
    stamps = state.stamps.with_(entry.dot, body.base)
    return msgspec.structs.replace(state, data=data, stamps=stamps, **system)


def _set(data: dict[str, Json], fid: str, value: Json) -> None:
    if value is None:
        data.pop(fid, None)
    else:
        data[fid] = value


def _uuid(value: Json) -> UUID | None:
    return uuid_of(value) if isinstance(value, str) else None


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) else None
