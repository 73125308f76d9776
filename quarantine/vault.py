"""The plane's blobs as one thing: ledger, keys and place together.

Promises: a blob is acknowledged when its sealed bytes lie at their address and the ledger says so;
equal bytes of one tenant are kept once; a blob that is purged cannot be read by anybody, because
its key is gone before its bytes are.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import secrets
import sqlite3
import time
from collections.abc import AsyncIterable, Iterator
from uuid import UUID

import msgspec

from quarantine import ledger
from quarantine.contract import ORDER_S, Erased, Restored, ScanJob, Stored
from quarantine.ledger import Blob, Ledger
from quarantine.settings import Settings
from quarantine.store.blobs import Blobs
from quarantine.store.contents import Content, Joined
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
            key = await self._tenant_key(job.tenant, asked=job.issued_at.timestamp())
            got = await self.incoming.receive(job.blob, key, pieces, limit=job.policy.bytes_max)
            return await self._join(job, got)

    async def restore(self, job: ScanJob, pieces: AsyncIterable[bytes]) -> Restored:
        """Bytes of a blob that come back from an archive, to be judged anew whatever they were.

        A blob that is here is looked at: sound bytes stay and have to be the same, damaged or lost
        ones are replaced. An erased tenant is taken in again, under a new key. Raises as `receive`.
        """
        with self._alone(job.blob):
            known = await self.ledger.run(lambda db: ledger.find_blob(db, job.blob))
            if known is not None and known.tenant != job.tenant:
                raise Changed(job.blob)
            if known is not None and await self._holds(known):
                same = await _repeat(known, job, pieces)
                await self.ledger.run(lambda db: ledger.ask_again(db, job.blob, job.priority))
                return Restored(same.blob, same.sha256, same.size, fresh=False)
            key = await self._tenant_key(job.tenant, asked=math.inf)
            # Under a seal of its own: what lies at the old one's address may still go.
            seal, limit = UUID(bytes=secrets.token_bytes(16)), job.policy.bytes_max
            got = await self.incoming.receive(seal, key, pieces, limit=limit)
            if known is not None:
                if got.sha256 != known.sha256:
                    await self.incoming.discard(got.blob)
                    raise Changed(job.blob)
                await self.purge(job.blob)
            await self._join(job, got)
            return Restored(job.blob, got.sha256, got.size, fresh=known is None)

    async def begin(
        self, job: ScanJob, size: int, sha256: str, *, lasting: bool = False
    ) -> Progress:
        """Open an upload in parts; one that is open already goes on. Raises TooLarge, NoSpace."""
        if size > job.policy.bytes_max:
            raise TooLarge(job.policy.bytes_max)
        key = await self._tenant_key(job.tenant, asked=job.issued_at.timestamp())
        try:
            return await self.uploads.look(job.blob, key)
        except Missing:
            return await self.uploads.start(
                job.blob, key, size=size, sha256=sha256, lasting=lasting
            )

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
        """Forget a blob: its key first, its bytes after, and what the ledger's log has of it.
        Unknown is fine.
        """
        content = await self.ledger.run(lambda db: ledger.drop_blob(db, ident))
        if content is not None:
            await self._blobs.erase(content)
        await self.ledger.forget_log()

    async def erase(self, tenant: UUID) -> Erased:
        """Forget a tenant's key, then all that lay under it and all that is to be told of it; what
        went. Repeated after a crash it says the same.
        """
        note = f"erased.{tenant.hex}"

        def forget(db: sqlite3.Connection) -> Erased:
            row = db.execute("SELECT body FROM note WHERE name = ?", (note,)).fetchone()
            before = msgspec.json.decode(row[0], type=Erased) if row else Erased(0, 0)
            (size,) = db.execute(
                "SELECT COALESCE(sum(size), 0) FROM content WHERE tenant = ?", (tenant.hex,)
            ).fetchone()
            db.execute(
                "INSERT INTO tenant VALUES (?, NULL, ?) ON CONFLICT (id) DO UPDATE SET "
                "wrapped = NULL, erased = excluded.erased",
                (tenant.hex, time.time()),
            )
            db.execute("DELETE FROM content WHERE tenant = ?", (tenant.hex,))
            gone = db.execute("DELETE FROM blob WHERE tenant = ?", (tenant.hex,)).rowcount
            db.execute(
                "DELETE FROM notice WHERE json_extract(CAST(body AS TEXT), '$.tenant') = ?",
                (str(tenant),),
            )
            found = Erased(before.blobs + gone, before.bytes + size)
            db.execute(
                "INSERT OR REPLACE INTO note VALUES (?, ?)", (note, msgspec.json.encode(found))
            )
            return found

        erased = await self.ledger.run(forget)
        await self.ledger.forget_log()
        await self._blobs.erase_tenant(tenant)
        return erased

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
        def add(db: sqlite3.Connection) -> Joined:
            # Erased while the bytes came in: nobody could read them, nor may their name stay.
            erased = "SELECT 1 FROM tenant WHERE id = ? AND erased <> 0"
            if db.execute(erased, (job.tenant.hex,)).fetchone():
                raise _erased(job.tenant)
            return ledger.add_blob(db, job, got)

        try:
            joined = await self.ledger.run(add)
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

    async def _holds(self, blob: Blob) -> bool:
        """Whether all bytes of a blob can be read."""
        content = await self.ledger.run(lambda db: ledger.find_content(db, blob.tenant, blob.mark))
        return content is not None and await self._is_sound(content)

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

    async def _tenant_key(self, tenant: UUID, *, asked: float = 0.0) -> TenantKey:
        """The key of a tenant, made when it is new. One that was erased is new again for what was
        `asked` more than an order's life later: what was under way before is not taken.
        """
        master = self._master
        assert master is not None, "the vault was started"

        def find(db: sqlite3.Connection) -> bytes:
            row = db.execute(
                "SELECT wrapped, erased FROM tenant WHERE id = ?", (tenant.hex,)
            ).fetchone()
            if row is not None and not row[1]:
                return bytes(row[0])
            if row is not None and asked <= row[1] + ORDER_S:
                raise _erased(tenant)
            made = master.make_tenant_key(tenant)
            db.execute("INSERT OR REPLACE INTO tenant VALUES (?, ?, 0)", (tenant.hex, made))
            db.execute("DELETE FROM note WHERE name = ?", (f"erased.{tenant.hex}",))
            return made

        return master.open_tenant_key(tenant, await self.ledger.run(find))


def _erased(tenant: UUID) -> KeyFault:
    return KeyFault(f"The files of tenant {tenant} were erased; it takes no new ones.")


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
