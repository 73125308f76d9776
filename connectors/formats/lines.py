"""Text of banks line by line: which encoding it is in, and lines that can be held in memory.

The whole file is looked at once, as bytes: a statement is ASCII for megabytes before its first
umlaut, so a sample from the front decides nothing. Bytes that fit no candidate are refused with
their offset; nothing is ever replaced (research/connectors 1).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path

import msgspec

from connectors.formats.encoding import decode_error, detect_encoding
from connectors.sdk.contract import Fault, Place, Refused

LINE_CHARS_MAX = 1 << 20
_CHUNK = 1 << 20
_SAMPLE = 1 << 16
_CONTROLS = bytes(n for n in range(32) if n not in (9, 10, 13))
_CONTROL_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd]")
_WORD = re.compile(rb"[A-Za-z\x80-\xff]+")
_HIGH = re.compile(rb"[\x80-\xff]")
_LOW = re.compile(rb"[A-Za-z]")
_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
WESTERN = ("cp1252", "cp850", "latin-1")


class Text(msgspec.Struct, frozen=True):
    """A text file that can be read: `has_controls` says that its values want a look for them."""

    path: Path
    encoding: str
    has_controls: bool = False
    warnings: tuple[Fault, ...] = ()
    holds: tuple[Fault, ...] = ()

    def lines(self) -> Iterator[str]:
        """Lines without their ends (CR, LF, CRLF, mixed) and without byte order marks.

        Raises Refused for a line of more than LINE_CHARS_MAX characters or bytes that do not
        decode.
        """
        with self.path.open("rb") as raw, TextIOWrapper(raw, self.encoding, newline=None) as file:
            number = 0
            try:
                while line := file.readline(LINE_CHARS_MAX):
                    number += 1
                    if len(line) == LINE_CHARS_MAX:
                        expected = f"lines of at most {LINE_CHARS_MAX} characters"
                        raise Refused(Fault("too-large-node", expected, "", Place(row=number)))
                    if "\ufeff" in line:
                        line = line.replace("\ufeff", "")
                    yield line[:-1] if line[-1:] == "\n" else line
            except UnicodeDecodeError as error:
                start = raw.tell() - len(error.object)
                raise decode_error(error, max(0, start)) from None


def open_lines(path: Path, encoding: str = "", *, expected: str = "cp1252") -> Text:
    """A text file with its encoding. `encoding`: as a person chose it; `expected`: the legacy page
    of this format when letters decide nothing. Raises Refused for empty and binary input.
    """
    with path.open("rb") as file:
        head = file.read(4_096)
    refuse_unlike_text(head)
    if encoding:
        return Text(path, encoding, has_controls=True)
    for mark, name in _MARKS:
        if head.startswith(mark):
            found = name if name == "utf-16" else _scan(path, expected)[0]
            return Text(path, found, True, _marks_inside(path) if name == "utf-8" else ())
    if wide := _find_wide(head):
        return Text(path, wide, has_controls=True)
    name, has_controls, share = _scan(path, expected)
    holds: tuple[Fault, ...] = ()
    if share < 0.5:
        previews = _previews(path, name)
        holds = (Fault("encoding-uncertain", "text of a known encoding", previews),)
    return Text(path, name, has_controls, _marks_inside(path) if name == "utf-8" else (), holds)


def refuse_unlike_text(head: bytes, expected: str = "a bank statement in text") -> None:
    """Say what an input that is no text looks like. Raises Refused not-this-format."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    looks = ""
    if not start:
        looks = "an empty file"
    elif start.startswith(b"%pdf"):
        looks = "a PDF document"
    elif head.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"\x1f\x8b", b"Rar!")):
        looks = "an archive or a workbook"
    elif start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        looks = "a page of a web site (a login or an error page?)"
    if looks:
        raise Refused(Fault("not-this-format", expected, looks))


