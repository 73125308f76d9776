"""Answers ready to be sent: JSON of a struct, bytes as they are, or a stream.

They are the framework's low-level responses without its header objects, which cost more than
all else that is done for a page of a list.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import msgspec
from litestar.response.base import ASGIResponse

Headers = dict[str, str]
_encode = msgspec.json.Encoder().encode
JSON = "application/json"


class Answer(ASGIResponse):
    """A status, headers and a body of known length."""

    __slots__ = ("_headers",)

    def __init__(
        self, body: bytes, status: int = 200, headers: Headers | None = None, media: str = JSON
    ) -> None:
        self.status_code = status
        self.body = body
        found: list[tuple[bytes, bytes]] = []
        if status not in (204, 304):
            found.append((b"content-type", media.encode()))
            found.append((b"content-length", str(len(body)).encode()))
        if headers:
            found += [(k.lower().encode(), v.encode("latin-1")) for k, v in headers.items()]
        self._headers = found

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send it."""
        del scope, receive
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self._headers}
        )
        await send({"type": "http.response.body", "body": self.body})


def reply(value: Any, status: int = 200, headers: Headers | None = None) -> Answer:
    """A value as JSON."""
    return Answer(_encode(value), status, headers)


def raw(
    body: bytes, status: int = 200, headers: Headers | None = None, media: str = JSON
) -> Answer:
    """Bytes as they are."""
    return Answer(body, status, headers, media)


def empty(status: int = 204, headers: Headers | None = None) -> Answer:
    """No body."""
    return Answer(b"", status, headers)


class Stream(Answer):
    """Chunks as they come; with `until_gone` the source is closed when the client goes away."""

    __slots__ = ("_chunks", "_until_gone")

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        media: str,
        headers: Headers | None = None,
        *,
        until_gone: bool = False,
    ) -> None:
        super().__init__(b"", 200, headers, media)
        self._headers = [(k, v) for k, v in self._headers if k != b"content-length"]
        self._chunks = chunks
        self._until_gone = until_gone

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send every chunk, then the end."""
        del scope
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        if not self._until_gone:
            await self._send_all(send)
            return
        sending = asyncio.create_task(self._send_all(send))
        leaving = asyncio.create_task(_wait_gone(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            if not sending.done():
                sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending

    async def _send_all(self, send: Any) -> None:
        try:
            async for chunk in self._chunks:
                if chunk:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        finally:
            if isinstance(self._chunks, AsyncGenerator):
                await self._chunks.aclose()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _wait_gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
