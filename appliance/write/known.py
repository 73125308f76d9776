"""What this node has of a tenant's log, as the merge core asks for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from appliance.base.ids import uuid_of
from appliance.db.database import Transaction
from appliance.db.wire import Call, Rows, Statement
from appliance.kernel.change import Entry
from appliance.kernel.registers import Leaf, leaf_of, qualified
from appliance.write.trail import FOLDED, read_entry

_VECTORS = Statement(
    "SELECT stream::text, origin, got FROM stream_vector WHERE tenant_id = $1 UNION ALL "
    "SELECT id::text, origin, oseq FROM stream WHERE tenant_id = $1"
)
_PARKED = Statement(
    "SELECT stream::text, origin, oseq, entries FROM parked WHERE tenant_id = $1 AND is_logged "
    "AND state <> 'released'"
)
_LEAVES = Statement(
    f"SELECT {FOLDED} FROM change JOIN unnest($2::uuid[], $3::bigint[], $4::bigint[]) "
    "AS u(s, o, q) ON change.stream = u.s AND change.origin = u.o AND change.oseq = u.q "
    "WHERE tenant_id = $1"
)


Place = tuple[int, int, int]
"""The dot of an entry as numbers: its stream, its origin, its place there."""


class Missing(Exception):
    """A leaf has to be read before a record can be folded."""


class NodeKnown:
    """`has` and `leaf` of one transaction; `taken` are entries of this frame, as they are folded."""

    def __init__(self, vectors: Rows, parked: Rows, frame: Iterable[Entry]) -> None:
        self._got: dict[tuple[int, int], int] = {}
        self._held = {uuid_of(_text(stream)) for stream, _, _ in vectors}
        for stream, origin, got in vectors:
            key = (uuid_of(_text(stream)).int, int(origin or 0))
            self._got[key] = max(self._got.get(key, 0), int(got or 0))
        self._parked = {
            f"{_text(origin)}.{n}@{_text(stream).replace('-', '')}"
            for stream, origin, oseq, entries in parked
            for n in range(int(oseq or 0), int(oseq or 0) + int(entries or 0))
        }
        self._frame = {_place(e): e for e in frame}
        self._taken: set[Place] = set()
        self._leaves: dict[str, Leaf] = {}

    def got(self, stream: UUID) -> dict[int, int]:
        """How far each origin of a stream is known."""
        return {o: got for (s, o), got in self._got.items() if s == stream.int and got}

    def holds(self, stream: UUID) -> bool:
        """Whether this node holds a stream."""
        return stream in self._held

    def expect(self, entries: Iterable[Entry]) -> None:
        """These are in the log, and are folded only now."""
        self._frame |= {_place(e): e for e in entries}

    def take(self, entry: Entry) -> None:
        """From now on the entry has come."""
        self._taken.add(_place(entry))

    def forget(self, entries: Iterable[Entry]) -> None:
        """These are folded anew."""
        self._taken.difference_update(map(_place, entries))

    def has(self, dot: str) -> bool:
        """Whether the entry of a dot was applied here, or is in this frame and was folded."""
        place = _place_of(dot)
        if place in self._frame:
            return place in self._taken
        if dot in self._parked:
            return False
        stream, origin, oseq = place
        return self._got.get((stream, origin), 0) >= oseq

    def leaf(self, dot: str) -> Leaf:
        """Clock and author of an entry. Raises Missing for one that was not read."""
        found = self._leaves.get(dot)
        if found is None:
            entry = self._frame.get(_place_of(dot))
            if entry is None:
                raise Missing(dot)
            found = leaf_of(entry, entry.body.fields)
        return found

    async def read_leaves(self, tx: Transaction, tenant: UUID, dots: Sequence[str]) -> None:
        """Read what `leaf` will be asked for; a dot that only a snapshot knew has no clock."""
        (rows,) = await tx.run(_leaf_call(tenant, dots))
        self._leaves |= dict.fromkeys(dots, Leaf({}, 0, UUID(int=0)))
        for entry in map(read_entry, rows):
            self._leaves[qualified(entry.dot, entry.stream)] = leaf_of(entry, entry.body.fields)


def known_calls(tenant: UUID) -> list[Call]:
    """What NodeKnown is made of."""
    return [(_VECTORS, (tenant,)), (_PARKED, (tenant,))]


def _leaf_call(tenant: UUID, dots: Sequence[str]) -> Call:
    streams, origins, oseqs = list[UUID](), list[int](), list[int]()
    for stream, origin, oseq in map(_place_of, dots):
        streams.append(UUID(int=stream))
        origins.append(origin)
        oseqs.append(oseq)
    return _LEAVES, (tenant, streams, origins, oseqs)


def _place(entry: Entry) -> Place:
    return entry.stream.int, entry.origin, entry.oseq


def _place_of(dot: str) -> Place:
    name, _, stream = dot.partition("@")
    origin, _, oseq = name.partition(".")
    return int(stream, 16), int(origin), int(oseq)


def _text(value: bytes | None) -> str:
    return value.decode() if value is not None else ""
