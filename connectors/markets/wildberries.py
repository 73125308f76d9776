"""Wildberries: orders with their statuses, own cards, prices and stocks.

Limits kept (dev.wildberries.ru): a bucket for each category of questions (orders and stocks 300 a
minute, 20 at once; prices 10 in 6 s, 5 at once; cards 100 a minute, 5 at once); an answer 409
counts as ten; `X-Ratelimit-Retry` says how long to wait after 429. Windows of 30 days.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import msgspec

from connectors.formats.captured import Page
from connectors.markets.asking import Asker, Asks, Cursors, Shop, read_secrets, windows
from connectors.sdk.retry import Trouble
from connectors.transports.api import Answer, Api, Question, read_json
from connectors.transports.rates import Bucket, Rate

SYSTEM = "wildberries"
BASES = {
    "orders": "https://marketplace-api.wildberries.ru",
    "stocks": "https://marketplace-api.wildberries.ru",
    "prices": "https://discounts-prices-api.wildberries.ru",
    "cards": "https://content-api.wildberries.ru",
}
RATES = {
    "orders": Rate(per_s=5.0, burst=20), "stocks": Rate(per_s=5.0, burst=20),
    "prices": Rate(per_s=1.6, burst=5), "cards": Rate(per_s=1.6, burst=5),
}  # fmt: skip
CARDS = 100
IDS = 1_000
_LONGEST = timedelta(days=30)
_CONFLICT_COSTS = 9.0
_REST_MAX_S = 3_600.0
T = TypeVar("T")


class WildberriesPlace(Shop, frozen=True, kw_only=True, tag="wildberries"):
    """A seller at Wildberries. Secrets: `token`, of the categories that are asked for. `account`
    names the seller here; `warehouse_ids`: own warehouses whose stocks are read, the first of them
    is where stocks are sent to.
    """

    account: str
    warehouse_ids: tuple[int, ...] = ()
    page: int = IDS


class _Order(msgspec.Struct, frozen=True):
    id: int | None = None


class _OrdersPage(msgspec.Struct, frozen=True):
    orders: tuple[_Order, ...] | None = None
    next: int = 0


class _Size(msgspec.Struct, frozen=True, rename={"chrt_id": "chrtID"}):
    chrt_id: int
    skus: tuple[str, ...] | None = None


class Card(msgspec.Struct, frozen=True, rename={"nm_id": "nmID", "vendor_code": "vendorCode"}):
    """A card as far as it is needed to know what our SKU is called there."""

    nm_id: int
    vendor_code: str = ""
    sizes: tuple[_Size, ...] | None = None


class _Cursor(msgspec.Struct, frozen=True, rename={"nm_id": "nmID", "updated_at": "updatedAt"}):
    updated_at: str | None = None
    nm_id: int | None = None
    total: int = 0


class _CardsPage(msgspec.Struct, frozen=True):
    cards: tuple[Card, ...] | None = None
    cursor: _Cursor = _Cursor()


class _Goods(msgspec.Struct, frozen=True, rename={"list_goods": "listGoods"}):
    list_goods: list[msgspec.Raw] | None = None


class _GoodsPage(msgspec.Struct, frozen=True):
    data: _Goods | None = None


class _Said(msgspec.Struct, frozen=True, rename={"error_text": "errorText"}):
    error: bool | None = None
    error_text: str | None = None


class Wildberries:
    """The hosts of Wildberries as one; a question's `resource` says which. See asking.Asks."""

    def __init__(self, place: WildberriesPlace, **more: object) -> None:
        (token,) = read_secrets(place, "token")
        self._bases = {name: place.base or base for name, base in BASES.items()}
        self._apis = {
            base: Api(
                base, account=f"{SYSTEM} {place.account}", headers={"Authorization": token},
                allowed=place.allowed, ca_file=place.ca_file, rates=RATES, learn=learn,
                **more,  # type: ignore[arg-type]
            )
            for base in set(self._bases.values())
        }  # fmt: skip

    def ask(self, question: Question, read: Callable[[Answer], T]) -> T:
        """See api.Api.ask."""
        return self._apis[self._bases[question.resource]].ask(question, read)

    def close(self) -> None:
        """End them."""
        for api in self._apis.values():
            api.close()


def learn(answer: Answer, bucket: Bucket) -> None:
    """What an answer costs beyond one question, and how long they want to be left alone."""
    if answer.status == 409:
        bucket.spend(_CONFLICT_COSTS)
    wait = answer.headers.get("x-ratelimit-retry", "").partition(".")[0]
    if answer.status == 429 and wait.isascii() and wait.isdigit():
        bucket.rest(min(float(wait), _REST_MAX_S))


def read_answer(answer: Answer, shape: type[T]) -> T:
    """An answer without `error` in it. Raises Trouble."""
    said = read_json(answer, _Said)
    if said.error:
        text = f"Wildberries says: {said.error_text or 'an error'}"[:300]
        raise Trouble("refused", text, is_permanent=True)
    return read_json(answer, shape)


