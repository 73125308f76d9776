"""Where the table of a sheet is: its header rows, joined over merges, and its first data row.

A header names things that stand below it as values: rows are rated by the words of price lists,
by text standing above numbers, and by saying a different thing in each column.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from itertools import islice

from connectors.formats.grid import Cell, Row, Sheet, Shown, text_of
from connectors.systems.price_list.numbers import bare
from connectors.systems.price_list.words import SINGLE, rate_header

HEAD_ROWS = 60
SAMPLE_ROWS = 400
HEADER_ROWS_MAX = 3


@dataclass(slots=True)
class Layout:
    """One found table: `headers` by 0-based column, `sample` the rows below."""

    sheet: Sheet
    header_rows: tuple[int, ...]
    first_row: int
    headers: dict[int, str]
    sample: list[Row]
    preamble: list[str]


def find_layout(sheet: Sheet) -> Layout | None:
    """The table of a sheet; None when nothing on it looks like one."""
    rows = list(islice(sheet.rows(), SAMPLE_ROWS))
    filled = [r for r in rows if any(c is not None for c in r.cells)]
    if not filled:
        return None
    top = [r for r in filled if r.number <= filled[0].number + HEAD_ROWS]
    best = max(top, key=lambda r: (_rate(r, filled), -r.number))
    rate = _rate(best, filled)
    if rate < 1.2:
        return _headless(sheet, filled)
    header = _header_rows(best, filled, sheet)
    numbers = tuple(r.number for r in header)
    below = [r for r in filled if r.number > numbers[-1]]
    if not below:
        return None
    preamble = [
        text_of(c) for r in filled if r.number < numbers[0] for c in r.cells if c is not None
    ]
    return Layout(sheet, numbers, numbers[-1] + 1, join_headers(header, sheet), below, preamble)


def _headless(sheet: Sheet, rows: list[Row]) -> Layout | None:
    """A table without header: most rows hold a text and a number."""
    good = [r for r in rows if _texts(r) and any(_is_number(c) for c in r.cells)]
    if len(good) < max(3, len(rows) // 2):
        return None
    width = max(len(r.cells) for r in rows)
    return Layout(sheet, (), good[0].number, dict.fromkeys(range(width), ""), rows, [])


def _rate(row: Row, rows: list[Row]) -> float:
    texts = {n: c for n, c in enumerate(row.cells) if isinstance(c, str)}
    if not texts or any(_is_number(c) for c in row.cells if c is not None):
        return 0.0
    hits = 0.0
    for text in texts.values():
        if len(text) <= 120:
            found = max(rate_header(text, t)[0] for t in (*SINGLE, "price"))
            hits += found * (1.5 if rate_header(text, "price")[0] > 0.5 else 1.0)
    below = [r for r in rows if r.number > row.number][:12]
    above = sum(
        1 for n in texts if sum(n < len(r.cells) and _is_number(r.cells[n]) for r in below) >= 2
    )
    distinct = len(set(texts.values())) / len(texts)
    return (hits + 0.5 * min(above, 4)) * distinct


def _header_rows(best: Row, rows: list[Row], sheet: Sheet) -> list[Row]:
    """The best row with those that complete it: one above whose cells span it, some below."""
    found = [best]
    place = rows.index(best)
    if place and (above := rows[place - 1]).number == best.number - 1 and _spans(above, sheet):
        found.insert(0, above)
    spanned = {
        c for r0, c0, r1, c1 in sheet.merged if r0 <= best.number < r1 for c in range(c0, c1 + 1)
    }
    for row in rows[place + 1 : place + HEADER_ROWS_MAX]:
        own = {n for n, c in enumerate(row.cells) if c is not None}
        held = {n for n, c in enumerate(best.cells) if c is not None}
        is_text = all(isinstance(row.cells[n], str) for n in own) and not any(
            _is_number(row.cells[n]) for n in own
        )
        under = bool(own) and (own.isdisjoint(held) or bool(spanned) or _spans(best, sheet))
        texts = {n for n in own if isinstance(row.cells[n], str) and not _is_number(row.cells[n])}
        partly = bool(spanned) and len(texts) >= 2 and row.number == found[-1].number + 1
        if row.number != found[-1].number + 1 or not (
            (is_text and under and len(own) > 1) or partly
        ):
            break
        found.append(row)
    return found


def _spans(row: Row, sheet: Sheet) -> bool:
    """Whether a cell of a row spans several columns and a header may stand under it."""
    return any(r0 == row.number and c1 > c0 and r1 == r0 for r0, c0, r1, c1 in sheet.merged)


def join_headers(rows: list[Row], sheet: Sheet) -> dict[int, str]:
    """Header texts by column, upper rows first; a merged cell speaks for all it covers."""
    width = max((len(r.cells) for r in rows), default=0)
    found: dict[int, str] = {}
    for column in range(width):
        parts: list[str] = []
        for row in rows:
            text = _covering(row, column, sheet, rows[-1].number)
            if text and text not in parts:
                parts.append(text)
        found[column] = " ".join(parts)
    return found


def _covering(row: Row, column: int, sheet: Sheet, last: int) -> str:
    own = row.cells[column] if column < len(row.cells) else None
    if own is not None:
        return " ".join(text_of(own).split())
    if row.number == last:
        return ""
    for r0, c0, r1, c1 in sheet.merged:
        if (
            r0 <= row.number <= r1
            and c0 <= column <= c1
            and r0 == row.number
            and c0 < len(row.cells)
        ):
            return " ".join(text_of(row.cells[c0]).split())
    return ""


def _texts(row: Row) -> list[str]:
    return [c for c in row.cells if isinstance(c, str) and not _is_number(c)]


def _is_number(cell: Cell) -> bool:
    if isinstance(cell, Decimal | Shown):
        return True
    if not isinstance(cell, str):
        return False
    number = bare(cell).lstrip("+-")
    return bool(number) and number.replace(".", "").replace(",", "").isdigit()
