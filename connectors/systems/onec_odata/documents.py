"""Documents of customers, with their lines, as orders."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from connectors.sdk.contract import Fault, Place, Value
from connectors.systems.onec_odata.profile import Map
from connectors.systems.onec_odata.values import Row, put, read_tax

if TYPE_CHECKING:
    from connectors.systems.onec_odata.reader import Reader


def read_order(reader: Reader, map_: Map, row: Row) -> None:
    """One document: its row, and a row of each line under `order|what|ordinal`."""
    id_, of = row.guid("Ref_Key"), map_.fields
    values: dict[str, Value] = {}
    for name in ("number", "status", "comment", "operation"):
        put(values, **{name: row.text(of.get(name, ""))})
    if moment := row.moment(of.get("date", "Date")):
        values |= {"date": moment[:10], "moment": moment}
    put(values, counterparty_id=row.guid(of.get("counterparty_id", "")))
    name, code, _ = reader.told_by(map_, row, "currency")
    put(values, currency=code if len(code) == 3 and code.isdigit() else name)
    put(values, amount=row.number(of.get("amount", "")))
    for flag in ("is_posted", "is_paid", "is_shipped", "is_cancelled"):
        values |= {flag: said} if (said := row.yes_no(of.get(flag, ""))) is not None else {}
    if (removed := row.yes_no("DeletionMark")) is not None:
        values["is_deleted"] = removed
    lines = _read_lines(reader, map_, row, id_)
    content = (tuple(values.items()), tuple(tuple(v.items()) for _, _, v in lines))
    if not reader.staging.is_new(row.place, "order", id_, content, row.faults):
        return
    reader.staging.stage(row.place, "order", id_, values, row.faults)
    for line, key, told in lines:
        reader.staging.stage(line.place, "order_line", key, told, line.faults)
    _compare_total(reader, row, id_, values, [told for _, _, told in lines])


def _read_lines(
    reader: Reader, map_: Map, row: Row, order: str
) -> list[tuple[Row, str, dict[str, Value]]]:
    found: list[tuple[Row, str, dict[str, Value]]] = []
    times: dict[str, int] = {}
    for ordinal, held in enumerate(row.part(map_.lines) if map_.lines else (), 1):
        place = Place(row.place.sheet, row.place.row, f"{row.place.column}.{ordinal}")
        line = Row(held, place)
        values = _read_line(reader, map_, line, order)
        what = str(values.get("variant_id") or values.get("product_id") or values.get("name", ""))
        times[what] = times.get(what, 0) + 1
        found.append((line, f"{order}|{what}|{times[what]}" if order else "", values))
    return found


def _read_line(reader: Reader, map_: Map, line: Row, order: str) -> dict[str, Value]:
    of = map_.line_fields
    product, variant = (line.guid(of.get(n, "")) for n in ("product_id", "variant_id"))
    values, _ = reader.variant_of(line, product, variant)
    put(values, order_id=order, name=line.text(of.get("name", "")))
    for name in ("quantity", "amount", "price", "discount", "tax_amount"):
        put(values, **{name: line.number(of.get(name, ""))})
    quantity = values.get("quantity")
    if isinstance(quantity, str) and quantity.startswith("-"):
        line.faults.append(Fault("negative-quantity", "a quantity above 0", quantity, line.place))
    elif quantity is None and not line.faults:
        line.faults.append(Fault("missing", "a quantity", "", line.place))
    unit, _, factor = reader.words_of(line, of.get("package", ""), map_.line_refs.get("package"))
    if unit and factor:
        # The quantity is in base units and the price for the package: the sum says what one costs.
        values.pop("price", None)
    unit = reader.words_of(line, of.get("unit", ""), map_.line_refs.get("unit"))[0]
    put(values, unit=unit)
    tax = reader.words_of(line, of.get("tax", ""), map_.line_refs.get("tax"))[0]
    put(values, tax=read_tax(tax))
    return values


def _compare_total(
    reader: Reader, row: Row, id_: str, values: dict[str, Value], lines: list[dict[str, Value]]
) -> None:
    """The lines make the total, with or without taxes that are not in their sums."""
    amounts = [line.get("amount") for line in lines]
    total = values.get("amount")
    if not lines or total is None or None in amounts:
        return
    found = sum((Decimal(str(a)) for a in amounts), Decimal(0))
    taxes = sum((Decimal(str(line.get("tax_amount") or 0)) for line in lines), Decimal(0))
    if Decimal(str(total)) not in (found, found + taxes):
        expected = "lines that make the total of their document"
        reader.staging.warn("total-differs", expected, f"{id_}: {total} of {found}", row.place)
