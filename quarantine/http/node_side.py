"""What the node asks of the plane: take bytes, look, scan, read, forget, tell. Signed, or unknown.

A request without a fresh order of our own node gets a bare 404, so that the door says nothing of
itself to anybody else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, Response, delete, get, head, post, put
from litestar.exceptions import HTTPException
from litestar.response import Stream

from quarantine import ledger
from quarantine.contract import (
    COPY_HEADER,
    ORDER_HEADER,
    ORDER_S,
    Action,
    Copied,
    Look,
    Order,
    ScanJob,
    Status,
    Verdict,
)
from quarantine.http.plane import Plane
from quarantine.signing import Forged
from quarantine.store.faults import (
    Busy,
    Changed,
    Damaged,
    KeyFault,
    Missing,
    NoSpace,
    PlaceDown,
    StoreFault,
    TooLarge,
)

# As long as a process that is told to stop waits for its last answer.
WAIT_S = 5.0
_LOOK_S = 0.02
Asked = Request[Any, Any, Any]
_encode = msgspec.json.encode


def plane_of(request: Asked) -> Plane:
    """The plane that this application serves."""
    found: Plane = request.app.state.plane
    return found


def order_of(request: Asked, *actions: Action) -> Order:
    """The signed order of a request. Raises 404 for anybody but the node."""
    text = request.headers.get(ORDER_HEADER, "")
    try:
        order = plane_of(request).signer.open(text, Order)
    except Forged:
        raise HTTPException(status_code=404, detail="Not found") from None
    if order.action not in actions or abs(time.time() - order.issued_at.timestamp()) > ORDER_S:
        raise HTTPException(status_code=404, detail="Not found")
    return order


def job_of(order: Order) -> ScanJob:
    """The job of an order. Raises 422."""
    if order.job is None:
        raise HTTPException(status_code=422, detail="The order holds no job.")
    return order.job


def refusal(fault: StoreFault) -> HTTPException:
    """What is wrong in the store, as an answer."""
    statuses = {
        TooLarge: 413, NoSpace: 507, PlaceDown: 503, Missing: 404, KeyFault: 409, Changed: 409,
        Busy: 503,
    }  # fmt: skip
    return HTTPException(status_code=statuses.get(type(fault), 500), detail=str(fault))


def json_of(value: object, status: int = 200) -> Response[bytes]:
    """A message as an answer."""
    return Response(_encode(value), status_code=status, media_type="application/json")


@put("/blobs")
async def receive(request: Asked) -> Response[bytes]:
    """Take the bytes of one blob, whole or not at all."""
    job = job_of(order_of(request, Action.RECEIVE))
    plane = plane_of(request)
    stored = await plane.vault.receive(job, request.stream())
    return json_of(stored, 201)


@post("/scans")
async def scan(request: Asked) -> Response[bytes]:
    """Look at a blob again; its verdict stands until then."""
    job, plane = job_of(order_of(request, Action.SCAN)), plane_of(request)
    known = await plane.vault.ledger.run(lambda db: ledger.ask_again(db, job.blob, job.priority))
    if not known:
        raise HTTPException(status_code=404, detail="There is no such blob.")
    return json_of({}, 202)


@get("/blobs")
async def look(request: Asked) -> Response[bytes]:
    """How a blob stands."""
    ident, plane = blob_of(order_of(request, Action.LOOK)), plane_of(request)
    blob = await plane.vault.ledger.run(lambda db: ledger.find_blob(db, ident))
    if blob is None:
        raise HTTPException(status_code=404, detail="There is no such blob.")
    state = await plane.scanner_state()
    judged = datetime.fromtimestamp(blob.judged, UTC) if blob.judged is not None else None
    why = blob.why or (
        ""
        if blob.verdict
        else state.sentence
        if state.scanner == "down"
        else "It waits for its scan."
    )
    return json_of(
        Look(blob.id, why, blob.verdict, judged, blob.signatures == state.signatures, blob.attempts)
    )


@get("/bytes")
async def read(request: Asked) -> Stream:
    """The bytes of a blob for the node itself (an import): only of one that is clean."""
    order, plane = order_of(request, Action.READ), plane_of(request)
    ident = blob_of(order)
    blob = await plane.vault.ledger.run(lambda db: ledger.find_blob(db, ident))
    if blob is None or blob.verdict != "clean":
        raise HTTPException(status_code=404, detail="There is no such clean blob.")
    reader = await plane.vault.open(blob)

    async def pieces() -> AsyncIterator[bytes]:
        async for piece in reader.pieces():
            yield bytes(piece)

    return Stream(pieces(), media_type="application/octet-stream")


@get("/copies")
async def copy(request: Asked) -> Stream:
    """All bytes of a blob for an archive, or some for another node, whatever its verdict is, but
    never of a rejected one.
    """
    order, plane = order_of(request, Action.COPY), plane_of(request)
    ident = blob_of(order)
    blob = await plane.vault.ledger.run(lambda db: ledger.find_blob(db, ident))
    if blob is None or blob.tenant != order.tenant:
        raise HTTPException(status_code=404, detail="There is no such blob.")
    if blob.verdict is Verdict.REJECTED:
        raise HTTPException(status_code=410, detail="An engine rejected this blob; it stays here.")
    start, stop = (
        (order.part.offset, order.part.offset + order.part.size) if order.part else (0, None)
    )
    if start < 0 or (stop is not None and stop < start):
        raise HTTPException(status_code=422, detail="The order names no range of bytes.")
    try:
        source = (await plane.vault.open(blob)).pieces(start, stop)
        # Read before the answer begins, so that what is damaged is said and not torn off.
        first = bytes(await anext(source, b""))
    except Damaged as damaged:
        raise HTTPException(status_code=409, detail=str(damaged)) from None

    async def pieces() -> AsyncIterator[bytes]:
        if first:
            yield first
        async for piece in source:
            yield bytes(piece)

    copied = Copied(blob.id, blob.sha256, blob.size, blob.name, blob.policy)
    headers = {COPY_HEADER: plane.signer.seal(copied)}
    return Stream(pieces(), media_type="application/octet-stream", headers=headers)


@put("/copies")
async def restore(request: Asked) -> Response[bytes]:
    """Take the bytes of a blob back from an archive, and have them judged anew."""
    job = job_of(order_of(request, Action.RESTORE))
    plane = plane_of(request)
    restored = await plane.vault.restore(job, request.stream())
    return json_of(restored, 201)


@delete("/blobs", status_code=200)
async def purge(request: Asked) -> Response[bytes]:
    """Forget a blob, its key first."""
    ident = blob_of(order_of(request, Action.PURGE))
    await plane_of(request).vault.purge(ident)
    return json_of({})


@delete("/tenants", status_code=200)
async def erase(request: Asked) -> Response[bytes]:
    """Forget everything of a tenant; what went."""
    tenant = order_of(request, Action.ERASE).tenant
    if tenant is None:
        raise HTTPException(status_code=422, detail="The order names no tenant.")
    return json_of(await plane_of(request).vault.erase(tenant))


@get("/notices")
async def notices(request: Asked) -> Response[bytes]:
    """What the node has not taken yet; waits a while for the first one."""
    taken, plane = order_of(request, Action.NOTICES).taken, plane_of(request)
    end = time.monotonic() + WAIT_S
    while not (plane.closing.is_set() or time.monotonic() > end):
        if await plane.vault.ledger.peek("SELECT 1 FROM notice WHERE serial > ?", taken):
            break
        await asyncio.sleep(_LOOK_S)
    found = await plane.vault.ledger.run(lambda db: ledger.take_notices(db, taken))
    return json_of(found)


@get("/status")
async def status(request: Asked) -> Response[bytes]:
    """How the plane stands, for the node's health and metrics."""
    order_of(request, Action.STATUS)
    plane = plane_of(request)
    found = await plane.vault.ledger.run(ledger.figures)
    state = await plane.scanner_state()
    tallies = {k.removeprefix("tally."): v for k, v in found.items() if k.startswith("tally.")}
    return json_of(
        Status(
            state.scanner, state.sentence, state.signatures, int(found["held"]), found["oldest"],
            int(found["stored"]), int(found["bytes"]), int(found["notices"]), tallies, state.dated,
        )
    )  # fmt: skip


@head("/")
async def alive() -> None:
    """The server answers."""


def blob_of(order: Order) -> UUID:
    """The blob of an order. Raises 422."""
    if order.blob is None:
        raise HTTPException(status_code=422, detail="The order names no blob.")
    return order.blob


HANDLERS = (receive, scan, look, read, copy, restore, purge, erase, notices, status, alive)
