"""The bytes of an upload as they arrive: a form with one file in it, or the bytes themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from appliance.base.errors import Malformed, WrongMediaType
from appliance.http.ask import Ask
from appliance.http.door import Gone

# Nobody needs longer for the next few kilobytes, on whatever link.
PIECE_WAIT_S = 60.0
_HEADER_BYTES_MAX = 16_384
BYTES = "application/octet-stream"


async def pieces_of(ask: Ask) -> AsyncIterator[bytes]:
    """The body as it comes. Raises Gone when the client leaves, Malformed when it falls silent."""
    receive = ask.visit.receive
    assert receive is not None, "the route is declared as streamed"
    more = True
    while more:
        try:
            async with asyncio.timeout(PIECE_WAIT_S):
                message = await receive()
        except TimeoutError:
            raise Malformed("The body did not arrive in time.", code="request.slow") from None
        if message["type"] == "http.disconnect":
            raise Gone
        more = message.get("more_body", False)
        if piece := message.get("body", b""):
            yield piece


class Upload:
    """A file on its way in: `name` is known once `open` has read up to it."""

    def __init__(self, ask: Ask, name: str) -> None:
        self.name = name
        self._ask = ask
        self._form: AsyncIterator[bytes] | None = None

    async def open(self) -> None:
        """Read as far as the file begins. Raises Malformed, WrongMediaType."""
        media, options = parse_options_header(self._ask.header("content-type") or "")
        if media == BYTES:
            if not self.name:
                raise Malformed("Say what the file is called: ?name=", code="file.name_missing")
            return
        boundary = options.get("boundary", "")
        if media != "multipart/form-data" or not 0 < len(boundary) <= 200:
            raise WrongMediaType(
                f"Send a form (multipart/form-data) with one file, or the bytes as {BYTES}."
            )
        self._form = self._parse(boundary)
        # The first piece is empty: it says that the file's part has begun.
        await anext(self._form, b"")
        if not self.name:
            raise Malformed("The form holds no file with a name.", code="file.missing")

    def pieces(self) -> AsyncIterator[bytes]:
        """The bytes of the file alone."""
        return self._form if self._form is not None else pieces_of(self._ask)

    async def _parse(self, boundary: str) -> AsyncIterator[bytes]:
        """One file and nothing else in the form: what would be left out is refused."""
        begun = False
        try:
            with PushMultipartParser(
                boundary, max_header_size=_HEADER_BYTES_MAX, max_segment_count=4
            ) as parser:
                async for piece in pieces_of(self._ask):
                    for part in parser.parse(piece):
                        if isinstance(part, MultipartSegment):
                            if begun or part.filename is None:
                                raise Malformed("Send one file in one form.", code="file.several")
                            begun, self.name = True, self.name or part.filename
                            yield b""
                        elif part:
                            yield bytes(part)
        except MultipartError as bad:
            raise Malformed("The form cannot be read to its end.", code="file.form_broken") from bad
