"""Files over HTTP: bring one, see how it stands, get a ticket, review, recall."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from litestar.response.base import ASGIResponse

from appliance.base.errors import ApplianceError, Clash, Malformed, Refused, Unavailable
from appliance.content import ContentPlane
from appliance.files import review, tickets, upload
from appliance.files.copies import COMING, NOT_HERE
from appliance.files.places import REVIEW, Place, may_see
from appliance.files.rows import KIND, File, as_system, bytes_used, files_in, files_of, find_file
from appliance.files.states import RESTING, FileState
from appliance.http.answers import reply
from appliance.http.ask import Ask
from appliance.http.bodies import check_storable
from appliance.http.credentials import find_token
from appliance.http.outcomes import Written, written
from appliance.http.progress import follow_steps
from appliance.http.route import API, Book
from appliance.http.streams import EVENTS, open_stream
from appliance.http.uploads import Upload
from appliance.kernel.kind import Json
from appliance.sync.wake import wake
from appliance.write import Command, Op, apply

book = Book("files")
PATH = f"{API}/files"
ONE = f"{PATH}/{{id}}"
LIST_MAX = 200
_LOOK_S = 0.1


class FileView(msgspec.Struct, frozen=True):
    """A file as its reader sees it; `reason` says why it is where it is."""

    id: UUID
    state: str
    name: str
    type: str
    size: int
    reason: str
    kind: str
    record: UUID | None
    field: str
    owner: UUID | None
    created_at: datetime
    judged_at: str
    sha256: str = ""
    verdict: dict[str, Json] = {}
    review: dict[str, Json] = {}


class FileList(msgspec.Struct, frozen=True):
    """Newest first."""

    files: list[FileView]


class NewFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a file goes: a record of a kind, and the field of it that takes it, if any."""

    name: str = ""
    kind: str = ""
    record: UUID | None = None
    field: str = ""


class ListParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The files of a record, or (for reviewers) those in a state."""

    record: UUID | None = None
    state: str = ""
    limit: int = 50


class TicketWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`inline`: to be shown in the page, where its type is one that cannot do harm there."""

    inline: bool = False


class Ticket(msgspec.Struct, frozen=True):
    """An address that works once, until then, for the session that asked."""

    url: str
    expires_at: datetime


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`release` (two reviewers), `reject`, `recall`, `rescan`; with a reason but for the last."""

    decision: str
    reason: str = ""


class Space(msgspec.Struct, frozen=True):
    """Bytes used and allowed: of the company, and of the one who asks."""

    tenant_bytes: int
    tenant_bytes_max: int
    person_bytes: int
    person_bytes_max: int


USES: dict[str, Any] = {"capability": "files.use"}


@book.route("POST", PATH, **USES, params=NewFile, answers={202: FileView},
            media=("multipart/form-data", "application/octet-stream"))  # fmt: skip
async def bring(ask: Ask) -> ASGIResponse:
    """Send a file as a form, or its bytes; it is held until it is proved clean."""
    given, plane = ask.params(NewFile), _plane(ask)
    incoming = Upload(ask, given.name)
    await incoming.open()
    for name, text in (("name", incoming.name), ("kind", given.kind), ("field", given.field)):
        check_storable(text, f"/{name}")
    place = Place(given.kind, given.record, given.field)
    limits = ask.node.settings.files
    file, job = await upload.begin(ask.node.db, ask.ctx, limits, name=incoming.name, place=place)
    held = await upload.receive(ask.node.db, ask.ctx, plane, file, job, incoming.pieces())
    return reply(_view(ask, held), 202, {"Location": f"{PATH}/{held.id}"})


@book.route("GET", PATH, **USES, params=ListParams, answers={200: FileList})
async def list_files(ask: Ask) -> ASGIResponse:
    """The files of a record that you may see; with `state`, for reviewers, all in that state."""
    given, tenant = ask.params(ListParams), ask.ctx.tenant
    if not 0 < given.limit <= LIST_MAX:
        raise Malformed(f"limit is 1 to {LIST_MAX}.", code="request.parameter")
    if given.record is not None:
        found = await files_of(ask.node.db, tenant, given.record, given.limit)
        seen = [f for f in found if await may_see(ask.node.db, ask.ctx, f)]
    elif given.state in FileState.__members__.values() and ask.ctx.profile.may(REVIEW):
        seen = await files_in(ask.node.db, tenant, FileState(given.state), given.limit)
    else:
        raise Malformed(
            "Name a record, or, as a reviewer, a state of files.", code="request.parameter"
        )
    return reply(FileList([_view(ask, f) for f in seen]))


@book.route("GET", f"{PATH}/space", **USES, answers={200: Space})
async def read_space(ask: Ask) -> ASGIResponse:
    """How much room there is for files."""
    limits = ask.node.settings.files
    tenant, person = await bytes_used(ask.node.db, ask.ctx.tenant, ask.ctx.actor)
    return reply(Space(tenant, limits.tenant_bytes_max, person, limits.person_bytes_max))


@book.route("GET", ONE, **USES, answers={200: FileView})
async def read_file(ask: Ask) -> ASGIResponse:
    """How one file stands."""
    return reply(_view(ask, await _explained(ask, await _seen(ask))))


@book.route("GET", f"{ONE}/progress", **USES, answers={200: str}, media=(EVENTS,))
async def follow_file(ask: Ask) -> ASGIResponse:
    """Frames `state` as it moves on, and `end` when it rests."""
    file = await _seen(ask)
    return open_stream(ask, _follow(ask, file.id))


@book.route("POST", f"{ONE}/ticket", **USES, body=TicketWish, answers={201: Ticket})
async def get_ticket(ask: Ask) -> ASGIResponse:
    """An address for one download; 409 while the file is not released."""
    wish = ask.read(TicketWish) if ask.visit.body else TicketWish()
    file = await _seen(ask)
    try:
        issued = await tickets.issue(
            ask.node.db, ask.ctx, _plane(ask), ask.node.redis, file,
            token=find_token(ask.scope), inline=wish.inline,
        )  # fmt: skip
    except Clash as clash:
        if clash.code == NOT_HERE:
            await wake(ask.node.redis, ask.ctx.tenant)
        raise
    return reply(Ticket(issued.url, issued.expires_at), 201)


@book.route("POST", f"{ONE}/review", capability=REVIEW, body=Decision, answers={200: FileView})
async def review_file(ask: Ask) -> ASGIResponse:
    """A reviewer's word: two of them release what is suspicious, one rejects or recalls."""
    given, file = ask.read(Decision), await _seen(ask)
    check_storable(given.reason, "/reason")
    after = await review.review(
        ask.node.db, ask.ctx, _plane(ask), file, given.decision, given.reason
    )
    return reply(_view(ask, after))


