"""The content of a frame: entries of one stream as columns, and the proof of their chains.

What is the same for all entries goes once, clocks and numbers as steps, ids made near their entry
without their time, all random bytes at the end (`packing`, `bodies`).

No hash travels with an entry. Per origin the batch says the hash before its first entry and the
one after its last that can be proved; who has the tenant's log key computes those between and
sees whether they meet. An entry of which fields were taken out has a mark; it and what its origin
wrote after it in the frame have no hash: the reader has the sender's word for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, cast
from uuid import UUID

import msgspec
from msgspec import Meta

from appliance.base.errors import Malformed
from appliance.kernel.change import GENESIS, Entry, EntryOp, Logged, chain_hash
from appliance.sync.bodies import Bodies, pack_bodies, unpack_bodies
from appliance.sync.packing import (
    ENTRIES_MAX,
    INT_MAX,
    Ids,
    Ints,
    Names,
    Noise,
    malformed,
    number,
    pack_ids,
    pack_ints,
    pack_names,
    unpack_ids,
    unpack_ints,
    unpack_names,
)

_HASH = 32
_BEFORE, _AFTER = 1, 2
_OPS = {op.value: op for op in EntryOp}


class Chain(msgspec.Struct, frozen=True, array_like=True):
    """One origin of a frame: the number before its first entry, and which hashes are stated."""

    origin: int
    before: int
    stated: int


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """The content of a frame; a column per line, `noise` the random bytes of several."""

    count: int
    chains: Annotated[list[Chain], Meta(max_length=ENTRIES_MAX)]
    origin: Ints
    oseq: Ints
    back: Ints
    moment: Ints
    tick: Ints
    ahead: Ints
    actor: Ids
    door: Names
    kind: Names
    op: Names
    schema_rev: Ints
    change_set: Ids
    record: Ids
    parked: Names
    stripped: Ints
    bodies: Bodies
    noise: bytes


class Frame(msgspec.Struct, frozen=True):
    """What a frame holds; `stripped` are the places of entries of which fields were taken out.

    `before` and `after` are the hashes around the entries of each origin, where the sender knew
    them. Entries have theirs only after `prove`.
    """

    stream: UUID
    entries: tuple[Logged, ...]
    before: dict[int, bytes]
    after: dict[int, bytes]
    stripped: frozenset[int] = frozenset()


class Reach(msgspec.Struct, frozen=True):
    """How far a frame goes, which can be told before its entries are made: the number of the last
    one by origin, and its hash where that is stated.
    """

    stream: UUID
    last: dict[int, int]
    after: dict[int, bytes]


def pack_batch(stream: UUID, logged: Sequence[Logged], before: Mapping[int, bytes]) -> Batch:
    """Entries as columns; `before` are the hashes before the first ones, by origin."""
    noise = [stream.bytes]
    entries = [one.entry for one in logged]
    assert all(entry.stream == stream for entry in entries), "a frame is of one stream"
    origins, index = number(entry.origin for entry in entries)
    by_origin: list[list[Logged]] = [[] for _ in origins]
    for one, which in zip(logged, index, strict=True):
        by_origin[which].append(one)
    chains = [_chain(found, before, noise) for found in by_origin]
    last = [chain.before for chain in chains]
    steps = list[int]()
    for entry, which in zip(entries, index, strict=True):
        steps.append(entry.oseq - last[which])
        last[which] = entry.oseq
    moments = [entry.hlc >> 16 for entry in entries]
    return Batch(
        count=len(entries), chains=chains, origin=pack_ints(index), oseq=pack_ints(steps),
        back=pack_ints([e.oseq - e.tx for e in entries]), moment=pack_ints(moments),
        tick=pack_ints([e.hlc & 0xFFFF for e in entries]),
        ahead=pack_ints([one.entry.hlc - one.ehlc for one in logged]),
        actor=pack_ids([e.actor for e in entries], moments, noise),
        door=pack_names(e.door for e in entries), kind=pack_names(e.kind for e in entries),
        op=pack_names(e.op for e in entries),
        schema_rev=pack_ints([e.schema_rev for e in entries]),
        change_set=pack_ids([e.change_set for e in entries], moments, noise),
        record=pack_ids([e.record_id for e in entries], moments, noise),
        parked=pack_names(one.parked for one in logged),
        stripped=pack_ints([int(not one.hash) for one in logged]),
        bodies=pack_bodies(entries), noise=b"".join(noise),
    )  # fmt: skip


def _chain(logged: list[Logged], known: Mapping[int, bytes], noise: list[bytes]) -> Chain:
    """State the hashes around the entries of one origin that can be proved."""
    origin, first, stated = logged[0].entry.origin, logged[0].entry.oseq - 1, 0
    if first and known.get(origin):
        stated = _BEFORE
        noise.append(known[origin])
    proved = GENESIS
    for n, one in enumerate(logged, first + 1):
        if not one.hash or one.entry.oseq != n:
            break
        proved = one.hash
    if proved and (stated or not first):
        stated |= _AFTER
        noise.append(proved)
    return Chain(origin, first, stated)


def reach_of(batch: Batch) -> Reach:
    """See Reach. Raises Malformed."""
    _check_count(batch)
    noise = Noise(batch.noise)
    stream = UUID(bytes=noise.take(16)[0])
    _, after = _stated(batch.chains, noise)
    last = dict(_dots(batch))
    # What stands before an entry that was stripped is no hash of the last one.
    return Reach(stream, last, after if batch.stripped == 0 else {})


def unpack_batch(batch: Batch) -> Frame:
    """The entries again, without their hashes. Raises Malformed."""
    _check_count(batch)
    count, noise = batch.count, Noise(batch.noise)
    stream = UUID(bytes=noise.take(16)[0])
    before, after = _stated(batch.chains, noise)
    dots = _dots(batch)
    moments = unpack_ints(batch.moment, count, "the clocks", (0, INT_MAX >> 16))
    ticks = unpack_ints(batch.tick, count, "the clocks", (0, 0xFFFF))
    aheads = unpack_ints(batch.ahead, count, "the clocks' cuts", (-INT_MAX, INT_MAX))
    backs = unpack_ints(batch.back, count, "the transactions", (-INT_MAX, INT_MAX))
    revs = unpack_ints(batch.schema_rev, count, "the revisions")
    stripped = unpack_ints(batch.stripped, count, "the marks", (0, 1))
    actors = unpack_ids(batch.actor, moments, noise, "the actors")
    doors = unpack_names(batch.door, count, "the doors")
    kinds = unpack_names(batch.kind, count, "the kinds")
    # An operation of a newer program stays the text it is.
    ops = [
        cast("EntryOp", _OPS.get(op, op))
        for op in unpack_names(batch.op, count, "the operations")
    ]  # fmt: skip
    sets = unpack_ids(batch.change_set, moments, noise, "the change sets")
    records = unpack_ids(batch.record, moments, noise, "the records")
    parked = unpack_names(batch.parked, count, "the reasons")
    noise.end()
    bodies = unpack_bodies(batch.bodies, dots)
    entries = list[Logged]()
    for n, (origin, oseq) in enumerate(dots):
        hlc = moments[n] << 16 | ticks[n]
        tx, ehlc = oseq - backs[n], hlc - aheads[n]
        if not (0 < tx <= INT_MAX and 0 <= ehlc <= INT_MAX):
            raise malformed("a transaction or a clock", "numbers that can be stored")
        entry = Entry(
            stream=stream, origin=origin, oseq=oseq, tx=tx, hlc=hlc, actor=actors[n],
            door=doors[n], kind=kinds[n], record_id=records[n], op=ops[n],
            schema_rev=revs[n], change_set=sets[n], body=bodies[n],
        )  # fmt: skip
        entries.append(Logged(entry=entry, hash=b"", ehlc=ehlc, parked=parked[n]))
    marked = frozenset(n for n, mark in enumerate(stripped) if mark)
    return Frame(stream, tuple(entries), before, after, marked)


def _check_count(batch: Batch) -> None:
    if not 0 < batch.count <= ENTRIES_MAX:
        raise malformed("its number of entries", f"1 to {ENTRIES_MAX}")


def _stated(chains: list[Chain], noise: Noise) -> tuple[dict[int, bytes], dict[int, bytes]]:
    before, after = dict[int, bytes](), dict[int, bytes]()
    for chain in chains:
        right = 0 < chain.origin < 1 << 32 and 0 <= chain.before < INT_MAX
        if not right or not 0 <= chain.stated <= _BEFORE | _AFTER:
            raise malformed("its origins", "numbers of nodes and of their entries")
        if chain.stated & _BEFORE:
            before[chain.origin] = noise.take(_HASH)[0]
        elif not chain.before:
            before[chain.origin] = GENESIS
        if chain.stated & _AFTER:
            after[chain.origin] = noise.take(_HASH)[0]
    return before, after


def _dots(batch: Batch) -> list[tuple[int, int]]:
    chains, count = batch.chains, batch.count
    index = unpack_ints(batch.origin, count, "its origins", (0, len(chains) - 1))
    steps = unpack_ints(batch.oseq, count, "the numbers of its entries", (1, INT_MAX))
    if len({chain.origin for chain in chains}) != len(chains) or len({*index}) != len(chains):
        raise malformed("its origins", "each of them once, with entries")
    last, dots = [chain.before for chain in chains], list[tuple[int, int]]()
    for which, step in zip(index, steps, strict=True):
        last[which] += step
        dots.append((chains[which].origin, last[which]))
    if max(last) > INT_MAX:
        raise malformed("the numbers of its entries", "numbers that can be stored")
    return dots


def prove(frame: Frame, log_key: bytes) -> Frame:
    """The frame with the hashes of its entries; Malformed (`sync.chain`) when they do not meet.

    Entries of an origin of which nothing before is known, and those from the first on that is
    stripped or comes after a gap, keep an empty hash.
    """
    last = {origin: (digest, 0) for origin, digest in frame.before.items()}
    proved = list[Logged]()
    for n, one in enumerate(frame.entries):
        origin, oseq = one.entry.origin, one.entry.oseq
        digest, at = last.get(origin, (None, 0))
        if digest is None or n in frame.stripped or at not in (0, oseq - 1):
            if digest is not None:
                _meet(frame, origin, *last.pop(origin))
            proved.append(one)
            continue
        digest = chain_hash(log_key, digest, one.entry)
        last[origin] = (digest, oseq)
        proved.append(Logged(entry=one.entry, hash=digest, ehlc=one.ehlc, parked=one.parked))
    for origin, (digest, at) in last.items():
        _meet(frame, origin, digest, at)
    return msgspec.structs.replace(frame, entries=tuple(proved))


def _meet(frame: Frame, origin: int, digest: bytes, at: int) -> None:
    """The hash that was computed must be the one that was stated: both, or neither."""
    if (digest if at else None) != frame.after.get(origin):
        raise Malformed(
            f"The entries of node {origin} in a frame of stream {frame.stream} do not make the "
            "hash that its sender states. Nothing of it was taken.",
            code="sync.chain",
        )
