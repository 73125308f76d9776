"""A frame that cannot be taken as a whole is taken in pieces.

What is wrong with one transaction holds up nobody: alone, it is parked with its reason. One that
runs into the time limit may only have met a busy machine, so it comes again; what does so alone,
and with the limit stretched, for the third time is parked too, because nothing behind it could
ever be taken. The tries are counted in the database: a stick is read by a process of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import msgspec

from appliance.base import limits, logs
from appliance.base.errors import ApplianceError, Clash, Limited, StorageFull, Unavailable
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.kernel.change import Logged
from appliance.write.definitions import Unsound
from appliance.write.incoming import transactions
from appliance.write.sound import MALFORMED

# First words of the reasons with which a transaction is parked here.
POISON, SLOW = "poison", "slow"
TRIES_MAX = 3
_PIECES = 8
_ALONE_MS = limits.STATEMENT_TIMEOUT_MS * 3
# The node cannot go on, or somebody is in the way: the frame comes again, nothing is wrong with it.
_PASSING = (Unavailable, StorageFull, Clash)
_TRIED = Statement(
    "INSERT INTO peer_stream AS p (tenant_id, peer, stream, slow_entry, slow_tries) "
    "VALUES ($1, $2, $3, $4, 1) ON CONFLICT (tenant_id, peer, stream) DO UPDATE SET slow_tries = "
    "CASE WHEN p.slow_entry = EXCLUDED.slow_entry THEN p.slow_tries + 1 ELSE 1 END, "
    "slow_entry = EXCLUDED.slow_entry RETURNING slow_tries"
)


class Parked(msgspec.Struct, frozen=True):
    """A transaction of a peer that waits for a person."""

    origin: int
    oseq: int
    entries: int
    reason: str


class Taken(msgspec.Struct, frozen=True):
    """What became of a frame. `got`: how far each origin of the stream is here now; `cuts`: the
    clock that counts, for entries whose own was ahead.
    """

    stream: UUID
    head: int
    got: dict[int, int]
    applied: int = 0
    known: int = 0
    parked: tuple[Parked, ...] = ()
    cuts: dict[tuple[int, int], int] = {}
    gap: bool = False


class Source(msgspec.Struct, frozen=True):
    """Whose entries of which stream are taken, and how: some of them, with how far the cursor is
    then and the time limit of a statement, None for the usual one.
    """

    db: Database
    tenant: UUID
    stream: UUID
    peer: int
    take: Callable[[Sequence[Logged], int | None, int | None], Awaitable[Taken]]


async def take_pieces(source: Source, entries: Sequence[Logged], cursor: int | None) -> Taken:
    """Take entries at once, or as many together as will go. Raises what is passing."""
    try:
        return await source.take(entries, cursor, None)
    except _PASSING:
        raise
    except Limited:
        pieces = _PIECES
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not stop the stream
        _note_failed(source, error)
        pieces = len(entries)
    parts = transactions(entries)
    if len(parts) == 1:
        return await _take_alone(source, parts[0], cursor)
    size = -(-len(parts) // pieces)
    done: list[Taken] = []
    for n in range(0, len(parts), size):
        end = cursor if n + size >= len(parts) else None
        piece = [e for part in parts[n : n + size] for e in part]
        done.append(await take_pieces(source, piece, end))
    return join_taken(done)


async def _take_alone(source: Source, part: list[Logged], cursor: int | None) -> Taken:
    """One transaction; what fails is parked where it stands."""
    try:
        return await source.take(part, cursor, _ALONE_MS)
    except Limited as slow:
        if await _count_tries(source, part[0]) < TRIES_MAX:
            raise
        reason = f"{SLOW}: {slow.detail}"
    except _PASSING:
        raise
    except Exception as error:  # noqa: BLE001 - it is parked with its reason
        _note_failed(source, error)
        detail = error.detail if isinstance(error, ApplianceError) else type(error).__name__
        reason = f"{MALFORMED if isinstance(error, Unsound) else POISON}: {detail}"
    parked = [msgspec.structs.replace(e, parked=reason[:500]) for e in part]
    return await source.take(parked, cursor, None)


async def _count_tries(source: Source, first: Logged) -> int:
    place = (source.tenant, source.peer, source.stream, first.entry.dot)
    async with source.db.transaction(source.tenant) as tx:
        (rows,) = await tx.run((_TRIED, place), commit=True)
    tries = int((rows.first() or (b"0",))[0] or 0)
    logs.event("sync.entries_slow", level="warning", stream=source.stream, count=tries)
    return tries


def _note_failed(source: Source, error: Exception) -> None:
    logs.event(
        "sync.frame_failed", level="warning", stream=source.stream, error_type=type(error).__name__
    )


def join_taken(done: Sequence[Taken]) -> Taken:
    """What became of several parts of one frame."""
    if len(done) == 1:
        return done[0]
    return msgspec.structs.replace(
        done[-1],
        applied=sum(t.applied for t in done),
        known=sum(t.known for t in done),
        parked=tuple(p for t in done for p in t.parked),
        cuts={place: ehlc for t in done for place, ehlc in t.cuts.items()},
        gap=any(t.gap for t in done),
    )
