"""Ozon Seller: postings by date and by change, own offers, prices and stocks.

Limits kept (docs.ozon.ru/api/seller): 50 questions a second for a Client-Id. A refusal for the
limit may come as 429 or as `code` 8 within a 200.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import msgspec

from connectors.formats.captured import Page
from connectors.markets.asking import Asker, Cursors, Listed, Shop, read_secrets, sweep
from connectors.sdk.retry import Trouble
from connectors.transports.api import Answer, Api, Question, read_json
from connectors.transports.rates import Rate

SYSTEM = "ozon"
BASE = "https://api-seller.ozon.ru"
RATES = {"": Rate(per_s=40.0, burst=20)}
PAGE = 1_000
_LONGEST = timedelta(days=364)
_LIMITED = 8
T = TypeVar("T")


class OzonPlace(Shop, frozen=True, kw_only=True, tag="ozon"):
    """A shop at Ozon. Secrets: `api_key`. `warehouse_id`: where stocks are sent to."""

    client_id: str
    warehouse_id: int = 0
    page: int = PAGE


class _Refusal(msgspec.Struct, frozen=True):
    code: int | str | None = None
    message: str | None = None


class _Posting(msgspec.Struct, frozen=True):
    posting_number: str | None = None


class _Postings(msgspec.Struct, frozen=True):
    postings: tuple[_Posting, ...] | None = None
    has_next: bool = False


class _PostingsPage(msgspec.Struct, frozen=True):
    result: _Postings


class _Named(msgspec.Struct, frozen=True):
    offer_id: str | None = None


class _Products(msgspec.Struct, frozen=True):
    items: tuple[_Named, ...] | None = None
    last_id: str | None = ""


class _ProductsPage(msgspec.Struct, frozen=True):
    result: _Products


class _CursorPage(msgspec.Struct, frozen=True):
    items: list[msgspec.Raw] | None = None
    cursor: str | None = ""


def open_api(place: OzonPlace, **more: object) -> Api:
    """The API of a shop. Raises Trouble."""
    (key,) = read_secrets(place, "api_key")
    return Api(
        place.base or BASE, account=f"{SYSTEM} {place.client_id}", rates=RATES,
        headers={"Client-Id": place.client_id, "Api-Key": key}, allowed=place.allowed,
        ca_file=place.ca_file, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def post(path: str, body: object) -> Question:
    """A question to Ozon: all of them are POSTs, and those that ask may be asked twice."""
    return Question(path=path, method="POST", body=msgspec.json.encode(body))


def read_answer(answer: Answer, shape: type[T]) -> T:
    """An answer that is no refusal within a 200. Raises Trouble."""
    refusal = read_json(answer, _Refusal)
    if refusal.code == _LIMITED:
        raise Trouble("rate-limited", f"Ozon: {refusal.message or 'too many requests'}"[:200])
    if refusal.code:
        text = f"Ozon says {refusal.code}: {refusal.message or ''}"[:300]
        raise Trouble("refused", text, is_permanent=True)
    return read_json(answer, shape)


class OzonPages(Asker):
    """See asking.Asker."""

    def __init__(
        self, place: OzonPlace, known: Mapping[str, str], api: Api, *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        self._page = place.page
        super().__init__(SYSTEM, place, known, api, about={"account": place.client_id}, now=now)

    def questions(self) -> Mapping[str, Callable[[], Iterator[Page]]]:
        """See Asker."""
        return {
            "orders": self._orders, "offers": self._offers,
            "prices": lambda: self._listed("prices", "/v5/product/info/prices"),
            "stocks": lambda: self._listed("stocks", "/v4/product/info/stocks"),
        }  # fmt: skip

    def read(self, answer: Answer, shape: type[T]) -> T:
        """See Asker."""
        return read_answer(answer, shape)

    def _orders(self) -> Iterator[Page]:
        """Those that are new in the window, then those that have changed in it, however old."""
        end = self.now()
        for start, until in self.since("orders", _LONGEST):
            between = {"since": _moment(start), "to": _moment(until)}
            yield from self._postings(between)
            changed = {
                "since": _moment(end - _LONGEST), "to": _moment(end),
                "last_changed_status_date": {"from": _moment(start), "to": _moment(until)},
            }  # fmt: skip
            yield from self._postings(changed)

    def _postings(self, wanted: Mapping[str, object]) -> Iterator[Page]:
        def read(number: int) -> Listed:
            body = {
                "dir": "ASC", "filter": wanted, "limit": self._page, "offset": number * self._page,
                "with": {"analytics_data": False, "financial_data": False, "legal_info": True},
            }  # fmt: skip
            found, raw = self.get(post("/v3/posting/fbs/list", body), _PostingsPage)
            ids = [p.posting_number or "" for p in found.result.postings or ()]
            return Listed(raw, ids, found.result.has_next)

        return sweep("postings", read)

    def _offers(self) -> Iterator[Page]:
        cursors, last = Cursors("offers"), ""
        while True:
            body = {"filter": {"visibility": "ALL"}, "last_id": last, "limit": self._page}
            found, _ = self.get(post("/v3/product/list", body), _ProductsPage)
            ids = [i.offer_id for i in found.result.items or () if i.offer_id]
            if not ids:
                return
            _, raw = self.get(post("/v3/product/info/list", {"offer_id": ids}), _CursorPage)
            yield Page("offers", raw)
            last = found.result.last_id or ""
            if not last:
                return
            cursors.check(last)

    def _listed(self, call: str, path: str) -> Iterator[Page]:
        cursors, cursor = Cursors(call), ""
        while True:
            body = {"cursor": cursor, "filter": {"visibility": "ALL"}, "limit": self._page}
            found, raw = self.get(post(path, body), _CursorPage)
            yield Page(call, raw)
            cursor = found.cursor or ""
            if not cursor or not found.items:
                return
            cursors.check(cursor)


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
