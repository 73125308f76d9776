"""Yandex Market: orders by change, own offers, prices and stocks.

Limits kept (Partner API): 2 questions at once for an account (420 `Hit rate limit`), what
`X-RateLimit-Resource-*` says is left of a resource, windows of 30 days, pages of 50 orders and 100
stocks, 512 KB in a body.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TypeVar

import msgspec

from connectors.formats.captured import Page
from connectors.markets.asking import Asker, Cursors, Shop, read_secrets
from connectors.sdk.retry import Trouble
from connectors.transports.api import Answer, Api, Question, read_json
from connectors.transports.rates import Bucket, Rate

SYSTEM = "yandex_market"
BASE = "https://api.partner.market.yandex.ru"
AT_ONCE = 2
RATES = {"": Rate(per_s=10.0, burst=10)}
_LONGEST = timedelta(days=30)
_REST_MAX_S = 3_600.0
T = TypeVar("T")


class YandexPlace(Shop, frozen=True, kw_only=True, tag="yandex_market"):
    """A shop at Yandex Market. Secrets: `api_key`. Orders and stocks are of a campaign, offers and
    prices of the business.
    """

    campaign_id: int = 0
    business_id: int = 0
    page: int = 50


class _Paging(msgspec.Struct, frozen=True, rename="camel"):
    next_page_token: str | None = None


class _Result(msgspec.Struct, frozen=True):
    paging: _Paging | None = None


class _Error(msgspec.Struct, frozen=True):
    code: str | None = None
    message: str | None = None


class _Answer(msgspec.Struct, frozen=True):
    """Orders have their paging at the top, all others within `result`."""

    status: str | None = None
    paging: _Paging | None = None
    result: _Result | None = None
    errors: tuple[_Error, ...] | None = None

    @property
    def next(self) -> str:
        """Where the next page is, empty at the end."""
        found = self.result.paging if self.result is not None else self.paging
        return (found.next_page_token or "") if found is not None else ""


def open_api(place: YandexPlace, **more: object) -> Api:
    """The API of a shop. Raises Trouble."""
    (key,) = read_secrets(place, "api_key")
    return Api(
        place.base or BASE, account=f"{SYSTEM} {place.business_id or place.campaign_id}",
        headers={"Api-Key": key}, allowed=place.allowed, ca_file=place.ca_file, rates=RATES,
        learn=learn, at_once=AT_ONCE, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def learn(answer: Answer, bucket: Bucket) -> None:
    """Rest where nothing of a resource is left, until the moment that is told."""
    left = answer.headers.get("x-ratelimit-resource-remaining", "")
    until = answer.headers.get("x-ratelimit-resource-until", "")
    if answer.status != 420 and not (left.isascii() and left.isdigit() and int(left) == 0):
        return
    try:
        moment = parsedate_to_datetime(until)
    except ValueError:
        return
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    wait = (moment - datetime.now(UTC)).total_seconds()
    bucket.rest(min(max(0.0, wait), _REST_MAX_S))


def read_answer(answer: Answer, shape: type[T]) -> T:
    """An answer whose status is not ERROR. Raises Trouble."""
    said = read_json(answer, _Answer)
    if said.status == "ERROR":
        found = next(iter(said.errors or ()), _Error())
        text = f"Yandex Market says {found.code}: {found.message or ''}"[:300]
        raise Trouble("refused", text, is_permanent=True)
    return read_json(answer, shape)


class YandexPages(Asker):
    """See asking.Asker."""

    def __init__(
        self, place: YandexPlace, known: Mapping[str, str], api: Api, *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        self._campaign = f"/v2/campaigns/{place.campaign_id}"
        self._business = f"/v2/businesses/{place.business_id}"
        self._page = place.page
        about = {"campaign": str(place.campaign_id), "business": str(place.business_id)}
        super().__init__(SYSTEM, place, known, api, about=about, now=now)
        if not place.campaign_id and {"orders", "stocks"} & set(place.what):
            text = "orders and stocks are of a campaign: `campaign_id` is missing"
            raise Trouble("place-wrong", text, is_permanent=True)
        if not place.business_id and {"offers", "prices"} & set(place.what):
            text = "offers and prices are of a business: `business_id` is missing"
            raise Trouble("place-wrong", text, is_permanent=True)

    def questions(self) -> Mapping[str, Callable[[], Iterator[Page]]]:
        """See Asker."""
        business, campaign = self._business, self._campaign
        return {
            "orders": self._orders,
            "offers": lambda: self._listed("offers", f"{business}/offer-mappings"),
            "prices": lambda: self._listed("prices", f"{business}/offer-prices"),
            "stocks": lambda: self._listed("stocks", f"{campaign}/offers/stocks"),
        }

    def read(self, answer: Answer, shape: type[T]) -> T:
        """See Asker."""
        return read_answer(answer, shape)

    def _orders(self) -> Iterator[Page]:
        for start, until in self.since("orders", _LONGEST):
            between = (
                ("updatedAtFrom", start.isoformat(timespec="seconds")),
                ("updatedAtTo", until.isoformat(timespec="seconds")),
            )
            yield from self._pages("orders", Question(path=f"{self._campaign}/orders"), between)

    def _listed(self, call: str, path: str) -> Iterator[Page]:
        return self._pages(call, Question(path=path, method="POST", body=b"{}"), ())

    def _pages(
        self, call: str, question: Question, wanted: tuple[tuple[str, str], ...]
    ) -> Iterator[Page]:
        cursors, token = Cursors(call), ""
        while True:
            at = (("page_token", token),) if token else ()
            params = (*wanted, ("limit", str(self._page)), *at)
            asked = msgspec.structs.replace(question, params=params, resource=call)
            found, raw = self.get(asked, _Answer)
            yield Page(call, raw)
            token = found.next
            if not token:
                return
            cursors.check(token)
