"""One look at a channel: what has changed is sent, and known to be there before it counts.

Compare with what was confirmed last, write what is meant, hold a price that moves too far, send
under the channel's limits, read back what may be swallowed. Nothing here knows the node; it is told
offers and gives a report.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from uuid import uuid4

from msgspec.structs import replace

from connectors.markets.selling import Market, Outcome, Wanted, What, send_apart
from connectors.sdk.channels import Channel, Offer, Report, Told
from connectors.sdk.retry import Trouble
from connectors.work.ledger import Intent, Ledger, State, value_of

TRIES_MAX = 3
REFUSED_S = 6 * 3_600.0
GONE_SHARE = 0.2
GONE_FEW = 10
TOLD_MAX = 1_000
_KINDS: tuple[What, ...] = ("stock", "price")
_NOT_CONFIRMED = "not-confirmed"


class Count:
    """What a look has done. `mended`: what was told of as not right, and is."""

    def __init__(self) -> None:
        self.sent = self.confirmed = 0
        self.mended: dict[tuple[str, str], Intent] = {}


class Selling:
    """One look at a channel. It blocks; whoever looks does so in a thread, and ends it by `stop`."""

    def __init__(
        self, channel: Channel, market: Market, ledger: Ledger, *, worker: str,
        now: Callable[[], float] = time.time, stop: threading.Event | None = None,
        gone_share: float = GONE_SHARE,
    ) -> None:  # fmt: skip
        self._channel, self._market, self._now = channel, market, now
        self._worker, self._stop = worker, stop or threading.Event()
        # Where nothing may be sent, nothing may be remembered as if it had been.
        self._ledger = ledger.copy() if channel.dry_run else ledger
        self._count, self._started = Count(), datetime.now(UTC)
        self._gone_share, self._listed = gone_share, set[str]()

    def want(self, offers: Iterable[Offer]) -> None:
        """Note what these shall be. Newest wins: what was meant for them before is dropped."""
        meant, settled = [], []
        for offer in offers:
            self._listed.add(offer.sku)
            for intent in _wishes(offer, self._channel.currency):
                what: What = "price" if intent.what == "price" else "stock"
                now = self._ledger.read_confirmed(intent.sku, what)
                before = self._ledger.read_intent(intent.sku, what)
                if now is None or (now.value, now.old) != (intent.value, intent.old):
                    meant.append(_follow(intent, before))
                elif before is not None:
                    settled.append((intent.sku, intent.what))
                    self._mend([before])
        self._ledger.drop(settled)
        self._ledger.write(meant)

    def push(self) -> Report:
        """Send what is meant, once every offer was told. Raises Trouble; what was not sent, or may
        not have arrived, stays meant.
        """
        too_many = self._take_off()
        if self._channel.dry_run:
            self._guard()
            return self.report()
        for what in _KINDS:
            self._settle(what)
            if what == "price":
                self._guard()
            self._send(what)
        if too_many is not None:
            raise too_many
        return self.report()

    def _take_off(self) -> Trouble | None:
        """What is no offer any more has no stock; a Trouble instead where that are too many."""
        stocked = self._ledger.list_stocked()
        gone = {sku: offer for sku, offer in stocked.items() if sku not in self._listed}
        if len(gone) > GONE_FEW and len(gone) > self._gone_share * len(stocked):
            text = (
                f"{len(gone)} of {len(stocked)} items are no offers any more; they stay as they are. "
                "If it is meant, raise gone_share of the channel"
            )
            return Trouble("mass-removal", text, is_permanent=True)
        self._ledger.write(
            _follow(
                Intent(sku=sku, what="stock", offer=offer, value="0", revision="gone"),
                self._ledger.read_intent(sku, "stock"),
            )
            for sku, offer in gone.items()
        )
        # A price that waits for a person waits in vain.
        self._ledger.drop([(sku, "price") for sku in gone])
        return None

    def mark_told(self, report: Report) -> None:
        """The node has the report: what stands in it is not told again as long as it stays so."""
        told = {(t.sku, t.what) for t in report.items}
        intents = [i for what in _KINDS for i in self._ledger.list_intents(what, *_ANY)]
        self._ledger.write(
            replace(i, is_told=1, is_letter=1) for i in intents if (i.sku, i.what) in told
        )

    def _confirm(self, intents: Sequence[Intent]) -> None:
        self._ledger.confirm(intents, self._now())
        self._mend(intents)

    def _mend(self, intents: Sequence[Intent]) -> None:
        self._count.mended |= {(i.sku, i.what): i for i in intents if i.is_letter}

    def _settle(self, what: What) -> None:
        """What was sent and is not known to have arrived: read back, or sent again."""
        limits, now = self._market.limits, self._now()
        refused = self._ledger.list_intents(what, "refused")
        # What it was refused for (a card that is not made yet) may be over by itself.
        self._ledger.write(
            replace(i, state="new") for i in refused if _since(i.sent_at, now) >= REFUSED_S
        )
        sent = self._ledger.list_intents(what, "sent")
        if not sent:
            return
        if what in limits.read_back:
            sent = self._confirm_seen(what, sent)
            sent = [
                i for i in sent if _since(i.sent_at, now) >= _patience(limits.settle_s, i.tries)
            ]
        self._ledger.write(replace(i, state="new") for i in sent)

    def _guard(self) -> None:
        """Hold prices that move too far from what is there; of an item that was never confirmed
        here, what is there is asked.
        """
        share = self._channel.max_change_share
        intents = self._ledger.list_intents("price", "new", "held")
        unknown = [i for i in intents if self._ledger.read_confirmed(i.sku, "price") is None]
        standing = self._market.read("price", [i.offer for i in unknown]) if unknown else {}
        judged, same = [], []
        for intent in intents:
            known = self._ledger.read_confirmed(intent.sku, "price")
            base = Decimal(known.value) if known is not None else standing.get(intent.offer)
            wanted = Decimal(intent.value)
            if known is None and base == wanted and not intent.old:
                same.append(intent)
                continue
            is_far = base and share is not None and abs(wanted - base) > share * base
            state = "held" if is_far and not intent.is_released else "new"
            if state != intent.state:
                before = value_of(base) if state == "held" and base else ""
                code = "price-jump" if state == "held" else ""
                judged.append(replace(intent, state=state, before=before, code=code, is_told=0))
        self._confirm(same)
        self._ledger.write(judged)

    def _send(self, what: What) -> None:
        limits = self._market.limits
        most = limits.price if what == "price" else limits.stock
        again_s = limits.price_again_s if what == "price" else limits.stock_again_s
        waiting = [i for i in self._ledger.list_intents(what, "new") if self._may(i, what, again_s)]
        for part in _parts(waiting, most):
            if self._stop.is_set():
                return
            at = self._now()
            sent = [replace(i, state="sent", tries=i.tries + 1, sent_at=at) for i in part]
            self._ledger.send(sent)
            self._count.sent += len(sent)
            wanted = [
                Wanted(i.offer, Decimal(i.value), i.currency, Decimal(i.old) if i.old else None)
                for i in sent
            ]
            self._note(what, sent, send_apart(self._market.send, what, wanted))

    def _may(self, intent: Intent, what: What, again_s: float) -> bool:
        known = self._ledger.read_confirmed(intent.sku, what)
        last = max(intent.sent_at, known.at if known is not None else 0.0)
        return _since(last, self._now()) >= again_s

    def _note(self, what: What, sent: Sequence[Intent], outcomes: Sequence[Outcome]) -> None:
        by_offer = {o.offer: o for o in outcomes}
        groups: dict[str, list[Intent]] = {"confirmed": [], "taken": []}
        changed = []
        for intent in sent:
            outcome = by_offer[intent.offer]
            if outcome.state in groups:
                groups[outcome.state].append(intent)
                continue
            state = "refused" if outcome.state == "refused" else "new"
            told = intent.is_told if intent.code == outcome.code else 0
            changed.append(
                replace(intent, state=state, code=outcome.code, detail=outcome.detail, is_told=told)
            )
        self._ledger.write(changed)
        self._confirm(groups["confirmed"])
        self._count.confirmed += len(groups["confirmed"])
        if groups["taken"]:
            self._confirm_seen(what, groups["taken"])

    def _confirm_seen(self, what: What, intents: Sequence[Intent]) -> list[Intent]:
        """Those that are not there as they shall be, after those that are were confirmed."""
        standing: Mapping[str, Decimal] = self._market.read(what, [i.offer for i in intents])
        seen = [i for i in intents if standing.get(i.offer) == Decimal(i.value)]
        left = [i for i in intents if standing.get(i.offer) != Decimal(i.value)]
        self._confirm(seen)
        self._count.confirmed += len(seen)
        unsure = []
        for intent in left:
            if intent.tries >= TRIES_MAX and intent.code != _NOT_CONFIRMED:
                there = standing.get(intent.offer)
                before = value_of(there) if there is not None else ""
                unsure.append(replace(intent, code=_NOT_CONFIRMED, before=before, is_told=0))
        self._ledger.write(unsure)
        changed = {i.sku: i for i in unsure}
        return [changed.get(i.sku, i) for i in left]

    def report(self) -> Report:
        """What the look has come to so far."""
        intents = [i for what in _KINDS for i in self._ledger.list_intents(what, *_ANY)]
        held = [i for i in intents if i.state == "held"]
        refused = [i for i in intents if i.state == "refused"]
        if self._channel.dry_run:
            told = [_told(i, i.code or "would-send") for i in intents]
            sent = len([i for i in intents if i.state == "new"])
        else:
            new = [i for i in intents if i.code and not i.is_told and i.code not in _QUIET]
            told = [_told(i, i.code) for i in new] + self._told_right(intents)
            sent = self._count.sent
        return Report(
            id=uuid4(), started_at=self._started, worker=self._worker,
            dry_run=self._channel.dry_run, sent=sent, confirmed=self._count.confirmed,
            refused=len(refused), held=len(held), items=tuple(told[:TOLD_MAX]),
            left_off=max(0, len(told) - TOLD_MAX),
        )  # fmt: skip

    def _told_right(self, intents: Sequence[Intent]) -> list[Told]:
        """Items that are right now in all that was told of them."""
        wrong = {i.sku for i in intents if i.is_letter or i.code}
        right = {i.sku: i for i in self._count.mended.values() if i.sku not in wrong}
        return [Told(i.sku, i.what, "confirmed", "", i.value) for i in right.values()]


_ANY: tuple[State, ...] = ("new", "sent", "held", "refused")
# What will be tried again anyway.
_QUIET = frozenset({"too-soon", "not-told"})


def _wishes(offer: Offer, currency: str) -> Iterator[Intent]:
    """What an offer says of stock and price; off sale is none in stock."""
    name = offer.offer_id or offer.sku
    stock = Decimal(0) if offer.is_off else max(Decimal(0), offer.available)
    whole = value_of(stock.to_integral_value(rounding="ROUND_FLOOR"))
    yield Intent(
        sku=offer.sku, what="stock", offer=name, value=whole, revision=offer.revision
    )  # fmt: skip
    if offer.price is not None and not offer.is_off:
        old = offer.old_price
        yield Intent(
            sku=offer.sku, what="price", offer=name, value=value_of(offer.price),
            old=value_of(old) if old is not None and old > offer.price else "",
            currency=offer.currency or currency, revision=offer.revision,
            is_released=int(offer.released),
        )  # fmt: skip


def _follow(intent: Intent, before: Intent | None) -> Intent:
    """An intent with what is known of the same one; another value begins anew."""
    if before is None:
        return intent
    if (before.value, before.old, before.offer) != (intent.value, intent.old, intent.offer):
        # When the last one went out still counts for how soon this one may.
        return replace(intent, sent_at=before.sent_at, is_letter=before.is_letter)
    kept = replace(before, revision=intent.revision, is_released=intent.is_released)
    if before.state == "refused" and before.revision != intent.revision:
        # Something has changed about it, or a person asks for it again.
        return replace(kept, state="new", tries=0, code="", detail="", is_told=0)
    return kept


def _since(at: float, now: float) -> float:
    """Seconds since then; for ever where the clock was set back."""
    return now - at if now >= at else float("inf")


def _patience(settle_s: float, tries: int) -> float:
    """How long a sent value may take to be seen; longer each time that it was not."""
    return settle_s * 2.0 ** min(max(tries - 1, 0), 6)


def _told(intent: Intent, code: str) -> Told:
    states = {"held": "held", "refused": "refused"}
    state = states.get(intent.state, "not_confirmed" if code == _NOT_CONFIRMED else "held")
    return Told(
        intent.sku, intent.what, state, code, intent.value, intent.detail[:300], intent.before
    )


def _parts(intents: Sequence[Intent], most: int) -> Iterator[Sequence[Intent]]:
    for first in range(0, len(intents), most):
        yield intents[first : first + most]
