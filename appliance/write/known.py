"""What this node has of a tenant's log, as the merge core asks for it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from uuid import UUID

from appliance.base.ids import uuid_of
from appliance.db.columns import Column
from appliance.db.values import bytea_of, text_of
from appliance.db.wire import Call, Rows, Statement
from appliance.kernel.arrival import learn
from appliance.kernel.change import Entry
from appliance.kernel.registers import Leaf, earlier, leaf_of, qualified
from appliance.kernel.replay import told_of
from appliance.write.carried import Had, decode_had, decode_leaves
from appliance.write.trail import FOLDED, NOT_PARKED, Runs, read_entry

_VECTORS = Statement(
    "SELECT stream::text, origin, got FROM stream_vector WHERE tenant_id = $1 UNION ALL "
    "SELECT id::text, origin, oseq FROM stream WHERE tenant_id = $1"
)
_PARKED = Statement(
    "SELECT stream::text, origin, oseq, entries FROM parked WHERE tenant_id = $1 AND is_logged "
    "AND state <> 'released'"
)
LEAVES = Statement(
    "SELECT c.* FROM unnest($2::uuid[], $3::bigint[], $4::bigint[]) AS u(s, o, q) "
    f"CROSS JOIN LATERAL (SELECT {FOLDED} FROM change WHERE tenant_id = $1 "
    "AND stream = u.s AND origin = u.o AND oseq = u.q OFFSET 0) AS c"
)


# What moves have told of entries that are not here.
_TOLD = Statement(
    f"SELECT {FOLDED} FROM change WHERE tenant_id = $1 AND record_id = ANY($2::uuid[]) "
    f"AND op = 'arrive' AND {NOT_PARKED}"
)
_BASES = Statement(
    "SELECT leaves FROM record_base WHERE tenant_id = $1 AND record_id = ANY($2::uuid[])"
)
_CUT = Statement(
    "SELECT record_id::text FROM record_base WHERE tenant_id = $1 AND record_id = ANY($2::uuid[])"
)
# Nearly always empty: only while the tail of a snapshot is on its way.
_AHEAD = Statement(
    "SELECT b.record_id::text, a.known FROM stream_ahead a JOIN record_base b ON b.tenant_id = $1 "
    "AND b.part = a.id AND b.record_id = ANY($2::uuid[]) WHERE a.tenant_id = $1"
)

Place = tuple[int, int, int]
"""The dot of an entry as numbers: its stream, its origin, its place there."""


class Missing(Exception):
    """A leaf has to be read before a record can be folded."""


class NodeKnown:
    """`has` and `leaf` of one transaction; `taken` are entries of this frame, as they are folded."""

    def __init__(
        self, vectors: Rows, parked: Rows, frame: Iterable[Entry], ahead: Rows | None = None
    ) -> None:
        self._got: dict[tuple[int, int], int] = {}
        self._held = {uuid_of(text_of(stream)) for stream, _, _ in vectors}
        self._here = {stream.int for stream in self._held}
        for stream, origin, got in vectors:
            key = (uuid_of(text_of(stream)).int, int(origin or 0))
            self._got[key] = max(self._got.get(key, 0), int(got or 0))
        self._parked = {
            f"{text_of(origin)}.{n}@{text_of(stream).replace('-', '')}"
            for stream, origin, oseq, entries in parked
            for n in range(int(oseq or 0), int(oseq or 0) + int(entries or 0))
        }
        self._frame: dict[Place, Entry] = {}
        self._marks: dict[str, Leaf] = {}
        self.expect(frame)
        self._taken: set[Place] = set()
        self._leaves: dict[str, Leaf] = {}
        self._ahead: dict[UUID, Had] = {
            UUID(text_of(ident)): decode_had(bytea_of(known)) for ident, known in ahead or ()
        }
        # What has said something of others; what it said is worked out when it is asked for.
        self._speakers: dict[Place, Entry] = {}
        self._heard: dict[Place, set[str]] = {}

    def is_in_state(self, entry: Entry) -> bool:
        """Whether the record came by a snapshot that had this entry already."""
        had = self._ahead.get(entry.record_id) if self._ahead else None
        return had is not None and had.has(qualified(entry.dot, entry.stream))

    def learn(self, leaves: Mapping[str, Leaf]) -> None:
        """Clocks and authors that somebody else has told of."""
        self._leaves |= leaves

    def got(self, stream: UUID) -> dict[int, int]:
        """How far each origin of a stream is known."""
        return {o: got for (s, o), got in self._got.items() if s == stream.int and got}

    def holds(self, stream: UUID) -> bool:
        """Whether this node holds a stream."""
        return stream in self._held

    def expect(self, entries: Iterable[Entry]) -> None:
        """These are in the log, or in this frame, and are folded only now."""
        entries = list(entries)
        self._frame |= {_place(e): e for e in entries}
        learn(self._marks, entries)

    def ahead(self, record: UUID) -> Had | None:
        """What the state of a record knows before its tail has come."""
        return self._ahead.get(record)

    def parked_in(self, streams: Collection[UUID]) -> list[str]:
        """The dots in some streams that wait for somebody."""
        return sorted(d for d in self._parked if UUID(d.rpartition("@")[2]) in streams)

    def take(self, entry: Entry) -> None:
        """From now on the entry has come."""
        self._taken.add(_place(entry))

    def hear(self, entry: Entry) -> None:
        """What an entry said of others is known from now on."""
        self._speakers[_place(entry)] = entry

    def heard(self, dot: str) -> bool:
        """Whether the entry of a dot was applied here or, of a stream that is not, told of."""
        if self._is_here(dot):
            return self.has(dot)
        for place in self._speakers.keys() - self._heard.keys():
            self._heard[place] = told_of(self._speakers[place])
        return any(dot in told for told in self._heard.values())

    def _is_here(self, dot: str) -> bool:
        return _place_of(dot)[0] in self._here

    def forget(self, entries: Sequence[Entry]) -> None:
        """These are folded anew."""
        self._taken.difference_update(map(_place, entries))
        for place in map(_place, entries):
            self._speakers.pop(place, None)
            self._heard.pop(place, None)

    def has(self, dot: str) -> bool:
        """Whether the entry of a dot was applied here, or is in this frame and was folded; one of a
        stream that is not here is not waited for.
        """
        place = _place_of(dot)
        if place in self._frame:
            return place in self._taken
        if dot in self._parked:
            return False
        stream, origin, oseq = place
        if stream not in self._here:
            # It never comes; what it left is told by those who hold it, before they cover it.
            return True
        return self._got.get((stream, origin), 0) >= oseq

    def leaf(self, dot: str) -> Leaf:
        """Clock and author of an entry. Raises Missing for one that was not read."""
        entry = self._frame.get(_place_of(dot))
        if entry is not None:
            return leaf_of(entry, entry.body.fields)
        if dot not in self._leaves:
            raise Missing(dot)
        return self._leaves[dot]

    async def read_leaves(
        self, tx: Runs, tenant: UUID, dots: Sequence[str], ids: Sequence[UUID]
    ) -> None:
        """Read what `leaf` will be asked for, of these records; what nobody knows has no clock."""
        nothing = dict.fromkeys(dots, Leaf({}, 0, UUID(int=0)))
        found = await _read_leaves(tx, tenant, dots, ids, self._marks)
        self._leaves = nothing | self._marks | self._leaves | found


async def read_leaves(
    tx: Runs, tenant: UUID, dots: Sequence[str], ids: Sequence[UUID]
) -> dict[str, Leaf]:
    """Clock and author of entries: from the log, or from what was kept of it with these records, or
    from what moves have told.
    """
    return await _read_leaves(tx, tenant, dots, ids, {})


async def _read_leaves(
    tx: Runs, tenant: UUID, dots: Sequence[str], ids: Sequence[UUID], marks: Mapping[str, Leaf]
) -> dict[str, Leaf]:
    found = dict(marks)
    # In this order: what leaves the log was kept with its record first.
    rows, bases, told = await tx.run(
        _leaf_call(tenant, dots), (_BASES, (tenant, list(ids))), (_TOLD, (tenant, list(ids)))
    )
    learn(found, map(read_entry, told))
    for (leaves,) in bases:
        for dot, leaf in decode_leaves(bytea_of(leaves)).items():
            found[dot] = earlier(leaf, found.get(dot))
    for entry in map(read_entry, rows):
        found[qualified(entry.dot, entry.stream)] = leaf_of(entry, entry.body.fields)
    return found


def known_calls(tenant: UUID) -> list[Call]:
    """What NodeKnown is made of."""
    return [(_VECTORS, (tenant,)), (_PARKED, (tenant,))]


def cut_call(tenant: UUID, ids: Iterable[UUID]) -> Call:
    """Which of these records have entries that are not in the log; rows of their ids."""
    return _CUT, (tenant, [*ids])


def ahead_call(tenant: UUID, ids: Iterable[UUID]) -> Call:
    """Which of these records came by a snapshot whose tail is still on its way."""
    return _AHEAD, (tenant, Column("uuid", [*ids]))


def _leaf_call(tenant: UUID, dots: Sequence[str]) -> Call:
    streams, origins, oseqs = list[UUID](), list[int](), list[int]()
    for stream, origin, oseq in map(_place_of, dots):
        streams.append(UUID(int=stream))
        origins.append(origin)
        oseqs.append(oseq)
    return LEAVES, (tenant, streams, origins, oseqs)


def _place(entry: Entry) -> Place:
    return entry.stream.int, entry.origin, entry.oseq


def _place_of(dot: str) -> Place:
    name, _, stream = dot.partition("@")
    origin, _, oseq = name.partition(".")
    return int(stream, 16), int(origin), int(oseq)
