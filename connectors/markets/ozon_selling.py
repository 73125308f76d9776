"""Prices and stocks to Ozon: by our own SKU, 1000 prices or 100 stocks in a question.

A price may be changed ten times an hour; the stock of a product in a warehouse once in two minutes,
else its item is answered TOO_MANY_REQUESTS within a 200. Each item has its own `updated`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec

from connectors.markets.ozon import OzonPlace, post, read_answer
from connectors.markets.selling import Limits, Outcome, Wanted, What, plain
from connectors.sdk.retry import Trouble
from connectors.transports.api import Api

LIMITS = Limits(price=1_000, stock=100, price_again_s=360.0, stock_again_s=120.0)
_SOON = "TOO_MANY_REQUESTS"


class _Error(msgspec.Struct, frozen=True):
    code: str | None = None
    message: str | None = None


class _Item(msgspec.Struct, frozen=True):
    offer_id: str
    updated: bool = False
    errors: tuple[_Error, ...] | None = None


class _Answer(msgspec.Struct, frozen=True):
    result: tuple[_Item, ...] | None = None


class _Money(msgspec.Struct, frozen=True):
    price: Decimal | None = None


class _Priced(msgspec.Struct, frozen=True):
    offer_id: str
    price: _Money | None = None


class _Prices(msgspec.Struct, frozen=True):
    items: tuple[_Priced, ...] | None = None


class OzonMarket:
    """See selling.Market."""

    def __init__(self, place: OzonPlace, api: Api, limits: Limits = LIMITS) -> None:
        self._place, self._api, self._limits = place, api, limits

    @property
    def limits(self) -> Limits:
        """See Market."""
        return self._limits

    def close(self) -> None:
        """See Market."""
        self._api.close()

    def read(self, what: What, offers: Sequence[str]) -> Mapping[str, Decimal]:
        """Prices alone: what stock lies in a warehouse is told by other numbers than ours."""
        if what == "stock":
            return {}
        found: dict[str, Decimal] = {}
        for first in range(0, len(offers), self._limits.price):
            part = list(offers[first : first + self._limits.price])
            body = {
                "cursor": "", "filter": {"offer_id": part, "visibility": "ALL"}, "limit": len(part)
            }  # fmt: skip
            answer = self._api.ask(
                post("/v5/product/info/prices", body), lambda a: read_answer(a, _Prices)
            )
            for item in answer.items or ():
                if item.price is not None and item.price.price is not None:
                    found[item.offer_id] = item.price.price
        return found

    def send(self, what: What, items: Sequence[Wanted]) -> Sequence[Outcome]:
        """See Market."""
        if what == "price":
            prices = [
                {
                    "offer_id": i.offer, "price": plain(i.value), "currency_code": i.currency or "RUB",
                    "old_price": plain(i.old) if i.old is not None else "0",
                }
                for i in items
            ]  # fmt: skip
            question = post("/v1/product/import/prices", {"prices": prices})
        else:
            if not self._place.warehouse_id:
                text = "stocks are sent to a warehouse: `warehouse_id` is missing"
                raise Trouble("place-wrong", text, is_permanent=True)
            stocks = [
                {
                    "offer_id": i.offer, "stock": int(i.value),
                    "warehouse_id": self._place.warehouse_id,
                }
                for i in items
            ]  # fmt: skip
            question = post("/v2/products/stocks", {"stocks": stocks})
        answer = self._api.ask(question, lambda a: read_answer(a, _Answer))
        return [_outcome(item) for item in answer.result or ()]


def _outcome(item: _Item) -> Outcome:
    if item.updated:
        return Outcome(item.offer_id, "confirmed")
    first = next(iter(item.errors or ()), _Error())
    if first.code == _SOON:
        return Outcome(item.offer_id, "later", "too-soon", first.message or "")
    code = (first.code or "refused").lower().replace("_", "-")
    return Outcome(item.offer_id, "refused", code, (first.message or "")[:200])
