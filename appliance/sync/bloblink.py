"""A site's questions about bytes to its hub, each signed, with answers that are the hub's own.

Two forms: a question with a body that is signed as it is, and a stretch of a file whose pieces are
signed in its header (sync/pieces.py), so that what came of it before a cut is proved as well.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Protocol
from uuid import UUID

import httpx
import msgspec

from appliance.base.errors import (
    ApplianceError,
    Clash,
    Locked,
    Refused,
    Spoiled,
    Unauthenticated,
    Unavailable,
)
from appliance.sync.pieces import HEADER, Stretch, describe, read_stretch
from appliance.sync.signing import verify_answer

PATH = "/api/v1/sync/blobs"
START = "nexus-start"
MEDIA = "application/vnd.nexus.sync"
# From here on a list of files says for each how many of its bytes the hub has, or one of these.
WHOLE, UNKNOWN, UNWANTED = -1, -2, -3
IDS_MAX = 500
HUB_FILES = "content plane of the hub"
_TIMEOUT = httpx.Timeout(60.0, connect=15.0)


class Have(msgspec.Struct, frozen=True, array_like=True):
    """Which files of these does the hub lack: ids (16 bytes) with their SHA-256 (32 bytes)."""

    files: list[tuple[bytes, bytes]]


class Stands(msgspec.Struct, frozen=True, array_like=True):
    """For each file, in the order of the question."""

    files: list[int]


class Signs(Protocol):
    """One side's place in a session: signing.Conversation."""

    def headers(self, method: str, target: str, body: bytes) -> dict[str, str]:
        """The signed headers of the next request."""


class BlobLink:
    """Over a client whose base is the hub's address; `hub_key` is the key that its answers prove."""

    def __init__(self, http: httpx.AsyncClient, talk: Signs, hub_key: bytes) -> None:
        self._http, self._talk, self._hub_key = http, talk, hub_key

    async def have(self, files: list[tuple[bytes, bytes]]) -> list[int]:
        """How each file stands at the hub. Raises Unavailable, Unauthenticated and others."""
        body = msgspec.msgpack.encode(Have(files))
        target = f"{PATH}/have"
        said = self._talk.headers("POST", target, body)
        answer = await self._send("POST", target, {**said, "content-type": MEDIA}, body)
        return self._read(answer, said, len(files)).files

    async def put(self, file: UUID, offset: int, data: bytes, chunk: int) -> int:
        """Hand over bytes that lie in one chunk; how many the hub has now, WHOLE at the end."""
        number, start = divmod(offset, chunk)
        target, text = f"{PATH}/{file}/{number}", describe(start, data)
        said = self._talk.headers("PUT", target, text.encode())
        answer = await self._send("PUT", target, {**said, HEADER: text}, data)
        return self._read(answer, said, 1).files[0]

    async def get(
        self, file: UUID, offset: int, length: int, chunk: int
    ) -> AsyncGenerator[Stretch | bytes, None]:
        """What the answer says of up to `length` bytes from `offset` in their chunk, then these.

        Raises Unavailable when they break off.
        """
        number, start = divmod(offset, chunk)
        target = f"{PATH}/{file}/{number}"
        said = self._talk.headers("GET", target, b"")
        headers = {**said, START: f"{start}.{length}", "accept-encoding": "identity"}
        try:
            async with self._http.stream(
                "GET", target, headers=headers, timeout=_TIMEOUT
            ) as answer:
                if answer.is_error:
                    await answer.aread()
                    raise _refusal(answer)
                text = answer.headers.get(HEADER, "")
                self._prove(answer, said, text.encode())
                yield read_stretch(text)
                async for piece in answer.aiter_raw():
                    yield piece
        except httpx.HTTPError as error:
            raise _down() from error

    async def _send(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> httpx.Response:
        try:
            answer = await self._http.request(
                method, target, headers=dict(headers), content=body, timeout=_TIMEOUT
            )
        except httpx.HTTPError as error:
            raise _down() from error
        if answer.is_error:
            raise _refusal(answer)
        return answer

    def _read(self, answer: httpx.Response, said: Mapping[str, str], count: int) -> Stands:
        self._prove(answer, said, answer.content)
        try:
            found = msgspec.msgpack.decode(answer.content, type=Stands)
        except msgspec.MsgspecError as bad:
            raise _down() from bad
        if len(found.files) != count:
            raise _down()
        return found

    def _prove(self, answer: httpx.Response, said: Mapping[str, str], body: bytes) -> None:
        headers = {k.lower(): v for k, v in answer.headers.items()}
        verify_answer(self._hub_key, answer.status_code, headers, body, said["signature"])


def _down() -> Unavailable:
    return Unavailable("The hub does not answer; files wait here.", dependency="hub")


class _Said(msgspec.Struct, frozen=True):
    detail: str = ""
    code: str = ""
    offset: int | None = None


def _refusal(answer: httpx.Response) -> ApplianceError:
    try:
        said = msgspec.json.decode(answer.content, type=_Said)
    except msgspec.MsgspecError:
        said = _Said()
    detail, code = said.detail or "The hub refused this.", said.code or None
    match answer.status_code:
        case 401:
            return Unauthenticated(detail, code=code)
        case 409:
            return Clash(detail, code=code, offset=said.offset)
        case 423:
            return Locked(detail, code=code)
        case 460:
            return Spoiled(detail, code=code)
        case 400 | 403 | 404 | 413:
            return Refused(detail, code=code)
        case _:
            # The hub is there; it is its files that are not. Records do not wait for that.
            return Unavailable(detail, dependency=HUB_FILES, code=code)
