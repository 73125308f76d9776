"""Pages of a capture, to staged rows: ids are those of 1C, so they meet those of CommerceML.

A variant is `product#characteristic` there too. A characteristic may belong to a kind of product
and serve many: then its variants are made where a price, a balance or an order names them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from connectors.formats.captured import Page
from connectors.formats.staging import Staging
from connectors.sdk.contract import Fault, Place, Refused, Value
from connectors.systems.onec_odata.documents import read_order
from connectors.systems.onec_odata.look import GONE
from connectors.systems.onec_odata.profile import LOOKUPS, Map, Profile
from connectors.systems.onec_odata.values import Row, put, read_rows, read_tax

_OF_PRODUCTS = "Catalog_Номенклатура"
_PHONES, _MAILS, _ADDRESSES = ("телефон", "phone"), ("электронн", "email", "почт"), ("адрес",)


class Words:
    """What is referred to and told by its words: units, currencies, taxes, makers, by their ids."""

    def __init__(self) -> None:
        self._held: dict[str, dict[str, tuple[str, str, str]]] = {n: {} for n in LOOKUPS}

    def keep(self, lookup: str, id_: str, name: str, code: str, factor: str) -> None:
        """One entry: its name, its code, how many of the base unit it is."""
        self._held[lookup][id_] = name, code, factor

    def find(self, lookup: str, id_: str) -> tuple[str, str, str] | None:
        """Name, code, factor."""
        return self._held[lookup].get(id_)


class Reader:
    """The state of one reading."""

    def __init__(self, profile: Profile, staging: Staging, settings: Mapping[str, str]) -> None:
        self.profile, self.staging, self.words = profile, staging, Words()
        self.zero_is_none = settings.get("price_zero_is_none", "yes") != "no"
        # Characteristics of a kind of product: their words by id; and the variants made of them.
        self._shared: dict[str, dict[str, Value]] = {}

    def read(self, page: Page, no: int) -> Iterator[None]:
        """Stage a page; gives way after each row. Raises Refused."""
        entity = page.call.removesuffix(GONE)
        map_ = self.profile.entity.get(entity)
        try:
            rows = read_rows(page.body) if map_ is not None else None
        except (ValueError, RecursionError) as error:
            raise Refused(Fault("damaged", "an answer of 1C", str(error)[:100], Place(row=no))) from None  # fmt: skip
        if map_ is None or rows is None:
            raise Refused(Fault("damaged", "an entity of the profile", page.call, Place(row=no)))
        for ordinal, held in enumerate(rows, 1):
            place = Place(page.call, no, str(ordinal))
            if not isinstance(held, dict):
                fault = Fault("value-malformed", "an object with its properties", "", place)
                self.staging.stage(place, "order" if entity == "order" else "product", "", {}, [fault])  # fmt: skip
            elif entity in LOOKUPS:
                self._keep(entity, map_, Row(held, place))
            elif page.call.endswith(GONE):
                self._stage_gone(map_, Row(held, place))
            else:
                _READ[entity](self, map_, Row(held, place))
            yield

    def stage(self, row: Row, entity: str, key: str, values: dict[str, Value]) -> None:
        """One row, if its key was not met before with the same content."""
        if self.staging.is_new(row.place, entity, key, tuple(values.items()), row.faults):
            self.staging.stage(row.place, entity, key, values, row.faults)

    def told_by(self, map_: Map, row: Row, field: str) -> tuple[str, str, str]:
        """The words of a field: of its lookup where it is a reference, else as it stands."""
        name = map_.fields.get(field, "")
        lookup = map_.refs.get(field)
        return self.words_of(row, name, lookup)

    def words_of(self, row: Row, name: str, lookup: str | None) -> tuple[str, str, str]:
        """Name, code and factor that a property means."""
        if lookup is None:
            return (row.text(name) if name else ""), "", ""
        id_ = row.guid(name)
        if not id_:
            return "", "", ""
        found = self.words.find(lookup, id_)
        if found is None:
            expected = f"a {lookup} that 1C tells"
            self.staging.warn("unknown-reference", expected, id_, row.place)
            return id_, "", ""
        return found

    def subject(self, map_: Map, row: Row) -> tuple[dict[str, Value], str]:
        """Which product or variant an entry is of: its values and its key."""
        product = row.guid(map_.fields.get("product_id", ""))
        variant = row.guid(map_.fields.get("variant_id", ""))
        return self.variant_of(row, product, variant)

    def variant_of(self, row: Row, product: str, variant: str) -> tuple[dict[str, Value], str]:
        """See subject; a variant of a shared characteristic is made when it is met first."""
        if not product:
            return {}, ""
        if not variant:
            return {"product_id": product}, product
        key = f"{product}#{variant}"
        told = self._shared.get(variant)
        # Once for each: what is kept is a few bytes of its hash.
        if told is not None and self.staging.seen.put(hash(("shared", key)), 0) is None:
            self.staging.stage(row.place, "variant", key, {"product_id": product, **told})
        return {"product_id": product, "variant_id": key}, key

    def _keep(self, lookup: str, map_: Map, row: Row) -> None:
        id_, name, code = row.guid("Ref_Key"), *(row.text(map_.fields.get(n, "")) for n in ("name", "code"))  # fmt: skip
        if lookup == "tax":
            name = read_tax(name)
        self.words.keep(lookup, id_, name or code, code, _factor(map_, row))
        # Of packages there are as many as products; a unit of the classifier has a short number.
        if lookup == "unit" and code.isdigit() and len(code) <= 4:
            values: dict[str, Value] = {}
            put(values, name=name or code, code=code)
            self.stage(row, "unit", id_, values)

    def _stage_gone(self, map_: Map, row: Row) -> None:
        values, key = self.subject(map_, row)
        warehouse = row.guid(map_.fields.get("warehouse_id", ""))
        put(values, warehouse_id=warehouse, quantity="0")
        self.stage(row, "stock", f"{key}|{warehouse}" if warehouse else key, values)

    def _category(self, map_: Map, row: Row) -> None:
        values = _described(map_, row)
        put(values, parent_id=row.guid(map_.fields.get("parent_id", "")))
        self.stage(row, "category", row.guid("Ref_Key"), values)

    def _price_type(self, map_: Map, row: Row) -> None:
        values = _described(map_, row)
        put(values, currency=_currency(self.told_by(map_, row, "currency")))
        put(values, tax_included=row.yes_no(map_.fields.get("tax_included", "")))
        self.stage(row, "price_type", row.guid("Ref_Key"), values)

    def _warehouse(self, map_: Map, row: Row) -> None:
        values = _described(map_, row)
        put(values, address=row.text(map_.fields.get("address", "")))
        self.stage(row, "warehouse", row.guid("Ref_Key"), values)

    def _counterparty(self, map_: Map, row: Row) -> None:
        values = _described(map_, row)
        for name in ("full_name", "tax_id", "registration_code"):
            put(values, **{name: row.text(map_.fields.get(name, ""))})
        if sort := row.text(map_.fields.get("is_person", "")):
            values["is_person"] = "физ" in sort.casefold() or "фіз" in sort.casefold()
        for held in row.part(map_.fields.get("contacts", "")):
            _put_contact(values, Row(held, row.place))
        self.stage(row, "counterparty", row.guid("Ref_Key"), values)

    def _product(self, map_: Map, row: Row) -> None:
        values = _described(map_, row)
        for name in ("full_name", "sku", "code", "barcode", "description", "kind", "country"):
            put(values, **{name: row.text(map_.fields.get(name, ""))})
        put(values, category_id=row.guid(map_.fields.get("category_id", "")))
        unit, code, _ = self.told_by(map_, row, "unit")
        put(values, unit=unit, unit_code=code)
        put(values, tax=read_tax(self.told_by(map_, row, "tax")[0]))
        for name in ("brand", "maker"):
            put(values, **{name: self.told_by(map_, row, name)[0]})
        put(values, weight=row.number(map_.fields.get("weight", "")))
        self.stage(row, "product", row.guid("Ref_Key"), values)

    def _variant(self, map_: Map, row: Row) -> None:
        values = _described(map_, row)
        id_, owner = row.guid("Ref_Key"), row.guid(map_.fields.get("owner", ""))
        for name in ("sku", "barcode"):
            put(values, **{name: row.text(map_.fields.get(name, ""))})
        sort = row.text(map_.fields.get("owner_type", "")).rpartition(".")[2]
        if sort and sort != self._products():
            self._shared[id_] = values
            return
        self.stage(row, "variant", f"{owner}#{id_}" if owner and id_ else "", {"product_id": owner, **values})  # fmt: skip

    def _products(self) -> str:
        map_ = self.profile.entity.get("product")
        return map_.object if map_ is not None else _OF_PRODUCTS

    def _price(self, map_: Map, row: Row) -> None:
        values, key = self.subject(map_, row)
        type_ = row.guid(map_.fields.get("price_type_id", ""))
        amount = row.number(map_.fields.get("amount", ""))
        if amount is not None and not amount.strip("-0.") and self.zero_is_none:
            expected = "a price above 0 (0 is read as none)"
            self.staging.warn("zero-price", expected, f"{key}|{type_}", row.place)
            return
        if amount is not None and (amount.startswith("-") or not amount.strip("0.")):
            row.faults.append(Fault("negative-price", "a price above 0", amount, row.place))
        if amount is None and not row.faults:
            row.faults.append(Fault("missing", "the amount of a price", "", row.place))
        put(values, price_type_id=type_, amount=amount)
        put(values, currency=_currency(self.told_by(map_, row, "currency")))
        unit, _, factor = self.told_by(map_, row, "package")
        put(values, unit=unit, factor=factor)
        self.stage(row, "price", f"{key}|{type_}" if key and type_ else "", values)

    def _stock(self, map_: Map, row: Row) -> None:
        values, key = self.subject(map_, row)
        warehouse = row.guid(map_.fields.get("warehouse_id", ""))
        quantity = row.number(map_.fields.get("quantity", ""))
        if quantity is None and not row.faults:
            row.faults.append(Fault("missing", "the quantity of a balance", "", row.place))
        put(values, warehouse_id=warehouse, quantity=quantity)
        self.stage(row, "stock", f"{key}|{warehouse}" if key and warehouse else key, values)


def _order(reader: Reader, map_: Map, row: Row) -> None:
    read_order(reader, map_, row)


_READ: dict[str, Callable[[Any, Map, Row], None]] = {
    "category": Reader._category, "price_type": Reader._price_type,  # noqa: SLF001 - its own table
    "warehouse": Reader._warehouse, "counterparty": Reader._counterparty,  # noqa: SLF001
    "product": Reader._product, "variant": Reader._variant,  # noqa: SLF001
    "price": Reader._price, "stock": Reader._stock, "order": _order,  # noqa: SLF001
}  # fmt: skip


def _described(map_: Map, row: Row) -> dict[str, Value]:
    """What every catalogue has: a name, and whether it is marked for deletion."""
    values: dict[str, Value] = {}
    name = row.text(map_.fields.get("name", "Description"))
    removed = row.yes_no("DeletionMark")
    if not name and not removed:
        row.faults.append(Fault("missing-name", "a name", row.text("Ref_Key"), row.place))
    put(values, name=name)
    if removed is not None:
        values["is_deleted"] = removed
    return values


def _factor(map_: Map, row: Row) -> str:
    """How many base units a package is; empty for one."""
    found = row.number(map_.fields.get("factor", ""))
    divisor = row.number(map_.fields.get("divisor", "")) or "1"
    if not found or not Decimal(divisor) or not Decimal(found):
        return ""
    quotient = (Decimal(found) / Decimal(divisor)).quantize(Decimal("0.000001")).normalize()
    return "" if quotient == 1 else f"{quotient:f}"


def _currency(words: tuple[str, str, str]) -> str:
    name, code, _ = words
    return code if code.isdigit() and len(code) == 3 else name


def _put_contact(values: dict[str, Value], row: Row) -> None:
    sort, shown = row.text("Тип").casefold(), row.text("Представление")
    if not shown or row.faults:
        return
    for name, words in (("email", _MAILS), ("phone", _PHONES), ("address", _ADDRESSES)):
        if any(w in sort for w in words):
            values.setdefault(name, shown)
            return
