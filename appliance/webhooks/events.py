"""Events out of the log: what a webhook has to tell next, in an order that holds for each record.

Promises: an entry becomes the same event with the same id however often it is read, on every node;
what is read is every entry behind the cursor and nothing else, for a stream's order is that of its
commits; a record that moved between streams keeps its order, because the streams are merged by the
clock that an entry's author had, which never runs against what they had seen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from heapq import merge
from uuid import UUID

import msgspec

from appliance.base.clock import hlc_moment
from appliance.base.ids import uuid_of
from appliance.db.wire import Call, Row, Rows, Statement
from appliance.kernel.change import decode_body
from appliance.write.trail import NOT_PARKED

BATCH = 500
PING = "ping"
_OF_OP = {"new": "created", "put": "updated", "arrive": "updated", "del": "deleted",
          "undel": "restored"}  # fmt: skip
_ENTRY = (
    "change.seq, change.origin, change.oseq, change.ehlc, change.actor::text AS actor, change.kind, "
    "change.record_id::text AS record_id, change.op, change.change_set::text AS change_set, "
    "change.body"
)
# One statement, so that heads and entries are of one moment: a head that is ahead of the entries
# that were seen would skip some.
_BEHIND = Statement(
    "SELECT s.id::text, s.head, s.floor, "
    "coalesce((w.cursors->>s.id::text)::bigint, 0), e.seq, e.origin, e.oseq, e.ehlc, "
    "e.actor, e.kind, e.record_id, e.op, e.change_set, e.body, s.id::text "
    "FROM webhook w JOIN stream s ON s.tenant_id = $1 "
    "AND s.head > coalesce((w.cursors->>s.id::text)::bigint, 0) "
    f"LEFT JOIN LATERAL (SELECT {_ENTRY} FROM change WHERE change.tenant_id = $1 "
    "AND change.stream = s.id AND change.seq > coalesce((w.cursors->>s.id::text)::bigint, 0) "
    "AND (change.kind = ANY($3::text[]) OR change.op = 'resolve') "
    f"AND {NOT_PARKED} ORDER BY change.seq LIMIT $4) e ON true "
    "WHERE w.tenant_id = $1 AND w.id = $2 ORDER BY s.id, e.seq"
)
# What was held back and is let in now. It comes where the decision stands.
_RELEASED = Statement(
    f"SELECT p.id::text, NULL, NULL, NULL, {_ENTRY}, "
    "p.stream::text FROM parked p JOIN change ON change.tenant_id = $1 "
    "AND change.stream = p.stream AND change.origin = p.origin AND change.oseq >= p.oseq "
    "AND change.oseq < p.oseq + p.entries WHERE p.tenant_id = $1 AND p.id = ANY($2::uuid[]) "
    "AND p.state = 'released' AND change.kind = ANY($3::text[]) ORDER BY p.id, change.oseq"
)


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something to tell: of which record, done by whom; `fids` are the fields that were written."""

    id: UUID
    kind: str
    record: UUID
    action: str
    fids: tuple[str, ...]
    actor: UUID
    change_set: UUID
    at: datetime
    stream: UUID | None = None
    seq: int | None = None


class Found(msgspec.Struct, frozen=True):
    """Events in order, and how far the log is read with them. `is_cut`: entries had left the log."""

    events: list[Event]
    cursors: dict[str, int]
    is_cut: bool
    is_more: bool


class _Line(msgspec.Struct, frozen=True, order=True):
    """One entry in the merge; `clock` never falls inside a stream."""

    clock: int
    stream: str
    seq: int
    row: Row


def event_id(webhook: UUID, stream: UUID, origin: int, oseq: int) -> UUID:
    """The id by which a receiver knows a repeat: of the webhook and the entry's own name."""
    name = webhook.bytes + stream.bytes + b"%d.%d" % (origin, oseq)
    digest = blake2b(name, digest_size=16, person=b"nexus webhook").digest()
    value = int.from_bytes(digest, "big")
    value = value & ~(0xF << 76) | 8 << 76
    return UUID(int=value & ~(0x3 << 62) | 2 << 62)


