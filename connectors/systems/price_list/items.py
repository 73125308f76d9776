"""One row under a mapping: an item with its values and faults, a group, or nothing."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal

from connectors.formats.grid import Bad, Cell, Row, Shown, index_of, plain, text_of
from connectors.sdk.contract import (
    Fault,
    MappedColumn,
    MappedTable,
    Mapping,
    Place,
    StagedRow,
    Value,
)
from connectors.systems.price_list.numbers import read_number
from connectors.systems.price_list.words import (
    find_currency,
    find_unit,
    is_phrase,
    read_currency,
    starts_phrase,
)

ENTITY = "price_list.item"
TEXT_MAX = 2_000
_SCIENTIFIC = re.compile(r"[0-9](?:[.,][0-9]+)?[eE]\+[0-9]+\Z")
_AT_LEAST = re.compile(r"(?:>|более|больше|понад|over)\s*([0-9]+)", re.IGNORECASE)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")
_NUMERIC = frozenset({"pack_quantity", "minimum_quantity", "weight", "tax_rate"})
_NAMES = ("name", "sku", "barcode")


class Reader:
    """Reads the rows of one table in order; groups are remembered from above."""

    def __init__(self, table: MappedTable, mapping: Mapping) -> None:
        self._table = table
        self._mapping = mapping
        self._columns = [(index_of(c.letters), c) for c in table.columns]
        self._headers = {n: c.header for n, c in self._columns if c.header}
        self._names = [n for n, c in self._columns if c.target in _NAMES]
        self._prices = [n for n, c in self._columns if c.target == "price"]
        self._groups: list[tuple[int, str]] = []
        self._was_group = False

    def read(self, row: Row) -> StagedRow | None:
        """The staged row, or None for a header, a group, a total, a note, a blank."""
        if row.number < self._table.first_row or (row.is_hidden and self._mapping.skip_hidden_rows):
            return None
        cells = row.cells
        if all(c is None for c in cells) or self._is_header(cells):
            return None
        named = [text_of(cells[n]) for n in self._names if n < len(cells) and cells[n] is not None]
        has_price = any(n < len(cells) and cells[n] is not None for n in self._prices)
        if named and starts_phrase(named[0], "total"):
            return None
        if not has_price:
            self._note_group(row, named)
            return None
        if not named:
            return None
        self._was_group = False
        return self._item(row)

    def _is_header(self, cells: list[Cell]) -> bool:
        """A header that is repeated on each printed page."""
        missing = same = 0
        for n, header in self._headers.items():
            cell = cells[n] if n < len(cells) else None
            if isinstance(cell, str) and cell in header:
                same += 1
            elif missing:
                return False
            else:
                missing = 1
        return same > 1

    def _note_group(self, row: Row, named: list[str]) -> None:
        texts = named or [text_of(c) for c in row.cells if isinstance(c, str)]
        texts = [t for t in dict.fromkeys(texts) if t]
        if len(texts) != 1 or len(texts[0]) > 120:
            return
        if row.level or any(level for level, _ in self._groups):
            self._groups = [(lvl, g) for lvl, g in self._groups if lvl < row.level]
        elif not self._was_group:
            # Without outline levels a group that follows items starts anew.
            self._groups = []
        self._groups.append((row.level, texts[0]))
        self._was_group = True

    def _item(self, row: Row) -> StagedRow:
        faults: list[Fault] = []
        values: dict[str, Value] = dict(self._mapping.constants)
        for column, mapped in self._columns:
            cell = row.cells[column] if column < len(row.cells) else None
            if cell is None:
                continue
            place = Place(self._table.sheet, row.number, mapped.letters)
            fault = self._take(values, mapped, cell)
            if fault is not None:
                faults.append(Fault(fault.code, fault.expected, fault.found, place))
        width = self._table.width
        if width and any(c is not None for c in row.cells[width:]):
            place = Place(self._table.sheet, row.number)
            found = f"{len(row.cells)} fields"
            faults.append(
                Fault("ragged-row", f"{width} fields (is a quote missing?)", found, place)
            )
        self._finish(values, faults, row.number)
        groups = tuple(g for _, g in self._groups)
        if groups and "category" not in values:
            values["category"] = " / ".join(groups)
        key = next((f"{n}:{values[n]}" for n in ("sku", "barcode", "name") if values.get(n)), "")
        place = Place(self._table.sheet, row.number)
        return StagedRow(place, ENTITY, key, values, groups, tuple(faults))

    def _take(self, values: dict[str, Value], mapped: MappedColumn, cell: Cell) -> Fault | None:
        match mapped.target:
            case "price":
                return self._price(values, mapped, cell)
            case "stock":
                return _stock(values, cell, mapped.options.get("decimal", ""))
            case "currency":
                return _currency(values, mapped, cell)
            case "variant":
                return _variant(values, cell)
            case "unit":
                values["unit"] = find_unit(text_of(cell)) or text_of(cell)
                return None
            case target if target in _NUMERIC:
                given = cell.number if isinstance(cell, Shown) else cell
                number = read_number(_bare_percent(given), mapped.options.get("decimal", ""))
                if isinstance(number, Fault):
                    return number
                values[target] = plain(number) if number is not None else None
                return None
            case "valid_from":
                values["valid_from"] = cell.isoformat() if isinstance(cell, date) else text_of(cell)
                return None
            case target:
                return _text(values, target, cell)

    def _price(self, values: dict[str, Value], mapped: MappedColumn, cell: Cell) -> Fault | None:
        key = mapped.options.get("price_type", "retail")
        number = read_number(cell, mapped.options.get("decimal", ""))
        if isinstance(number, Fault):
            return number
        if number is None:
            values[f"price:{key}"] = None
            return None
        if number <= 0:
            return Fault("price-not-positive", "a price above zero", plain(number))
        values[f"price:{key}"] = plain(_typed(number))
        shown = cell.unit if isinstance(cell, Shown) else cell if isinstance(cell, str) else ""
        currency = find_currency(shown) if shown else ""
        if currency or mapped.options.get("currency"):
            values[f"currency:{key}"] = currency or mapped.options["currency"]
        return None

    def _finish(self, values: dict[str, Value], faults: list[Fault], row: int) -> None:
        """What a row as a whole must say."""
        name, variant = values.get("name"), values.pop("variant", None)
        if name and variant and str(variant).lower() not in str(name).lower():
            values["name"] = f"{name}, {variant}"
        for key in [k for k in values if k.startswith("price:")]:
            own = values.get("currency")
            if own:
                values[f"currency:{key[6:]}"] = own
        if not any(values.get(n) for n in _NAMES):
            place = Place(self._table.sheet, row)
            faults.append(Fault("name-missing", "a name, a code or a barcode", "", place))


def _currency(values: dict[str, Value], mapped: MappedColumn, cell: Cell) -> Fault | None:
    """What a cell says, or what the mapping says that it stands for: a shop's own number of a
    currency means nothing outside it, and a guess would be a wrong price.
    """
    text = text_of(cell).strip()
    code = mapped.options.get(text) or read_currency(text)
    if not code:
        expected = "a currency; say in the mapping's options of this column which one it stands for"
        return Fault("currency-unknown", expected, text[:60])
    values["currency"] = code
    return None


def _variant(values: dict[str, Value], cell: Cell) -> Fault | None:
    """Shops keep "in stock" among their variants: that is no part of a name."""
    text = text_of(cell)
    if is_phrase(text, "in_stock") or is_phrase(text, "out_of_stock"):
        values.setdefault("stock_note", text)
        return None
    return _text(values, "variant", cell)


def _typed(number: Decimal) -> Decimal:
    """A spreadsheet's double behind a price, to six digits as prices are kept."""
    return number if -number.as_tuple().exponent <= 6 else round(number, 6)  # type: ignore[operator]


