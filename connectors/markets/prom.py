"""Prom.ua: orders by creation, and prices and stocks out by external id.

No limits are published: two questions a second. Orders are listed from the newest down by `last_id`
and filtered by creation only, so the last days are asked for each time. Edits are 100 in a question
and say which of them were done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from connectors.formats.captured import Page
from connectors.markets.asking import Asker, Asks, Cursors, Shop, read_secrets
from connectors.markets.selling import Limits, Outcome, Wanted, What
from connectors.transports.api import Api, Question, read_json
from connectors.transports.rates import Rate

SYSTEM = "prom"
BASE = "https://my.prom.ua/api/v1"
RATES = {"": Rate(per_s=2.0, burst=5)}
LIMITS = Limits(price=100, stock=100)
PAGE = 100
_LONGEST = timedelta(days=365)


class PromPlace(Shop, frozen=True, kw_only=True, tag="prom"):
    """A company at Prom.ua. Secrets: `token`. `account` names the company here."""

    account: str
    page: int = PAGE


class _Order(msgspec.Struct, frozen=True):
    id: int | None = None


class _OrdersPage(msgspec.Struct, frozen=True):
    orders: tuple[_Order, ...] | None = None


class _Product(msgspec.Struct, frozen=True):
    id: int | None = None
    external_id: str | None = None
    price: Decimal | None = None


class _ProductsPage(msgspec.Struct, frozen=True):
    products: tuple[_Product, ...] | None = None


class _Edited(msgspec.Struct, frozen=True):
    processed_ids: tuple[int | str, ...] | None = None
    errors: msgspec.Raw = msgspec.Raw(b"null")


def open_api(place: PromPlace, **more: object) -> Api:
    """The API of a company. Raises Trouble."""
    (token,) = read_secrets(place, "token")
    return Api(
        place.base or BASE, account=f"{SYSTEM} {place.account}", rates=RATES,
        headers={"Authorization": f"Bearer {token}"}, allowed=place.allowed,
        ca_file=place.ca_file, **more,  # type: ignore[arg-type]
    )  # fmt: skip


class PromPages(Asker):
    """See asking.Asker."""

    def __init__(
        self, place: PromPlace, known: Mapping[str, str], api: Asks, *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        self._page = place.page
        super().__init__(SYSTEM, place, known, api, about={"account": place.account}, now=now)

    def questions(self) -> Mapping[str, Callable[[], Iterator[Page]]]:
        """See Asker."""
        return {"orders": self._orders}

    def _orders(self) -> Iterator[Page]:
        noted = [start for start, _ in self.since("orders", _LONGEST)]
        start = min([*noted, self.now() - timedelta(days=self.shop.first_days)])
        cursors, last = Cursors("orders"), ""
        while True:
            at = (("last_id", last),) if last else ()
            params = (
                ("limit", str(self._page)),
                ("date_from", start.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")), *at,
            )  # fmt: skip
            found, raw = self.get(Question(path="/orders/list", params=params), _OrdersPage)
            ids = [o.id for o in found.orders or () if o.id is not None]
            if not ids:
                if not last:
                    yield Page("orders", raw)
                return
            yield Page("orders", raw)
            last = cursors.check(str(min(ids)))


class PromMarket:
    """See selling.Market. Our SKU is the external id of a product."""

    def __init__(self, api: Asks, limits: Limits = LIMITS) -> None:
        self._api, self._limits = api, limits
        self._prices: dict[str, Decimal] | None = None

    @property
    def limits(self) -> Limits:
        """See Market."""
        return self._limits

    def close(self) -> None:
        """See Market."""
        self._api.close()

    def read(self, what: What, offers: Sequence[str]) -> Mapping[str, Decimal]:
        """Prices alone, of the whole list: there is no question for some."""
        if what == "stock":
            return {}
        if self._prices is None:
            self._prices = dict(self._read_prices())
        return {o: self._prices[o] for o in offers if o in self._prices}

    def send(self, what: What, items: Sequence[Wanted]) -> Sequence[Outcome]:
        """See Market."""
        body = msgspec.json.encode([_edit(what, item) for item in items])
        question = Question(path="/products/edit_by_external_id", method="POST", body=body)
        answer = self._api.ask(question, lambda a: read_json(a, _Edited))
        done = {str(i) for i in answer.processed_ids or ()}
        wrong = _errors(answer.errors)
        outcomes = []
        for item in items:
            if item.offer in done:
                outcomes.append(Outcome(item.offer, "confirmed"))
            elif item.offer in wrong:
                outcomes.append(Outcome(item.offer, "refused", "refused", wrong[item.offer]))
        return outcomes

    def _read_prices(self) -> Iterator[tuple[str, Decimal]]:
        cursors, last = Cursors("products"), ""
        while True:
            at = (("last_id", last),) if last else ()
            question = Question(path="/products/list", params=(("limit", str(PAGE)), *at))
            found = self._api.ask(question, lambda a: read_json(a, _ProductsPage)).products or ()
            for product in found:
                if product.external_id and product.price is not None:
                    yield product.external_id, product.price
            ids = [p.id for p in found if p.id is not None]
            if not ids:
                return
            last = cursors.check(str(min(ids)))


def _edit(what: What, item: Wanted) -> dict[str, Any]:
    if what == "price":
        return {"id": item.offer, "price": msgspec.Raw(f"{item.value:f}".encode())}
    presence = "available" if item.value else "not_available"
    return {
        "id": item.offer, "quantity_in_stock": int(item.value), "presence": presence,
        "presence_sure": True,
    }  # fmt: skip


def _errors(raw: msgspec.Raw) -> dict[str, str]:
    try:
        found = msgspec.json.decode(raw, type=dict[str, msgspec.Raw] | None) or {}
    except msgspec.DecodeError:
        return {}
    return {offer: bytes(words).decode("utf-8", "replace")[:200] for offer, words in found.items()}
