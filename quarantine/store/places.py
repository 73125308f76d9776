"""Where finished blobs lie: a folder or an S3-compatible bucket, behind one port over obstore.

A place keeps sealed objects under addresses and knows nothing of keys. An address is

    blobs/<tenant>/<first two of mark>/<mark>.<blob>

where `mark` is HMAC(tenant's key, SHA-256): equal bytes of one tenant have one mark, of two
tenants unrelated ones. The blob under which the bytes were sealed ends the address, so that no
object is ever overwritten: while the last reference of a content goes and the same bytes come
again, the removal of the old object cannot meet the new one, on a disk or in a bucket.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, S3Store

from quarantine.store.disk import KEEP_FREE, NewFile, make_folders, move, saying_no_space
from quarantine.store.faults import Missing, NoSpace, PlaceDown
from quarantine.store.sealed import Data
from quarantine.store.threads import to_the_end

if TYPE_CHECKING:
    from obstore.store import S3Config

_ADDRESS = re.compile(r"blobs/[0-9a-f-]{36}/[0-9a-f]{2}/[0-9a-f]{64}\.[0-9a-f]{32}\Z")
_PART = 5 * 1024 * 1024  # the least that S3 takes
_FULL = re.compile(r"status code: 507|StorageFull|QuotaExceeded|InsufficientStorage|os error 28")


def address_of(tenant: UUID, mark: str, blob: UUID) -> str:
    """The address of a content that was sealed as `blob`."""
    return f"blobs/{tenant}/{mark[:2]}/{mark}.{blob.hex}"


def folder_of(tenant: UUID) -> str:
    """What all addresses of a tenant begin with."""
    return f"blobs/{tenant}"


class Place(Protocol):
    """What a place can do. All of it is safe to repeat; errors are Missing, NoSpace, PlaceDown."""

    ahead: int

    async def take(self, path: Path, address: str) -> None:
        """Move a finished file of this machine to the address; durable when it returns."""
        ...

    async def put(self, address: str, pieces: AsyncIterable[bytes]) -> None:
        """Store pieces as one object: whole and durable when it returns, absent otherwise."""
        ...

    async def read(self, address: str, start: int, stop: int) -> Data:
        """Bytes `[start:stop]`, fewer where the object ends. Raises Missing."""
        ...

    async def size(self, address: str) -> int | None:
        """Bytes of the object, None when there is none."""
        ...

    async def delete(self, address: str) -> None:
        """Remove the object; none there is fine."""
        ...

    def list(self, under: str) -> AsyncIterator[str]:
        """Addresses below a folder, such as `folder_of(tenant)`."""
        ...


class _Objects:
    """What folder and bucket do alike, through obstore."""

    def __init__(self, store: ObjectStore, ahead: int) -> None:
        self._store, self.ahead = store, ahead

    async def read(self, address: str, start: int, stop: int) -> Data:
        if start >= stop:
            return b""
        with _speaking("read a blob"):
            try:
                return memoryview(
                    await obstore.get_range_async(
                        self._store, _checked(address), start=start, end=stop
                    )
                )
            except BaseError:
                found = await self.size(address)
                if found is not None and found <= start:
                    return b""
                raise

    async def size(self, address: str) -> int | None:
        with _speaking("look for a blob"):
            try:
                found = await obstore.head_async(self._store, _checked(address))
            except FileNotFoundError:
                return None
            return int(found["size"])

    async def delete(self, address: str) -> None:
        with _speaking("erase a blob"), contextlib.suppress(FileNotFoundError):
            await obstore.delete_async(self._store, _checked(address))

    async def list(self, under: str) -> AsyncIterator[str]:
        with _speaking("list blobs"):
            async for found in obstore.list(self._store, under, chunk_size=500):
                for each in found:
                    if _ADDRESS.match(each["path"]):
                        yield each["path"]


class LocalPlace(_Objects):
    """A folder of this machine. Writing is ours, because obstore does not flush to the disk."""

    def __init__(self, root: Path, *, keep_free: int = KEEP_FREE) -> None:
        make_folders(root)
        super().__init__(LocalStore(root), ahead=1)
        self._root, self._keep_free = root, keep_free

    async def take(self, path: Path, address: str) -> None:
        """Rename, or copy and remove when the file lies on another file system."""
        target = self._root / _checked(address)
        with _speaking("keep a blob"), saying_no_space("a blob"):
            try:
                await asyncio.to_thread(move, path, target)
            except FileNotFoundError:
                if await self.size(address) is None:
                    raise
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                await self.put(address, _pieces_of(path))
                path.unlink()

    async def put(self, address: str, pieces: AsyncIterable[bytes]) -> None:
        """Write beside, flush, rename, flush the folder."""
        with _speaking("keep a blob"):
            target = self._root / _checked(address)
            make = partial(NewFile, target, keep_free=self._keep_free)
            file = await to_the_end(make, NewFile.discard)
            try:
                async for piece in pieces:
                    await asyncio.to_thread(file.write, [piece])
                await asyncio.to_thread(file.publish)
            finally:
                await to_the_end(file.discard)


class BucketPlace(_Objects):
    """An S3-compatible bucket: Amazon's, MinIO, Ceph, Garage and others that speak it."""

    def __init__(self, store: S3Store) -> None:
        super().__init__(store, ahead=4)

    async def take(self, path: Path, address: str) -> None:
        """Upload, see that all of it is there, remove the file."""
        length = await asyncio.to_thread(_length_of, path)
        if length is None:
            if await self.size(address) is None:
                raise Missing("The blob")
            return
        await self.put(address, _pieces_of(path))
        if await self.size(address) != length:
            raise PlaceDown("keep a blob whole")
        path.unlink(missing_ok=True)

    async def put(self, address: str, pieces: AsyncIterable[bytes]) -> None:
        """One upload in parts; a bucket shows an object only when all its parts are there."""
        with _speaking("keep a blob"):
            try:
                await obstore.put_async(
                    self._store, _checked(address), pieces, chunk_size=_PART, max_concurrency=1
                )
            except FileNotFoundError as error:  # the bucket itself
                raise PlaceDown("find its bucket") from error