def _stock(values: dict[str, Value], cell: Cell, mark: str) -> Fault | None:
    text = text_of(cell)
    if isinstance(cell, str):
        if found := _AT_LEAST.match(text):
            values["stock"], values["stock_note"] = found.group(1), text
            return None
        if is_phrase(text, "in_stock") or is_phrase(text, "out_of_stock"):
            values["stock_note"] = text
            return None
    number = read_number(cell, mark)
    if isinstance(number, Fault):
        values["stock_note"] = text[:60]
        return None
    if number is not None and number < 0:
        return Fault("stock-negative", "a stock of zero or more", plain(number))
    values["stock"] = plain(number) if number is not None else None
    return None


def _text(values: dict[str, Value], target: str, cell: Cell) -> Fault | None:
    if isinstance(cell, Bad):
        return Fault(cell.code, "a text", cell.text)
    text = " ".join(text_of(cell).split())
    if not text.isprintable() and _CONTROL.search(text):
        return Fault("control-character", "a text without control characters", text[:40])
    if target in ("sku", "barcode"):
        if isinstance(cell, date):
            return Fault("code-damaged", "a code; a date was made of it", text)
        if _SCIENTIFIC.match(text):
            return Fault("code-damaged", "a code in full", text)
    values[target] = text[:TEXT_MAX]
    return None


def _bare_percent(cell: Cell) -> Cell:
    return cell.replace("%", "").strip() if isinstance(cell, str) else cell
