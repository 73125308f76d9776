"""What there is, what is promised, what is free: two ledgers side by side."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec
from litestar.response.base import ASGIResponse

from appliance.base.errors import FieldFault, Invalid
from appliance.http.answers import reply
from appliance.http.ask import Ask
from appliance.http.route import API, Book
from appliance.kernel.kind import Json
from appliance.kernel.query import decode_query
from appliance.read import run

book = Book("stock")
Place = tuple[str, str | None, str]
_decode = msgspec.json.Decoder(dict[str, Json]).decode


class StockParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A product, a warehouse, or both; `at` is a moment with an offset (now)."""

    product: UUID | None = None
    warehouse: UUID | None = None
    at: datetime | None = None


class StockRow(msgspec.Struct, frozen=True):
    """In the product's base unit: `balance` is there, `reserved` is promised, `available` is the
    difference.
    """

    product: str
    variant: str | None
    warehouse: str
    balance: str
    reserved: str
    available: str


class Stock(msgspec.Struct, frozen=True):
    """As far as the reader may see movements and reservations."""

    rows: list[StockRow]


@book.route("GET", f"{API}/stock", capability="query.run", params=StockParams,
            answers={200: Stock})  # fmt: skip
async def read_stock(ask: Ask) -> ASGIResponse:
    """Stock by product, variant and warehouse, as of any moment."""
    given = ask.params(StockParams)
    if given.product is None and given.warehouse is None:
        _fail("/product", "Name a product, a warehouse, or both.")
    if given.at is not None and given.at.tzinfo is None:
        _fail("/at", "Expected a moment with an offset, such as 2026-11-20T10:00:00+02:00.")
    there = await _balances(ask, "stock_move", given)
    promised = await _balances(ask, "reservation", given)
    rows = []
    for place in sorted(there.keys() | promised.keys(), key=str):
        balance, reserved = (found.get(place, Decimal(0)) for found in (there, promised))
        if balance or reserved:
            free = balance - reserved
            rows.append(StockRow(*place, f"{balance:.3f}", f"{reserved:.3f}", f"{free:.3f}"))
    return reply(Stock(rows))


async def _balances(ask: Ask, ledger: str, given: StockParams) -> dict[Place, Decimal]:
    where: list[Json] = [
        {"field": name, "op": "eq", "value": str(value)}
        for name in ("product", "warehouse")
        if (value := getattr(given, name)) is not None
    ]
    raw: dict[str, Json] = {
        "from": ledger, "group": ["product", "variant", "warehouse"], "balance": True,
        "select": [{"sum": "quantity", "as": "n"}], "where": {"and": where}, "limit": 1000,
    }  # fmt: skip
    if given.at is not None:
        raw["asof"] = given.at.isoformat()
    found: dict[Place, Decimal] = {}
    after: str | None = None
    while True:
        query = decode_query(raw | ({"after": after} if after else {}))
        page = await run(ask.node.db, ask.ctx, query, ask.node.cursors)
        for row in map(_decode, page.rows):
            variant = row.get("variant")
            place = (str(row["product"]), str(variant) if variant else None, str(row["warehouse"]))
            found[place] = found.get(place, Decimal(0)) + Decimal(str(row["n"] or 0))
        after = page.next
        if after is None:
            return found


def _fail(pointer: str, detail: str) -> None:
    raise Invalid(
        detail, code="request.parameter", faults=(FieldFault(pointer, "out_of_range", detail),)
    )
