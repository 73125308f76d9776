"""Prices and stocks to Yandex Market: 500 items and 512 KB in a question.

Prices are of the business, stocks of the campaign. An OK to prices says only that they were taken:
one that moved much waits in Yandex's own quarantine, so prices are read back until they are seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from connectors.markets.selling import Limits, Outcome, Wanted, What
from connectors.markets.yandex_market import YandexPlace, read_answer
from connectors.sdk.retry import Trouble
from connectors.transports.api import Api, Question

LIMITS = Limits(price=500, stock=500, settle_s=600.0, read_back=frozenset({"price"}))
BODY_MAX = 500_000


class _Money(msgspec.Struct, frozen=True):
    value: Decimal | None = None


class _Offer(msgspec.Struct, frozen=True, rename="camel"):
    offer_id: str
    price: _Money | None = None


class _Offers(msgspec.Struct, frozen=True):
    offers: tuple[_Offer, ...] | None = None


class _Prices(msgspec.Struct, frozen=True):
    result: _Offers


class _Done(msgspec.Struct, frozen=True):
    status: str | None = None


class YandexMarket:
    """See selling.Market."""

    def __init__(self, place: YandexPlace, api: Api, limits: Limits = LIMITS) -> None:
        self._place, self._api, self._limits = place, api, limits

    @property
    def limits(self) -> Limits:
        """See Market."""
        return self._limits

    def close(self) -> None:
        """See Market."""
        self._api.close()

    def read(self, what: What, offers: Sequence[str]) -> Mapping[str, Decimal]:
        """Prices alone: of stock Yandex says more than what was sent (reserved, on its way)."""
        if what == "stock":
            return {}
        found: dict[str, Decimal] = {}
        path = f"{self._business()}/offer-prices"
        for first in range(0, len(offers), self._limits.price):
            body = msgspec.json.encode({"offerIds": offers[first : first + self._limits.price]})
            question = Question(path=path, method="POST", body=body, resource="prices")
            answer = self._api.ask(question, lambda a: read_answer(a, _Prices))
            for offer in answer.result.offers or ():
                if offer.price is not None and offer.price.value is not None:
                    found[offer.offer_id] = offer.price.value
        return found

    def send(self, what: What, items: Sequence[Wanted]) -> Sequence[Outcome]:
        """See Market."""
        body = msgspec.json.encode(_prices(items) if what == "price" else _stocks(items))
        if len(body) > BODY_MAX and len(items) > 1:
            middle = len(items) // 2
            return [*self.send(what, items[:middle]), *self.send(what, items[middle:])]
        if what == "price":
            path, method = f"{self._business()}/offer-prices/updates", "POST"
        else:
            if not self._place.campaign_id:
                text = "stocks are of a campaign: `campaign_id` is missing"
                raise Trouble("place-wrong", text, is_permanent=True)
            path, method = f"/v2/campaigns/{self._place.campaign_id}/offers/stocks", "PUT"
        question = Question(path=path, method=method, body=body, resource=f"{what} updates")
        self._api.ask(question, lambda a: read_answer(a, _Done))
        state = "taken" if what in self._limits.read_back else "confirmed"
        return [Outcome(i.offer, state) for i in items]  # type: ignore[arg-type]

    def _business(self) -> str:
        if not self._place.business_id:
            text = "prices are of a business: `business_id` is missing"
            raise Trouble("place-wrong", text, is_permanent=True)
        return f"/v2/businesses/{self._place.business_id}"


def _prices(items: Sequence[Wanted]) -> Any:
    offers = []
    for item in items:
        price = {"value": _number(item.value), "currencyId": _currency(item.currency)}
        if item.old is not None:
            price["discountBase"] = _number(item.old)
        offers.append({"offerId": item.offer, "price": price})
    return {"offers": offers}


def _stocks(items: Sequence[Wanted]) -> Any:
    return {"skus": [{"sku": i.offer, "items": [{"count": int(i.value)}]} for i in items]}


def _number(value: Decimal) -> Any:
    """A number as JSON has it, digit by digit."""
    return msgspec.Raw(f"{value:f}".encode())


def _currency(code: str) -> str:
    return "RUR" if code in ("", "RUB") else code
