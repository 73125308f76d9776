"""Uploads in parts, for weak links: the node asks, part by part, under orders that it signed.

Promises: an offset that was answered is on the disk, whatever is killed after; a part that hangs
on a dead link gives its place to whoever comes back; a refusal says by a code what to do next.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import Request, Response, delete, get, patch, post, put
from litestar.exceptions import HTTPException

from quarantine.contract import UPLOAD_S, Action, Arrived, Hitch, Order, Part, ScanJob
from quarantine.http.node_side import Asked, blob_of, job_of, json_of, order_of, plane_of, refusal
from quarantine.http.plane import Plane, Writer
from quarantine.store.faults import (
    Busy,
    Changed,
    Incomplete,
    Missing,
    Spoiled,
    StoreFault,
    TooManyParts,
    WrongOffset,
)
from quarantine.store.uploads import Progress

# A part that was silent for so long loses its place to whoever comes back and asks for it.
DEAD_S = 3.0
_HITCHES: dict[type[StoreFault], tuple[int, Hitch]] = {
    WrongOffset: (409, Hitch.OFFSET), Incomplete: (409, Hitch.OFFSET),
    Changed: (409, Hitch.CHANGED), Spoiled: (409, Hitch.SPOILED), Busy: (423, Hitch.BUSY), Missing: (404, Hitch.MISSING),
}  # fmt: skip


def explain(_: Request[Any, Any, Any], fault: StoreFault) -> Response[bytes]:
    """A fault of the store with its code and, where the sender needs it, the offset."""
    known = _HITCHES.get(type(fault))
    if known is None:
        status = 413 if isinstance(fault, TooManyParts) else refusal(fault).status_code
        return _problem({"status": status, "detail": str(fault)})
    status, hitch = known
    body: dict[str, object] = {"status": status, "detail": str(fault), "code": hitch.value}
    if isinstance(fault, WrongOffset | Spoiled):
        body["offset"] = fault.expected
    elif isinstance(fault, Incomplete):
        body["offset"] = fault.held
    return _problem(body)


@post("/parts", exception_handlers={StoreFault: explain})
async def begin(request: Asked) -> Response[bytes]:
    """Open an upload; one that is open already goes on."""
    order = order_of(request, Action.PARTS)
    part = _part(order)
    progress = await plane_of(request).vault.begin(
        job_of(order), part.size, part.sha256, lasting=part.lasting
    )
    return json_of(_arrived(progress), 201)


@get("/parts", exception_handlers={StoreFault: explain})
async def look(request: Asked) -> Response[bytes]:
    """Where to go on."""
    job = job_of(order_of(request, Action.PARTS))
    return json_of(await _find(plane_of(request), job))


@patch("/parts", exception_handlers={StoreFault: explain})
async def append(request: Asked) -> Response[bytes]:
    """Take one part; without a checksum what came of it before the link broke is kept."""
    order, plane = order_of(request, Action.PARTS), plane_of(request)
    job, part = job_of(order), _part(order)
    _make_way(plane, job)
    try:
        async with asyncio.timeout(None) as end:
            writer = plane.writers[job.blob] = Writer(end, _now())
            try:
                progress = await plane.vault.append(
                    job, part.offset, _heard(request, writer), part.crc32
                )
            finally:
                del plane.writers[job.blob]
    except TimeoutError:
        raise Busy(job.blob) from None
    return json_of(_arrived(progress))


@put("/parts", exception_handlers={StoreFault: explain})
async def finish(request: Asked) -> Response[bytes]:
    """Make a blob of all parts; again is fine."""
    job, plane = job_of(order_of(request, Action.FINISH)), plane_of(request)
    stored = await plane.vault.finish(job)
    return json_of(stored, 201)


@delete("/parts", status_code=200, exception_handlers={StoreFault: explain})
async def give_up(request: Asked) -> Response[bytes]:
    """Forget an upload, and the blob that was perhaps made of it."""
    ident, plane = blob_of(order_of(request, Action.PURGE)), plane_of(request)
    if (writer := plane.writers.get(ident)) is not None:
        writer.end.reschedule(_now())
    await plane.vault.uploads.discard(ident)
    await plane.vault.purge(ident)
    return json_of({})


async def _find(plane: Plane, job: ScanJob) -> Arrived:
    """How an upload stands. Raises Missing, Busy."""
    _make_way(plane, job)
    try:
        return _arrived(await plane.vault.progress(job))
    except Missing:
        stored = await plane.vault.stored(job)
        if stored is None:
            raise
        return Arrived(stored.blob, stored.size, stored.size)


def _make_way(plane: Plane, job: ScanJob) -> None:
    """Raise Busy while another part comes in; one that is dead is broken off for the next try."""
    writer = plane.writers.get(job.blob)
    if writer is None:
        return
    if _now() - writer.heard >= DEAD_S:
        writer.end.reschedule(_now())
    raise Busy(job.blob)


async def _heard(request: Asked, writer: Writer) -> AsyncIterator[bytes]:
    async for piece in request.stream():
        writer.heard = _now()
        yield piece


def _arrived(progress: Progress) -> Arrived:
    until = datetime.fromtimestamp(progress.touched + UPLOAD_S, UTC)
    return Arrived(progress.blob, progress.offset, progress.size, until)


def _part(order: Order) -> Part:
    if order.part is None:
        raise HTTPException(status_code=422, detail="The order says nothing of a part.")
    return order.part


def _now() -> float:
    return asyncio.get_running_loop().time()


def _problem(body: dict[str, object]) -> Response[bytes]:
    return Response(
        msgspec.json.encode(body), status_code=int(str(body["status"])),
        media_type="application/problem+json", headers={"Cache-Control": "no-store"},
    )  # fmt: skip


HANDLERS = (begin, look, append, finish, give_up)