def ask_cards(
    get: Callable[[Question, type[_CardsPage]], tuple[_CardsPage, msgspec.Raw]],
) -> Iterator[tuple[tuple[Card, ...], msgspec.Raw]]:
    """Every card of the seller, page by page."""
    cursors, cursor = Cursors("cards"), {"limit": CARDS}
    while True:
        body = {
            "settings": {
                "sort": {"ascending": True}, "filter": {"withPhoto": -1}, "cursor": cursor,
            }
        }  # fmt: skip
        question = Question(
            path="/content/v2/get/cards/list", method="POST", body=msgspec.json.encode(body),
            resource="cards",
        )  # fmt: skip
        found, raw = get(question, _CardsPage)
        yield found.cards or (), raw
        at = found.cursor
        if at.total < CARDS or not found.cards:
            return
        cursors.check(f"{at.updated_at}|{at.nm_id}")
        cursor = {"limit": CARDS, "updatedAt": at.updated_at, "nmID": at.nm_id}  # type: ignore[dict-item]


class WildberriesPages(Asker):
    """See asking.Asker."""

    def __init__(
        self, place: WildberriesPlace, known: Mapping[str, str], api: Asks, *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        self._page, self._warehouses = place.page, place.warehouse_ids
        super().__init__(SYSTEM, place, known, api, about={"account": place.account}, now=now)
        if "stocks" in place.what and not place.warehouse_ids:
            text = "stocks are of a warehouse: `warehouse_ids` is missing"
            raise Trouble("place-wrong", text, is_permanent=True)

    def questions(self) -> Mapping[str, Callable[[], Iterator[Page]]]:
        """See Asker."""
        return {
            "orders": self._orders, "offers": self._cards, "prices": self._prices,
            "stocks": self._stocks,
        }  # fmt: skip

    def read(self, answer: Answer, shape: type[T]) -> T:
        """See Asker."""
        return read_answer(answer, shape)

    def _orders(self) -> Iterator[Page]:
        """Those of the last days each time, because their statuses are asked for by their ids."""
        seen: dict[int, None] = {}
        for start, until in self._days():
            cursors, at = Cursors("orders"), 0
            while True:
                params = {
                    "limit": self._page, "next": at, "dateFrom": int(start.timestamp()),
                    "dateTo": int(until.timestamp()),
                }  # fmt: skip
                question = Question(
                    path="/api/v3/orders", params=tuple((k, str(v)) for k, v in params.items()),
                    resource="orders",
                )  # fmt: skip
                found, raw = self.get(question, _OrdersPage)
                seen |= dict.fromkeys(o.id for o in found.orders or () if o.id is not None)
                yield Page("orders", raw)
                at = found.next
                if not at or not found.orders:
                    break
                cursors.check(str(at))
        ids = list(seen)
        for first in range(0, len(ids), IDS):
            body = msgspec.json.encode({"orders": ids[first : first + IDS]})
            question = Question(
                path="/api/v3/orders/status", method="POST", body=body, resource="orders"
            )
            yield Page("statuses", self.get(question, _OrdersPage)[1])

    def _days(self) -> Iterator[tuple[datetime, datetime]]:
        end = self.now()
        start = end - timedelta(days=self.shop.first_days)
        noted = list(self.since("orders", _LONGEST))
        return windows(min(start, noted[0][0]), end, _LONGEST)

    def _cards(self) -> Iterator[Page]:
        for _, raw in ask_cards(self.get):
            yield Page("cards", raw)

    def _prices(self) -> Iterator[Page]:
        offset = 0
        while True:
            params = (("limit", str(self._page)), ("offset", str(offset)))
            question = Question(path="/api/v2/list/goods/filter", params=params, resource="prices")
            found, raw = self.get(question, _GoodsPage)
            if found.data is None or not found.data.list_goods:
                return
            yield Page("prices", raw)
            offset += self._page
            if offset > self._page * 20_000:
                raise Trouble("cursor-loop", "the pages of prices never end")

    def _stocks(self) -> Iterator[Page]:
        """Stocks are asked for by the ids of sizes, which only the cards tell."""
        ids: dict[int, None] = {}
        for cards, raw in ask_cards(self.get):
            if "offers" not in self.shop.what:
                yield Page("cards", raw)
            ids |= dict.fromkeys(s.chrt_id for c in cards for s in c.sizes or ())
        chosen = list(ids)
        for warehouse in self._warehouses:
            for first in range(0, len(chosen), IDS):
                body = msgspec.json.encode({"chrtIds": chosen[first : first + IDS]})
                question = Question(
                    path=f"/api/v3/stocks/{warehouse}", method="POST", body=body, resource="stocks"
                )
                yield Page(f"stocks {warehouse}", self.get(question, _OrdersPage)[1])
