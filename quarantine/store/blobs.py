"""Finished blobs: take them to their place, read them, erase them."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from pathlib import Path
from uuid import UUID

from quarantine.store.contents import Content
from quarantine.store.incoming import CONTENT, Incoming
from quarantine.store.keys import TenantKey
from quarantine.store.places import Place, folder_of
from quarantine.store.reading import Reader, Source
from quarantine.store.sealed import Data, Layout


class Blobs:
    """What is stored, over one place and the folder where it comes in. Keeps nothing in memory."""

    def __init__(self, place: Place, incoming: Incoming) -> None:
        self._place, self._incoming = place, incoming

    async def settle(self, content: Content) -> None:
        """Take a content from `incoming` to its address; may be repeated after a crash.

        Raises NoSpace and PlaceDown with the bytes still in `incoming`, Missing when they are
        nowhere.
        """
        await self._place.take(self._incoming.path_of(content.blob), content.address)

    async def open(self, content: Content, tenant_key: TenantKey) -> Reader:
        """A reader over it, settled or not. Raises Missing, Damaged, KeyFault."""
        key = tenant_key.open_key(CONTENT, content.blob, content.wrapped_key)
        source: Source = partial(self._place.read, content.address)
        if not content.settled:
            source = partial(_read_waiting, self._incoming.path_of(content.blob), source)
        return await Reader.open(
            source, blob=content.blob, key=key, size=content.size, ahead=self._place.ahead
        )

    async def holds(self, content: Content) -> bool:
        """Whether an object of the right length lies at a settled content's address; one request.

        That its bytes are right is known only by reading them.
        """
        found = await self._place.size(content.address)
        return found == Layout(content.size).sealed_size

    async def erase(self, content: Content) -> None:
        """Remove the bytes. That nobody can read them was done before: the ledger forgot the key."""
        await self._place.delete(content.address)
        await self._incoming.discard(content.blob)

    async def addresses(self, tenant: UUID) -> list[str]:
        """Where objects of a tenant lie. Those that the ledger, read after this, does not know
        are strays of a crash, for `erase_stray`.
        """
        return [address async for address in self._place.list(folder_of(tenant))]

    async def erase_stray(self, address: str) -> None:
        """Remove an object that no content knows."""
        await self._place.delete(address)

    async def erase_tenant(self, tenant: UUID) -> int:
        """Remove the objects of a tenant whose key is forgotten; how many there were. What of it
        is still coming in goes with the next sweep.
        """
        found = await self.addresses(tenant)
        for address in found:
            await self._place.delete(address)
        return len(found)


async def _read_waiting(path: Path, settled: Source, start: int, stop: int) -> Data:
    """Read from `incoming` until the content is taken from there, then from its place."""
    try:
        return await asyncio.to_thread(_slice, path, start, stop)
    except FileNotFoundError:
        return await settled(start, stop)


def _slice(path: Path, start: int, stop: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), stop - start, start)
