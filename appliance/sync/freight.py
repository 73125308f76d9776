"""Bytes of files in what is carried between nodes that have no line.

A site's file says which files it has for the hub and which it lacks, and brings the bytes of the
former; the hub's says which of them it has now, and brings the bytes of the latter, as many as the
file may weigh. Promises: what arrives goes the way of the lane (sync/shelf): into this node's own
quarantine, against the SHA-256 of its record, scanned here before anybody is given it; only files of
streams that the site holds go either way; what did not fit comes with the next file.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from typing import ParamSpec, TypeVar
from uuid import UUID

from appliance.base.errors import ApplianceError, Refused, Unavailable
from appliance.db.database import Database
from appliance.db.values import bytea_of
from appliance.db.wire import Statement
from appliance.sync import messages as say
from appliance.sync.blobs import list_lacking, list_unsent
from appliance.sync.shelf import CARRIED, Filed, Shelf, find_filed

P = ParamSpec("P")
T = TypeVar("T")
PIECE_BYTES = 1 << 20
_TRIES, _PAUSE_S = 4, 0.5
FILES_MAX = 10_000
_KEEP = Statement("UPDATE carrier SET freight = $3 WHERE tenant_id = $1 AND peer = $2")
_FIND = Statement("SELECT freight FROM carrier WHERE tenant_id = $1 AND peer = $2")


class Bill(say.Message, frozen=True):
    """What a site said last of its files: those it has for the hub, and those it lacks with how
    many of their bytes are there.
    """

    offers: tuple[UUID, ...] = ()
    wants: tuple[tuple[UUID, int], ...] = ()


async def make_bill(db: Database, shelf: Shelf) -> Bill:
    """At a site. Raises Unavailable."""
    unsent = await list_unsent(db, shelf, FILES_MAX)
    wants: list[tuple[UUID, int]] = []
    for file in await list_lacking(db, shelf.tenant, FILES_MAX):
        try:
            wants.append((file.id, await _surely(shelf.holds, file)))
        except Unavailable:
            raise
        except ApplianceError:
            # A part is coming in another way just now.
            continue
    return Bill(tuple(file.id for file in unsent), tuple(wants))


async def load(
    db: Database, shelf: Shelf, wanted: Iterable[tuple[UUID, int]], room: int,
    streams: Collection[UUID] | None = None, *, proved: bool,
) -> AsyncIterator[say.Piece]:  # fmt: skip
    """Pieces of files from an offset on, up to `room` bytes; of those in some `streams` only, and
    only of those that this node's own scanner lets out where that is asked for (`proved`).
    """
    asked = dict(wanted)
    known = await find_filed(db, shelf.tenant, list(asked))
    for ident, start in asked.items():
        file, at = known.get(ident), start
        if file is None or (streams is not None and file.stream not in streams):
            continue
        try:
            if proved:
                await _surely(shelf.check_proved, file)
            elif not await _surely(shelf.is_here, file):
                continue
            while at < file.size and room > 0:
                length = min(PIECE_BYTES, room, file.size - at)
                data = await _surely(shelf.give, file, at, length)
                yield say.Piece(ident, at, data)
                at, room = at + len(data), room - len(data)
        except Refused:
            continue
        if room <= 0:
            return


async def unload(
    db: Database, shelf: Shelf, pieces: Sequence[say.Piece], streams: Collection[UUID] | None = None
) -> list[str]:
    """Take pieces in; what is wrong with single files, in words. Raises Unavailable."""
    known = await find_filed(db, shelf.tenant, [piece.file for piece in pieces])
    problems: list[str] = []
    for piece in pieces:
        file = known.get(piece.file)
        if file is None or (streams is not None and file.stream not in streams):
            problems.append(f"{piece.file}: no file of this node's")
        elif file.state in CARRIED:
            problems += await _take(shelf, file, piece)
    return problems


async def _take(shelf: Shelf, file: Filed, piece: say.Piece) -> list[str]:
    try:
        shelf.check_size(file)
        at = await _surely(shelf.holds, file)
        if piece.offset <= at < min(piece.offset + len(piece.data), file.size):
            await _surely(shelf.take, file, at, piece.data[at - piece.offset :][: file.size - at])
    except Unavailable:
        raise
    except ApplianceError as fault:
        return [f"{file.id}: {fault.code}"]
    return []


async def _surely(step: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Nobody repeats what a stick brings, so the plane is asked again. Raises Unavailable."""
    for _ in range(_TRIES - 1):
        try:
            return await step(*args, **kwargs)
        except Unavailable:
            await asyncio.sleep(_PAUSE_S)
    return await step(*args, **kwargs)


async def keep_bill(db: Database, tenant: UUID, site: UUID, bill: Bill) -> None:
    """At a hub: remember what a site said of its files."""
    async with db.transaction(tenant) as tx:
        await tx.run((_KEEP, (tenant, site, say.encode(bill))), commit=True)


async def read_bill(db: Database, tenant: UUID, site: UUID) -> Bill:
    """At a hub: what a site said last of its files."""
    (rows,) = await db.read(tenant, (_FIND, (tenant, site)))
    row = rows.first()
    packed = bytea_of(row[0]) if row else b""
    return say.decode(packed, Bill) if packed else Bill()


async def find_arrived(db: Database, shelf: Shelf, offers: Sequence[UUID]) -> list[UUID]:
    """At a hub: those of a site's files that are whole here."""
    known = await find_filed(db, shelf.tenant, list(offers))
    return [ident for ident, file in known.items() if await _surely(shelf.is_here, file)]
