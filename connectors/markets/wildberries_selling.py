"""Prices and stocks to Wildberries: an upload of prices is a task, a stock is a 204 that may be void.

Our SKU is the seller's article of a card, or the barcode of one of its sizes; the cards tell which
numbers stand for it. Prices are whole units of the currency and are of the card; a field that
Wildberries does not know is a 204 without effect, so everything is read back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

from connectors.markets.asking import Asks, body_of
from connectors.markets.selling import Limits, Outcome, Wanted, What
from connectors.markets.wildberries import WildberriesPlace, ask_cards, read_answer
from connectors.sdk.retry import Trouble
from connectors.transports.api import Answer, Question

LIMITS = Limits(
    price=1_000, stock=1_000, settle_s=60.0, read_back=frozenset({"price", "stock"})
)  # fmt: skip
POLLS = 30
POLL_S = 2.0
_DONE, _CANCELLED, _FAULTY = 3, 4, (5, 6)
_GOOD_FAULTY = 3
_BUSY = "Processing"
T = TypeVar("T")


class Number(msgspec.Struct, frozen=True):
    """What an SKU is called there: its card, and its size where there is but one to be meant."""

    card: int
    size: int | None


class _Task(msgspec.Struct, frozen=True):
    id: int


class _Uploaded(msgspec.Struct, frozen=True):
    data: _Task | None = None


class _State(msgspec.Struct, frozen=True):
    status: int | None = None


class _StatePage(msgspec.Struct, frozen=True):
    data: _State | None = None


class _Good(msgspec.Struct, frozen=True, rename={"nm_id": "nmID", "error_text": "errorText"}):
    nm_id: int
    status: int | None = None
    error_text: str | None = None


class _History(msgspec.Struct, frozen=True, rename={"goods": "historyGoods"}):
    goods: tuple[_Good, ...] | None = None


class _HistoryPage(msgspec.Struct, frozen=True):
    data: _History | None = None


class _Price(msgspec.Struct, frozen=True, rename={"discounted": "discountedPrice"}):
    discounted: Decimal | None = None


class _Listed(msgspec.Struct, frozen=True, rename={"nm_id": "nmID"}):
    nm_id: int
    sizes: tuple[_Price, ...] | None = None


class _Goods(msgspec.Struct, frozen=True, rename={"list_goods": "listGoods"}):
    list_goods: tuple[_Listed, ...] | None = None


class _GoodsPage(msgspec.Struct, frozen=True):
    data: _Goods | None = None


class _Stock(msgspec.Struct, frozen=True, rename={"chrt_id": "chrtId"}):
    chrt_id: int
    amount: Decimal


class _StocksPage(msgspec.Struct, frozen=True):
    stocks: tuple[_Stock, ...] | None = None


class WildberriesMarket:
    """See selling.Market."""

    def __init__(
        self, place: WildberriesPlace, api: Asks, limits: Limits = LIMITS, *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self._place, self._api, self._limits, self._sleep = place, api, limits, sleep
        self._numbers: dict[str, Number] | None = None

    @property
    def limits(self) -> Limits:
        """See Market."""
        return self._limits

    def close(self) -> None:
        """See Market."""
        self._api.close()

    def read(self, what: What, offers: Sequence[str]) -> Mapping[str, Decimal]:
        """See Market."""
        known = {o: n for o in offers if (n := self._find(o)) is not None}
        found: dict[str, Decimal] = {}
        listed = list(known.items())
        most = self._limits.price if what == "price" else self._limits.stock
        for first in range(0, len(listed), most):
            part = listed[first : first + most]
            found |= self._read_prices(part) if what == "price" else self._read_stocks(part)
        return found

    def send(self, what: What, items: Sequence[Wanted]) -> Sequence[Outcome]:
        """See Market."""
        outcomes, good = [], []
        for item in items:
            number = self._find(item.offer)
            if number is None:
                text = "no card has it as its article or a barcode; link the item anew"
                outcomes.append(Outcome(item.offer, "refused", "unmapped", text))
            elif what == "stock" and number.size is None:
                text = "its card has several sizes; link the item by the barcode of one"
                outcomes.append(Outcome(item.offer, "refused", "size-unknown", text))
            elif what == "price" and item.value != item.value.to_integral_value():
                text = "Wildberries takes whole units of the currency only"
                outcomes.append(Outcome(item.offer, "refused", "price-not-whole", text))
            else:
                good.append((item, number))
        if good:
            outcomes += self._send_prices(good) if what == "price" else self._send_stocks(good)
        return outcomes

    def _send_prices(self, items: Sequence[tuple[Wanted, Number]]) -> list[Outcome]:
        """One price for a card: sizes that want different ones are told so, all of them."""
        prices: dict[int, set[Decimal]] = {}
        for item, number in items:
            prices.setdefault(number.card, set()).add(item.value)
        text = "the sizes of a card have one price; give them the same"
        outcomes = [
            Outcome(item.offer, "refused", "price-by-size", text)
            for item, number in items
            if len(prices[number.card]) > 1
        ]
        good = [pair for pair in items if len(prices[pair[1].card]) == 1]
        if not good:
            return outcomes
        data = list({n.card: _price_of(item, n) for item, n in good}.values())
        task = self._ask("prices", "/api/v2/upload/task", _Uploaded, body={"data": data}).data
        if task is None:
            raise Trouble("answer-unknown", "the upload of prices has no number")
        faulty = self._wait_for(task.id)
        for item, number in good:
            why = faulty.get(number.card)
            if why is None:
                outcomes.append(Outcome(item.offer, "taken"))
            else:
                outcomes.append(Outcome(item.offer, "refused", "refused", why[:200]))
        return outcomes

    def _wait_for(self, task: int) -> dict[int, str]:
        """What is wrong by card, once the task is through. Raises Trouble."""
        params = (("uploadID", str(task)),)
        for _ in range(POLLS):
            data = self._ask("prices", "/api/v2/history/tasks", _StatePage, params=params).data
            status = data.status if data is not None else None
            if status == _DONE:
                return {}
            if status == _CANCELLED:
                raise Trouble("task-cancelled", f"the upload of prices {task} was cancelled")
            if status in _FAULTY:
                wanted = (*params, ("limit", "1000"), ("offset", "0"))
                page = self._ask(
                    "prices", "/api/v2/history/goods/task", _HistoryPage, params=wanted
                )
                goods = (page.data.goods if page.data is not None else None) or ()
                return {g.nm_id: g.error_text or "" for g in goods if g.status == _GOOD_FAULTY}
            self._sleep(POLL_S)
        raise Trouble("timeout", f"the upload of prices {task} is not through yet")

    def _send_stocks(self, items: Sequence[tuple[Wanted, Number]]) -> list[Outcome]:
        stocks = [{"chrtId": number.size, "amount": int(item.value)} for item, number in items]
        question = Question(
            path=f"/api/v3/stocks/{self._warehouse()}", method="PUT", resource="stocks",
            body=msgspec.json.encode({"stocks": stocks}),
        )  # fmt: skip
        try:
            self._api.ask(question, _none)
        except Trouble as trouble:
            if trouble.code != "http-409":
                raise
            if _BUSY in trouble.detail:
                raise Trouble("warehouse-busy", trouble.detail) from None
            # One that may not be there has all turned away: halves tell which.
            raise Trouble("refused", trouble.detail, is_permanent=True) from None
        return [Outcome(item.offer, "taken") for item, _ in items]

    def _read_prices(self, items: Sequence[tuple[str, Number]]) -> dict[str, Decimal]:
        body = {"nmList": sorted({number.card for _, number in items})}
        page = self._ask("prices", "/api/v2/list/goods/filter", _GoodsPage, body=body)
        listed = (page.data.list_goods if page.data is not None else None) or ()
        prices: dict[int, Decimal] = {}
        for good in listed:
            found = {s.discounted for s in good.sizes or ()}
            # Sizes at different prices are no one price.
            if len(found) == 1 and (price := found.pop()) is not None:
                prices[good.nm_id] = price
        return {offer: prices[n.card] for offer, n in items if n.card in prices}

    def _read_stocks(self, items: Sequence[tuple[str, Number]]) -> dict[str, Decimal]:
        body = {"chrtIds": [n.size for _, n in items if n.size is not None]}
        page = self._ask("stocks", f"/api/v3/stocks/{self._warehouse()}", _StocksPage, body=body)
        amounts = {s.chrt_id: s.amount for s in page.stocks or ()}
        # What has no row there is none.
        return {o: amounts.get(n.size, Decimal(0)) for o, n in items if n.size is not None}

    def _find(self, offer: str) -> Number | None:
        if self._numbers is None:
            self._numbers = self._read_cards()
        return self._numbers.get(offer)

    def _read_cards(self) -> dict[str, Number]:
        found: dict[str, Number] = {}

        def get(question: Question, shape: type[T]) -> tuple[T, msgspec.Raw]:
            return self._api.ask(question, lambda a: (read_answer(a, shape), body_of(a)))

        for cards, _ in ask_cards(get):
            for card in cards:
                sizes = card.sizes or ()
                for size in sizes:
                    for barcode in size.skus or ():
                        found.setdefault(barcode, Number(card.nm_id, size.chrt_id))
                only = sizes[0].chrt_id if len(sizes) == 1 else None
                found[card.vendor_code] = Number(card.nm_id, only)
        return found

    def _warehouse(self) -> int:
        if not self._place.warehouse_ids:
            text = "stocks are sent to a warehouse: `warehouse_ids` is missing"
            raise Trouble("place-wrong", text, is_permanent=True)
        return self._place.warehouse_ids[0]

    def _ask(
        self, resource: str, path: str, shape: type[T], *,
        params: tuple[tuple[str, str], ...] = (), body: Any = None,
    ) -> T:  # fmt: skip
        question = Question(
            path=path, method="GET" if body is None else "POST", params=params, resource=resource,
            body=None if body is None else msgspec.json.encode(body),
        )  # fmt: skip

        def read(answer: Answer) -> T:
            return read_answer(answer, shape)

        return self._api.ask(question, read)


def _none(answer: Answer) -> None:
    """Nothing stands in a 204."""


def _price_of(item: Wanted, number: Number) -> dict[str, int]:
    """A price before a discount where a whole percentage leads to ours exactly, else ours alone."""
    price = int(item.value)
    if item.old is not None and item.old > item.value and item.old == item.old.to_integral_value():
        share = 100 - item.value * 100 / item.old
        if share == share.to_integral_value() and share < 100:
            return {"nmID": number.card, "price": int(item.old), "discount": int(share)}
    return {"nmID": number.card, "price": price, "discount": 0}
