"""What each column is proposed for: by the words of its header, and by what stands below it.

Words outrank values, a mapping that a person confirmed outranks both. Each target but the price is
given once, to the column that claims it best.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from hashlib import sha256

import msgspec

from connectors.formats.grid import Cell, Shown, letters, text_of
from connectors.sdk.contract import Column, MappedColumn, MappedTable, Mapping, Table
from connectors.systems.price_list.layout import Layout
from connectors.systems.price_list.numbers import bare, find_mark
from connectors.systems.price_list.words import (
    SINGLE,
    find_currency,
    find_unit,
    is_phrase,
    normal,
    own_price,
    price_type_of,
    rate_header,
)

# A claim below this is not proposed.
CLAIM_MIN = 0.5
_DIGITS = re.compile(r"[0-9]{8}(?:[0-9]{4,6})?\Z")
_CODE = re.compile(r"[\w./\-+#]{2,30}\Z")
_SAMPLES = 5
_CODE_LENGTH_MAX = 20


@dataclass(slots=True)
class Profile:
    """What stands in a column: shares of its filled cells."""

    cells: Sequence[Cell]
    filled: int = 0
    numbers: float = 0.0
    codes: float = 0.0
    barcodes: float = 0.0
    units: float = 0.0
    dates: float = 0.0
    distinct: float = 0.0
    length: float = 0.0
    currencies: list[str] = field(default_factory=list)
    mark: str = ""


def profile(cells: Sequence[Cell]) -> Profile:
    """Look at a column's sample."""
    filled = [c for c in cells if c is not None]
    texts = [text_of(c) for c in filled]
    found = Profile(filled, len(filled))
    if not filled:
        return found
    found.mark = find_mark(c for c in filled if isinstance(c, str))
    numbers = sum(map(_is_amount, filled))
    found.numbers = numbers / len(filled)
    found.codes = sum(bool(_CODE.match(t)) and any(x.isdigit() for x in t) for t in texts) / len(
        filled
    )
    found.barcodes = sum(map(is_barcode, texts)) / len(filled)
    found.units = sum(bool(find_unit(t)) for t in texts) / len(filled)
    found.dates = sum(isinstance(c, date) for c in filled) / len(filled)
    found.distinct = len(set(texts)) / len(filled)
    found.length = sum(map(len, texts)) / len(filled)
    for cell in filled[:50]:
        money = cell.unit if isinstance(cell, Shown) else cell if isinstance(cell, str) else ""
        if money and money != "%" and (code := find_currency(money)):
            found.currencies.append(code)
    return found


def _is_amount(cell: Cell) -> bool:
    if isinstance(cell, str):
        number = bare(cell).lstrip("+-")
        return bool(number) and number.replace(".", "").replace(",", "").isdigit()
    return (
        not isinstance(cell, bool | date) and text_of(cell).lstrip("-").replace(".", "").isdigit()
    )


def is_barcode(text: str) -> bool:
    """Eight to fourteen digits whose check digit fits (GS1 General Specifications 7.9)."""
    if not _DIGITS.match(text):
        return False
    digits = [int(c) for c in reversed(text)]
    return (
        10 - sum(d * (3 if n % 2 else 1) for n, d in enumerate(digits) if n) % 10
    ) % 10 == digits[0]


def propose(layout: Layout, learned: dict[str, str], *, is_text: bool = False) -> Table:
    """The columns of a table with what they are proposed for; `is_text`: it came as fields."""
    width = max([*layout.headers, *(len(r.cells) - 1 for r in layout.sample)], default=0) + 1
    columns = range(min(width, 512))
    profiles = {
        n: profile([r.cells[n] if n < len(r.cells) else None for r in layout.sample])
        for n in columns
    }
    claims = _claims(layout, profiles, learned)
    taken: dict[int, tuple[str, float, str]] = {}
    given: set[str] = set()
    for strength, column, target, why in sorted(claims, key=lambda c: (-c[0], c[1])):
        if column not in taken and (target == "price" or target not in given):
            taken[column] = (target, min(strength, 1.0), why)
            given.add(target)
    _name_by_values(profiles, taken, given)
    if "price" not in given:
        _price_by_values(profiles, taken)
    found = tuple(
        _column(layout, n, profiles[n], taken.get(n)) for n in columns
        if profiles[n].filled or layout.headers.get(n)
    )  # fmt: skip
    return Table(
        layout.sheet.name, layout.header_rows, layout.first_row, _with_price_types(found),
        layout.sheet.is_hidden, _width(layout) if is_text else 0,
    )  # fmt: skip


def _width(layout: Layout) -> int:
    """Fields of a row, as the header has them."""
    named = [n for n, text in layout.headers.items() if text]
    return max(named) + 1 if named else 0


def _claims(
    layout: Layout, profiles: dict[int, Profile], learned: dict[str, str]
) -> list[tuple[float, int, str, str]]:
    found: list[tuple[float, int, str, str]] = []
    for column, seen in profiles.items():
        header = layout.headers.get(column, "")
        if not seen.filled:
            continue
        known = learned.get(normal(header)) if header else None
        if known:
            found.append((2.0, column, known, "confirmed before"))
        if own_price(header)[0]:
            found.append((1.5, column, "price", "its key in the header"))
        for target in (*SINGLE, "price"):
            rate, word = rate_header(header, target)
            rate *= _evidence(target, seen)
            if rate >= CLAIM_MIN:
                found.append((rate, column, target, f"header says {word}"))
        if seen.barcodes > 0.8 and seen.filled > 2:
            found.append((0.75, column, "barcode", "check digits fit"))
        if seen.units > 0.9 and seen.filled > 2:
            found.append((0.6, column, "unit", "words of units"))
    return found


