"""The start of an XML document, looked at before the parser sees a byte of it.

Which encoding it is really in (declarations lie in both directions), and whether it brings
declarations of its own: those are refused here, so that no entity is ever defined.
"""

from __future__ import annotations

import codecs
import re
from typing import BinaryIO

import msgspec

from connectors.formats.encoding import detect_encoding, reads_well
from connectors.sdk.contract import Fault, Place, Refused

SAMPLE = 1 << 16
_DECLARED = re.compile(rb"""<\?xml[^>]{0,200}?\sencoding\s*=\s*["']([A-Za-z0-9._:-]{1,40})["']""")
_DOCTYPE = re.compile(rb"<!DOCTYPE\s+([^\s\[>]+)([^\[>]*)([\[>])", re.IGNORECASE)
_SAME = {
    "ascii": "utf-8",
    "utf-8-sig": "utf-8",
    "koi8-r": "koi8-u",
    "mac-cyrillic": "mac_cyrillic",
    "iso8859-1": "latin-1",
}
_SPACE = b" \t\r\n"
_LOOKS = (
    (b"PK\x03\x04", "a zip archive"),
    (b"%PDF", "a PDF document"),
    (b"\xd0\xcf\x11\xe0", "an old Office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"{", "JSON"),
    (b"[", "JSON"),
    (b"1CClientBankExchange", "a 1C bank exchange text"),
)


class Chosen(msgspec.Struct, frozen=True):
    """The encoding to read by (a Python name), and the one declared, in lower case."""

    encoding: str
    declared: str = ""
    warnings: tuple[Fault, ...] = ()


class Prolog(msgspec.Struct, frozen=True):
    """Where a DOCTYPE stands that may be passed over, if there is one."""

    doctype: tuple[int, int] | None = None


def read_full(file: BinaryIO, size: int) -> bytes:
    """So many bytes, fewer at the end only: what gives less at a time is asked again."""
    block = file.read(size)
    while block and len(block) < size:
        more = file.read(size - len(block))
        if not more:
            break
        block += more
    return block


def choose_encoding(file: BinaryIO, chosen: str, name: str) -> Chosen:
    """Marks win, then strict UTF-8, then the declaration if it reads well, then the best score.

    The sample is the first 64 KB that hold anything but ASCII. Raises Refused (not-this-format
    for an empty file, bad-encoding when nothing reads well or UTF-8 is broken in places).
    """
    head = read_full(file, SAMPLE)
    if not head.strip(b" \t\r\n\0"):
        raise _not_this_format("an empty file", name)
    if chosen:
        return Chosen(_python_name(chosen))
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head[:64]:
        return Chosen(detect_encoding(head))
    declared = _declared(head)
    sample, offset = _sample(file, head)
    broken = _broken_utf8(sample)
    if broken is None:
        honest = not declared or _python_name(declared) == "utf-8" or sample.isascii()
        return Chosen("utf-8", declared, () if honest else (_lie(declared, "utf-8", name),))
    if broken >= 0:
        found = f"byte 0x{sample[broken]:02X} among sound UTF-8"
        place = Place(name, offset=offset + broken)
        raise Refused(Fault("bad-encoding", "text in utf-8", found, place))
    said = _python_name(declared)
    if said != "utf-8" and reads_well(sample, said):
        return Chosen(said, declared)
    best = detect_encoding(sample)
    return Chosen(best, declared, (_lie(declared or "utf-8", best, name),))


def read_prolog(head: bytes, name: str, *, allow_doctype: bool) -> Prolog:
    """What stands before the root. `head`: UTF-8 from the first character. Raises Refused."""
    position = 0
    doctype: tuple[int, int] | None = None
    while True:
        position += len(head) - position - len(head[position:].lstrip(_SPACE))
        rest = head[position : position + 9].upper()
        if rest.startswith(b"<?"):
            position = _after(head, b"?>", position, name)
        elif rest.startswith(b"<!--"):
            position = _after(head, b"-->", position, name)
        elif rest == b"<!DOCTYPE":
            doctype = _doctype(head, position, name, allow=allow_doctype)
            position = doctype[1]
        elif rest.startswith(b"<") or (not rest and position):
            return Prolog(doctype)
        else:
            raise _not_this_format(_look(head[position:]), name)


def _doctype(head: bytes, position: int, name: str, *, allow: bool) -> tuple[int, int]:
    place = Place(name, head.count(b"\n", 0, position) + 1, offset=position)
    found = _DOCTYPE.match(head, position)
    if found is None:
        raise Refused(Fault("malformed", "a closed DOCTYPE", "", place))
    if found[1].lower() == b"html":
        raise _not_this_format("a page of HTML", name)
    if found[3] == b"[":
        outer = re.search(rb"<!ENTITY[^>]*\b(SYSTEM|PUBLIC)\b", head[position:])
        code = "external-entity" if outer else "entity-expansion"
        expected = "a document without declarations of its own"
        raise Refused(Fault(code, expected, "a DOCTYPE that declares", place))
    if not allow:
        expected = "a document without DOCTYPE"
        raise Refused(Fault("external-entity", expected, _shown(found[0]), place))
    return position, found.end()


def _after(head: bytes, mark: bytes, position: int, name: str) -> int:
    end = head.find(mark, position)
    if end < 0:
        place = Place(name, offset=len(head))
        if len(head) >= SAMPLE // 2:
            raise Refused(Fault("too-large-node", "a root within 64 KB", "a comment", place))
        raise Refused(Fault("truncated", f"{mark.decode()} and a root", "the end", place))
    return end + len(mark)


def _declared(head: bytes) -> str:
    found = _DECLARED.search(head[:1_000])
    return found[1].decode().lower() if found else ""


def _sample(file: BinaryIO, head: bytes) -> tuple[bytes, int]:
    offset = 0
    block = head
    while block.isascii():
        following = file.read(1 << 20)
        if not following:
            return head, 0
        offset += len(block)
        block = following
    if len(block) > SAMPLE:
        start = SAMPLE * next(n for n in range(16) if not block[: SAMPLE * (n + 1)].isascii())
        block, offset = block[start : start + SAMPLE], offset + start
    return block, offset


def _broken_utf8(sample: bytes) -> int | None:
    """None for sound UTF-8, the first bad byte of text that is UTF-8 otherwise, -1 for others."""
    bad: list[int] = []
    sound = 0
    position = 0
    while position < len(sample):
        try:
            piece = sample[position:].decode("utf-8")
        except UnicodeDecodeError as error:
            piece = sample[position : position + error.start].decode("utf-8")
            start = position + error.start
            sound += len(piece.encode("utf-8")) - len(piece)
            if start >= len(sample) - 3 and error.reason.startswith("unexpected end"):
                break
            bad.append(start)
            position += error.end
            if len(bad) > 1_000:
                break
        else:
            sound += len(piece.encode("utf-8")) - len(piece)
            break
    if not bad:
        return None
    return bad[0] if sound > 4 * len(bad) else -1


def _python_name(declared: str) -> str:
    try:
        name = codecs.lookup(declared or "utf-8").name
    except LookupError:
        return "utf-8"
    return _SAME.get(name, name)


def _lie(declared: str, really: str, name: str) -> Fault:
    return Fault("encoding-mismatch", f"text in {declared}", f"text in {really}", Place(name))


def _look(rest: bytes) -> str:
    return next((word for mark, word in _LOOKS if rest.startswith(mark)), "text without markup")


def _shown(text: bytes) -> str:
    return text.decode("utf-8", "backslashreplace")[:120]


def _not_this_format(looks: str, name: str) -> Refused:
    return Refused(Fault("not-this-format", "an XML document", looks, Place(name)))
