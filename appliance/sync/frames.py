"""One frame: whole transactions of one stream on their way between two nodes.

    length u32 | crc32c u32 | format u8 | dictionary u8 | zstd(msgpack(Batch))      (big-endian)

`length` counts what follows it, the checksum covers what follows it. The batch is columnar
(`batch`); zstd without its magic number, with the dictionary of that number, and a block of its
own for the random bytes at the end.

Operations unknown to this program stay plain texts and go on unchanged, as do fields, groups and
extensions it has never heard of: only `format` says whether a frame can be read at all. A newer
program that needs more columns raises it, after `hello` has said what both sides read.

Raises Malformed, with the place, for whatever a peer may send instead of a frame; what that may
cost is bounded by BATCH_BYTES_MAX, whatever sizes it claims.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from struct import Struct
from uuid import UUID

import google_crc32c
import msgspec
import zstandard

from appliance.base.errors import TooLarge
from appliance.kernel.change import Logged, encode_body
from appliance.sync.batch import Batch, Frame, pack_batch, prove, unpack_batch
from appliance.sync.packing import ENTRIES_MAX, malformed

FORMAT = 1
DICTIONARY = 1
FRAME_BYTES = 65_536
FRAME_ENTRIES = 1_000
# A transaction that is larger travels in a frame of its own: a local one may be as large as this.
FRAME_BYTES_MAX = 8 << 20
BATCH_BYTES_MAX = 16 << 20
_LEVEL = 3
_HEAD = Struct(">IIBB")
_FORM = zstandard.FORMAT_ZSTD1_MAGICLESS
# What an entry weighs beside its body when packed, and how far a body shrinks: to guess well.
_ENTRY_BYTES, _SHRINKS = 28, 2
_pack = msgspec.msgpack.Encoder().encode
_read_batch = msgspec.msgpack.Decoder(Batch).decode


def encode_frame(
    stream: UUID, entries: Sequence[Logged], *, before: Mapping[int, bytes] | None = None
) -> bytes:
    """Entries of one stream as one frame, whatever its size.

    `before` is the hash of the entry before the first one, by origin; without it the reader can
    prove only the chain of an origin that begins here. Raises TooLarge for what no reader takes.
    """
    assert entries, "a frame holds something"
    batch = pack_batch(stream, entries, before or {})
    content = _pack(batch)
    packed = bytes((FORMAT, DICTIONARY)) + _compress(content, len(content) - len(batch.noise))
    fits = len(packed) + 8 <= FRAME_BYTES_MAX and len(content) <= BATCH_BYTES_MAX
    if not fits or len(entries) > ENTRIES_MAX:
        raise TooLarge(
            f"{len(entries)} entries of stream {stream} from number {entries[0].entry.oseq} of node "
            f"{entries[0].entry.origin} are {len(content)} bytes; a frame holds {ENTRIES_MAX} "
            f"entries of {BATCH_BYTES_MAX} bytes together.",
            code="sync.frame",
        )
    return _HEAD.pack(len(packed) + 4, google_crc32c.value(packed), *packed[:2]) + packed[2:]


def decode_frame(data: bytes, log_key: bytes | None = None) -> Frame:
    """What a frame holds; with the tenant's log key its hashes too, proved. Raises Malformed."""
    return read_frame(open_frame(data), log_key)


def read_frame(batch: Batch, log_key: bytes | None = None) -> Frame:
    """The entries of a frame that was opened; see `decode_frame`."""
    frame = unpack_batch(batch)
    return frame if log_key is None else prove(frame, log_key)


