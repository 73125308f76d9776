"""What a node and a worker say to one another of sales channels; see docs/channels.md of the node.

Fields that are not named here are passed over: the node tells more than a worker needs.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from connectors.sdk.retry import Trouble

OFFERS = 1_000
T = TypeVar("T")


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """One channel. `max_change_share`: a price that moves by more of the confirmed one waits."""

    id: str
    name: str = ""
    system: str = ""
    active: bool = True
    dry_run: bool = True
    currency: str = ""
    max_change_share: Decimal | None = None


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What an item shall be at a channel. `price` None: it has none now, the last one stays.

    `released`: a person has looked at its price; it goes out however far it moves.
    """

    sku: str
    offer_id: str = ""
    price: Decimal | None = None
    currency: str = ""
    old_price: Decimal | None = None
    available: Decimal = Decimal(0)
    revision: str = ""
    is_off: bool = False
    released: bool = False


class Offers(msgspec.Struct, frozen=True, kw_only=True):
    """One page of offers; `next` leads to the one behind it, None at the end."""

    offers: tuple[Offer, ...]
    next: str | None = None


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is to be said of one item: `what` (price, stock) was to be `value` and was `before`.

    `state`: held, refused, not_confirmed, or confirmed for one that was told of as one of these.
    """

    sku: str
    what: str
    state: str
    code: str
    value: str
    detail: str = ""
    before: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How one look went; the same `id` again is the same report. `items` are those that somebody
    should see, `left_off` how many more; `detail` says what broke the look off.
    """

    id: UUID
    started_at: datetime
    worker: str
    dry_run: bool
    sent: int
    confirmed: int
    refused: int
    held: int
    items: tuple[Told, ...] = ()
    left_off: int = 0
    detail: str = ""


class _Channels(msgspec.Struct, frozen=True):
    channels: tuple[Channel, ...]


def read_channels(body: bytes) -> tuple[Channel, ...]:
    """The channels of an answer. Raises Trouble."""
    return _read(body, _Channels).channels


def read_offers(body: bytes) -> Offers:
    """The offers of an answer. Raises Trouble."""
    return _read(body, Offers)


def write_report(report: Report) -> dict[str, Any]:
    """A report as the node takes it."""
    found: dict[str, Any] = msgspec.to_builtins(report)
    return found


def _read(body: bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Trouble("answer-unreadable", f"this is no answer of a node: {error}"[:300]) from None
