"""How far something is, as it goes: a frame for each step that differs from the one before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID

import msgspec

from appliance.base import logs
from appliance.base.errors import ApplianceError, Refused, Unauthenticated
from appliance.http.ask import Ask
from appliance.http.streams import HEARTBEAT_S, Reader, frame
from appliance.intake import runs
from appliance.intake.lease import how_far

# A look is two reads by key; nobody sees more than a few steps in a second.
LOOK_S = 0.2
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
    done: int = 0
    total: int | None = None
    if run.job is not None:
        job = await ask.node.jobs.get_job(ask.ctx.tenant, run.job)
        done, total = job.progress, job.total
    elif run.options.worker and run.state == "received":
        done, total = await how_far(ask.node.db, ask.ctx.tenant, ident)
    return Progress(run.state, done, total, run.counts, run.held_by, run.detail)


async def follow(ask: Ask, ident: UUID) -> AsyncIterator[bytes]:
    """Frames `progress` until the run rests, then `end`; a run that rests already ends at once."""

    async def seen() -> tuple[Progress, str]:
        found = await look(ask, ident)
        return found, found.state if found.state in RESTING else ""

    async for part in follow_steps(ask, "progress", seen):
        yield part


async def follow_steps(
    ask: Ask, event: str, seen: Callable[[], Awaitable[tuple[object, str]]]
) -> AsyncIterator[bytes]:
    """A frame for each look that differs from the one before; `end` with the reason that the look
    gives when there is nothing more to come, with `gone` when the reader may not see it any more.
    """
    yield b"retry: 2000\n\n"
    reader, loop = Reader(ask), asyncio.get_running_loop()
    proved, last = loop.time(), None
    while not ask.node.closing.is_set():
        try:
            if loop.time() - proved >= HEARTBEAT_S:
                await reader.prove()
                proved = loop.time()
                yield b": still here\n\n"
            now, end = await seen()
        except Unauthenticated:
            yield frame("end", {"reason": "session_ended"})
            return
        except Refused:
            yield frame("end", {"reason": "gone"})
            return
        except ApplianceError as error:
            # A dependency is away for a moment; what is done does not go back.
            logs.event("live.frame_failed", level="warning", code=error.code)
        else:
            if now != last:
                last = now
                yield frame(event, now)
            if end:
                yield frame("end", {"reason": end})
                return
        await asyncio.sleep(LOOK_S)
    yield frame("end", {"reason": "node_stopping"})
