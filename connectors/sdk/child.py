"""The throw-away child: parses untrusted bytes under limits and speaks frames on stdout.

`child SYSTEM FILE` opens the file once and answers requests from stdin (look at it, read it under
a mapping, give a picture of it) until that is closed. A frame is its length in four bytes and a MessagePack of
sdk.contract.Request there, of sdk.contract.Frame here. A 5 KB workbook can abort an interpreter:
then this one dies, and nobody else.
"""

from __future__ import annotations

import gc
import hashlib
import os
import resource
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import msgspec

from connectors.sdk.contract import (
    Carrier,
    Connector,
    Done,
    Failed,
    Fault,
    Fetch,
    Frame,
    Inspect,
    Mapping,
    Piece,
    Refused,
    Request,
    Rows,
    Source,
    Summary,
)
from connectors.sdk.usage import read_used

Fetcher = Callable[[str], Iterator[bytes]]
MEMORY_MAX = 2 << 30
CPU_S_MAX = 900
_LENGTH = struct.Struct(">I")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Request).decode


def main() -> int:
    """Serve one input."""
    _confine()
    # Rows are millions of small objects without cycles: looking for some would take a fifth.
    gc.set_threshold(100_000, 20, 20)
    system, path = sys.argv[1], Path(sys.argv[2])
    connector: Connector = import_module(f"connectors.systems.{system}").CONNECTOR
    source: Source | None = None
    fetch: Fetcher | None = None
    try:
        while (request := _receive()) is not None:
            if isinstance(request, Fetch):
                fetch = fetch or _fetcher(connector, path)
                _fetch(fetch, request.name)
                continue
            source = source or connector.open(path)
            if isinstance(request, Inspect):
                _send(source.inspect(request.learned))
            else:
                _read(source, path, request.mapping)
    except Refused as refused:
        _send(Failed(refused.fault))
    except MemoryError:
        _send(Failed(Fault("workbook-too-large", "an input that fits into memory", "more")))
    return 0


def _receive() -> Request | None:
    size = sys.stdin.buffer.read(_LENGTH.size)
    return _decode(sys.stdin.buffer.read(_LENGTH.unpack(size)[0])) if size else None


def _read(source: Source, path: Path, mapping: Mapping) -> None:
    rows = faulty = 0
    counts: Counter[str] = Counter()
    summary = Summary()
    for frame in source.read(mapping):
        if isinstance(frame, Summary):
            summary = frame
            continue
        if isinstance(frame, Rows):
            rows += len(frame.rows)
            bad = [r for r in frame.rows if r.faults]
            faulty += len(bad)
            counts.update(f.code for r in bad for f in r.faults)
        _send(frame)
    _send(Done(rows, faulty, _hash(path), dict(counts), summary, read_used()))


def _fetcher(connector: Connector, path: Path) -> Fetcher:
    if isinstance(connector, Carrier):
        return connector.attached(path)
    raise Refused(Fault("image-missing", "an input that brings files", "one of rows alone"))


def _fetch(fetch: Fetcher, name: str) -> None:
    """One file that is not there, or is broken, is no end of the others."""
    try:
        for data in fetch(name):
            _send(Piece(data))
        _send(Piece(b""))
    except Refused as refused:
        _send(Failed(refused.fault))


def _send(frame: Frame | Piece) -> None:
    data = _encode(frame)
    out = sys.stdout.buffer
    out.write(_LENGTH.pack(len(data)))
    out.write(data)
    out.flush()


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _confine() -> None:
    """Limits of this process; it writes no file and leaves no core."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    memory = int(os.environ.get("CONNECTOR_MEMORY", MEMORY_MAX))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    cpu = int(os.environ.get("CONNECTOR_CPU_S", CPU_S_MAX))
    # The signal of the lower one says what it was that ended us (sdk.parent).
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 5))


if __name__ == "__main__":
    sys.exit(main())