def behind_call(tenant: UUID, webhook: UUID, kinds: Collection[str], limit: int = BATCH) -> Call:
    """Ask for what stands behind the cursor of a webhook."""
    return _BEHIND, (tenant, webhook, sorted(kinds), limit)


def released_call(tenant: UUID, decisions: Collection[UUID], kinds: Collection[str]) -> Call:
    """Ask for the entries that decisions have let in."""
    return _RELEASED, (tenant, sorted(decisions), sorted(kinds))


def decisions_of(rows: Rows) -> set[UUID]:
    """The ids of what was decided about, among rows of `behind_call`."""
    return {uuid_of(_text(row[10])) for row in rows if row[11] == b"resolve"}


def read_events(
    rows: Rows, released: Mapping[UUID, Sequence[Row]], webhook: UUID,
    actions: Mapping[str, Collection[str]], limit: int = BATCH,
) -> Found:  # fmt: skip
    """The events of rows of `behind_call`, merged. `actions` by kind are those that are wanted."""
    streams: dict[str, list[Row]] = {}
    cursors: dict[str, int] = {}
    heads: dict[str, int] = {}
    is_cut = False
    for row in rows:
        stream, head, floor, cursor = _text(row[0]), *(int(v or 0) for v in row[1:4])
        heads[stream] = head
        cursors.setdefault(stream, cursor)
        is_cut = is_cut or 0 < cursor < floor
        lines = streams.setdefault(stream, [])
        if row[4] is not None:
            lines.append(row)
    full = {s for s, lines in streams.items() if len(lines) >= limit}
    taken = dict.fromkeys(streams, 0)
    events: list[Event] = []
    stop = False
    for line in merge(*(_lines(s, lines) for s, lines in streams.items())):
        for row in _meant(line.row, released):
            if (event := _event(row, line, webhook, actions)) is not None:
                events.append(event)
        taken[line.stream] += 1
        cursors[line.stream] = line.seq
        if len(events) >= limit or (line.stream in full and taken[line.stream] == limit):
            # What comes next may stand in the stream of which no more was read.
            stop = True
            break
    for stream, lines in streams.items():
        if taken[stream] == len(lines) and stream not in full:
            cursors[stream] = heads[stream]
    return Found(events, cursors, is_cut, stop)


def _lines(stream: str, rows: Sequence[Row]) -> Iterator[_Line]:
    clock = 0
    for row in rows:
        clock = max(clock, int(row[7] or 0))
        yield _Line(clock, stream, int(row[4] or 0), row)


def _meant(row: Row, released: Mapping[UUID, Sequence[Row]]) -> Sequence[Row]:
    if row[11] == b"resolve":
        return released.get(uuid_of(_text(row[10])), ())
    return (row,)


def _event(
    row: Row, line: _Line, webhook: UUID, actions: Mapping[str, Collection[str]]
) -> Event | None:
    kind, op = _text(row[9]), _text(row[11])
    action, wanted = _OF_OP.get(op), actions.get(kind, ())
    # Out of sight a record goes by an edit or a move: that is found out when it is told.
    if action is None or not (action in wanted or (action == "updated" and "left" in wanted)):
        return None
    body = decode_body(bytes.fromhex(_text(row[13])[2:]))
    stream = UUID(_text(row[14]))
    return Event(
        id=event_id(webhook, stream, int(row[5] or 0), int(row[6] or 0)), kind=kind,
        record=uuid_of(_text(row[10])), action=action,
        fids=tuple(sorted({*body.fields, *body.sets, *body.deltas})),
        actor=uuid_of(_text(row[8])), change_set=uuid_of(_text(row[12])),
        at=hlc_moment(int(row[7] or 0)), stream=UUID(line.stream), seq=line.seq,
    )  # fmt: skip


def _text(value: bytes | None) -> str:
    return (value or b"").decode()
