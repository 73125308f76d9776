"""Uploads in parts over HTTP, for weak links: what was acknowledged is never sent again.

Offsets, headers and statuses are those of tus 1.0 with its checksum and termination extensions,
where they fit; an upload begins with JSON, because it has a place. One rule is added: a part that
comes again, because its acknowledgement was lost, is fine when its bytes are the same.
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from email.utils import format_datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar.response.base import ASGIResponse

from appliance.base.errors import (
    Clash,
    Forbidden,
    Locked,
    Malformed,
    Spoiled,
    TooLarge,
    Unavailable,
    WrongMediaType,
)
from appliance.files import parts
from appliance.files.parts import Standing
from appliance.files.places import Place
from appliance.files.rows import File
from appliance.http.answers import Headers, empty, raw, reply
from appliance.http.ask import Ask
from appliance.http.bodies import check_storable
from appliance.http.problems import MEDIA_TYPE, refuse
from appliance.http.route import API, Book
from appliance.http.streams import Reader
from appliance.http.uploads import pieces_of

book = Book("files")
PATH = f"{API}/uploads"
ONE = f"{PATH}/{{id}}"
USE = "files.use"
CHUNK_MAX = 16 * 1024 * 1024
MEDIA = "application/offset+octet-stream"
_OFFSET = re.compile(r"[0-9]{1,18}")
_CRC = re.compile(r"crc32 ([A-Za-z0-9+/]{6}==)")
Function = Callable[[Ask], Awaitable[ASGIResponse]]
USES: dict[str, Any] = {"capability": USE, "writes": True}
GOES_ON: dict[str, Any] = {**USES, "refuses": (413, 423)}


class NewUpload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file that will come in parts: `size` in bytes; `sha256` (hex) is checked at its end."""

    name: str
    size: Annotated[int, msgspec.Meta(ge=1)]
    kind: str = ""
    record: UUID | None = None
    field: str = ""
    sha256: Annotated[str, msgspec.Meta(pattern="^([0-9a-fA-F]{64})?$")] = ""


class UploadView(msgspec.Struct, frozen=True):
    """How far it is. `expires_at` is for the next part, nothing once the file is whole; `state` is
    the file's, which is read at /api/v1/files/{id} under the same id.
    """

    id: UUID
    offset: int
    size: int
    chunk_max: int
    expires_at: datetime | None
    state: str


def _telling(function: Function) -> Function:
    """Let refusals say where to go on, and when to come back."""

    @functools.wraps(function)
    async def told(ask: Ask) -> ASGIResponse:
        try:
            return await function(ask)
        except (Clash, Spoiled, Locked) as error:
            ask.visit.code = error.code
            headers: Headers = {"Retry-After": "1"} if isinstance(error, Locked) else {}
            if isinstance(offset := error.extra.get("offset"), int):
                headers["Upload-Offset"] = str(offset)
            refusal = refuse(error, ask.visit.request_id)
            return raw(refusal.body, refusal.status, headers, MEDIA_TYPE.decode())

    return told


@book.route("POST", PATH, **USES, body=NewUpload, answers={201: UploadView})
async def begin_upload(ask: Ask) -> ASGIResponse:
    """Begin a file that comes in parts of up to `chunk_max` bytes each."""
    given = ask.read(NewUpload)
    for name, text in (("name", given.name), ("kind", given.kind), ("field", given.field)):
        check_storable(text, f"/{name}")
    begun = await parts.begin(
        _door(ask), name=given.name, size=given.size, sha256=given.sha256,
        place=Place(given.kind, given.record, given.field),
    )  # fmt: skip
    headers = {**_headers(begun), "Location": f"{PATH}/{begun.file.id}"}
    return reply(_view(begun), 201, headers)


@book.route("GET", ONE, **GOES_ON, answers={200: UploadView})
@_telling
async def read_upload(ask: Ask) -> ASGIResponse:
    """Where to go on (Upload-Offset); 423 while a part is coming in."""
    door = _door(ask)
    standing = await parts.look(door, await _own(ask))
    if standing.is_whole:
        standing = _ended(await parts.finish(door, standing.file))
    return reply(_view(standing), 200, _headers(standing))


@book.route("PATCH", ONE, capability=USE, writes=True, refuses=(423, 460), answers={204: None},
            headers=("Upload-Offset", "Upload-Checksum"))  # fmt: skip
@_telling
async def send_part(ask: Ask) -> ASGIResponse:
    """Send the bytes from Upload-Offset on; the last ones make it a file that is held."""
    file = await _own(ask)
    if (ask.header("content-type") or "").strip().lower() != MEDIA:
        raise WrongMediaType(f"Send the bytes of the part as {MEDIA}.")
    standing = await parts.take(_door(ask), file, _offset(ask), _bounded(ask), _checksum(ask))
    if standing.is_whole:
        standing = _ended(await _finish(ask, standing.file))
    return empty(204, _headers(standing))


@book.route("DELETE", ONE, **USES, answers={204: None})
@_telling
async def give_upload_up(ask: Ask) -> ASGIResponse:
    """Give an upload up; 409 when it is whole, then it is deleted as a file."""
    await parts.give_up(_door(ask), await _own(ask))
    return empty()


async def _own(ask: Ask) -> File:
    return await parts.find_own(ask.node.db, ask.ctx, ask.ident())


async def _finish(ask: Ask, file: File) -> File:
    """A part may take minutes: who sends it is asked for again. Raises Unauthenticated."""
    await Reader(ask).prove()
    if not ask.ctx.profile.may(USE):
        raise Forbidden(f"Your profile does not have the capability {USE}.")
    return await parts.finish(_door(ask), file)


def _door(ask: Ask) -> parts.Door:
    if ask.node.content is None:
        raise Unavailable(
            "This node has no content plane; it takes and gives no files.",
            dependency="content plane",
        )
    return parts.Door(ask.node.db, ask.ctx, ask.node.settings.files, ask.node.content)


async def _bounded(ask: Ask) -> AsyncIterator[bytes]:
    """The bytes of one part. Raises TooLarge, Gone, Malformed."""
    came = 0
    async for piece in pieces_of(ask):
        came += len(piece)
        if came > CHUNK_MAX:
            raise TooLarge(
                f"A part has at most {CHUNK_MAX} bytes; ask where to go on and send less at a time.",
                code="upload.part_too_large",
            )
        yield piece


def _offset(ask: Ask) -> int:
    text = ask.header("upload-offset") or ""
    if not _OFFSET.fullmatch(text):
        raise Malformed(
            "Say with Upload-Offset where the part begins, in bytes.", code="upload.offset_missing"
        )
    return int(text)


def _checksum(ask: Ask) -> int | None:
    text = ask.header("upload-checksum")
    if text is None:
        return None
    try:
        found = _CRC.fullmatch(text.strip())
        return int.from_bytes(base64.b64decode(found[1], validate=True), "big") if found else _bad()
    except binascii.Error:
        return _bad()


def _bad() -> int:
    raise Malformed(
        "Upload-Checksum takes crc32 and its four bytes, the highest first, in Base64.",
        code="upload.checksum",
    )


def _ended(file: File) -> Standing:
    return Standing(file, file.size)


def _view(standing: Standing) -> UploadView:
    file = standing.file
    return UploadView(
        file.id, standing.offset, file.size, CHUNK_MAX, standing.expires_at, file.state.value
    )


def _headers(standing: Standing) -> Headers:
    found = {"Upload-Offset": str(standing.offset), "Upload-Length": str(standing.file.size)}
    if standing.expires_at is not None:
        found["Upload-Expires"] = format_datetime(standing.expires_at, usegmt=True)
    return found
