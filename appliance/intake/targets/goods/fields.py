"""What a row of each entity says of a record of ours, field by field.

Only what a row says: a field that it leaves out is left as it is. Values are brought into the form
of our fields here, so that what does not fit is a fault of the plan and not a refusal later.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import msgspec

from appliance.base import limits
from appliance.fields import type_of
from appliance.fields.base import ValueFault
from appliance.intake.target import fault
from appliance.intake.targets.goods.orders import state_of
from appliance.intake.targets.goods.words import Words
from appliance.kernel.kind import Field, Json, Kind

Values = Mapping[str, Any]

# Our kind of each entity that becomes a record.
KINDS = {
    "category": "product_category", "unit": "unit_of_measure", "price_type": "price_type",
    "warehouse": "warehouse", "product": "product", "variant": "variant",
    "counterparty": "customer", "order": "order", "order_line": "order_line",
    "payment": "payment",
}  # fmt: skip
# Which fields of a row are external ids, of what: entity, our field.
LINKS: dict[str, dict[str, tuple[str, str]]] = {
    "category": {"parent_id": ("category", "parent")},
    "product": {"category_id": ("category", "section")},
    "variant": {"product_id": ("product", "product")},
    "order": {"counterparty_id": ("counterparty", "customer")},
    "order_line": {
        "order_id": ("order", "order"), "product_id": ("product", "product"),
        "variant_id": ("variant", "variant"),
    },
    "payment": {
        "order_id": ("order", "order"), "counterparty_id": ("counterparty", "customer"),
    },
    "price": {
        "product_id": ("product", "product"), "variant_id": ("variant", "variant"),
        "price_type_id": ("price_type", "price_type"),
    },
    "stock": {
        "product_id": ("product", "product"), "variant_id": ("variant", "variant"),
        "warehouse_id": ("warehouse", "warehouse"),
    },
}  # fmt: skip
# Fields that are taken as they stand: ours by the row's.
_PLAIN: dict[str, dict[str, str]] = {
    "category": {"name": "name"},
    "price_type": {"name": "name", "tax_included": "tax_included"},
    "warehouse": {"name": "name", "address": "address"},
    "product": {
        "name": "name", "sku": "sku", "barcode": "barcode", "weight": "weight",
        "description": "description",
    },
    "variant": {"name": "name", "sku": "sku", "barcode": "barcode"},
    "counterparty": {
        "name": "name", "full_name": "legal_name", "tax_id": "tax_id", "address": "address",
        "phone": "phone", "email": "email",
    },
    "order": {
        "external_number": "external_number", "external_date": "external_date",
        "status": "external_status", "is_posted": "external_posted",
        "is_deleted": "external_deleted", "is_paid": "paid", "paid_date": "paid_date",
        "payment_number": "payment_number", "shipped_date": "shipped_date",
        "shipment_number": "shipment_number",
    },
    "payment": {"amount": "amount", "comment": "purpose", "method": "type"},
    "order_line": {"name": "text", "quantity": "quantity", "price": "unit_price"},
}  # fmt: skip
# Deleted at the source is archived here: our field, and what it says then.
_ARCHIVED = {
    "category": ("archived", True), "price_type": ("archived", True), "product": ("archived", True),
    "variant": ("archived", True), "warehouse": ("active", False), "counterparty": ("active", False),
}  # fmt: skip
# Text of a source that is longer than ours is cut, and said so by its end.
_CUT = frozenset({"name", "brand", "legal_name", "address", "text", "external_status"})


def values_of(entity: str, row: Values, words: Words, *, is_new: bool) -> dict[str, Json]:
    """Our fields that a row speaks of, references apart. Raises Unknown."""
    found: dict[str, Json] = {
        ours: row[theirs] for theirs, ours in _PLAIN[entity].items() if row.get(theirs) not in _NONE
    }
    if entity in _ARCHIVED and row.get("is_deleted") is not None:
        name, value = _ARCHIVED[entity]
        found[name] = value if row["is_deleted"] else not value
    if "barcode" in _PLAIN[entity] and "barcode" not in found and row.get("barcodes"):
        found["barcode"] = str(row["barcodes"]).split("\n", 1)[0]
    if entity in _MORE:
        _MORE[entity](row, words, found, is_new=is_new)
    return found


def is_link(image: str) -> bool:
    """Whether a picture is told by its address, which is kept as it stands."""
    return image.lower().startswith(("http://", "https://"))


def _of_product(row: Values, words: Words, found: dict[str, Json], *, is_new: bool) -> None:
    if brand := row.get("brand") or row.get("maker"):
        found["brand"] = brand
    if row.get("unit") or row.get("unit_code"):
        found["measure"] = words.unit(str(row.get("unit") or ""), str(row.get("unit_code") or ""))
    if row.get("tax"):
        tax = words.tax(str(row["tax"]))
        if tax is not None:
            found["tax"] = str(tax)
    if links := [i for i in str(row.get("images") or "").split("\n") if is_link(i)]:
        found["image_links"] = "\n".join(links)
    name = found.get("name")
    if isinstance(name, str) and len(name) > limits.TEXT_CHARS_MAX:
        found.setdefault("description", name)
    if is_new and "name" not in found:
        first = row.get("full_name") or row.get("sku") or row.get("code") or row.get("barcode")
        if first:
            found["name"] = first


def _of_variant(row: Values, words: Words, found: dict[str, Json], *, is_new: bool) -> None:
    if is_new and "name" not in found:
        pairs = row.get("properties")
        told = msgspec.json.decode(pairs, type=dict[str, str]) if pairs else {}
        found["name"] = ", ".join(told.values()) or row.get("sku") or row.get("barcode")


def _of_price_type(row: Values, words: Words, found: dict[str, Json], *, is_new: bool) -> None:
    if row.get("currency"):
        found["currency"] = words.currency(str(row["currency"]))


def _of_counterparty(row: Values, words: Words, found: dict[str, Json], *, is_new: bool) -> None:
    if row.get("is_person") is not None:
        found["type"] = "person" if row["is_person"] else "company"


def _of_order(row: Values, words: Words, found: dict[str, Json], *, is_new: bool) -> None:
    if row.get("currency"):
        found["currency"] = words.currency(str(row["currency"]))
    if state := state_of(row, words):
        found["state"] = state


def _of_payment(row: Values, words: Words, found: dict[str, Json], *, is_new: bool) -> None:
    if row.get("currency"):
        found["currency"] = words.currency(str(row["currency"]))
    if day := row.get("date") or row.get("external_date"):
        found["paid_at"] = day
    if number := row.get("external_number") or row.get("number"):
        found["reference"] = number


def _of_order_line(row: Values, words: Words, found: dict[str, Json], *, is_new: bool) -> None:
    if row.get("unit"):
        found["measure"] = words.unit(str(row["unit"]))
    if "unit_price" not in found and row.get("amount") and Decimal(str(row["quantity"])):
        price = Decimal(str(row["amount"])) / Decimal(str(row["quantity"]))
        found["unit_price"] = f"{price.quantize(Decimal('0.000001'), ROUND_HALF_UP):f}"


_NONE = (None, "")
_MORE = {
    "product": _of_product, "variant": _of_variant, "price_type": _of_price_type,
    "counterparty": _of_counterparty, "order": _of_order, "order_line": _of_order_line,
    "payment": _of_payment,
}  # fmt: skip


def bring(kind: Kind, values: Mapping[str, Json]) -> tuple[dict[str, Json], list[dict[str, Json]]]:
    """Values in the form of our fields, and faults of those that do not fit. Fields that the tenant
    has taken away are left out.
    """
    found: dict[str, Json] = {}
    faults: list[dict[str, Json]] = []
    for name, value in values.items():
        field = kind.by_name.get(name)
        if field is None or value is None:
            continue
        try:
            found[name] = canonical(field, value)
        except ValueFault as bad:
            said = str(value)
            faults.append(fault(bad.code.replace("_", "-"), f"{name}: {bad.detail}", said[:200]))
    return found, faults


def canonical(field: Field, value: Json) -> Json:
    """A value of a source as our field holds it. Raises ValueFault."""
    if isinstance(value, str):
        if field.type in ("number", "quantity"):
            value = _round(field, value)
        elif field.type == "text":
            value = " ".join(value.split())
            if field.name in _CUT and len(value) > limits.TEXT_CHARS_MAX:
                value = value[: limits.TEXT_CHARS_MAX - 1].rstrip() + "…"
        elif field.type == "long_text":
            value = value.strip()
    return type_of(field.type).accept(field, value)


def _round(field: Field, value: str) -> str:
    """A weight of a scale finer than ours; money is never rounded."""
    scale = field.option("scale", 2)
    places = scale if isinstance(scale, int) else 2
    number = Decimal(value)
    exponent = number.as_tuple().exponent
    if isinstance(exponent, int) and -exponent > places and field.name == "weight":
        return f"{number.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP):f}"
    return value