def open_frame(data: bytes) -> Batch:
    """The batch inside a frame; nothing is allocated before its claimed size is judged."""
    if not _HEAD.size <= len(data) <= FRAME_BYTES_MAX:
        raise malformed("its length", f"{_HEAD.size} to {FRAME_BYTES_MAX} bytes")
    length, crc, form, dictionary = _HEAD.unpack_from(data)
    if length != len(data) - 4:
        raise malformed("its length", f"{length + 4} bytes as it says, not {len(data)}")
    if google_crc32c.value(data[8:]) != crc:
        raise malformed("its checksum", "that of its bytes")
    if (form, dictionary) != (FORMAT, DICTIONARY):
        raise malformed(f"format {form} with dictionary {dictionary}", "one that was agreed on")
    packed = data[_HEAD.size :]
    try:
        claimed = zstandard.get_frame_parameters(packed, format=_FORM)
        # Without a size the library says 2**64 - 1.
        if not 0 < claimed.content_size <= BATCH_BYTES_MAX:
            raise malformed("the size of its content", f"at most {BATCH_BYTES_MAX} bytes")
        content = _tools().decompressor.decompress(packed, allow_extra_data=False)
        return _read_batch(content)
    except (zstandard.ZstdError, msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise malformed("its content", "a batch of entries") from error


class _Tools(threading.local):
    """The compressor's state: not to be used by two threads at once."""

    def __init__(self) -> None:
        path = Path(__file__).with_name(f"frames.{DICTIONARY}.dict")
        known = zstandard.ZstdCompressionDict(path.read_bytes())
        parameters = zstandard.ZstdCompressionParameters.from_level(
            _LEVEL, format=_FORM, write_dict_id=False, write_content_size=True
        )
        self.compressor = zstandard.ZstdCompressor(dict_data=known, compression_params=parameters)
        self.decompressor = zstandard.ZstdDecompressor(
            dict_data=known, format=_FORM, max_window_size=2 * BATCH_BYTES_MAX
        )


@cache
def _tools() -> _Tools:
    return _Tools()


def _compress(content: bytes, noise_at: int) -> bytes:
    """Two blocks, so that random bytes do not spoil the code of the others."""
    making = _tools().compressor.compressobj(size=len(content))
    return b"".join((
        making.compress(content[:noise_at]), making.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK),
        making.compress(content[noise_at:]), making.flush(),
    ))  # fmt: skip


def encode_frames(
    stream: UUID,
    entries: Sequence[Logged],
    before: Mapping[int, bytes] | None = None,
    hashes: Sequence[bytes] | None = None,
) -> Iterator[tuple[bytes, int]]:
    """Entries as frames of at most FRAME_BYTES and FRAME_ENTRIES: each with how many it holds.

    Transactions stay whole, so one that is larger has a frame of its own. `hashes` are those of
    the entries as they were logged, where some have been stripped since.
    """
    known = dict(before or {})
    own = iter(hashes if hashes is not None else [one.hash for one in entries])
    parts = list(reversed(cut(entries)))
    while parts:
        part = parts.pop()
        data = encode_frame(stream, part, before=known)
        if len(data) > FRAME_BYTES and len(halves := _halves(part)) > 1:
            parts += reversed(halves)
            continue
        yield data, len(part)
        known.update({one.entry.origin: digest for one, digest in zip(part, own, strict=False)})


def cut(entries: Sequence[Logged]) -> list[list[Logged]]:
    """Whole transactions, as many together as a frame will probably hold."""
    parts: list[list[Logged]] = [[]]
    size = 0
    for whole in _transactions(entries):
        bodies = sum(len(encode_body(one.entry.body)) for one in whole)
        more = len(whole) * _ENTRY_BYTES + bodies // _SHRINKS
        part = parts[-1]
        if part and (len(part) + len(whole) > FRAME_ENTRIES or size + more > FRAME_BYTES):
            parts.append([])
            size = 0
        parts[-1] += whole
        size += more
    return [part for part in parts if part]


def _transactions(entries: Sequence[Logged]) -> list[list[Logged]]:
    found = groupby(entries, key=lambda one: (one.entry.origin, one.entry.tx))
    return [list(group) for _, group in found]


def _halves(part: list[Logged]) -> list[list[Logged]]:
    whole = _transactions(part)
    middle = len(whole) // 2
    halves = [[one for tx in some for one in tx] for some in (whole[:middle], whole[middle:])]
    return [half for half in halves if half]
