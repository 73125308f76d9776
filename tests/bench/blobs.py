"""Blobs: sealing while bytes stream in, beside a plain copy with hashing of the same file."""

import asyncio
import hashlib
import os
import statistics
import tempfile
import time
import zlib
from pathlib import Path

import msgspec

from appliance.base.ids import uuid7
from quarantine.store.blobs import Blobs
from quarantine.store.contents import join
from quarantine.store.incoming import Incoming
from quarantine.store.keys import MasterKey
from quarantine.store.places import LocalPlace
from quarantine.store.uploads import Uploads
from tests.bench import harness

MEBI = 1024 * 1024
SIZE = 100 * MEBI
PIECE = 65_536
ROUNDS = 5


async def main():
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "source").write_bytes(os.urandom(SIZE))
        master, tenant = MasterKey(os.urandom(32)), uuid7()
        key = master.open_tenant_key(tenant, master.make_tenant_key(tenant))
        incoming = Incoming(root / "incoming")
        blobs = Blobs(LocalPlace(root), incoming)
        content = await grown_by(root, blobs, incoming, key)
        await against_a_copy(root, blobs, incoming, key)
        await parts(root, incoming, key)
        await reading(root, blobs, content, key)


async def pieces(path, start=0, stop=None):
    """The file as a server would hand it over, 64 KiB at a time."""
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        stop = stop or path.stat().st_size
        while start < stop:
            piece = file.read(min(PIECE, stop - start))
            start += len(piece)
            yield piece


async def store(path, blobs, incoming, key):
    received = await incoming.receive(uuid7(), key, pieces(path), limit=SIZE)
    content = join(None, received).content
    await blobs.settle(content)
    return msgspec.structs.replace(content, settled=True)


def copy(source, target):
    """The floor: read, hash, write, flush, rename."""
    digest = hashlib.sha256()
    with source.open("rb", buffering=0) as file, target.open("wb", buffering=0) as out:
        while piece := file.read(PIECE):
            digest.update(piece)
            out.write(piece)
        os.fsync(out.fileno())
    target.rename(target.with_suffix(".done"))


async def grown_by(root, blobs, incoming, key):
    """Peak memory of storing and reading 100 MB, above what the process had."""
    await (await blobs.open(await store(root / "source", blobs, incoming, key), key)).read(0, PIECE)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    content = await store(root / "source", blobs, incoming, key)
    async for _ in (await blobs.open(content, key)).pieces():
        pass
    grown = (status("VmHWM") - before) / 1024
    harness.figure("memory over 100 MB in and out", grown, "MB", "< 20")
    return content


def status(name):
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{name}:")[1].split()[0])


async def against_a_copy(root, blobs, incoming, key):
    ours, floor, stalls = [], [], []
    for _ in range(ROUNDS):
        began = time.monotonic()
        copy(root / "source", root / "copy")
        floor.append(time.monotonic() - began)
        watch = asyncio.create_task(longest_stall(stalls))
        began = time.monotonic()
        content = await store(root / "source", blobs, incoming, key)
        ours.append(time.monotonic() - began)
        watch.cancel()
        await blobs.erase(content)
    ours, floor = (SIZE / MEBI / statistics.median(f) for f in (ours, floor))
    harness.report("seal, hash, keep 100 MB / copy, hash", ours, floor, "> 0.5", "MB/s")
    harness.figure("longest stall of the loop meanwhile", max(stalls) * 1000, "ms", "< 50")


async def longest_stall(found):
    while True:
        began = time.monotonic()
        await asyncio.sleep(0.001)
        found.append(time.monotonic() - began - 0.001)


async def parts(root, incoming, key):
    """The same file in parts of 4 MiB with checksums, each on the disk before the next."""
    uploads, blob, at, data = Uploads(incoming), uuid7(), 0, (root / "source").read_bytes()
    began = time.monotonic()
    await uploads.start(blob, key, size=SIZE)
    while at < SIZE:
        stop = min(at + 4 * MEBI, SIZE)
        crc = zlib.crc32(data[at:stop])
        part = pieces(root / "source", at, stop)
        at = (await uploads.append(blob, key, at, part, crc32=crc)).offset
    sent = time.monotonic() - began
    harness.figure("upload in parts of 4 MiB", SIZE / MEBI / sent, "MB/s", "printed")
    began = time.monotonic()
    await Uploads(incoming).look(blob, key)
    harness.figure("offset after a restart", (time.monotonic() - began) * 1000, "ms", "< 1000")
    began = time.monotonic()
    await uploads.finish(blob, key)
    harness.figure("finish, parts to sealed blob", time.monotonic() - began, "s", "printed")
    await uploads.discard(blob)
    await incoming.discard(blob)


async def reading(root, blobs, content, key):
    """Everything in order, and single ranges anywhere."""
    reader = await blobs.open(content, key)
    began = time.monotonic()
    async for _ in reader.pieces():
        pass
    ours = SIZE / MEBI / (time.monotonic() - began)
    began = time.monotonic()
    with (root / "source").open("rb", buffering=0) as file:
        while file.read(MEBI):
            pass
    floor = SIZE / MEBI / (time.monotonic() - began)
    harness.report("read 100 MB / read of the plain file", ours, floor, "printed", "MB/s")
    took = []
    for n in range(200):
        start = n * 7_919_999 % (SIZE - PIECE)
        began = time.monotonic()
        await reader.read(start, start + PIECE)
        took.append((time.monotonic() - began) * 1e3)
    harness.figure("a range of 64 KiB, p95", statistics.quantiles(took, n=20)[18], "ms", "< 10")