def _evidence(target: str, seen: Profile) -> float:
    """How far what stands below a header bears it out."""
    match target:
        case "price":
            return 1.0 if seen.numbers > 0.5 else 0.9 if seen.numbers > 0.1 else 0.3
        case "name":
            return (1.0 if seen.numbers < 0.3 else 0.3) * (1.0 if seen.distinct > 0.3 else 0.7)
        case "sku":
            return 1.0 if seen.codes > 0.3 or seen.numbers > 0.5 else 0.6
        case "barcode":
            return 1.0 if seen.barcodes > 0.3 or seen.numbers > 0.5 else 0.6
        case "stock":
            return 1.0 if seen.dates == 0 else 0.2
        case "weight" | "pack_quantity" | "minimum_quantity":
            return 1.0 if seen.numbers > 0.3 else 0.6
        case "valid_from":
            return 1.0 if seen.dates > 0.5 else 0.4
        case _:
            return 1.0


def _name_by_values(
    profiles: dict[int, Profile], taken: dict[int, tuple[str, float, str]], given: set[str]
) -> None:
    """A list without a name column has one without saying so: the longest texts, mostly distinct."""
    if "name" in given:
        return
    free = ("description", "category")
    texts = [
        (s.length * s.distinct, n)
        for n, s in profiles.items()
        # Under the header of a code may stand names that begin with it.
        if s.filled and s.numbers < 0.3
        and (n not in taken or taken[n][0] in free or s.length > _CODE_LENGTH_MAX)
    ]  # fmt: skip
    if texts and max(texts)[0] > 3:
        taken[max(texts)[1]] = ("name", 0.6, "the longest texts")
        given.add("name")


def _price_by_values(
    profiles: dict[int, Profile], taken: dict[int, tuple[str, float, str]]
) -> None:
    numbers = [
        n for n, s in profiles.items() if s.numbers > 0.8 and n not in taken and s.filled > 2
    ]
    money = [n for n in numbers if profiles[n].currencies]
    if money or numbers:
        taken[(money or numbers)[-1]] = ("price", 0.55, "amounts" if money else "the last numbers")


def _column(
    layout: Layout, column: int, seen: Profile, claim: tuple[str, float, str] | None
) -> Column:
    header = layout.headers.get(column, "")
    samples = tuple(text_of(c)[:60] for c in seen.cells[:_SAMPLES])
    if claim is None:
        return Column(letters(column), header, samples)
    target, strength, why = claim
    options: dict[str, str] = {}
    if target in ("price", "stock", "weight", "pack_quantity", "minimum_quantity") and seen.mark:
        options["decimal"] = seen.mark
    own, code = own_price(header)
    if target == "price" and own:
        options |= {"currency": code, "price_type": own}
    elif target == "price":
        currency = find_currency(header) or (max(set(seen.currencies), key=seen.currencies.count)
                                             if seen.currencies else "")  # fmt: skip
        if not currency:
            currency = next((c for t in layout.preamble if (c := find_currency(t[:200]))), "")
        if currency:
            options["currency"] = currency
        options["price_type"] = price_type_of(header)
    return Column(letters(column), header, samples, target, options, round(strength, 2), why)


def _with_price_types(columns: tuple[Column, ...]) -> tuple[Column, ...]:
    """Every price column its own price type: what the header says, else the header itself."""
    used: set[str] = set()
    found: list[Column] = []
    for column in columns:
        if column.target == "price":
            key = column.options.get("price_type") or "retail"
            if key in used:
                key = (
                    normal(column.header).replace(" ", "_")[:40]
                    or f"price_{column.letters.lower()}"
                )
            used.add(key)
            found.append(
                msgspec.structs.replace(column, options={**column.options, "price_type": key})
            )
            continue
        found.append(column)
    return tuple(found)


def mapping_of(tables: list[Table]) -> Mapping:
    """The mapping that a person would confirm: tables with a name and a price, shown sheets."""
    mapped = tuple(
        MappedTable(
            t.sheet, t.header_rows, t.first_row,
            tuple(MappedColumn(c.letters, c.header, c.target, c.options) for c in t.columns if c.target),
            t.width,
        )
        for t in tables
        if not t.is_hidden and is_readable(t)
    )  # fmt: skip
    return Mapping(tables=mapped, fingerprint=fingerprint(tables))


def is_readable(table: Table) -> bool:
    """A price list says at least what and for how much."""
    targets = {c.target for c in table.columns}
    return "price" in targets and bool(targets & {"name", "sku", "barcode"})


def fingerprint(tables: list[Table]) -> str:
    """What a layout is recognised by: sheets and the texts of their headers."""
    parts = [f"{t.sheet}\0" + "\0".join(normal(c.header) for c in t.columns) for t in tables]
    return sha256("\1".join(parts).encode()).hexdigest()[:32]


def is_total(text: str) -> bool:
    """Whether a name is that of a sum."""
    return is_phrase(text, "total")
