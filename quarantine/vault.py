"""The plane's blobs as one thing: ledger, keys and place together.

Promises: a blob is acknowledged when its sealed bytes lie at their address and the ledger says so;
equal bytes of one tenant are kept once; a blob that is purged cannot be read by anybody, because
its key is gone before its bytes are.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import AsyncIterable
from uuid import UUID

from quarantine import ledger
from quarantine.contract import ScanJob, Stored
from quarantine.ledger import Blob, Content, Ledger
from quarantine.settings import Settings
from quarantine.store.faults import Busy, Changed, KeyFault, Missing, StoreFault
from quarantine.store.incoming import CONTENT, Incoming
from quarantine.store.keys import MasterKey, TenantKey, load_master_key
from quarantine.store.places import LocalPlace, Place, address_of, folder_of, open_bucket
from quarantine.store.reading import Reader

KEEP_FREE = 64 * 1024 * 1024


class Vault:
    """One of it in each process of the plane."""

    def __init__(self, settings: Settings) -> None:
        folder = settings.folder
        self.ledger = Ledger(folder / "ledger.sqlite3")
        self.incoming = Incoming(folder / "incoming", keep_free=KEEP_FREE)
        self.place: Place = (
            open_bucket(
                settings.bucket, endpoint=settings.bucket_endpoint, region=settings.bucket_region
            )
            if settings.bucket
            else LocalPlace(folder / "store", keep_free=KEEP_FREE)
        )
        self._master_path = folder / "master.key"
        self._master: MasterKey | None = None
        self._coming: set[UUID] = set()

    async def start(self, *, recover: bool) -> None:
        """Open the master key; `recover`: finish what a killed process left, which only the one
        process does that takes bytes in. Raises KeyFault, PlaceDown.
        """
        known = await self.ledger.run(
            lambda db: db.execute("SELECT count(*) FROM tenant").fetchone()[0]
        )
        self._master = load_master_key(self._master_path, may_make=not known)
        if recover:
            for content in await self.ledger.run(ledger.unplaced):
                with contextlib.suppress(Missing):
                    await self._put_in_place(content)
            # Nothing comes in yet: what lies there was half sent when a process was killed.
            await self.incoming.sweep((), older_than=0.0)

    async def receive(self, job: ScanJob, pieces: AsyncIterable[bytes]) -> Stored:
        """Bytes of a blob, whole or not at all. The same bytes twice are answered as the first time.

        Raises TooLarge, NoSpace, PlaceDown; Busy while the same blob comes in already, Changed when
        it is there with other bytes, of which nothing is kept.
        """
        if job.blob in self._coming:
            raise Busy(job.blob)
        self._coming.add(job.blob)
        try:
            known = await self.ledger.run(lambda db: ledger.find_blob(db, job.blob))
            if known is not None:
                return await _repeat(known, job, pieces)
            return await self._receive(job, pieces)
        finally:
            self._coming.discard(job.blob)

    async def _receive(self, job: ScanJob, pieces: AsyncIterable[bytes]) -> Stored:
        key = await self._tenant_key(job.tenant)
        got = await self.incoming.receive(job.blob, key, pieces, limit=job.policy.bytes_max)

        def note(db: sqlite3.Connection) -> Content:
            twin = ledger.find_content(db, got.tenant, got.mark)
            content = twin or Content(
                got.tenant, got.mark, got.blob, got.wrapped_key, got.size, 0, placed=False
            )
            ledger.add_blob(db, job, content, got.sha256)
            return content

        try:
            content = await self.ledger.run(note)
        except StoreFault:
            await self.incoming.discard(got.blob)
            raise
        try:
            if content.sealed_as == got.blob:
                await self._put_in_place(content)
        except StoreFault:
            await self.ledger.run(lambda db: ledger.drop_blob(db, job.blob))
            raise
        finally:
            await self.incoming.discard(got.blob)
        return Stored(got.blob, got.sha256, got.size)

    async def open(self, blob: Blob) -> Reader:
        """Read a blob. Raises Missing, Damaged, KeyFault, PlaceDown."""
        content = await self.ledger.run(lambda db: ledger.get_content(db, blob.sealed_as))
        if content is None or not content.placed:
            raise Missing(f"The content of {blob.id}")
        tenant = await self._tenant_key(blob.tenant)
        key = tenant.open_key(CONTENT, content.sealed_as, content.wrapped)
        address = address_of(content.tenant, content.mark, content.sealed_as)

        async def source(start: int, stop: int) -> bytes | bytearray | memoryview:
            return await self.place.read(address, start, stop)

        return await Reader.open(
            source, blob=content.sealed_as, key=key, size=content.size, ahead=self.place.ahead
        )

    async def purge(self, ident: UUID) -> None:
        """Forget a blob: its key first, its bytes after. Unknown is fine."""
        content = await self.ledger.run(lambda db: ledger.drop_blob(db, ident))
        if content is not None:
            await self.place.delete(address_of(content.tenant, content.mark, content.sealed_as))

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
        async for address in self.place.list(folder_of(tenant)):
            await self.place.delete(address)

    def close(self) -> None:
        """Give the ledger back."""
        self.ledger.close()

    async def _put_in_place(self, content: Content) -> None:
        address = address_of(content.tenant, content.mark, content.sealed_as)
        with contextlib.suppress(Missing):
            await self.place.take(self.incoming.path_of(content.sealed_as), address)
        is_there = await self.place.size(address) is not None

        def note(db: sqlite3.Connection) -> None:
            if is_there:
                db.execute(
                    "UPDATE content SET placed = 1 WHERE sealed_as = ?", (content.sealed_as.hex,)
                )
                return
            # Neither waiting nor in place: it was never acknowledged.
            db.execute("DELETE FROM blob WHERE sealed_as = ?", (content.sealed_as.hex,))
            db.execute("DELETE FROM content WHERE sealed_as = ?", (content.sealed_as.hex,))

        await self.ledger.run(note)
        if not is_there:
            raise Missing(f"The content of {content.sealed_as}")

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
