"""From a message to an ended job: claim, run under a kept lease, and say how it went.

Promises: never raises for a job's own failure (the outbox decides about another try, not the
broker); a stop of the worker gives the job back within the grace; PostgreSQL away means the
lease runs out and the relay sends the job again.
"""

from __future__ import annotations

import asyncio
import contextlib
from uuid import UUID

from appliance.base import logs
from appliance.base.errors import (
    ApplianceError,
    Forbidden,
    Invalid,
    Malformed,
    Refused,
    Unavailable,
)
from appliance.work.node import WorkNode
from appliance.work.registry import JobSort
from appliance.work.run import KEEP_S, LEASE_S, JobCancelled, LeaseLost, Run, claim

# Trying again cannot help: the job's content or the right to it is what is wrong.
_PERMANENT = (Invalid, Malformed, Refused, Forbidden)


async def perform(node: WorkNode, sort: JobSort, tenant: UUID, outbox_id: int) -> None:
    """Run one job if it is still to be run."""
    bound = logs.bind(tenant=tenant, job_kind=sort.kind)
    try:
        run = await claim(node.db, tenant, outbox_id)
        if run is not None:
            logs.event("job.started", job=run.job, attempt=run.attempt)
            await _perform(node, sort, run)
    except ApplianceError as error:
        logs.event("job.left", level="warning", code=error.code)
    finally:
        logs.unbind(bound)


async def _perform(node: WorkNode, sort: JobSort, run: Run) -> None:
    if run.is_cancelled:
        await run.cancel()
        return
    if run.attempt > sort.attempts_max:
        await _bury(run, "job.worker_lost", "The worker died each time this job was started.")
        return
    work = asyncio.create_task(sort.handler(node, run.tenant, run.payload, run))
    keeper = asyncio.create_task(_keep(run, work))
    try:
        async with asyncio.timeout(sort.time_limit_s):
            await work
        if not run.is_complete:
            await run.finish()
        logs.event("job.done", job=run.job)
    except asyncio.CancelledError:
        await _settle_cancelled(run, keeper)
    except TimeoutError:
        await _fail(sort, run, "job.too_slow", f"It took longer than {sort.time_limit_s} s.")
    except JobCancelled:
        await run.cancel()
        logs.event("job.cancelled", job=run.job)
    except LeaseLost:
        logs.event("job.lease_lost", level="warning", job=run.job)
    except ApplianceError as error:
        await _refuse(sort, run, error)
    except Exception as error:  # noqa: BLE001 - whatever a handler raises is a failed start
        await _fail(sort, run, "node.fault", f"A fault of the program ({type(error).__name__}).")
    finally:
        for task in (keeper, work):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task


async def _settle_cancelled(run: Run, keeper: asyncio.Task[None]) -> None:
    """Cancelled by our own keeper (asked, or lease lost) or because this worker stops."""
    if run.is_cancelled:
        await run.cancel()
        logs.event("job.cancelled", job=run.job)
    elif keeper.done():
        logs.event("job.lease_lost", level="warning", job=run.job)
    else:
        await run.release()
        logs.event("job.released", job=run.job)


async def _keep(run: Run, work: asyncio.Task[None]) -> None:
    while True:
        await asyncio.sleep(KEEP_S)
        try:
            await run.keep()
        except (LeaseLost, JobCancelled):
            if run.is_complete:
                return
            work.cancel()
            return
        except ApplianceError as error:
            # The next beat may still come in time; if none does, the lease decides.
            logs.event("job.keep_failed", level="warning", job=run.job, code=error.code)


async def _refuse(sort: JobSort, run: Run, error: ApplianceError) -> None:
    if isinstance(error, Unavailable) and error.dependency == "PostgreSQL":
        await _give_back(run)
        return
    if isinstance(error, _PERMANENT):
        await _bury(run, error.code, error.detail)
    else:
        await _fail(sort, run, error.code, error.detail)


async def _give_back(run: Run) -> None:
    """Our own database was away: not the job's fault, so the start does not count."""
    for _ in range(LEASE_S):
        try:
            await run.release()
        except ApplianceError:
            await asyncio.sleep(1.0)
        else:
            return


async def _fail(sort: JobSort, run: Run, code: str, detail: str) -> None:
    if run.attempt >= sort.attempts_max:
        await _bury(run, code, f"{detail} Tried {run.attempt} times.")
        return
    logs.event("job.failed", level="warning", job=run.job, code=code, attempt=run.attempt)
    await run.retry(f"{code}: {detail} Attempt {run.attempt} of {sort.attempts_max}.")


async def _bury(run: Run, code: str, detail: str) -> None:
    logs.event("job.buried", level="error", job=run.job, code=code, attempt=run.attempt)
    await run.bury(f"{code}: {detail}")
