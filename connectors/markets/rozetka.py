"""Rozetka Seller: orders by change, own goods with their prices; prices and stocks out.

The token comes of a login and lasts a day; it is kept in this process and asked for anew when it is
said to have ended. A refusal is `success: false` within a 200. No limits are published: one question
at once, two a second. Pages are of 20 orders; prices and stocks go out 100 in a question.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

from connectors.formats.captured import Page
from connectors.markets.asking import (
    PAGES_MAX,
    Asker,
    Asks,
    Listed,
    Shop,
    read_secrets,
    sweep,
)
from connectors.markets.selling import Limits, Outcome, Wanted, What
from connectors.sdk.retry import Trouble
from connectors.transports.api import Answer, Api, Question, read_json
from connectors.transports.rates import Rate

SYSTEM = "rozetka"
BASE = "https://api-seller.rozetka.com.ua"
RATES = {"": Rate(per_s=2.0, burst=5)}
LIMITS = Limits(price=100, stock=100)
GOODS = 100
# session_expired, invalid_credentials, incorrect_enter_token (apidoc, "Опис помилок").
_ENDED = frozenset({6001, 5401, 1018})
_MAINTENANCE = frozenset({0, 5503})
_LONGEST = timedelta(days=31)
T = TypeVar("T")


class RozetkaPlace(Shop, frozen=True, kw_only=True, tag="rozetka"):
    """A shop at Rozetka. Secrets: `username`, `password`. `account` names the shop here."""

    account: str


class _Error(msgspec.Struct, frozen=True):
    code: int | str | None = None
    message: str | None = None


class _Envelope(msgspec.Struct, frozen=True):
    success: bool
    errors: msgspec.Raw = msgspec.Raw(b"null")


class _Token(msgspec.Struct, frozen=True):
    access_token: str


class _Signed(msgspec.Struct, frozen=True):
    content: _Token


class _Order(msgspec.Struct, frozen=True):
    id: int | None = None


class _Meta(msgspec.Struct, frozen=True, rename={"page_count": "pageCount"}):
    page_count: int = 0


class _Orders(msgspec.Struct, frozen=True, rename={"meta": "_meta"}):
    orders: tuple[_Order, ...] | None = None
    meta: _Meta = _Meta()


class _OrdersPage(msgspec.Struct, frozen=True):
    content: _Orders


class _Good(msgspec.Struct, frozen=True):
    rz_item_id: int | None = None
    item_id: int | None = None
    price_offer_id: str | None = None
    article: str | None = None
    price: Decimal | None = None


class _Goods(msgspec.Struct, frozen=True, rename={"meta": "_meta"}):
    items: tuple[_Good, ...] | None = None
    meta: _Meta = _Meta()


class _GoodsPage(msgspec.Struct, frozen=True):
    content: _Goods


class Ended(Trouble):
    """The token is not good any more; a new login may help."""

    def __init__(self, detail: str) -> None:
        super().__init__("sign-in-refused", detail, is_permanent=True)


class Rozetka:
    """One shop, signed in when it has to be. See asking.Asks."""

    def __init__(self, place: RozetkaPlace, **more: object) -> None:
        self._who = read_secrets(place, "username", "password")
        self._account = f"{SYSTEM} {place.account}"
        self._api = Api(
            place.base or BASE, account=self._account, headers={"Content-Language": "uk"},
            allowed=place.allowed, ca_file=place.ca_file, rates=RATES, at_once=1,
            **more,  # type: ignore[arg-type]
        )  # fmt: skip

    def ask(self, question: Question, read: Callable[[Answer], T]) -> T:
        """See api.Api.ask; once more after a new login where the token has ended."""
        for is_last in (False, True):
            token = _TOKENS.get(self._account) or self._sign_in()
            headers = {**question.headers, "Authorization": f"Bearer {token}"}
            try:
                return self._api.ask(msgspec.structs.replace(question, headers=headers), read)
            except Trouble as trouble:
                _TOKENS.pop(self._account, None)
                if is_last or not (isinstance(trouble, Ended) or trouble.code == "http-401"):
                    raise
        raise AssertionError("unreachable")

    def close(self) -> None:
        """End it."""
        self._api.close()

    def _sign_in(self) -> str:
        name, password = self._who
        packed = base64.b64encode(password.encode()).decode()
        body = msgspec.json.encode({"username": name, "password": packed})
        question = Question(path="/sites", method="POST", body=body)
        token = self._api.ask(question, lambda a: read_answer(a, _Signed)).content.access_token
        _TOKENS[self._account] = token
        return token


_TOKENS: dict[str, str] = {}


def read_answer(answer: Answer, shape: type[T]) -> T:
    """An answer that says success. Raises Trouble."""
    said = read_json(answer, _Envelope)
    if said.success:
        return read_json(answer, shape)
    error = _first(said.errors)
    number = str(error.code if error.code is not None else "")
    code = int(number) if number.isascii() and number.isdigit() else -1
    text = f"Rozetka says {error.code}: {error.message or 'no reason'}"[:300]
    if code in _ENDED:
        raise Ended(text)
    raise Trouble("refused", text, is_permanent=code not in _MAINTENANCE)


def _first(errors: msgspec.Raw) -> _Error:
    """The error of an answer: an object of its own, or the first of a list."""
    try:
        found = msgspec.json.decode(errors, type=list[_Error] | _Error | None)
    except msgspec.DecodeError:
        return _Error()
    if isinstance(found, list):
        return next(iter(found), _Error())
    return found or _Error()


class RozetkaPages(Asker):
    """See asking.Asker."""

    def __init__(
        self, place: RozetkaPlace, known: Mapping[str, str], api: Asks, *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        super().__init__(SYSTEM, place, known, api, about={"account": place.account}, now=now)

    def questions(self) -> Mapping[str, Callable[[], Iterator[Page]]]:
        """See Asker."""
        return {"orders": self._orders}

    def read(self, answer: Answer, shape: type[T]) -> T:
        """See Asker."""
        return read_answer(answer, shape)

    def _orders(self) -> Iterator[Page]:
        """By days of their change: how a time of day would be read is not documented."""
        for start, until in self.since("orders", _LONGEST):
            wanted = (
                ("changed_from", (start - timedelta(hours=14)).strftime("%Y-%m-%d")),
                ("changed_to", (until + timedelta(hours=38)).strftime("%Y-%m-%d")),
                ("expand", "purchases,delivery,status_data,status_payment"), ("sort", "id"),
            )  # fmt: skip

            def read(number: int, wanted: tuple[tuple[str, str], ...] = wanted) -> Listed:
                question = Question(
                    path="/orders/search", params=(*wanted, ("page", str(number + 1)))
                )
                found, raw = self.get(question, _OrdersPage)
                ids = [str(o.id) for o in found.content.orders or ()]
                return Listed(raw, ids, number + 1 < found.content.meta.page_count)

            yield from sweep("orders", read)


class RozetkaMarket:
    """See selling.Market. Our SKU is the id of the item in the seller's price list."""

    def __init__(self, api: Asks, limits: Limits = LIMITS) -> None:
        self._api, self._limits = api, limits
        self._goods: dict[str, _Good] | None = None

    @property
    def limits(self) -> Limits:
        """See Market."""
        return self._limits

    def close(self) -> None:
        """See Market."""
        self._api.close()

    def read(self, what: What, offers: Sequence[str]) -> Mapping[str, Decimal]:
        """Prices alone: goods are told without their stock."""
        goods = self._read_goods() if what == "price" else {}
        return {o: p for o in offers if o in goods and (p := goods[o].price) is not None}

    def send(self, what: What, items: Sequence[Wanted]) -> Sequence[Outcome]:
        """See Market. A price that moves much is turned away by Rozetka too; it is not overruled."""
        goods = self._read_goods()
        outcomes, given, by_id = [], [], {}
        for item in items:
            good = goods.get(item.offer)
            if good is None or good.rz_item_id is None:
                text = "no item of the shop has it as its id in the price list"
                outcomes.append(Outcome(item.offer, "refused", "unmapped", text))
                continue
            by_id[str(good.rz_item_id)] = by_id[str(good.item_id)] = item.offer
            given.append(
                {"item_id": good.item_id, "item_rz_id": good.rz_item_id, **_said(what, item)}
            )
        if not given:
            return outcomes
        body = msgspec.json.encode({"isIgnoreCheck": 0, "items": given})
        question = Question(path="/items/mass-update", method="PUT", body=body)
        faulty = self._api.ask(question, _read_faulty)
        wrong = {by_id[number]: words for number, words in faulty.items() if number in by_id}
        sent = set(by_id.values())
        outcomes += [
            Outcome(i.offer, "refused", "refused", wrong[i.offer])
            if i.offer in wrong
            else Outcome(i.offer, "confirmed")
            for i in items
            if i.offer in sent
        ]
        return outcomes

    def _read_goods(self) -> dict[str, _Good]:
        if self._goods is None:
            self._goods = {}
            number, count = 1, 1
            while number <= min(count, PAGES_MAX):
                params = (("page", str(number)), ("pageSize", str(GOODS)), ("sort", "item_id"))
                found = self._api.ask(
                    Question(path="/goods/all", params=params), lambda a: read_answer(a, _GoodsPage)
                )
                for good in found.content.items or ():
                    if good.price_offer_id:
                        self._goods[good.price_offer_id] = good
                count = found.content.meta.page_count
                number += 1
        return self._goods


def _said(what: What, item: Wanted) -> dict[str, Any]:
    if what == "stock":
        return {"stock_quantity": int(item.value)}
    price: dict[str, Any] = {"price": msgspec.Raw(f"{item.value:f}".encode())}
    if item.old is not None:
        price["price_old"] = msgspec.Raw(f"{item.old:f}".encode())
    return price


def _read_faulty(answer: Answer) -> dict[str, str]:
    """What is wrong by item, of an answer that may have refused some and done the others."""
    said = read_json(answer, _Envelope)
    if said.success:
        return {}
    error = _first(said.errors)
    if error.code is not None or error.message is not None:
        read_answer(answer, _Envelope)
    try:
        by_item = msgspec.json.decode(said.errors, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        raise Trouble("refused", "Rozetka says no and not why", is_permanent=True) from None
    return {
        number: bytes(words).decode("utf-8", "replace")[:200] for number, words in by_item.items()
    }
