"""How far an import is, as it goes: a frame for each step that differs from the one before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import msgspec

from appliance.base import logs
from appliance.base.errors import ApplianceError, Refused, Unauthenticated
from appliance.http.ask import Ask
from appliance.http.streams import HEARTBEAT_S, Reader, frame
from appliance.intake import runs

# A look is two reads by key; nobody sees more than a few steps in a second.
LOOK_S = 0.4
RESTING = frozenset({"planned", "applied", "reverted", "failed", "cancelled"})


class Progress(msgspec.Struct, frozen=True):
    """`done` of `total` rows of the present step; `total` is None before it is known."""

    state: str
    done: int
    total: int | None
    counts: dict[str, int]
    held_by: list[str]
    detail: str


async def look(ask: Ask, ident: UUID) -> Progress:
    """One look. Raises Refused for a run that the reader may not see."""
    run = await runs.get_run(ask.node.db, ask.ctx.tenant, ident)
    if run.created_by != ask.ctx.actor and not ask.ctx.profile.may("import.approve"):
        raise Refused("There is no such import for you.", code="intake.run_unknown")
    done, total = 0, None
    if run.job is not None:
        job = await ask.node.jobs.get_job(ask.ctx.tenant, run.job)
        done, total = job.progress, job.total
    return Progress(run.state, done, total, run.counts, run.held_by, run.detail)


async def follow(ask: Ask, ident: UUID) -> AsyncIterator[bytes]:
    """Frames `progress` until the run rests, then `end`; a run that rests already ends at once."""
    yield b"retry: 2000\n\n"
    reader, loop = Reader(ask), asyncio.get_running_loop()
    proved, last = loop.time(), None
    while not ask.node.closing.is_set():
        try:
            if loop.time() - proved >= HEARTBEAT_S:
                await reader.prove()
                proved = loop.time()
                yield b": still here\n\n"
            seen = await look(ask, ident)
        except (Unauthenticated, Refused):
            yield frame("end", {"reason": "session_ended"})
            return
        except ApplianceError as error:
            # A dependency is away for a moment; what is done does not go back.
            logs.event("live.frame_failed", level="warning", code=error.code)
        else:
            if seen != last:
                last = seen
                yield frame("progress", seen)
            if seen.state in RESTING:
                yield frame("end", {"reason": seen.state})
                return
        await asyncio.sleep(LOOK_S)
    yield frame("end", {"reason": "node_stopping"})
