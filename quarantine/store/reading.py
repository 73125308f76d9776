"""Reading a sealed blob: any range of it, in pieces of a chunk, from wherever it lies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID

from quarantine.store.sealed import HEADER, TAG, Data, Opener

Source = Callable[[int, int], Awaitable[Data]]
"""Sealed bytes from start to stop; fewer where the object ends earlier."""


class Reader:
    """One blob, opened for reading; holds at most `ahead` chunks of it in memory.

    Every byte that comes out was authenticated; what is not as it was sealed raises Damaged with
    the chunk's number, after the chunks before it were given out.
    """

    def __init__(self, source: Source, opener: Opener, *, ahead: int = 1) -> None:
        self._source, self._opener, self._ahead = source, opener, ahead
        self.size = opener.layout.size

    @classmethod
    async def open(
        cls, source: Source, *, blob: UUID, key: bytes, size: int, ahead: int = 1
    ) -> Reader:
        """Read the header; `size` is the plaintext size that the ledger keeps."""
        opener = Opener(blob, key, size, bytes(await source(0, HEADER)))
        return cls(source, opener, ahead=ahead)

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
                self._opener.open(0, await self._sealed(0, 0))
            return
        first, end = start // layout.chunk, (stop - 1) // layout.chunk
        step = layout.chunk + TAG
        for begin in range(first, end + 1, self._ahead):
            last = min(begin + self._ahead - 1, end)
            sealed = await self._sealed(begin, last)
            for index in range(begin, last + 1):
                at = (index - begin) * step
                plain = self._opener.open(index, sealed[at : at + step])
                base = index * layout.chunk
                low, high = max(start - base, 0), min(stop - base, len(plain))
                whole = low == 0 and high == len(plain)
                yield plain if whole else memoryview(plain)[low:high]

    async def _sealed(self, first: int, last: int) -> memoryview:
        """Neighbouring chunks as they lie there, in one request; a short answer is left to the
        opener, which names the chunk that is not whole.
        """
        start, stop = self._opener.layout.span(first, last)
        return memoryview(await self._source(start, stop))
