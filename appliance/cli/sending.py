"""A large file into the plane part by part, so that a link that breaks costs one part at most.

The SHA-256 of the whole is said before the first part: a file that is edited meanwhile is refused
at its end, and never becomes a mixture of both.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import zlib
from collections.abc import AsyncIterator, Callable
from io import BufferedReader

from appliance.base.errors import Clash, Locked, Spoiled, StorageFull, Unavailable
from appliance.files import parts
from appliance.files.parts import Door, Standing
from appliance.files.places import Place
from appliance.files.rows import File

IN_PARTS_FROM = 8 * 1024 * 1024
PART = 4 * 1024 * 1024
PATIENCE_S = 120.0
_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0)


async def send_in_parts(
    door: Door, name: str, place: Place, source: BufferedReader, report: Callable[[int], None]
) -> File:
    """The file when it is held. Waits up to `PATIENCE_S` for a plane that is away, and goes on.

    Raises what the upload raises; it is then given up.
    """
    size = os.fstat(source.fileno()).st_size
    digest = await asyncio.to_thread(hashlib.file_digest, source, "sha256")
    begun = await parts.begin(
        door, name=name, size=size, place=place, sha256=digest.hexdigest()
    )  # fmt: skip
    try:
        return await _send(door, begun, source, report)
    except BaseException:
        await _leave(door, begun.file)
        raise


async def _send(
    door: Door, standing: Standing, source: BufferedReader, report: Callable[[int], None]
) -> File:
    loop = asyncio.get_running_loop()
    began_s, failures = loop.time(), 0
    while True:
        try:
            if failures:
                standing = await parts.look(door, standing.file)
            while not standing.is_whole:
                standing = await _send_part(door, standing, source)
                report(standing.offset)
                failures = 0
            return await parts.finish(door, standing.file)
        except StorageFull:
            raise
        except (Unavailable, Locked, Spoiled):
            if not failures:
                began_s = loop.time()
            if loop.time() - began_s > PATIENCE_S:
                raise
            await asyncio.sleep(_PAUSES_S[min(failures, len(_PAUSES_S) - 1)])
            failures += 1


async def _send_part(door: Door, standing: Standing, source: BufferedReader) -> Standing:
    body = await asyncio.to_thread(os.pread, source.fileno(), PART, standing.offset)
    if not body:
        raise Clash("The file became shorter while it was being sent.", code="file.changed")

    async def pieces() -> AsyncIterator[bytes]:
        yield body

    return await parts.take(
        door, standing.file, standing.offset, pieces(), zlib.crc32(body)
    )  # fmt: skip


async def _leave(door: Door, file: File) -> None:
    """End it as far as that can be done now; what the plane still has goes within the hour."""
    try:
        await parts.give_up(door, file, "The upload did not end.")
    except (Clash, Unavailable):
        return
