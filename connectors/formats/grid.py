"""What every table format gives: sheets of rows of cells, streamed, with places.

A cell is None, a text, an exact Decimal, a yes/no, a date or moment, or a `Bad` that says why
there is no value (an error, a formula nobody computed).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Bad:
    """A cell without a value: an error of the sheet, or a formula without its result."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A number that is shown otherwise than it is stored: `text` as shown, `unit` % or currency."""

    number: Decimal
    text: str = ""
    unit: str = ""


Cell = None | str | Decimal | bool | date | datetime | Bad | Shown


@dataclass(slots=True)
class Row:
    """One row: its 1-based number, its cells from column A on."""

    number: int
    cells: list[Cell]
    is_hidden: bool = False
    level: int = 0


@dataclass(slots=True)
class Sheet:
    """One sheet. `rows` starts a fresh pass over it; `count` is a guess for progress."""

    name: str
    rows: Callable[[], Iterator[Row]]
    count: int = 0
    is_hidden: bool = False
    merged: list[tuple[int, int, int, int]] = field(default_factory=list)


@dataclass(slots=True)
class Book:
    """One file as tables."""

    format: str
    sheets: list[Sheet]
    encoding: str = ""
    warnings: list[tuple[str, str]] = field(default_factory=list)


def letters(column: int) -> str:
    """Column letters of a 0-based column: 0 is A, 26 is AA."""
    text = ""
    column += 1
    while column:
        column, rest = divmod(column - 1, 26)
        text = chr(65 + rest) + text
    return text


def index_of(name: str) -> int:
    """The 0-based column of column letters."""
    found = 0
    for char in name:
        found = found * 26 + ord(char) - 64
    return found - 1


def text_of(cell: Cell) -> str:
    """A cell as a person sees it."""
    match cell:
        case None:
            return ""
        case Shown(number=number, text=text):
            return text or plain(number)
        case Decimal():
            return plain(cell)
        case Bad(text=text):
            return text
        case bool():
            return "TRUE" if cell else "FALSE"
        case date():
            return cell.isoformat()
        case _:
            return cell


def plain(number: Decimal) -> str:
    """A decimal without exponent and without needless zeros."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def exact(number: float) -> Decimal:
    """A spreadsheet's double as the number a person typed: fifteen significant digits."""
    return Decimal(f"{number:.15g}")
