"""Kaspi: orders of every state in windows of 14 days, and the lines of those that are new.

The API wants a User-Agent (without one it never answers) and a state with each question; lines are
asked for by order, once for each status that it gets. Prices and stock go to Kaspi by feed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

import msgspec

from connectors.formats.captured import Page
from connectors.markets.asking import Asker, Asks, Listed, Shop, read_secrets, sweep, windows
from connectors.transports.api import Api, Question
from connectors.transports.rates import Rate

SYSTEM = "kaspi"
BASE = "https://kaspi.kz/shop/api/v2"
RATES = {"": Rate(per_s=2.0, burst=5)}
PAGE = 100
STATES = ("NEW", "SIGN_REQUIRED", "PICKUP", "DELIVERY", "KASPI_DELIVERY", "ARCHIVE")
_TYPE = "application/vnd.api+json"
_LONGEST = timedelta(days=14)


class KaspiPlace(Shop, frozen=True, kw_only=True, tag="kaspi"):
    """A merchant at Kaspi. Secrets: `token`. `account` names the merchant here."""

    account: str
    page: int = PAGE


class _Attributes(msgspec.Struct, frozen=True):
    status: str | None = None


class _Order(msgspec.Struct, frozen=True):
    id: str | None = None
    attributes: _Attributes = _Attributes()


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    page_count: int | None = None


class _OrdersPage(msgspec.Struct, frozen=True):
    data: tuple[_Order, ...] | None = None
    meta: _Meta | None = None


def open_api(place: KaspiPlace, **more: object) -> Api:
    """The API of a merchant. Raises Trouble."""
    (token,) = read_secrets(place, "token")
    headers = {
        "X-Auth-Token": token, "User-Agent": "nexus-connectors", "Accept": _TYPE,
        "Content-Type": _TYPE,
    }  # fmt: skip
    return Api(
        place.base or BASE, account=f"{SYSTEM} {place.account}", rates=RATES, headers=headers,
        allowed=place.allowed, ca_file=place.ca_file, at_once=1, **more,  # type: ignore[arg-type]
    )  # fmt: skip


class KaspiPages(Asker):
    """See asking.Asker. `known` holds which orders' lines were told, and for which status."""

    def __init__(
        self, place: KaspiPlace, known: Mapping[str, str], api: Asks, *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        self._page = place.page
        super().__init__(SYSTEM, place, known, api, about={"account": place.account}, now=now)

    def questions(self) -> Mapping[str, Callable[[], Iterator[Page]]]:
        """See Asker."""
        return {"orders": self._orders}

    def _orders(self) -> Iterator[Page]:
        """Those of the last days each time: there is no question for what has changed."""
        end = self.now()
        noted = [start for start, _ in self.since("orders", _LONGEST)]
        first = min([*noted, end - timedelta(days=self.shop.first_days)])
        found: dict[str, str] = {}
        for start, until in windows(first, end, _LONGEST):
            for state in STATES:
                yield from sweep("orders", self._reader(state, start, until, found))
        told = set(self.known.get("told", "").split())
        marks = {f"{ident}:{status}" for ident, status in found.items()}
        for ident, status in found.items():
            if f"{ident}:{status}" not in told:
                question = Question(
                    path=f"/orders/{ident}/entries", params=(("page[size]", str(PAGE)),)
                )
                yield Page(f"entries {ident}", self.get(question, _OrdersPage)[1])
        self._marks["told"] = " ".join(sorted(marks))

    def _reader(
        self, state: str, start: datetime, until: datetime, found: dict[str, str]
    ) -> Callable[[int], Listed]:
        """What reads the pages of a state in a window, and notes their orders."""
        wanted = (
            ("page[size]", str(self._page)), ("filter[orders][state]", state),
            ("filter[orders][creationDate][$ge]", str(int(start.timestamp() * 1_000))),
            ("filter[orders][creationDate][$le]", str(int(until.timestamp() * 1_000))),
            ("include[orders]", "user"),
        )  # fmt: skip

        def read(number: int) -> Listed:
            question = Question(path="/orders", params=(("page[number]", str(number)), *wanted))
            page, raw = self.get(question, _OrdersPage)
            orders = [o for o in page.data or () if o.id and o.id.isalnum()]
            found.update((o.id or "", o.attributes.status or "") for o in orders)
            count = page.meta.page_count if page.meta is not None else None
            is_full = len(page.data or ()) >= self._page
            has_more = number + 1 < count if count is not None else is_full
            return Listed(raw, [o.id or "" for o in orders], has_more)

        return read
