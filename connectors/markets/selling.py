"""What giving prices and stocks to every marketplace has in common.

A value is sent as it shall be, never as a change, so that the same twice is once. Each item has an
outcome of its own; what a system takes without saying whether it has done it is read back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Literal, Protocol

import msgspec

from connectors.sdk.retry import Trouble

What = Literal["price", "stock"]
# Turned away for what stands in it: halves tell which item it is.
_SPLIT = frozenset({"http-400", "http-413", "http-422", "refused"})


class Wanted(msgspec.Struct, frozen=True):
    """What one item shall be: `offer` is what the system knows it by, `value` a price or a count."""

    offer: str
    value: Decimal
    currency: str = ""
    old: Decimal | None = None


class Outcome(msgspec.Struct, frozen=True):
    """What became of one item.

    `confirmed`: the system says it is so. `taken`: only reading back shows it. `refused`: it will
    not be, as it stands. `later`: it was not the time for it.
    """

    offer: str
    state: Literal["confirmed", "taken", "refused", "later"]
    code: str = ""
    detail: str = ""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Items in a question; seconds before the same item may be sent again; how long a change takes
    to be seen; what is only known when it was read back.
    """

    price: int
    stock: int
    price_again_s: float = 0.0
    stock_again_s: float = 0.0
    settle_s: float = 0.0
    read_back: frozenset[str] = frozenset()


class Market(Protocol):
    """One shop at one system. It blocks; all raise sdk.retry.Trouble."""

    @property
    def limits(self) -> Limits:
        """What is kept to."""
        ...

    def read(self, what: What, offers: Sequence[str]) -> Mapping[str, Decimal]:
        """How items stand there; one that is not there, or is not told of, is left out."""
        ...

    def send(self, what: What, items: Sequence[Wanted]) -> Sequence[Outcome]:
        """Give at most so many items as the limits say."""
        ...

    def close(self) -> None:
        """End it; never raises."""
        ...


Send = Callable[[What, Sequence[Wanted]], Sequence[Outcome]]


def send_apart(send: Send, what: What, items: Sequence[Wanted]) -> list[Outcome]:
    """Send, and find out by halves which item a question is refused for. Raises Trouble."""
    try:
        return _told_of_each(send(what, items), items)
    except Trouble as trouble:
        if trouble.code not in _SPLIT:
            raise
        if len(items) == 1:
            return [Outcome(items[0].offer, "refused", trouble.code, trouble.detail)]
    middle = len(items) // 2
    return send_apart(send, what, items[:middle]) + send_apart(send, what, items[middle:])


def _told_of_each(outcomes: Sequence[Outcome], items: Sequence[Wanted]) -> list[Outcome]:
    told = {o.offer: o for o in outcomes}
    silent = Outcome("", "later", "not-told", "the answer does not say what became of it")
    return [told.get(i.offer) or msgspec.structs.replace(silent, offer=i.offer) for i in items]


def plain(value: Decimal) -> str:
    """A decimal as people write it."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
