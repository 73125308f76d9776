"""The Range header (RFC 9110, 14.1.2): one range of bytes; several are answered with all of them."""

from __future__ import annotations

import re

import msgspec

_ONE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})\Z")


class Span(msgspec.Struct, frozen=True):
    """Bytes from `start` up to `stop`; `is_part` when they were asked for by a range."""

    start: int
    stop: int
    is_part: bool = False


def read_range(header: str | None, size: int) -> Span | None:
    """What to send of `size` bytes; None when nothing of what is asked exists (416)."""
    found = _ONE.match(header.replace(" ", "")) if header is not None else None
    if found is None or found.group(0) == "bytes=-":
        return Span(0, size)
    first, last = found.groups()
    if not first:
        length = min(int(last), size)
        return Span(size - length, size, is_part=True) if length else None
    start = int(first)
    stop = min(int(last) + 1, size) if last else size
    if start >= size:
        return None
    return Span(start, stop, is_part=True) if start < stop else Span(0, size)
