"""How what was read is told to a person: one line, no control or reversing characters raw."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from connectors.sdk.contract import Fault, Place

Say = Callable[[str], None]


def clean(text: str, most: int = 200) -> str:
    """A text of an input, safe to print: what is not printable is shown by its code point."""
    shown = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def place_of(place: Place) -> str:
    """A place in words."""
    parts = [
        place.sheet and clean(place.sheet, 60),
        place.row and f"row {place.row}",
        place.column and clean(place.column, 80),
        place.offset and f"byte {place.offset}",
    ]
    return " ".join(str(p) for p in parts if p) or "the whole input"


def fault_line(fault: Fault) -> str:
    """A fault with its place, what was expected, and what was found."""
    found = f", found {clean(fault.found)}" if fault.found else ""
    return f"{fault.code} at {place_of(fault.place)}: expected {clean(fault.expected)}{found}"


def table(rows: Iterable[list[str]], most: int = 60) -> list[str]:
    """Columns that stand under each other; the last one as long as it is."""
    cut = [[clean(c, most) for c in row[:-1]] + [clean(row[-1], 400)] for row in rows]
    widths = [max(len(c) for c in column) for column in zip(*cut, strict=True)]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cut]
