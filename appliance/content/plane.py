"""The one client of the content plane. What is wrong with it is named `content plane`.

Promises: bytes that it acknowledged are stored; every answer is of our own plane, because every
order is signed and nobody else answers one; no bytes of a file are held in memory as a whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any, TypeVar
from uuid import UUID

import httpx
import msgspec

from appliance.base.clock import now
from appliance.base.errors import (
    ApplianceError,
    Clash,
    Locked,
    Refused,
    Spoiled,
    StorageFull,
    TooLarge,
    Unavailable,
)
from quarantine.contract import (
    COPY_HEADER,
    ORDER_HEADER,
    Action,
    Arrived,
    Copied,
    Erased,
    Hitch,
    Look,
    Notice,
    Order,
    Part,
    Restored,
    ScanJob,
    Status,
    Stored,
)
from quarantine.signing import Forged, Signer

T = TypeVar("T")
NAME = "content plane"
# The code of a refusal that says: the plane has no such upload in parts, or no longer.
LOST = "upload.unknown"
_CONNECT_S, _ANSWER_S, _WAIT_S = 2.0, 20.0, 40.0
# Reads or seals a whole blob, or removes all of a tenant, before it answers.
_LONG = httpx.Timeout(600.0, connect=_CONNECT_S)


class ContentPlane:
    """Speaks to one plane at `url`; `public_url` is what people are sent to."""

    def __init__(self, url: str, public_url: str, key: bytes) -> None:
        self.public_url = public_url.rstrip("/")
        self.signer = Signer(key)
        timeout = httpx.Timeout(_ANSWER_S, connect=_CONNECT_S)
        self._http = httpx.AsyncClient(base_url=url, timeout=timeout, trust_env=False)

    async def put(self, job: ScanJob, pieces: AsyncIterable[bytes]) -> Stored:
        """Hand over the bytes of a blob; stored when it returns.

        Raises TooLarge, StorageFull, Unavailable, and whatever `pieces` raises.
        """
        order = _about(Action.RECEIVE, job)
        # A bucket far away takes its time for the last bytes; they are not to be given up for that.
        return await self._ask("PUT", "/blobs", order, Stored, content=pieces, timeout=_LONG)

    async def begin(
        self, job: ScanJob, size: int, sha256: str = "", *, lasting: bool = False
    ) -> Arrived:
        """Open an upload in parts of `size` bytes; `sha256` (hex) is checked at its end. `lasting`:
        it comes from another node, and is waited for as long as that may be away.

        Raises TooLarge, StorageFull, Unavailable.
        """
        order = _about(Action.PARTS, job, Part(size=size, sha256=sha256, lasting=lasting))
        return await self._ask("POST", "/parts", order, Arrived)

    async def progress(self, job: ScanJob) -> Arrived:
        """Where an upload in parts goes on; all of it, once it was finished.

        Raises Refused, Locked, Unavailable.
        """
        return await self._ask("GET", "/parts", _about(Action.PARTS, job), Arrived)

    async def append(
        self, job: ScanJob, offset: int, pieces: AsyncIterable[bytes], crc32: int | None
    ) -> Arrived:
        """Hand over one part; its bytes are on the plane's disk when it returns.

        Raises Clash (`upload.offset` with the right one as `offset`, `file.changed`), Spoiled,
        Locked, TooLarge, StorageFull, Refused, Unavailable, and whatever `pieces` raises.
        """
        order = _about(Action.PARTS, job, Part(offset=offset, crc32=crc32))
        return await self._ask("PATCH", "/parts", order, Arrived, content=pieces)

    async def finish(self, job: ScanJob) -> Stored:
        """Make a blob of all parts; it is then judged under the job's policy. Again is fine.

        Raises Clash, Locked, StorageFull, Refused, Unavailable.
        """
        order = _about(Action.FINISH, job)
        return await self._ask("PUT", "/parts", order, Stored, timeout=_LONG)

    async def give_up(self, tenant: UUID, blob: UUID) -> None:
        """Forget an upload in parts and what was made of it. Raises Unavailable."""
        await self._ask("DELETE", "/parts", Order(Action.PURGE, now(), blob, tenant), dict)

    async def scan(self, job: ScanJob) -> None:
        """Have a blob looked at again. Raises Refused, Unavailable."""
        await self._ask("POST", "/scans", _about(Action.SCAN, job), dict)

    async def look(self, tenant: UUID, blob: UUID) -> Look:
        """How a blob stands. Raises Refused, Unavailable."""
        return await self._ask("GET", "/blobs", Order(Action.LOOK, now(), blob, tenant), Look)

    async def purge(self, tenant: UUID, blob: UUID) -> None:
        """Forget a blob for good. Raises Unavailable."""
        await self._ask("DELETE", "/blobs", Order(Action.PURGE, now(), blob, tenant), dict)

    async def erase(self, tenant: UUID) -> Erased:
        """Forget everything of a tenant for good, its key first; what went. May be repeated.
        Raises Unavailable.
        """
        order = Order(Action.ERASE, now(), None, tenant)
        return await self._ask("DELETE", "/tenants", order, Erased, timeout=_LONG)

    async def notices(self, taken: int) -> list[Notice]:
        """What is new after `taken`, which is acknowledged; waits a while. Raises Unavailable."""
        order = Order(Action.NOTICES, now(), taken=taken)
        return await self._ask("GET", "/notices", order, list[Notice], timeout=_WAIT_S)

    async def status(self) -> Status:
        """How the plane stands. Raises Unavailable."""
        return await self._ask("GET", "/status", Order(Action.STATUS, now()), Status)

    async def read(self, tenant: UUID, blob: UUID) -> AsyncIterator[bytes]:
        """The bytes of a clean blob, for the node itself. Raises Refused, Unavailable."""
        order = Order(Action.READ, now(), blob, tenant)
        async with self._stream("/bytes", order) as answer:
            async for piece in answer.aiter_bytes():
                yield piece

    @contextlib.asynccontextmanager
    async def copy(
        self, tenant: UUID, blob: UUID
    ) -> AsyncIterator[tuple[Copied, AsyncIterator[bytes]]]:
        """All bytes of a blob for an archive, judged or not, and what they are.

        Raises Refused when there is no such blob, it cannot be read, or it was rejected (code
        `file.rejected`); Unavailable also when the bytes break off.
        """
        order = Order(Action.COPY, now(), blob, tenant)
        async with self._stream("/copies", order) as answer:
            copied = self.signer.open(answer.headers.get(COPY_HEADER, ""), Copied)
            yield copied, answer.aiter_bytes()

    async def cut(self, tenant: UUID, blob: UUID, offset: int, length: int) -> bytes:
        """Some bytes of a blob for another node, judged or not; fewer at its end.

        Raises as `copy`.
        """
        order = Order(Action.COPY, now(), blob, tenant, part=Part(offset=offset, size=length))
        found = bytearray()
        async with self._stream("/copies", order) as answer:
            self.signer.open(answer.headers.get(COPY_HEADER, ""), Copied)
            async for piece in answer.aiter_bytes():
                found += piece
                if len(found) > length:
                    raise _down()
        return bytes(found)

    async def restore(self, job: ScanJob, pieces: AsyncIterable[bytes]) -> Restored:
        """Bring bytes of an archive back; stored, and waiting for their scan, when it returns.

        Raises as `put`; Refused when other bytes are there under this id.
        """
        order = _about(Action.RESTORE, job)
        return await self._ask("PUT", "/copies", order, Restored, content=pieces, timeout=_LONG)

    async def close(self) -> None:
        """End the connections."""
        await self._http.aclose()

    @contextlib.asynccontextmanager
    async def _stream(self, path: str, order: Order) -> AsyncIterator[httpx.Response]:
        """An answer whose body is read piece by piece. Raises Refused, Unavailable."""
        headers = {ORDER_HEADER: self.signer.seal(order)}
        try:
            async with self._http.stream("GET", path, headers=headers) as answer:
                if answer.status_code != 200:
                    await answer.aread()
                    raise _refusal(answer)
                yield answer
        except (httpx.HTTPError, Forged) as error:
            raise _down() from error

    async def _ask(
        self, method: str, path: str, order: Order, answer_type: type[T], **more: Any
    ) -> T:
        headers = {ORDER_HEADER: self.signer.seal(order)}
        try:
            answer = await self._http.request(method, path, headers=headers, **more)
        except httpx.HTTPError as error:
            raise _down() from error
        if answer.is_error:
            raise _refusal(answer)
        try:
            return msgspec.json.decode(answer.content, type=answer_type)
        except msgspec.MsgspecError as bad:
            raise _down() from bad


def _down() -> Unavailable:
    return Unavailable(
        "The content plane, which takes and checks files, does not answer; nothing was taken. "
        "Repeat in a moment.",
        dependency=NAME,
    )


def _about(action: Action, job: ScanJob, part: Part | None = None) -> Order:
    return Order(action, now(), job.blob, job.tenant, job, part=part)


def _refusal(answer: httpx.Response) -> Exception:
    """What the plane says in its own words, under our own errors."""
    try:
        said = msgspec.json.decode(answer.content, type=_Said)
    except msgspec.MsgspecError:
        said = _Said()
    if said.code is not None:
        return _of_part(said.code, said)
    detail = said.detail
    if answer.status_code == 413:
        return TooLarge(detail)
    if answer.status_code == 507:
        return StorageFull(detail, dependency=NAME)
    if answer.status_code == 410:
        return Refused(detail, code="file.rejected")
    if answer.status_code in (404, 409):
        return Refused(detail, code="file.unknown")
    return Unavailable(detail, dependency=NAME)


class _Said(msgspec.Struct, frozen=True):
    """A refusal of the plane."""

    detail: str = "The content plane could not do this."
    code: Hitch | None = None
    offset: int | None = None


def _of_part(hitch: Hitch, said: _Said) -> ApplianceError:
    match hitch:
        case Hitch.OFFSET:
            return Clash(said.detail, code="upload.offset", offset=said.offset)
        case Hitch.CHANGED:
            return Clash(said.detail, code="file.changed")
        case Hitch.SPOILED:
            return Spoiled(said.detail, offset=said.offset)
        case Hitch.BUSY:
            return Locked(said.detail, code="upload.busy")
        case Hitch.MISSING:
            return Refused(said.detail, code=LOST)
