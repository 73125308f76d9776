"""The plane's blobs as one thing: ledger, keys and place together.

Promises: a blob is acknowledged when its sealed bytes lie at their address and the ledger says so;
equal bytes of one tenant are kept once; a blob that is purged cannot be read by anybody, because
its key is gone before its bytes are.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import AsyncIterable, Iterator
from uuid import UUID

from quarantine import ledger
from quarantine.contract import ScanJob, Stored
from quarantine.ledger import Blob, Ledger
from quarantine.settings import Settings
from quarantine.store.blobs import Blobs
from quarantine.store.contents import Content
from quarantine.store.faults import (
    Busy,
    Changed,
    Damaged,
    KeyFault,
    Missing,
    StoreFault,
    TooLarge,
)
from quarantine.store.incoming import Incoming, Received
from quarantine.store.keys import MasterKey, TenantKey, load_master_key
from quarantine.store.places import LocalPlace, Place, open_bucket
from quarantine.store.reading import Reader
from quarantine.store.uploads import Progress, Uploads

KEEP_FREE = 64 * 1024 * 1024


class Vault:
    """One of it in each process of the plane."""

    def __init__(self, settings: Settings) -> None:
        folder = settings.folder
        self.ledger = Ledger(folder / "ledger.sqlite3")
        self.incoming = Incoming(folder / "incoming", keep_free=KEEP_FREE)
        place: Place = (
            open_bucket(
                settings.bucket, endpoint=settings.bucket_endpoint, region=settings.bucket_region
            )
            if settings.bucket
            else LocalPlace(folder / "store", keep_free=KEEP_FREE)
        )
        self._blobs = Blobs(place, self.incoming)
        self.uploads = Uploads(self.incoming)
        self._master_path = folder / "master.key"
        self._master: MasterKey | None = None
        self._coming: set[UUID] = set()

    async def start(self, *, recover: bool) -> None:
        """Open the master key; `recover`: finish what a killed process left, which only the one
        process does that takes bytes in. Raises KeyFault, PlaceDown.
        """
        known = await self.ledger.peek("SELECT 1 FROM tenant")
        self._master = load_master_key(self._master_path, may_make=not known)
        if recover:
            for content in await self.ledger.run(ledger.unsettled):
                with contextlib.suppress(Missing):
                    await self._settle(content)

    async def sweep(self) -> None:
        """Remove what was begun and not ended within the hour."""
        waiting = await self.ledger.run(ledger.unsettled)
        await self.incoming.sweep([c.blob for c in waiting])

    async def receive(self, job: ScanJob, pieces: AsyncIterable[bytes]) -> Stored:
        """Bytes of a blob, whole or not at all. The same bytes twice are answered as the first time.

        Raises TooLarge, NoSpace, PlaceDown; Busy while the same blob comes in already, Changed when
        it is there with other bytes, of which nothing is kept.
        """
        with self._alone(job.blob):
            known = await self.ledger.run(lambda db: ledger.find_blob(db, job.blob))
            if known is not None:
                return await _repeat(known, job, pieces)
            key = await self._tenant_key(job.tenant)
            got = await self.incoming.receive(job.blob, key, pieces, limit=job.policy.bytes_max)
            return await self._join(job, got)

    async def begin(self, job: ScanJob, size: int, sha256: str) -> Progress:
        """Open an upload in parts; one that is open already goes on. Raises TooLarge, NoSpace."""
        if size > job.policy.bytes_max:
            raise TooLarge(job.policy.bytes_max)
        key = await self._tenant_key(job.tenant)
        try:
            return await self.uploads.look(job.blob, key)
        except Missing:
            return await self.uploads.start(job.blob, key, size=size, sha256=sha256)

    async def append(
        self, job: ScanJob, offset: int, pieces: AsyncIterable[bytes], crc32: int | None
    ) -> Progress:
        """One part. Raises WrongOffset, Changed, Spoiled, TooLarge, NoSpace, Busy, Missing."""
        key = await self._tenant_key(job.tenant)
        return await self.uploads.append(job.blob, key, offset, pieces, crc32=crc32)

    async def progress(self, job: ScanJob) -> Progress:
        """Where an upload in parts is to go on. Raises Missing, Busy."""
        return await self.uploads.look(job.blob, await self._tenant_key(job.tenant))

    async def finish(self, job: ScanJob) -> Stored:
        """Make a blob of all parts. Raises Incomplete, Changed, Missing."""
        with self._alone(job.blob):
            known = await self.stored(job)
            if known is None:
                key = await self._tenant_key(job.tenant)
                known = await self._join(job, await self.uploads.finish(job.blob, key))
            await self.uploads.discard(job.blob)
            return known

    async def open(self, blob: Blob) -> Reader:
        """Read a blob. Raises Missing, Damaged, KeyFault, PlaceDown."""
        content = await self.ledger.run(lambda db: ledger.find_content(db, blob.tenant, blob.mark))
        if content is None:
            raise Missing(f"The content of {blob.id}")
        return await self._blobs.open(content, await self._tenant_key(blob.tenant))

    async def purge(self, ident: UUID) -> None:
        """Forget a blob: its key first, its bytes after. Unknown is fine."""
        content = await self.ledger.run(lambda db: ledger.drop_blob(db, ident))
        if content is not None:
            await self._blobs.erase(content)

    async def erase(self, tenant: UUID) -> None:
        """Forget a tenant's key, then all that lay under it."""

        def forget(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT INTO tenant VALUES (?, NULL, 1) ON CONFLICT (id) DO UPDATE SET "
                "wrapped = NULL, erased = 1",
                (tenant.hex,),
            )
            for table in ("blob", "content"):
                db.execute(f"DELETE FROM {table} WHERE tenant = ?", (tenant.hex,))

        await self.ledger.run(forget)
        await self._blobs.erase_tenant(tenant)

    def close(self) -> None:
        """Give the ledger back."""
        self.ledger.close()

    @contextlib.contextmanager
    def _alone(self, blob: UUID) -> Iterator[None]:
        """One sender of a blob at a time: two would write into one file. Raises Busy."""
        if blob in self._coming:
            raise Busy(blob)
        self._coming.add(blob)
        try:
            yield
        finally:
            self._coming.discard(blob)

    async def stored(self, job: ScanJob) -> Stored | None:
        """What is known of a blob that is whole; None while it is not, or is another tenant's."""
        blob = await self.ledger.run(lambda db: ledger.find_blob(db, job.blob))
        if blob is None or blob.tenant != job.tenant:
            return None
        return Stored(blob.id, blob.sha256, blob.size)

    async def _join(self, job: ScanJob, got: Received) -> Stored:
        try:
            joined = await self.ledger.run(lambda db: ledger.add_blob(db, job, got))
        except StoreFault:
            await self.incoming.discard(got.blob)
            raise
        fresh = joined.fresh
        if not fresh and not await self._is_sound(joined.content):
            former = await self.ledger.run(lambda db: ledger.mend_content(db, got))
            fresh = former is not None
        if not fresh:
            await self.incoming.discard(got.blob)
        else:
            await self._settle_or_drop(job, got)
            if not joined.fresh:
                await self._blobs.erase(joined.content)
        return Stored(got.blob, got.sha256, got.size)

    async def _is_sound(self, content: Content) -> bool:
        """Whether what is stored can be read to its end: else the bytes that came again are kept."""
        try:
            reader = await self._blobs.open(content, await self._tenant_key(content.tenant))
            async for _ in reader.pieces():
                pass
        except (Damaged, Missing):
            return False
        return True

    async def _settle_or_drop(self, job: ScanJob, got: Received) -> None:
        content = await self.ledger.run(lambda db: ledger.find_content(db, got.tenant, got.mark))
        if content is None or content.blob != got.blob:
            return
        try:
            await self._settle(content)
        except StoreFault:
            # Nobody was told that it is kept, but equal bytes that came meanwhile may need it.
            gone = await self.ledger.run(lambda db: ledger.drop_blob(db, job.blob))
            if gone is not None:
                await self.incoming.discard(got.blob)
            raise

    async def _settle(self, content: Content) -> None:
        await self._blobs.settle(content)
        await self.ledger.run(
            lambda db: db.execute(
                "UPDATE content SET settled = 1 WHERE tenant = ? AND mark = ? AND blob = ?",
                (content.tenant.hex, content.mark, content.blob.hex),
            )
        )

    async def _tenant_key(self, tenant: UUID) -> TenantKey:
        master = self._master
        assert master is not None, "the vault was started"

        def find(db: sqlite3.Connection) -> bytes:
            row = db.execute(
                "SELECT wrapped, erased FROM tenant WHERE id = ?", (tenant.hex,)
            ).fetchone()
            if row is None:
                made = master.make_tenant_key(tenant)
                db.execute("INSERT INTO tenant VALUES (?, ?, 0)", (tenant.hex, made))
                return made
            if row[1]:
                raise KeyFault(f"The files of tenant {tenant} were erased; it takes no new ones.")
            return bytes(row[0])

        return master.open_tenant_key(tenant, await self.ledger.run(find))


async def _repeat(known: Blob, job: ScanJob, pieces: AsyncIterable[bytes]) -> Stored:
    """The answer to bytes that come again. Raises Changed."""
    digest, size = hashlib.sha256(), 0
    async for piece in pieces:
        size += len(piece)
        if size > known.size:
            break
        digest.update(piece)
    if (known.tenant, known.sha256, known.size) != (job.tenant, digest.hexdigest(), size):
        raise Changed(job.blob)
    return Stored(known.id, known.sha256, known.size)
