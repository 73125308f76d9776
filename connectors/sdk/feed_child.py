"""The child that writes a feed: orders on stdin, the file and who stays out on stdout.

`feed_child` speaks the frames of sdk.feeds, each its length in four bytes and a MessagePack. A feed
of a hundred thousand offers costs seconds of computing, which are nobody's who answers requests;
it comes from pipes alone, so memory is that of a block.
"""

from __future__ import annotations

import gc
import resource
import struct
import sys
from collections.abc import Iterator

import msgspec

from connectors.sdk.contract import Refused
from connectors.sdk.feeds import Begin, Broken, Offer, Offers, Order, Written

MEMORY_MAX = 1 << 30
_LENGTH = struct.Struct(">I")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Order).decode


def main() -> int:
    """Write one feed."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
    gc.set_threshold(100_000, 20, 20)
    # Imported by name, so that the SDK knows of no system.
    from importlib import import_module

    begin = _receive()
    if not isinstance(begin, Begin):
        return 2
    writer = import_module("connectors.systems.yml").FEEDS[begin.dialect]
    try:
        for frame in writer.write(begin.shop, begin.categories, _offers()):
            _send(frame)
    except Refused as refused:
        _send(Broken(refused.fault))
    sys.stdout.buffer.flush()
    return 0


def _offers() -> Iterator[Offer]:
    while (order := _receive()) is not None:
        if isinstance(order, Offers):
            yield from order.offers


def _receive() -> Order | None:
    size = sys.stdin.buffer.read(_LENGTH.size)
    return _decode(sys.stdin.buffer.read(_LENGTH.unpack(size)[0])) if size else None


def _send(frame: Written) -> None:
    data = _encode(frame)
    sys.stdout.buffer.write(_LENGTH.pack(len(data)))
    sys.stdout.buffer.write(data)


if __name__ == "__main__":
    sys.exit(main())
