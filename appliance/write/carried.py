"""A record as it travels in a snapshot: its state, and what must be known of its live entries.

Clock and author of an entry decide between values that were written beside one another, long after
the entry itself has left the log; so a state carries them, by dot (docs/adr/0019).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from appliance.base.errors import Malformed
from appliance.kernel.beside import without_fields
from appliance.kernel.kind import Json
from appliance.kernel.record import RecordState
from appliance.kernel.registers import Leaf, qualified
from appliance.kernel.stamps import Stamps


class Mark(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """A leaf without its values."""

    hlc: int
    actor: UUID
    by: str | None = None
    was: dict[str, Json] = {}


class Carried(msgspec.Struct, frozen=True, array_like=True):
    """One record or ledger entry. Times are milliseconds; `leaves` by dot with its stream."""

    id: UUID
    kind: str
    stream: UUID
    unit: UUID | None
    owner: UUID | None
    number: str | None
    data: dict[str, Json]
    stamps: str
    created: tuple[int, UUID]
    updated: tuple[int, UUID]
    deleted: tuple[int, UUID | None] | None
    open: bytes | None
    leaves: dict[str, Mark]


class Had(msgspec.Struct, frozen=True, array_like=True):
    """What a node had when it read states: how far each origin of each stream that the reader may
    know of, and what of it was parked, by dot.
    """

    got: dict[UUID, dict[int, int]]
    parked: list[str] = []

    def has(self, dot: str) -> bool:
        """Whether the states follow from this entry too. A stream that is not named is known to
        the hub alone, which had all of it.
        """
        if dot in self.parked:
            return False
        name, _, stream = dot.partition("@")
        origin, _, oseq = name.partition(".")
        got = self.got.get(UUID(stream))
        return got is None or int(oseq) <= got.get(int(origin), 0)


encoder = msgspec.msgpack.Encoder(uuid_format="bytes")
_decode_had = msgspec.msgpack.Decoder(Had).decode
_decode_leaves = msgspec.msgpack.Decoder(dict[str, Mark]).decode


def decode_had(body: bytes) -> Had:
    """The stored form back."""
    return _decode_had(body)


def decode_leaves(body: bytes) -> dict[str, Leaf]:
    """The leaves of one row of `record_base`."""
    return {dot: leaf_from(mark) for dot, mark in _decode_leaves(body).items()}


def leaf_from(mark: Mark) -> Leaf:
    """A leaf that knows no values."""
    return Leaf({}, mark.hlc, mark.actor, mark.was, mark.by)


def mark_of(leaf: Leaf) -> Mark:
    """What of a leaf is kept."""
    return Mark(leaf.hlc, leaf.actor, leaf.by, leaf.was)


def live_dots(state: RecordState) -> list[str]:
    """Every live dot of a record with its stream."""
    return [qualified(dot, state.stream) for dot in state.stamps.all_dots()]


def carry(state: RecordState, leaves: Mapping[str, Leaf]) -> Carried:
    """A state with those of its leaves that are known."""
    return Carried(
        state.id, state.kind, state.stream, state.unit, state.owner, state.number, state.data,
        str(state.stamps), (_ms(state.created_at), state.created_by),
        (_ms(state.updated_at), state.updated_by),
        (_ms(state.deleted_at), state.deleted_by) if state.deleted_at else None, state.open,
        {dot: mark_of(leaves[dot]) for dot in live_dots(state) if dot in leaves},
    )  # fmt: skip


def state_of(carried: Carried) -> RecordState:
    """The state back. Raises Malformed."""
    stamps = Stamps.parse(carried.stamps)
    if stamps is None:
        raise Malformed(f"Record {carried.id} has no readable version.", code="sync.snapshot")
    deleted = carried.deleted
    return RecordState(
        id=carried.id, kind=carried.kind, stream=carried.stream, unit=carried.unit,
        owner=carried.owner, number=carried.number, data=carried.data, stamps=stamps,
        created_at=_moment(carried.created[0]), created_by=carried.created[1],
        updated_at=_moment(carried.updated[0]), updated_by=carried.updated[1],
        deleted_at=_moment(deleted[0]) if deleted else None,
        deleted_by=deleted[1] if deleted else None, open=carried.open,
    )  # fmt: skip


def strip_state(carried: Carried, fids: frozenset[str]) -> Carried:
    """A state without fields that are kept from its reader, as `scope.strip` does with entries:
    the dots stay, but not where they name the members of a set.
    """
    stamps = Stamps.parse(carried.stamps)
    assert stamps is not None, "states of our own tables"
    live = {r: d for r, d in stamps.live.items() if not _is_member(r, fids)}
    return msgspec.structs.replace(
        carried,
        data={fid: value for fid, value in carried.data.items() if fid not in fids},
        stamps=str(Stamps(stamps.born, live)),
        open=without_fields(carried.open, fids) if carried.open is not None else None,
        leaves={
            dot: msgspec.structs.replace(
                mark, was={f: v for f, v in mark.was.items() if f not in fids}
            )
            for dot, mark in carried.leaves.items()
        },
    )


def kept_leaves(dots: Iterable[str], *sources: Mapping[str, Leaf]) -> bytes:
    """The row of `record_base`: of each dot the first leaf that is known."""
    found: dict[str, Mark] = {}
    for dot in dots:
        for source in sources:
            if dot in source:
                found[dot] = mark_of(source[dot])
                break
    return encoder.encode(found)


def dots_of(states: Sequence[RecordState]) -> list[str]:
    """The live dots of many records, each once."""
    return sorted({dot for state in states for dot in live_dots(state)})


def _is_member(register: str, fids: frozenset[str]) -> bool:
    fid, slash, _ = register.partition("/")
    return bool(slash) and fid in fids


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
