"""Orders for a base of another system that a connector worker writes: told, and confirmed one by one.

What was told is kept by key, as for 1C's own exchange (routes/exchange): the key of the worker is
the base.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated
from uuid import UUID

import msgspec
from litestar.response.base import ASGIResponse

from appliance.exchange import orders
from appliance.http.answers import reply
from appliance.http.ask import Ask
from appliance.http.route import API, Book

book = Book("exchange")
PATH = f"{API}/exchange/orders"
CONFIRM_MAX = 500


class OrderParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`source`: whose ids are told, as imports name it. `after`: the id of the last order seen."""

    source: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    after: UUID | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=orders.ORDERS_MAX)] = 100


class ToldBuyer(msgspec.Struct, frozen=True):
    """Who ordered; `external_id` is null where the source has not brought them."""

    external_id: str | None
    fields: dict[str, str]


class ToldLine(msgspec.Struct, frozen=True):
    """One line. `external_id`: `product` or `product#variant` of the source, null for what it has
    not brought; `unit`: the name of the measure.
    """

    external_id: str | None
    name: str
    sku: str
    unit: str
    quantity: Decimal
    price: Decimal
    amount: Decimal
    tax_rate: Decimal | None


class ToldOrder(msgspec.Struct, frozen=True):
    """An order as it is now. `version` goes back with the confirmation; `external_id`: its id in
    the source, where that has brought it; `at` is in UTC.
    """

    id: str
    external_id: str | None
    version: str
    number: str
    at: str
    state: str
    currency: str
    amount: Decimal
    due: str
    delivery: str
    buyer: ToldBuyer | None
    lines: list[ToldLine]


class ToldOrders(msgspec.Struct, frozen=True):
    """Orders by id, the oldest first; `next`: what to ask behind, null at the end."""

    orders: list[ToldOrder]
    next: UUID | None


class Confirmed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One order that the base has."""

    id: UUID
    version: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]


class Confirmation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Orders that the base has, each in the version that was told."""

    orders: Annotated[list[Confirmed], msgspec.Meta(min_length=1, max_length=CONFIRM_MAX)]


class Noted(msgspec.Struct, frozen=True):
    """How many were named."""

    confirmed: int


@book.route("GET", PATH, capability="import.run", params=OrderParams, answers={200: ToldOrders})
async def read_due_orders(ask: Ask) -> ASGIResponse:
    """Orders that the base of this key has not confirmed in their present version."""
    given = ask.params(OrderParams)
    found, last = await orders.due_page(
        ask.node.db, ask.ctx, given.source, after=given.after, most=given.limit
    )
    return reply(ToldOrders([_told(d) for d in found], last))


@book.route("POST", f"{PATH}/confirm", writes=True, capability="import.run", body=Confirmation,
            answers={200: Noted})  # fmt: skip
async def confirm_orders(ask: Ask) -> ASGIResponse:
    """Note what the base has; the same again changes nothing."""
    given = ask.read(Confirmation)
    told = {o.id: o.version for o in given.orders}
    async with ask.node.db.transaction(ask.ctx.tenant) as tx:
        await tx.run(orders.confirm_each_call(ask.ctx, told), commit=True)
    return reply(Noted(len(told)))


def _told(due: orders.Due) -> ToldOrder:
    order, buyer = due.order, due.order.buyer
    lines = [
        ToldLine(
            line.product_id if line.is_known else None, line.name, line.sku, line.measure.name,
            line.quantity, line.price, line.amount, line.tax_rate,
        )
        for line in order.lines
    ]  # fmt: skip
    who = ToldBuyer(buyer.id if buyer.is_known else None, dict(buyer.fields)) if buyer else None
    return ToldOrder(
        order.id, order.external_id, due.version, order.number, order.at.isoformat(), order.state, order.currency,
        order.amount, order.due, order.delivery, who, lines,
    )  # fmt: skip
