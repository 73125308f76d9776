"""The bytes of files as nodes give them to each other: the same on a hub and on a site.

Promises: bytes that come from another node go into this node's own content plane as an upload
under the file's id, are checked against the SHA-256 of its record, and are scanned here before
anybody here is given them; what is acknowledged is on the disk, so a cut or a kill on either side
costs what was under way and nothing else; what an engine here rejected goes to no node.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import msgspec

from appliance.base.clock import now
from appliance.base.errors import Clash, Refused, TooLarge
from appliance.content import LOST, ContentPlane
from appliance.db.database import Database
from appliance.db.wire import Row, Statement
from appliance.meta import load_schema
from quarantine.contract import Policy, ScanJob, Verdict

# States whose bytes are worth a copy elsewhere, and those in which they may be read there.
CARRIED = ("held", "suspicious", "released", "restricted")
READABLE = ("released", "restricted")
FIELDS = (
    "r.id::text, r.stream::text, r.t2, r.data->>'name', r.data->>'size', r.data->>'sha256', "
    "r.t5, r.data->>'for_field'"
)
_FIND = Statement(
    f"SELECT {FIELDS} FROM record r WHERE r.tenant_id = $1 AND r.kind = 'sys.file' "
    "AND r.id = ANY($2::uuid[]) AND r.deleted_at IS NULL"
)
_HERE = Statement(
    "INSERT INTO file_copy (tenant_id, file_id, here_at, hub_at) "
    "VALUES ($1, $2, now(), CASE WHEN $3 THEN now() END) "
    "ON CONFLICT (tenant_id, file_id) DO UPDATE SET here_at = now(), tries = 0, "
    "asked_at = NULL, dropped_at = NULL, hub_at = coalesce(file_copy.hub_at, excluded.hub_at)"
)
# Behind what people here bring, before what is only looked at again.
_PRIORITY = 4


class Filed(msgspec.Struct, frozen=True):
    """One file as its record says; `stream` is where the record lives."""

    id: UUID
    stream: UUID
    state: str
    name: str
    size: int
    sha256: str
    for_kind: str
    for_field: str


def read_filed(row: Row) -> Filed:
    """A row of FIELDS."""
    ident, stream, state, name, size, sha256, kind, field = ((v or b"").decode() for v in row[:8])
    return Filed(UUID(ident), UUID(stream), state, name, int(size or 0), sha256, kind, field)


async def find_filed(db: Database, tenant: UUID, idents: Sequence[UUID]) -> dict[UUID, Filed]:
    """The files that have a record here, by id."""
    (rows,) = await db.read(tenant, (_FIND, (tenant, list(idents))))
    return {file.id: file for file in map(read_filed, rows)}


class Shelf:
    """One tenant's files in this node's content plane, for other nodes. `from_hub`: what comes
    here comes from the hub, which therefore has it.
    """

    def __init__(
        self, db: Database, plane: ContentPlane, tenant: UUID, *, from_hub: bool, bytes_max: int = 0
    ) -> None:
        self._db, self._plane, self.tenant = db, plane, tenant
        self._from_hub, self._bytes_max = from_hub, bytes_max

    def check_size(self, file: Filed) -> None:
        """Raises TooLarge for what this node does not take."""
        if self._bytes_max and file.size > self._bytes_max:
            raise TooLarge(
                f"The file has {file.size} bytes; this node takes at most {self._bytes_max}.",
                code="file.too_large",
            )

    async def holds(self, file: Filed) -> int:
        """How many bytes of a file are here, from its beginning on; all, when it is a blob.

        Raises Locked while a part of it comes in, Unavailable.
        """
        if not file.size:
            # Nothing has to travel.
            await self._plane.put(_job(self.tenant, file, await self._policy(file)), _once(b""))
            await self.note_here(file)
            return 0
        try:
            arrived = await self._plane.progress(_job(self.tenant, file, Policy()))
        except Refused as refused:
            if refused.code != LOST:
                raise
            return 0
        if arrived.expires_at is not None and arrived.offset == file.size:
            await self._finish(file)
        return arrived.offset

    async def expect(self, file: Filed) -> int:
        """The same, with room made for all of it before a byte of it is asked for.

        Raises StorageFull, Locked, Unavailable.
        """
        at = await self.holds(file)
        if file.size and not at:
            await self._begin(file)
        return at

    async def is_here(self, file: Filed) -> bool:
        """Whether all of it is a blob here. Raises Unavailable."""
        try:
            await self._plane.look(self.tenant, file.id)
        except Refused:
            return False
        return True

    async def take(self, file: Filed, offset: int, data: bytes) -> int:
        """Bytes from `offset` on; how many are on the disk now. The last ones make it a blob.

        Raises Clash (`upload.offset` with the right one; `file.changed`: it is not what its record
        says, and begins anew), Locked, TooLarge, StorageFull, Unavailable.
        """
        job = _job(self.tenant, file, Policy())
        try:
            arrived = await self._plane.append(job, offset, _once(data), None)
        except Refused as refused:
            if refused.code != LOST:
                raise
            if offset:
                raise Clash(
                    "Nothing of this file is here yet; begin with its first byte.",
                    code="upload.offset", offset=0,
                ) from None  # fmt: skip
            self.check_size(file)
            await self._begin(file)
            arrived = await self._plane.append(job, 0, _once(data), None)
        if arrived.offset == file.size:
            await self._finish(file)
        return arrived.offset

    async def give(self, file: Filed, offset: int, length: int) -> bytes:
        """Some bytes of a file that is here. Raises Refused (not here, rejected), Unavailable."""
        return await self._plane.cut(self.tenant, file.id, offset, length)

    async def check_proved(self, file: Filed) -> None:
        """Whether this node's own scanner lets it out. Raises Refused, Unavailable."""
        verdict = (await self._plane.look(self.tenant, file.id)).verdict
        allowed = {Verdict.CLEAN, Verdict.SUSPICIOUS if file.state == "restricted" else None}
        if file.state not in READABLE or verdict is None or verdict not in allowed:
            raise Refused("This file is not proved clean here.", code="file.not_here")

    async def forget(self, file: UUID) -> None:
        """Let the bytes of a file go. Raises Unavailable."""
        await self._plane.purge(self.tenant, file)

    async def room(self) -> int:
        """How many bytes the plane stores. Raises Unavailable."""
        return (await self._plane.status()).stored_bytes

    async def _begin(self, file: Filed) -> None:
        job = _job(self.tenant, file, Policy(bytes_max=file.size))
        await self._plane.begin(job, file.size, file.sha256, lasting=True)

    async def _finish(self, file: Filed) -> None:
        policy = await self._policy(file)
        await self._plane.finish(_job(self.tenant, file, policy))
        await self.note_here(file)

    async def note_here(self, file: Filed) -> None:
        """Remember that all of a file is here."""
        async with self._db.transaction(self.tenant) as tx:
            await tx.run((_HERE, (self.tenant, file.id, self._from_hub)), commit=True)

    async def _policy(self, file: Filed) -> Policy:
        """What the place of the file takes, as it was where the file came in."""
        kind = (await load_schema(self._db, self.tenant)).kind(file.for_kind)
        field = kind.by_name.get(file.for_field) if kind and file.for_field else None
        wanted = field.option("extensions") if field else None
        extensions = tuple(str(e).lower() for e in wanted) if isinstance(wanted, list) else ()
        policy = Policy(extensions=extensions, bytes_max=max(file.size, 1))
        most = max(policy.unpacked_bytes_max, 2 * file.size)
        return msgspec.structs.replace(policy, unpacked_bytes_max=most)


def _job(tenant: UUID, file: Filed, policy: Policy) -> ScanJob:
    return ScanJob(file.id, tenant, file.name, policy, now(), _PRIORITY)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
