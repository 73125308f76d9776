"""One input read whole, in the throw-away child, by whoever has no node at hand.

The mapping is what the connector proposes, with the constants of its manifest below and those that
are given above.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping as MappingOf
from pathlib import Path

import msgspec

from connectors.sdk import parent
from connectors.sdk.contract import Done, Found, Progress, Rows
from connectors.sdk.manifest import read_manifest


class Read(msgspec.Struct, frozen=True):
    """What was found in an input, and how its reading ended."""

    found: Found
    done: Done


async def read_whole(
    system: str, path: Path, take: Callable[[Rows], None], *,
    constants: MappingOf[str, str] | None = None, memory: int = 0,
) -> Read:  # fmt: skip
    """Hand each block of rows to `take`. `memory`: bytes the child may have. Raises Refused."""
    async with parent.open_input(system, path, memory=memory) as reading:
        found = await reading.inspect({})
        proposed = found.proposal
        settings = {**read_manifest(system).settings, **proposed.constants, **(constants or {})}
        mapping = msgspec.structs.replace(proposed, constants=settings)
        async for frame in reading.read(mapping):
            if isinstance(frame, Rows):
                take(frame)
            elif not isinstance(frame, Progress):
                return Read(found, frame)
    raise AssertionError("a reading ends with Done or raises")