@book.route("DELETE", ONE, **USES, writes=True, answers={200: Written})
async def delete_file(ask: Ask) -> ASGIResponse:
    """Delete a file that you brought, or, as a reviewer, any; its bytes go after thirty days."""
    file, ctx = await _seen(ask), ask.ctx
    if file.owner != ctx.actor and not ctx.profile.may(REVIEW):
        raise Refused("There is no such file for you.", code="file.unknown")
    command = Command(op=Op.DELETE, kind=KIND, id=file.id)
    return reply(written(await apply(ask.node.db, as_system(ctx), [command])))


async def _seen(ask: Ask) -> File:
    file = await find_file(ask.node.db, ask.ctx.tenant, ask.ident())
    if file is None or not await may_see(ask.node.db, ask.ctx, file):
        raise Refused("There is no such file for you.", code="file.unknown")
    return file


async def _explained(ask: Ask, file: File) -> File:
    """A file that waits says for what, in the plane's words of now."""
    if file.state is not FileState.HELD or ask.node.content is None:
        return file
    try:
        look = await ask.node.content.look(ask.ctx.tenant, file.id)
    except Refused:
        return msgspec.structs.replace(file, reason=COMING)
    except ApplianceError as error:
        return msgspec.structs.replace(file, reason=error.detail)
    return msgspec.structs.replace(file, reason=look.why or file.reason)


async def _follow(ask: Ask, ident: UUID) -> AsyncIterator[bytes]:
    async def seen() -> tuple[FileView, str]:
        file = await find_file(ask.node.db, ask.ctx.tenant, ident)
        if file is None or not await may_see(ask.node.db, ask.ctx, file):
            raise Refused("There is no such file for you.", code="file.unknown")
        return _view(ask, file), file.state.value if file.state in RESTING else ""

    async for part in follow_steps(ask, "state", seen):
        yield part


def _plane(ask: Ask) -> ContentPlane:
    if ask.node.content is None:
        raise Unavailable(
            "This node has no content plane; it takes and gives no files.",
            dependency="content plane",
        )
    return ask.node.content


def _view(ask: Ask, file: File) -> FileView:
    """Verdict and review in full for reviewers alone; who brought it reads the reason."""
    full = ask.ctx.profile.may(REVIEW)
    return FileView(
        id=file.id, state=file.state.value, name=file.name, type=file.type, size=file.size,
        reason=file.reason, kind=file.for_kind, record=file.for_record, field=file.for_field,
        owner=file.owner, created_at=file.created_at, judged_at=file.judged_at,
        sha256=file.sha256, verdict=file.verdict if full else {}, review=file.review if full else {},
    )  # fmt: skip
