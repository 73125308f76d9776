"""One file behind an HTTPS address, fetched only when it has changed.

Redirects are followed by hand, each under the rules of egress; what is unpacked is counted; a body
that is cut is gone on with where the server can, and is never taken for a whole one.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import httpx
import msgspec

from connectors.sdk.retry import Trouble
from connectors.transports.contract import CHUNK, Entry, Listing, is_safe_name
from connectors.transports.web import check_status, open_client, pin, read_pairs, told

REDIRECTS_MAX = 5
_RESUMES = 3
_MOVED = (301, 302, 303, 307, 308)


class PullPlace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="https", kw_only=True):
    """The address. `headers_file`: lines `Name: value` with what signs us in, sent to that host
    alone; `allowed`: private networks or hosts that are meant.
    """

    url: str
    headers_file: str = ""
    allowed: tuple[str, ...] = ()
    ca_file: str = ""
    unpacked_max: int = 512 << 20


class Pull:
    """See contract.Transport. `known` is remembered between looks: the mark of the last content."""

    def __init__(self, place: PullPlace, known: dict[str, str]) -> None:
        self._place, self._known = place, known
        self._strong_mark = ""
        self._marks: dict[str, str] = {}
        self._client = open_client(place.ca_file)

    def entries(self) -> Listing:
        """Nothing when the server says that it has not changed, else one entry."""
        marks = {}
        if self._known.get("etag"):
            marks["If-None-Match"] = self._known["etag"]
        elif self._known.get("modified"):
            marks["If-Modified-Since"] = self._known["modified"]
        with self._told(), self._ask(marks) as answer:
            if answer.status_code == 304:
                return Listing(())
            name = unquote(urlsplit(self._place.url).path.rpartition("/")[2])
            mark = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
            is_plain = not answer.headers.get("Content-Encoding")
            size = int(answer.headers.get("Content-Length", "-1")) if is_plain else -1
            return Listing(
                (Entry(name if is_safe_name(name) else "download", size, mark, is_settled=True),)
            )

    def look(self, entry: Entry) -> Entry | None:
        """The file as it was given: an answer is one version of it."""
        return entry

    @contextlib.contextmanager
    def open(self, entry: Entry) -> Iterator[Iterator[bytes]]:
        """See contract.Transport."""
        with self._told():
            yield self._pieces(entry)

    def put(self, name: str, content: bytes) -> None:
        """Nothing can be put where one only pulls."""
        raise Trouble("read-only", "this source is only read", is_permanent=True)

    def finish(self, entry: Entry, *, is_failed: bool) -> None:
        """Only now is it not asked for again: whoever took it may have died before."""
        self._known.update(self._marks)

    def close(self) -> None:
        """See contract.Transport."""
        self._client.close()

    def _pieces(self, entry: Entry) -> Iterator[bytes]:
        """Bytes of the body, unpacked under the bound, gone on with by range after a cut."""
        at, left, mark = 0, _RESUMES, ""
        while True:
            marks = {"Range": f"bytes={at}-", "If-Range": mark} if at else {}
            try:
                with self._ask(marks) as answer:
                    if at and not _goes_on(answer, at):
                        raise Trouble("changed", f"{entry.name} changed while it was read")
                    unpack = _unpacker(answer, self._place.unpacked_max)
                    for raw in answer.iter_raw(CHUNK):
                        for piece in unpack(raw):
                            at += len(piece)
                            if at > self._place.unpacked_max:
                                raise _too_large(entry)
                            yield piece
                    unpack(b"")
                    self._note(answer)
                    return
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.ReadTimeout) as cut:
                mark = self._strong_mark
                if not left or not at or not mark:
                    raise Trouble("truncated", f"{entry.name} was cut after {at} bytes") from cut
                left -= 1

    @contextlib.contextmanager
    def _ask(self, more: dict[str, str]) -> Iterator[httpx.Response]:
        """The answer at the end of the redirects."""
        url, home = self._place.url, urlsplit(self._place.url).netloc
        for _ in range(REDIRECTS_MAX + 1):
            parts = urlsplit(url)
            own = self._own_headers() if parts.netloc == home else {}
            with self._send(url, {"Accept-Encoding": "gzip", **own, **more}) as answer:
                if answer.status_code not in _MOVED:
                    check_status(answer)
                    etag = answer.headers.get("ETag", "")
                    is_plain = not answer.headers.get("Content-Encoding")
                    self._strong_mark = etag if is_plain and not etag.startswith("W/") else ""
                    yield answer
                    return
                url = urljoin(url, answer.headers.get("Location", ""))
        raise Trouble("redirect-loop", f"more than {REDIRECTS_MAX} redirects", is_permanent=True)

    @contextlib.contextmanager
    def _send(self, url: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
        pinned = pin(url, self._place.allowed)
        with self._client.stream(
            "GET", pinned.url, headers={**headers, **pinned.headers}, extensions=pinned.extensions
        ) as answer:
            yield answer

    def _own_headers(self) -> dict[str, str]:
        if not self._place.headers_file:
            return {}
        return read_pairs(Path(self._place.headers_file), ":")

    def _note(self, answer: httpx.Response) -> None:
        self._marks = {
            "etag": answer.headers.get("ETag", ""),
            "modified": answer.headers.get("Last-Modified", ""),
        }

    def _told(self) -> contextlib.AbstractContextManager[None]:
        return told(urlsplit(self._place.url).hostname or "")


def _goes_on(answer: httpx.Response, at: int) -> bool:
    told = answer.headers.get("Content-Range", "")
    return answer.status_code == 206 and told.startswith(f"bytes {at}-")


def _too_large(entry: Entry) -> Trouble:
    text = f"{entry.name} unpacks to more than is allowed"
    return Trouble("file-too-large", text, is_permanent=True)


def _unpacker(answer: httpx.Response, most: int) -> Callable[[bytes], Iterator[bytes]]:
    """What turns raw bytes into content, a bounded piece at a time; called with nothing at the end."""
    encoding = answer.headers.get("Content-Encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return lambda raw: iter((raw,) if raw else ())
    if encoding != "gzip":
        text = f"the body is packed as {encoding[:40]}, gzip was asked for"
        raise Trouble("encoding-unknown", text, is_permanent=True)
    opened = zlib.decompressobj(wbits=31)

    def unpack(raw: bytes) -> Iterator[bytes]:
        if not raw and not opened.eof:
            raise Trouble("truncated", "the packed body ends too early")
        return pieces(raw)

    def pieces(raw: bytes) -> Iterator[bytes]:
        while raw and not opened.eof:
            try:
                piece = opened.decompress(raw, CHUNK)
            except zlib.error as error:
                raise Trouble("damaged", f"the packed body is damaged: {error}") from None
            raw = opened.unconsumed_tail
            if piece:
                yield piece

    return unpack
