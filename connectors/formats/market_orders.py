"""Orders of marketplaces as rows: order, its lines, who bought; statuses by a table.

A table `statuses.toml` beside the reader says what each status of the system is called here and
what it means; one that is not in it is taken as it stands, and told of.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import msgspec
from msgspec.json import encode

from connectors.formats.answers import Item
from connectors.sdk.contract import Value


class Meaning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a status means: our word for it, and what is certain then."""

    status: str
    is_paid: bool | None = None
    is_shipped: bool | None = None
    is_cancelled: bool | None = None


class Buyer(msgspec.Struct, frozen=True, kw_only=True):
    """Who bought, where that is told."""

    id: str
    name: str | None = None
    phone: str | None = None
    email: str | None = None
    address: str | None = None
    tax_id: str | None = None
    is_person: bool | None = None


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line; numbers are plain decimals. `id`: where its system has one of its own for it."""

    product: str | None
    name: str | None
    quantity: str | None
    price: str | None = None
    amount: str | None = None
    variant: str | None = None
    id: str | None = None


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """An order as it is told, its status in the words of its system."""

    id: str
    number: str
    status: str
    moment: str | None
    currency: str | None
    amount: str | None = None
    comment: str | None = None
    buyer: Buyer | None = None
    lines: tuple[Line, ...] = ()
    properties: dict[str, str | None] = {}


@cache
def read_statuses(folder: Path) -> dict[str, Meaning]:
    """The table of a system's folder. Raises msgspec.ValidationError."""
    return msgspec.toml.decode((folder / "statuses.toml").read_bytes(), type=dict[str, Meaning])


def currency_of(text: str | None) -> str | None:
    """The code of a currency; RUR is the name that some have for RUB."""
    if not text:
        return None
    code = text.strip().upper()
    return "RUB" if code == "RUR" else code


def stage_order(item: Item, order: Order, statuses: dict[str, Meaning]) -> None:
    """The rows of one order, which waits as a whole when something is wrong in it."""
    meaning = statuses.get(order.status)
    if meaning is None:
        expected = "a status that the table of this system knows (it is taken as it stands)"
        item.taking.warn("unknown-status", expected, order.status[:60], item.place)
        meaning = Meaning(order.status)
    _check_lines(item, order.lines)
    if order.buyer is not None:
        _stage_buyer(item, order.buyer)
    told = {"system_status": order.status, **order.properties}
    properties = {name: text for name, text in told.items() if text}
    item.stage("order", order.id, {
        "number": order.number, "date": order.moment[:10] if order.moment else None,
        "moment": order.moment, "currency": currency_of(order.currency), "amount": order.amount,
        "counterparty_id": order.buyer.id if order.buyer and order.buyer.name else None,
        "status": meaning.status, "comment": order.comment, "is_paid": meaning.is_paid,
        "is_shipped": meaning.is_shipped, "is_cancelled": meaning.is_cancelled,
        "properties": encode(properties, order="sorted").decode(),
    })  # fmt: skip
    _stage_lines(item, order.id, order.lines)


def stage_lines(item: Item, order_id: str, lines: tuple[Line, ...]) -> None:
    """Lines that are told apart from their order."""
    _check_lines(item, lines)
    _stage_lines(item, order_id, lines)


def _check_lines(item: Item, lines: tuple[Line, ...]) -> None:
    for index, line in enumerate(lines):
        path = f"lines[{index}]"
        if line.quantity is None:
            item.fault("missing", "a quantity", "", path)
        elif line.quantity.startswith("-"):
            item.fault("negative-quantity", "a quantity above 0", line.quantity, path)
        if not line.product:
            item.fault("missing-id", "what was bought, by our own id", line.name or "", path)


def _stage_lines(item: Item, order_id: str, lines: tuple[Line, ...]) -> None:
    times: Counter[str] = Counter()
    for line in lines:
        by = line.variant or line.product or line.name or ""
        times[by] += 1
        own = line.id or f"{by}|{times[by]}"
        item.stage("order_line", f"{order_id}|{own}", {
            "order_id": order_id, "product_id": line.product, "variant_id": line.variant,
            "name": line.name, "quantity": line.quantity, "price": line.price,
            "amount": line.amount,
        })  # fmt: skip


def _stage_buyer(item: Item, buyer: Buyer) -> None:
    """Whoever buys again is told of once."""
    if not buyer.name or item.taking.seen.put(hash(("buyer", buyer.id)), 0) is not None:
        return
    values: dict[str, Value] = {
        "name": buyer.name, "role": "buyer", "phone": buyer.phone, "email": buyer.email,
        "address": buyer.address, "tax_id": buyer.tax_id, "is_person": buyer.is_person,
    }  # fmt: skip
    item.stage("counterparty", buyer.id, values)
