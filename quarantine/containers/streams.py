"""One file behind a compressor: gzip, xz, lzma, bzip2, zstd. Streams behind each other are one."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import zstandard

from quarantine.containers.budget import Budget, Part, Refused, Sink

_PIECE = 256 * 1024
_SMALL_PIECE = 64
_WINDOW_BYTES_MAX = 128 * 1024 * 1024
_PADDING_MAX = 1024 * 1024
_SUFFIXES = {"gz": "", "tgz": "tar", "xz": "", "txz": "tar", "lzma": "", "bz2": "", "tbz": "tar"}
_SUFFIXES |= {"tbz2": "tar", "zst": "", "tzst": "tar", "zstd": ""}


class _Decoder(Protocol):
    """The same face for all: bytes in, a bounded number out, and what is left at the end."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def feed(self, data: bytes) -> bytes: ...

    def more(self) -> bool: ...


class _Zlib:
    def __init__(self) -> None:
        self._inner = zlib.decompressobj(31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def feed(self, data: bytes) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, _PIECE)

    def more(self) -> bool:
        return bool(self._inner.unconsumed_tail)


class _Pulled:
    """lzma and bz2, which keep what they did not use yet."""

    def __init__(self, inner: lzma.LZMADecompressor | bz2.BZ2Decompressor) -> None:
        self._inner = inner

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def feed(self, data: bytes) -> bytes:
        return self._inner.decompress(data, _PIECE)

    def more(self) -> bool:
        return not self._inner.eof and not self._inner.needs_input


_DECODERS: dict[str, Callable[[], _Decoder]] = {
    "application/gzip": _Zlib,
    "application/x-bzip2": lambda: _Pulled(bz2.BZ2Decompressor()),
    "application/x-xz": lambda: _Pulled(
        lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_WINDOW_BYTES_MAX)
    ),
    "application/x-lzma": lambda: _Pulled(
        lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_WINDOW_BYTES_MAX)
    ),
}
ZSTD = "application/zstd"
TYPES = frozenset({*_DECODERS, ZSTD})


def walk(path: Path, name: str, type_: str, budget: Budget) -> Iterator[Part]:
    """The one file inside, named as unpackers name it. Raises Refused."""
    budget.count_entry()
    packed = path.stat().st_size
    with path.open("rb") as file, budget.sink(packed) as sink:
        try:
            if type_ == ZSTD:
                _unpack_zstd(file, sink)
            else:
                _unpack(file, _DECODERS[type_], sink)
        except (zlib.error, lzma.LZMAError, OSError, EOFError, zstandard.ZstdError) as error:
            if isinstance(error, OSError) and error.errno:
                raise
            raise _damaged() from None
        sink.close()
        yield Part(inner_name(name), sink.path)


def inner_name(name: str) -> str:
    """`prices.csv.gz` holds `prices.csv`, `all.tgz` holds `all.tar`."""
    stem, dot, suffix = name.rpartition(".")
    inner = _SUFFIXES.get(suffix.lower())
    if not dot or inner is None:
        return name
    return f"{stem}.{inner}" if inner else stem


def _unpack(file: BinaryIO, new: Callable[[], _Decoder], sink: Sink) -> None:
    decoder = new()
    rest = b""
    while data := rest or file.read(_PIECE):
        rest = b""
        sink.write(decoder.feed(data))
        while decoder.more():
            sink.write(decoder.feed(b""))
        if decoder.eof:
            rest = _next_stream(decoder.unused_data, file)
            if not rest:
                return
            decoder = new()
    raise _damaged()


def _next_stream(unused: bytes, file: BinaryIO) -> bytes:
    """The start of the stream that follows, past padding; empty at the end of the file."""
    padding = 0
    while True:
        start = unused.lstrip(b"\0")
        padding += len(unused) - len(start)
        if start or padding > _PADDING_MAX:
            break
        unused = file.read(_PIECE)
        if not unused:
            return b""
    if padding:
        raise Refused("container.trailing", "There are bytes behind the end of the archive.")
    return start + file.read(_SMALL_PIECE)


def _unpack_zstd(file: BinaryIO, sink: Sink) -> None:
    """Frame by frame; the library says nothing of a frame that is cut, so its end is asked for."""
    rest = b""
    while data := rest or file.read(_PIECE):
        decoder = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES_MAX).decompressobj(
            write_size=_PIECE
        )
        while True:
            # Small pieces bound what one call may unpack before the budget is asked.
            for at in range(0, len(data), _SMALL_PIECE * 16):
                piece = data[at : at + _SMALL_PIECE * 16]
                sink.write(decoder.decompress(piece))
                if decoder.eof:
                    data = data[at + len(piece) :]
                    break
            if decoder.eof:
                break
            data = file.read(_PIECE)
            if not data:
                raise _damaged()
        rest = decoder.unused_data + data


def _damaged() -> Refused:
    return Refused("container.structure", "It cannot be unpacked to its end; it is damaged or cut.")