def open_bucket(
    bucket: str, *, prefix: str = "", endpoint: str = "", region: str = "us-east-1",
    access_key_id: str = "", secret_access_key: str = "",
) -> BucketPlace:  # fmt: skip
    """A bucket as a place. `endpoint` empty is Amazon's own; an `http://` one is for loopback.

    Without a key obstore's usual sources (environment, instance role) are asked.
    """
    config: S3Config = {"region": region, "virtual_hosted_style_request": not endpoint}
    if endpoint:
        config["endpoint"] = endpoint
    if access_key_id:
        config["access_key_id"] = access_key_id
        config["secret_access_key"] = secret_access_key
    store = S3Store(
        bucket,
        prefix=prefix or None,
        config=config,
        client_options={
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": "5s",
            "timeout": "120s",
        },
        retry_config={"max_retries": 3},
    )
    return BucketPlace(store)


def _checked(address: str) -> str:
    """Addresses are made by `address_of`; anything else never reaches a file system."""
    if not _ADDRESS.match(address):
        raise ValueError("not an address of a blob")
    return address


@contextlib.contextmanager
def _speaking(doing: str) -> Iterator[None]:
    """Name what obstore and the system say. Their own texts hold hosts and folders: kept behind."""
    try:
        yield
    except FileNotFoundError as error:
        raise Missing("The blob") from error
    except BaseError as error:
        if _FULL.search(str(error)):
            raise NoSpace("a blob") from error
        raise PlaceDown(doing) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace("a blob") from error
        raise PlaceDown(doing) from error


def _length_of(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


async def _pieces_of(path: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb", 0) as file:
        while piece := await asyncio.to_thread(file.read, 1024 * 1024):
            yield piece
