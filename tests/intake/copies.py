"""An edited copy of a price list: some prices changed, one row dropped, one row added."""

import csv
import io
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal

import openpyxl

from connectors.formats.grid import index_of
from connectors.formats.open import open_book
from connectors.formats.text_table import find_delimiter

NEW = {"sku": "NX-NEW-1", "name": "Nothing like it before", "barcode": "4006381333931"}


@dataclass
class Copy:
    """What was made, and what was done to it: rows of the plan; key, field and new price."""

    content: bytes
    changed: list
    dropped: object
    prices: set
    faulty: int


def edited_copy(path, mapping, rows, edited):
    """`rows` are those of a plan in which every good one is unchanged. The form stays what it is
    where it can be written; else the copy is a CSV of the rows.
    """
    plain = [r for r in rows if r.sort == "unchanged" and price_of(r)]
    times = Counter(r.key for r in rows)
    once = [r for r in plain if times[r.key] == 1]
    step = len(once) // (edited + 1)
    *changed, dropped = once[:: max(step, 1)][: edited + 1]
    wanted = {(r.sheet, r.row): dearer(r) for r in changed}
    prices = {(r.key, price_of(r)[0], wanted[r.sheet, r.row]) for r in changed}
    form = open_book(path).format
    make = {"csv": _text, "xlsx": _workbook}.get(form, _rows)
    content = make(path, mapping, rows, wanted, dropped)
    faulty = sum(r.sort == "faulty" for r in rows) if make is not _rows else 0
    return Copy(content, changed, dropped, prices, faulty)


def price_of(row):
    """The first price of a row: its field and amount; None when it has none."""
    found = ((n, v) for n, v in row.values.items() if n.startswith("price:") and v)
    return next(found, None)


def dearer(row):
    """A quarter more, at least a hundredth."""
    price = Decimal(price_of(row)[1])
    return max(price * Decimal("1.25"), price + Decimal("0.01")).quantize(Decimal("0.01"))


def _columns(mapping, sheet, row):
    """The columns of a table by target; the price column is that of the row's first price."""
    (table,) = (t for t in mapping.tables if t.sheet == sheet)
    key = price_of(row)[0][6:]
    return {
        c.target: c for c in table.columns
        if c.target != "price" or c.options.get("price_type") == key
    }  # fmt: skip


def _new_cells(cells, columns):
    """A row like another one, and a thing of its own."""
    cells = list(cells)
    for target, value in NEW.items():
        if target in columns:
            cells[index_of(columns[target].letters)] = value
    return cells


def _text(path, mapping, rows, wanted, dropped):
    encoding = open_book(path).encoding
    text = path.read_bytes().decode(encoding)
    delimiter = find_delimiter(text)
    lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    columns = _columns(mapping, "", dropped)
    price = columns["price"]
    for (_, number), amount in wanted.items():
        said = f"{amount:f}".replace(".", price.options.get("decimal") or ".")
        lines[number - 1][index_of(price.letters)] = said
    lines.append(_new_cells(lines[dropped.row - 1], columns))
    del lines[dropped.row - 1]
    made = io.StringIO(newline="")
    csv.writer(made, delimiter=delimiter).writerows(lines)
    return made.getvalue().encode(encoding)


def _workbook(path, mapping, rows, wanted, dropped):
    book = openpyxl.load_workbook(path, data_only=True)
    by_place = {(r.sheet, r.row): r for r in rows}
    for (sheet, number), amount in wanted.items():
        letters = _columns(mapping, sheet, by_place[sheet, number])["price"].letters
        book[sheet][f"{letters}{number}"] = float(amount)
    sheet = book[dropped.sheet]
    cells = [c.value for c in sheet[dropped.row]]
    sheet.append(_new_cells(cells, _columns(mapping, dropped.sheet, dropped)))
    for n in range(1, len(cells) + 1):
        cell = sheet.cell(dropped.row, n)
        if not isinstance(cell, openpyxl.cell.MergedCell):
            cell.value = None
    made = io.BytesIO()
    book.save(made)
    return made.getvalue()


def _rows(path, mapping, rows, wanted, dropped):
    """Names, codes and prices of all good rows, as somebody would paste them into a new sheet."""
    good = [r for r in rows if r.sort == "unchanged"]
    priced = sorted(
        {(n, r.values.get(f"currency:{n[6:]}", "UAH")) for r in good for n, v in r.values.items()
         if n.startswith("price:") and v}
    )  # fmt: skip
    header = ["SKU", "Name", *(f"Price: {n[6:]} [{n[6:]}], {code}" for n, code in priced)]
    lines = [header]
    for row in good:
        if row is dropped:
            continue
        values = dict(row.values)
        if (row.sheet, row.row) in wanted:
            values[price_of(row)[0]] = f"{wanted[row.sheet, row.row]:f}"
        amounts = [values.get(n) or "on request" for n, _ in priced]
        lines.append([values.get("sku", ""), values.get("name", ""), *amounts])
    amounts = [price_of(dropped)[1]] * len(priced)
    lines.append([NEW["sku"], NEW["name"], *amounts])
    made = io.StringIO(newline="")
    csv.writer(made).writerows(lines)
    return made.getvalue().encode()
