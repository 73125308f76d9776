"""Reading a sealed blob: any range of it, in pieces of a chunk, from wherever it lies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID

from quarantine.store.faults import Damaged
from quarantine.store.sealed import HEADER, Data, Opener

Source = Callable[[int, int], Awaitable[Data]]
"""Sealed bytes from start to stop; fewer where the object ends earlier."""


class Reader:
    """One blob, opened for reading; holds at most `ahead` chunks of it in memory.

    Every byte that comes out was authenticated; what is not as it was sealed raises Damaged with
    the chunk's number, after the chunks before it were given out.
    """

    def __init__(self, source: Source, opener: Opener, *, blob: UUID, ahead: int = 1) -> None:
        self._source, self._opener, self._blob, self._ahead = source, opener, blob, ahead
        self.size = opener.layout.size

    @classmethod
    async def open(
        cls, source: Source, *, blob: UUID, key: bytes, size: int, ahead: int = 1
    ) -> Reader:
        """Read the header; `size` is the plaintext size that the ledger keeps."""
        opener = Opener(blob, key, size, bytes(await source(0, HEADER)))
        return cls(source, opener, blob=blob, ahead=ahead)

    async def read(self, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes `[start:stop]`, as a slice of the plaintext; for ranges that fit in memory."""
        return b"".join([piece async for piece in self.pieces(start, stop)])

    async def pieces(self, start: int = 0, stop: int | None = None) -> AsyncIterator[Data]:
        """The same bytes piece by piece, each of at most one chunk. No negative positions."""
        stop = self.size if stop is None else min(stop, self.size)
        if start < 0 or stop < 0:
            raise ValueError("positions in a blob are counted from its start")
        layout = self._opener.layout
        if start >= stop:
            if layout.size == 0:  # the empty chunk proves that the blob is whole
                await self._open(0, 0)
            return
        first, end = start // layout.chunk, (stop - 1) // layout.chunk
        for begin in range(first, end + 1, self._ahead):
            opened = await self._open(begin, min(begin + self._ahead - 1, end))
            for index, plain in enumerate(opened, begin):
                base = index * layout.chunk
                low, high = max(start - base, 0), min(stop - base, len(plain))
                whole = low == 0 and high == len(plain)
                yield plain if whole else memoryview(plain)[low:high]

    async def _open(self, first: int, last: int) -> list[bytes]:
        """The plaintext of neighbouring chunks, fetched in one request."""
        layout = self._opener.layout
        start, stop = layout.span(first, last)
        sealed = memoryview(await self._source(start, stop))
        step = layout.span(first, first)[1] - start
        if len(sealed) != stop - start:
            raise Damaged(self._blob, first + len(sealed) // step)
        return [
            self._opener.open(first + i, sealed[i * step : (i + 1) * step])
            for i in range(last - first + 1)
        ]