def _find_wide(head: bytes) -> str:
    """UTF-16 without a mark: every other byte of the start is zero. Raises Refused: binary data."""
    zeros = head.count(b"\0")
    if zeros * 4 < len(head):
        return ""
    even, odd = head[0::2].count(b"\0"), head[1::2].count(b"\0")
    if min(even, odd) * 10 > zeros:
        raise Refused(Fault("not-this-format", "a bank statement in text", "zero bytes"))
    return "utf-16-be" if even > odd else "utf-16-le"


def find_control(text: str) -> bool:
    """Whether a text holds control characters besides tab and line ends, or what an XML reader
    shows in their place.
    """
    return _CONTROL_TEXT.search(text) is not None


def pick_legacy(sample: bytes, expected: str) -> tuple[str, float]:
    """The code page of bytes that are not UTF-8, and the share of letters among its high bytes.

    Cyrillic words are all high bytes; western words mix them with ASCII letters.
    """
    words = [w for w in _WORD.findall(sample) if _HIGH.search(w)]
    mixed = sum(1 for w in words if _LOW.search(w))
    pure = sum(1 for w in words if len(w) > 1 and not _LOW.search(w))
    if pure > mixed:
        name = detect_encoding(sample[:_SAMPLE].replace(b"\0", b""))
    elif mixed == pure:
        name = expected
    else:
        shares = [(_share(sample, n), -i, n) for i, n in enumerate(WESTERN)]
        name = max(shares)[2]
    return name, _share(sample, name) if mixed + pure else 1.0


def _share(sample: bytes, name: str) -> float:
    try:
        high = [c for c in sample.decode(name) if ord(c) > 127]
    except UnicodeDecodeError:
        return -1.0
    good = sum(c.isalpha() or c in "№«»–—’“”„°§€£ \xa0" for c in high)
    return good / len(high) if high else 1.0


def _scan(path: Path, expected: str) -> tuple[str, bool, float]:
    """Encoding, whether there are control characters, how sure. Raises Refused: broken UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    has_controls, many, bad, offset = False, 0, None, 0
    sample: list[bytes] = []
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            has_controls |= len(chunk.translate(None, _CONTROLS)) != len(chunk)
            if not chunk.isascii() or decoder.getstate()[0]:
                if size < _SAMPLE:
                    found = b"\n".join(_high_lines(chunk))[:_SAMPLE]
                    sample.append(found)
                    size += len(found)
                if bad is None:
                    kept = len(decoder.getstate()[0])
                    try:
                        text = decoder.decode(chunk)
                        many += sum(1 for c in text if c > "\x7f") if size < _SAMPLE else 1
                    except UnicodeDecodeError as error:
                        bad = offset - kept + error.start
                        many += len(error.object[: error.start].decode("utf-8", "ignore")) - len(
                            error.object[: error.start].decode("ascii", "ignore")
                        )
            offset += len(chunk)
    if bad is None and decoder.getstate()[0]:
        bad = offset - len(decoder.getstate()[0])
    if bad is None:
        return "utf-8", has_controls, 1.0
    seen = b"\n".join(sample)
    broken = seen.decode("utf-8", "replace").count("\ufffd")
    if many > 4 * broken:
        raise Refused(Fault("bad-encoding", "text in utf-8", f"a byte at offset {bad}"))
    name, share = pick_legacy(seen, expected)
    return name, has_controls, share


def _marks_inside(path: Path) -> tuple[Fault, ...]:
    """A warning when parts were joined with their byte order marks."""
    with path.open("rb") as file:
        before = file.read(8)
        while chunk := file.read(_CHUNK):
            if (at := (before + chunk).find(b"\xef\xbb\xbf", 7)) >= 0:
                place = Place(offset=file.tell() - len(chunk) - len(before) + at)
                return (Fault("byte-order-mark", "one mark at the start", "one inside", place),)
            before = chunk[-2:]
    return ()


def _high_lines(chunk: bytes) -> list[bytes]:
    return [line for line in chunk.splitlines() if not line.isascii()]


def _previews(path: Path, name: str) -> str:
    with path.open("rb") as file:
        lines = _high_lines(file.read(_CHUNK))
    line = lines[0][:80] if lines else b""
    return " | ".join(f"{n}: {line.decode(n, 'backslashreplace')}" for n in {name: 0, "cp1252": 0})
