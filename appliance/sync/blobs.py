"""The lane of files at a site: bytes made here to the hub, bytes that people here need from it.

The agent calls `run_lane` with as many bytes as the link can spare; records never wait for a file,
and a file never travels in a request with records. What was asked for at a ticket comes first, then
what the hub lacks, then small files of the streams held here, then large ones. State is what the
receiver has, so a run may end at any byte and the next one goes on there.

With a bound on the disk, files that were not read for long are let go, and only those that the hub
says, then and there, that it has.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from uuid import UUID

import msgspec

from appliance.base import logs
from appliance.base.errors import Clash, Locked, Refused, Spoiled, TooLarge, Unavailable
from appliance.content import ContentPlane
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.sync.bloblink import WHOLE, BlobLink
from appliance.sync.pieces import CHUNK, PIECE, Proving, Stretch
from appliance.sync.shelf import CARRIED, FIELDS, READABLE, Filed, Shelf, read_filed

EAGER_BYTES = 1024 * 1024
# Requests begin small, so that something passes also over a link that dies at once, and grow.
FIRST_BYTES = 32 * 1024
KEPT_S = 3_600
_FOUND_MOST = 200
_FEW = 20
_STUCK = 3
# A fault of one file: it waits, the others go on.
_OF_FILE = (Clash, Locked, Refused, Spoiled, TooLarge)

_NEW = Statement(
    f"SELECT {FIELDS} FROM record r WHERE r.tenant_id = $1 AND r.kind = 'sys.file' "
    "AND r.t2 = ANY($2::text[]) AND r.t4 IS NOT NULL AND r.deleted_at IS NULL AND NOT EXISTS "
    "(SELECT FROM file_copy c WHERE c.tenant_id = $1 AND c.file_id = r.id) ORDER BY r.id LIMIT $3"
)
_NOTE = Statement(
    "INSERT INTO file_copy (tenant_id, file_id, here_at) SELECT $1::uuid, f.id, "
    "CASE WHEN f.is_here THEN now() END FROM unnest($2::uuid[], $3::boolean[]) AS f(id, is_here) "
    "ON CONFLICT DO NOTHING"
)
_JOINED = (
    f"SELECT {FIELDS} FROM file_copy c JOIN record r ON r.tenant_id = c.tenant_id "
    "AND r.id = c.file_id WHERE c.tenant_id = $1 AND r.t2 = ANY($2::text[]) "
    "AND r.deleted_at IS NULL AND "
)
_UP = Statement(
    f"{_JOINED} c.here_at IS NOT NULL AND c.hub_at IS NULL AND c.due <= now() "
    "ORDER BY (r.data->>'size')::bigint, c.file_id LIMIT $3"
)
_ASKED = Statement(
    f"{_JOINED} c.here_at IS NULL AND c.asked_at IS NOT NULL AND c.due <= now() "
    "ORDER BY c.asked_at LIMIT $3"
)
_DOWN = Statement(
    f"{_JOINED} c.here_at IS NULL AND c.dropped_at IS NULL AND c.due <= now() "
    "ORDER BY (r.data->>'size')::bigint >= $4, r.id DESC LIMIT $3"
)
_IDLE = Statement(
    f"{_JOINED} c.here_at IS NOT NULL AND c.hub_at IS NOT NULL AND c.asked_at IS NULL "
    "AND greatest(c.here_at, c.read_at) < now() - $4 * interval '1 second' "
    "ORDER BY greatest(c.here_at, c.read_at) LIMIT $3"
)
_AT_HUB = Statement(
    "UPDATE file_copy SET hub_at = now(), tries = 0 WHERE tenant_id = $1 "
    "AND file_id = ANY($2::uuid[])"
)
_NOT_AT_HUB = Statement(
    "UPDATE file_copy SET hub_at = NULL WHERE tenant_id = $1 AND file_id = ANY($2::uuid[])"
)
_NOT_HERE = Statement(
    "UPDATE file_copy SET here_at = NULL WHERE tenant_id = $1 AND file_id = ANY($2::uuid[])"
)
_DOUBT = Statement("UPDATE file_copy SET hub_at = NULL, due = now() WHERE tenant_id = $1")
_LATER = Statement(
    "UPDATE file_copy SET tries = tries + 1, due = now() + least(power(2, least(tries, 9)) * 10, "
    "3600) * interval '1 second' WHERE tenant_id = $1 AND file_id = ANY($2::uuid[])"
)
_DROPPED = Statement(
    "UPDATE file_copy SET here_at = NULL, dropped_at = now() WHERE tenant_id = $1 AND file_id = $2"
)
_GONE = Statement("DELETE FROM file_copy WHERE tenant_id = $1 AND file_id = ANY($2::uuid[])")


class Moved(msgspec.Struct, frozen=True):
    """What one run did: bytes each way, files that are whole now, files let go; `more`: the budget
    was the end of it.
    """

    up: int = 0
    down: int = 0
    files: int = 0
    dropped: int = 0
    more: bool = False


async def run_lane(
    db: Database,
    client: BlobLink,
    plane: ContentPlane,
    tenant: UUID,
    *,
    budget_bytes: int,
    keep_bytes: int = 0,
) -> Moved:
    """Move up to about `budget_bytes` of files; with `keep_bytes` let old ones go above it.

    Raises Unavailable when the hub or the plane is away; what moved until then is moved.
    """
    shelf = Shelf(db, plane, tenant, from_hub=True)
    lane = _Lane(db, client, shelf, budget_bytes)
    await note_new(db, shelf)
    await lane.bring(await lane.rows(_ASKED, READABLE, _FEW))
    # Half of what is left for each direction, and then all of it for whoever still has something.
    await lane.send(share=0.5)
    await lane.bring(await lane.rows(_DOWN, READABLE, _FEW, EAGER_BYTES))
    await lane.send(share=1.0)
    if keep_bytes:
        await lane.make_room(keep_bytes)
    moved = lane.moved()
    if moved != Moved(more=moved.more):
        logs.event(
            "sync.files_moved", tenant=tenant, bytes=moved.up + moved.down, count=moved.files
        )
    return moved


async def is_asked(db: Database, tenant: UUID) -> bool:
    """Whether somebody here waits for a file that could be fetched now."""
    (rows,) = await db.read(tenant, (_ASKED, (tenant, list(READABLE), 1)))
    return bool(len(rows))


async def doubt_hub(db: Database, tenant: UUID) -> None:
    """Ask the hub anew for every file that is here: it may have lost some (it was put back from a
    backup, or is another machine now).
    """
    async with db.transaction(tenant) as tx:
        await tx.run((_DOUBT, (tenant,)), commit=True)


async def forget_files(
    db: Database, plane: ContentPlane, tenant: UUID, files: Sequence[UUID]
) -> None:
    """Remove files of a stream that this node holds no longer. Raises Unavailable."""
    for ident in files:
        await plane.give_up(tenant, ident)
    async with db.transaction(tenant) as tx:
        await tx.run((_GONE, (tenant, list(files))), commit=True)


async def note_new(db: Database, shelf: Shelf) -> None:
    """Find out of files whose record is new here whether the bytes are here as well."""
    while found := await _read(db, shelf.tenant, _NEW, CARRIED, _FOUND_MOST):
        here = [await shelf.is_here(file) for file in found]
        async with db.transaction(shelf.tenant) as tx:
            await tx.run((_NOTE, (shelf.tenant, [file.id for file in found], here)), commit=True)
        if len(found) < _FOUND_MOST:
            return


async def list_unsent(db: Database, shelf: Shelf, most: int) -> list[Filed]:
    """Files that are here and, as far as was heard, not at the hub; the smallest first."""
    await note_new(db, shelf)
    return await _read(db, shelf.tenant, _UP, CARRIED, most)


async def list_lacking(db: Database, tenant: UUID, most: int) -> list[Filed]:
    """Files that are not here: those that somebody asked for first, then the small ones."""
    asked = await _read(db, tenant, _ASKED, READABLE, most)
    found = await _read(db, tenant, _DOWN, READABLE, most, EAGER_BYTES)
    known = {file.id for file in asked}
    return [*asked, *(file for file in found if file.id not in known)][:most]


async def note_at_hub(db: Database, tenant: UUID, files: Sequence[UUID]) -> None:
    """The hub says that it has these."""
    async with db.transaction(tenant) as tx:
        await tx.run((_AT_HUB, (tenant, list(files))), commit=True)


async def _read(
    db: Database, tenant: UUID, which: Statement, states: Sequence[str], most: int, *more: int
) -> list[Filed]:
    (found,) = await db.read(tenant, (which, (tenant, list(states), most, *more)))
    return list(map(read_filed, found))


class _Lane:
    """One run."""

    def __init__(self, db: Database, client: BlobLink, shelf: Shelf, budget: int) -> None:
        self._db, self._client, self._shelf = db, client, shelf
        self._left = budget
        self._up = self._down = self._files = self._dropped = 0

    def moved(self) -> Moved:
        return Moved(self._up, self._down, self._files, self._dropped, self._left <= 0)

    async def rows(
        self, which: Statement, states: Sequence[str], most: int, *more: int
    ) -> list[Filed]:
        return await _read(self._db, self._shelf.tenant, which, states, most, *more)

    async def send(self, *, share: float) -> None:
        """Hand the hub what it lacks, the smallest first, within a share of what is left."""
        floor = int(self._left * (1 - share))
        if self._left <= floor:
            return
        while found := await self.rows(_UP, CARRIED, _FEW):
            stands = await self._ask(found)
            await self._note(_AT_HUB, [f for f, at in stands if at == WHOLE])
            await self._note(_LATER, [f for f, at in stands if at < WHOLE])
            for file, at in stands:
                if self._left <= floor:
                    return
                if at >= 0:
                    await self._guarded(file, self._send_one(file, at, floor))

    async def bring(self, files: Sequence[Filed]) -> None:
        """Fetch what is not here."""
        for file in files:
            if self._left <= 0:
                return
            await self._guarded(file, self._bring_one(file))

    async def make_room(self, keep_bytes: int) -> None:
        """Let go what was not read for longest, and what the hub has at this moment."""
        while await self._shelf.room() > keep_bytes:
            found = await self.rows(_IDLE, READABLE, _FEW, KEPT_S)
            stands = await self._ask(found)
            await self._note(_NOT_AT_HUB, [f for f, at in stands if at != WHOLE])
            sure = [file for file, at in stands if at == WHOLE]
            if not sure:
                return
            for file in sure:
                await self._shelf.forget(file.id)
                await self._write(_DROPPED, file.id)
                self._dropped += 1
                if await self._shelf.room() <= keep_bytes:
                    return

    async def _ask(self, files: Sequence[Filed]) -> list[tuple[Filed, int]]:
        if not files:
            return []
        said = [(file.id.bytes, bytes.fromhex(file.sha256)) for file in files]
        stands = await self._client.have(said)
        self._left -= sum(len(i) + len(d) for i, d in said)
        return list(zip(files, stands, strict=True))

    async def _send_one(self, file: Filed, at: int, floor: int) -> None:
        if not await self._shelf.is_here(file):
            await self._note(_NOT_HERE, [file])
            return
        size, stuck = FIRST_BYTES, 0
        while self._left > floor:
            room = max(self._left - floor, PIECE)
            length = min(size, room, CHUNK - at % CHUNK, file.size - at)
            data = await self._shelf.give(file, at, length)
            self._left -= len(data)
            self._up += len(data)
            before, at = at, await self._client.put(file.id, at, data, CHUNK)
            if at == WHOLE:
                self._files += 1
                await self._note(_AT_HUB, [file])
                return
            stuck = stuck + 1 if at <= before else 0
            if stuck == _STUCK or at < 0:
                raise Clash("The hub takes this file no further now.", code="blob.stuck")
            size = min(2 * size, CHUNK)

    async def _bring_one(self, file: Filed) -> None:
        at = await self._shelf.expect(file)
        if at == file.size:
            await self._shelf.note_here(file)
        while at < file.size:
            if self._left <= 0:
                return
            before, at = at, await self._bring_chunk(file, at)
            if at <= before:
                raise Clash("The hub gives this file no further now.", code="blob.stuck")
        self._files += 1

    async def _bring_chunk(self, file: Filed, at: int) -> int:
        """What comes of the rest of a chunk, kept also when it breaks off; where to go on."""
        proving: Proving | None = None
        proved = bytearray()
        try:
            length = min(CHUNK - at % CHUNK, max(self._left, FIRST_BYTES))
            answer = self._client.get(file.id, at, length, CHUNK)
            async with contextlib.aclosing(answer) as parts:
                async for part in parts:
                    if isinstance(part, Stretch):
                        if part.start != at % CHUNK:
                            raise Spoiled("The hub gave other bytes.", code="blob.spoiled")
                        proving = Proving(part)
                    elif proving is not None:
                        self._left -= len(part)
                        self._down += len(part)
                        proved += proving.feed(part)
        finally:
            if proved:
                at = await self._shelf.take(file, at, bytes(proved))
        return at

    async def _guarded(self, file: Filed, step: object) -> None:
        """One file; what is wrong with it alone is tried later."""
        try:
            await step  # type: ignore[misc]
        except Unavailable as away:
            if away.dependency != "hub":
                # Of a link that was cut it goes on at once; a plane that is away is given time.
                await self._note(_LATER, [file])
            raise
        except _OF_FILE as fault:
            logs.event("sync.file_waits", level="warning", file_id=file.id, code=fault.code)
            await self._note(_LATER, [file])

    async def _note(self, which: Statement, files: Sequence[Filed]) -> None:
        if files:
            await self._write(which, [file.id for file in files])

    async def _write(self, which: Statement, *values: object) -> None:
        tenant = self._shelf.tenant
        async with self._db.transaction(tenant) as tx:
            await tx.run((which, (tenant, *values)), commit=True)  # type: ignore[arg-type]
