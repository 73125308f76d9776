"""Connector workers elsewhere: take a run that waits for one, its bytes, post what was read.

A worker has a key with the capability import.work and nothing else of the node. What it posts is
numbered and may come twice; rows go through the staging of the node's own readings.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
from litestar.response.base import ASGIResponse

from appliance.audit import audit_calls
from appliance.base import limits
from appliance.base.errors import Malformed, Unavailable
from appliance.http.answers import Stream, empty, reply
from appliance.http.ask import Ask
from appliance.http.route import API, Book
from appliance.http.uploads import BYTES
from appliance.intake import lease, runs, sources, steps
from appliance.intake.files import has, locate
from appliance.intake.runs import IntakeRun
from appliance.kernel.kind import Json
from connectors.sdk.contract import Done, Failed, Found, Frame, Progress
from connectors.sdk.wire import SOURCE_LEASE_S, TELL_S, Kept, SourcesTold, Taken, Wish, Wishes

book = Book("intake")
PATH = f"{API}/intake/work"
ONE = f"{PATH}/{{id}}"
WORKS: dict[str, Any] = {"capability": "import.work"}
_CHUNK = 1 << 18
_decode = msgspec.msgpack.Decoder(Frame).decode


class EpochParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The epoch of the taking."""

    epoch: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class FrameParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The epoch of the taking, and the number of a block of rows or of the end."""

    epoch: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    no: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = 0


@book.route("POST", PATH, **WORKS, body=Wish, answers={200: Taken, 204: None})
async def take_work(ask: Ask) -> ASGIResponse:
    """Take the run that waits longest for this worker, or that its last one has left."""
    given, ctx, db = ask.read(Wish), ask.ctx, ask.node.db
    for left in await lease.left_unasked(db, ctx.tenant, given.worker):
        await _plan(ask, await runs.get_run(db, ctx.tenant, left))
    ident = await lease.take(
        db, ctx.tenant, given.worker, holder=ctx.session, reader=given.reader,
        connectors=given.connectors,
    )  # fmt: skip
    if ident is None:
        return empty()
    run = await runs.get_run(db, ctx.tenant, ident)
    work = await lease.get_work(db, ctx.tenant, ident)
    event = audit_calls(
        ctx.tenant, "intake.taken", actor=ctx.actor, subject=ident, request_id=ctx.request_id,
        details={"worker": given.worker, "epoch": work.epoch},
    )  # fmt: skip
    async with db.transaction(ctx.tenant) as tx:
        await tx.run(*event, commit=True)
    learned = await steps.learned_words(db, ctx.tenant, run.connector)
    taken = Taken(
        ident, work.epoch, run.connector, run.file_name, run.sha256, run.size, learned,
        work.mapping, work.next, lease.LEASE_S, run.options.budget,
    )  # fmt: skip
    return reply(taken)


@book.route("PUT", f"{PATH}/sources", **WORKS, body=SourcesTold, body_most=limits.BODY_BYTES_MAX,
            answers={200: Wishes})  # fmt: skip
async def tell_sources(ask: Ask) -> ASGIResponse:
    """How the sources of a worker stand, all of them each time; what people want of them."""
    given = ask.read(SourcesTold)
    lease.check_storable(given)
    wanted = await sources.keep_report(ask.node.db, ask.ctx, given)
    return reply(Wishes(tuple(wanted), TELL_S, SOURCE_LEASE_S))


@book.route("GET", f"{ONE}/file", **WORKS, params=EpochParams, answers={200: bytes}, media=(BYTES,))
async def read_work_file(ask: Ask) -> ASGIResponse:
    """The bytes of a run that was taken; the content plane has let them pass."""
    run = await _held(ask, ask.params(EpochParams).epoch)
    folder = ask.node.settings.data_dir
    if has(folder, ask.ctx.tenant, run.sha256):
        return Stream(_pieces(locate(folder, ask.ctx.tenant, run.sha256)), BYTES)
    if run.blob is None or ask.node.content is None:
        raise Unavailable("The file is not on this node just now.", dependency="content plane")
    return Stream(ask.node.content.read(ask.ctx.tenant, run.blob), BYTES)


@book.route("POST", f"{ONE}/frames", **WORKS, params=FrameParams, answers={200: Kept})
async def post_frame(ask: Ask) -> ASGIResponse:
    """One frame as MessagePack (application/msgpack): what was found, rows, progress, the end, or
    that the file is refused. Rows and the end are numbered from 0.
    """
    given, tenant, db = ask.params(FrameParams), ask.ctx.tenant, ask.node.db
    try:
        frame = _decode(ask.visit.body)
    except msgspec.MsgspecError:
        raise Malformed("The body is no frame; see docs/connectors.md.", code="frame.malformed") from None  # fmt: skip
    run = await _held(ask, given.epoch)
    match frame:
        case Found():
            lease.check_storable(frame)
            run = await steps.choose_mapping(db, tenant, run, frame)
            await lease.keep_found(db, tenant, run, frame, run.mapping)
            work = await lease.get_work(db, tenant, run.id)
            return reply(Kept(work.next, run.mapping))
        case Progress():
            await lease.note_progress(db, tenant, run, frame)
            work = await lease.get_work(db, tenant, run.id)
        case Failed():
            lease.check_storable(frame)
            text = steps.refusal_text(frame.fault)
            await runs.move(db, tenant, run.id, ["received"], "failed", text)
            await lease.forget(db, tenant, run.id)
            return reply(Kept(0))
        case _:
            work = await lease.keep_frame(
                db, tenant, run, frame, no=given.no, epoch=given.epoch, holder=ask.ctx.session
            )
            if work.is_whole and isinstance(frame, Done):
                await _plan(ask, run)
    return reply(Kept(work.next))


async def _held(ask: Ask, epoch: int) -> IntakeRun:
    """The run, for who has taken it. Raises Refused, Clash."""
    run = await runs.get_run(ask.node.db, ask.ctx.tenant, ask.ident())
    await lease.hold(ask.node.db, ask.ctx.tenant, run, epoch, ask.ctx.session)
    return run


async def _plan(ask: Ask, run: IntakeRun) -> None:
    """Ask for its plan, once all of it is here."""
    db, tenant = ask.node.db, ask.ctx.tenant
    work = await lease.get_work(db, tenant, run.id)
    if work.is_queued:
        return
    payload: dict[str, Json] = {"run": str(run.id)}
    job = await ask.node.jobs.enqueue(tenant, "intake.prepare", payload, run.created_by)
    async with db.transaction(tenant) as tx:
        await tx.run(runs.set_call(tenant, run.id, "job_id", job), commit=True)
    await lease.note_queued(db, tenant, run.id)


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, _CHUNK):
            yield piece
