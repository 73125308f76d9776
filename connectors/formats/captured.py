"""Answers of an API as one file: what a transport captured, and a reader reads in its child.

One JSON object a line: `{"system", "about"}` first, then `{"call", "body"}` for each page as it
came, `{"pages", "sha256"}` last: the hash is that of all lines before. Nothing in it says when it
was asked, so the same answers make the same file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from connectors.sdk.contract import Fault, Place, Refused

LINE_MAX = 64 << 20
HEAD_MARK = b'{"system":"'
_encode = msgspec.json.encode


class Head(msgspec.Struct, frozen=True):
    """Which system answered, and what was asked for (an account, a window), as text."""

    system: str
    about: dict[str, str]


class Page(msgspec.Struct, frozen=True):
    """One answer. `call` names the question; `body` is the JSON as it came."""

    call: str
    body: msgspec.Raw


class _End(msgspec.Struct, frozen=True):
    pages: int
    sha256: str


def write_capture(head: Head, pages: Iterable[Page]) -> Iterator[bytes]:
    """The lines of a capture. A body may stand on several lines as it comes; here it is on one."""
    digest, count = hashlib.sha256(), 0
    line = _encode(head) + b"\n"
    digest.update(line)
    yield line
    for page in pages:
        line = _encode({"call": page.call, "body": _on_one_line(page.body)}) + b"\n"
        digest.update(line)
        count += 1
        yield line
    yield _encode(_End(count, digest.hexdigest())) + b"\n"


def is_capture(head: bytes, system: str) -> bool:
    """Whether a file that begins so is a capture of that system."""
    return head.startswith(HEAD_MARK + system.encode() + b'"')


def read_head(path: Path, system: str) -> Head:
    """What a capture is of. Raises Refused."""
    with path.open("rb") as file:
        line = file.readline(1 << 16)
    try:
        head = msgspec.json.decode(line, type=Head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        head = None
    if head is None or head.system != system:
        found = ascii(line[:60].decode("utf-8", "replace")) if line else "an empty file"
        expected = f"answers of {system} as a connector worker captures them"
        raise Refused(Fault("not-this-format", expected, found, Place(row=1)))
    return head


def read_pages(path: Path) -> Iterator[tuple[int, Page]]:
    """Line numbers and pages. Raises Refused where the file is cut, damaged or has no end."""
    digest, count = hashlib.sha256(), 0
    with path.open("rb") as file:
        for no, line in enumerate(iter(lambda: file.readline(LINE_MAX + 1), b""), 1):
            if len(line) > LINE_MAX:
                expected = f"answers of at most {LINE_MAX} bytes"
                raise Refused(Fault("too-large-node", expected, "", Place(row=no)))
            if no > 1 and (end := _end_of(line)) is not None:
                _check_end(end, count, digest.hexdigest(), no, file.readline(1))
                return
            digest.update(line)
            if no > 1:
                count += 1
                yield no, _page_of(line, no)
    raise Refused(Fault("truncated", "the last line of the capture", "the end of the file"))


def _end_of(line: bytes) -> _End | None:
    if not line.startswith(b'{"pages":'):
        return None
    try:
        return msgspec.json.decode(line, type=_End)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _check_end(end: _End, count: int, sha256: str, no: int, more: bytes) -> None:
    if end.pages != count or end.sha256 != sha256 or more:
        expected = f"{end.pages} pages whose hash is that of the last line"
        raise Refused(Fault("damaged", expected, f"{count} pages", Place(row=no)))


def _page_of(line: bytes, no: int) -> Page:
    try:
        return msgspec.json.decode(line, type=Page)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        code = "damaged" if line.endswith(b"\n") else "truncated"
        found = str(error)[:100]
        raise Refused(Fault(code, "one answer on a line", found, Place(row=no))) from None


def _on_one_line(body: msgspec.Raw) -> msgspec.Raw:
    """JSON has line feeds between its tokens alone, never within a text."""
    raw = bytes(body)
    return msgspec.Raw(raw.translate(None, b"\r\n")) if b"\n" in raw or b"\r" in raw else body
