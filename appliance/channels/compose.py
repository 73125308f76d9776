"""One block of offers put together: pure, from what was read of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from hashlib import blake2b

import msgspec

from appliance.channels.channel import Channel
from appliance.channels.groups import Groups
from appliance.channels.kept import (
    NEVER,
    Judged,
    Kept,
    Key,
    judge_price,
    micros,
    moment_of,
)
from appliance.channels.look import Row
from appliance.channels.stock import Stock
from appliance.kernel.context import Ctx
from appliance.kernel.formula import round_to
from appliance.pricing import Shown

_encode = msgspec.msgpack.Encoder().encode


class Held(msgspec.Struct, frozen=True):
    """A price that waits for a person, and why."""

    code: str
    price: str


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """One item as the channel is given it: `sku` is its name there, `article` our own, `offer_id`
    what it is sent by where that is not the SKU. Amounts are plain decimals; `price` is with tax,
    null where there is none (`faults`); `released`: a person has let it go out. `available` counts
    whole base units. `revision` changes whenever anything of it does, and when somebody asks for it
    again. `is_gone`: it was given before and is no offer any more; its stock is 0.
    """

    product: str
    variant: str = ""
    sku: str
    offer_id: str = ""
    article: str = ""
    name: str = ""
    description: str = ""
    brand: str = ""
    country: str = ""
    measure: str = ""
    weight: str = ""
    barcodes: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()
    category_id: str = ""
    category: str = ""
    group: str = ""
    price: str | None = None
    currency: str = ""
    available: str = "0"
    is_off: bool = False
    is_gone: bool = False
    released: bool = False
    held: Held | None = None
    faults: tuple[str, ...] = ()
    revision: str = ""
    changed_at: datetime | None = None


class Item(msgspec.Struct, frozen=True):
    """A product, or a variant of it, with what belongs to it. `has_own`: its own SKU counts."""

    product: Row
    variant: Row | None
    has_own: bool
    key: Key
    codes: tuple[str, ...]
    special: Mapping[str, Row]
    maker: Row | None
    is_family: bool

    @property
    def record(self) -> str:
        """The record that a reference names."""
        return (self.variant or self.product)["id"]

    @property
    def kind(self) -> str:
        """Its kind."""
        return "variant" if self.variant else "product"


class Composer:
    """Puts the offers of one block together."""

    def __init__(
        self, ctx: Ctx, channel: Channel, groups: Groups, digits: int, *, items: Sequence[Item],
        refs: Mapping[Key, str], prices: Mapping[Key, Shown], stock: Stock,
        kept: Mapping[Key, Kept],
    ) -> None:  # fmt: skip
        self._ctx, self._channel, self._groups, self._digits = ctx, channel, groups, digits
        self._items, self._refs, self._prices = items, refs, prices
        self._stock, self._kept = stock, kept

    def offers(self) -> tuple[list[Offer], list[tuple[Key, Kept]]]:
        """The offers of the block, what is gone last; and the rows that are to be kept anew."""
        found: list[Offer] = []
        noted: list[tuple[Key, Kept]] = []
        met: set[Key] = set()
        for item in self._items:
            sku = self._refs.get(item.key) or (item.variant or item.product)["sku"]
            if not sku:
                continue
            before = self._kept.get(item.key, NEVER)
            offer, judged = self._offer(item, sku, before)
            after = Kept(
                sku, offer.revision, before.changed_at, False,
                judged.price if judged.price is not None else before.price,
                self._channel.currency, judged.held, judged.code, judged.released, before.turn,
                int(item.product["created_at"]),
            )  # fmt: skip
            met.add(item.key)
            found.append(self._dated(offer, before, after))
            if after != before:
                noted.append((item.key, after))
        for key, before in self._kept.items():
            if key in met:
                continue
            offer, after = self._gone(key, before)
            found.append(offer)
            if after != before:
                noted.append((key, after))
        return found, noted

    def _offer(self, item: Item, sku: str, before: Kept) -> tuple[Offer, Judged]:
        channel, product, variant = self._channel, item.product, item.variant
        special = item.special.get(str(channel.id), {})
        ident = variant["id"] if variant else ""
        shown = self._prices[item.key]
        wanted = self._rounded(shown.price, special.get("price_factor", ""))
        judged = judge_price(channel, wanted, before)
        units = Decimal(text) if (text := special.get("buffer_units")) else None
        off = special.get("off_sale") == "true" or judged.price is None
        told = Decimal(0) if off else self._stock.told(product["id"], ident, units)
        name = " ".join(filter(None, (product["name"], variant["name"] if variant else "")))
        category_id, category = self._groups.of(
            product["section"], product["category"], special.get("category", "")
        )
        faults = [] if wanted is not None else ["no-price"]
        faults += [judged.code] if judged.held is not None and judged.price is None else []
        maker = item.maker or {}
        first = (variant or product)["barcode"]
        offer = Offer(
            product=product["id"], variant=ident, sku=sku,
            article=(variant or product)["sku"] or product["sku"], offer_id=special.get("listing", ""),
            name=special.get("title") or name, description=special.get("text") or product["description"],
            brand=product["brand"] or maker.get("name", ""), country=maker.get("country", ""),
            measure=product["measure"], weight=product["weight"],
            barcodes=tuple(dict.fromkeys(filter(None, (first, *item.codes)))),
            pictures=_lines(special.get("pictures", "") or product["image_links"]),
            category_id=category_id, category=category, group=product["id"] if item.is_family else "",
            price=f"{judged.price:f}" if judged.price is not None else None, currency=channel.currency,
            available=f"{told:f}", released=judged.released is not None, is_off=special.get("off_sale") == "true",
            held=Held(judged.code, f"{judged.held:f}") if judged.held is not None else None,
            faults=tuple(faults),
        )  # fmt: skip
        return msgspec.structs.replace(offer, revision=_revision(offer, before.turn)), judged

    def _rounded(self, price: Decimal | None, factor: str) -> Decimal | None:
        if price is None:
            return None
        return round_to(price * Decimal(factor or 1), self._digits)

    def _dated(self, offer: Offer, before: Kept, after: Kept) -> Offer:
        """With the moment since when it is as it is."""
        is_same = (before.revision, before.is_gone) == (after.revision, after.is_gone)
        at = before.changed_at if is_same else micros(self._ctx.at)
        return msgspec.structs.replace(offer, changed_at=moment_of(at))

    def _gone(self, key: Key, before: Kept) -> tuple[Offer, Kept]:
        product, variant = key
        offer = Offer(
            product=product, variant=variant, sku=before.sku, currency=before.currency,
            is_gone=True,
        )  # fmt: skip
        offer = msgspec.structs.replace(offer, revision=_revision(offer, before.turn))
        after = msgspec.structs.replace(
            before,
            is_gone=True,
            revision=offer.revision,
            held_price=None,
            held_code="",
            released=None,
        )
        return self._dated(offer, before, after), after


def _revision(offer: Offer, turn: int) -> str:
    """What stands for all that the channel is told of an item."""
    told = (turn, *msgspec.structs.astuple(offer)[:-2])
    return blake2b(_encode(told), digest_size=10).hexdigest()


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())
