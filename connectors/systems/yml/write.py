"""A feed out, in UTF-8: what every dialect shares.

Numbers, ids and categories are checked alike; a dialect adds its own rules, its head and how it
says an offer. An offer is written or it stays out; its id is taken by the first that is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal, InvalidOperation

import msgspec

from connectors.formats.amounts import plain_decimal
from connectors.sdk.contract import Fault, Place, Refused
from connectors.sdk.feeds import Category, Counts, Left, Offer, Piece, Shop

_PIECE_OFFERS = 200


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """How one channel wants its feed. Lengths are counted in characters.

    `needs`: fields that no offer may lack; `shop_needs`: the same of the shop. `more`: further
    faults of an offer. `currency`: the only one there is.
    """

    head: Callable[[Shop, list[Category]], str]
    offer: Callable[[Shop, Offer], str]
    tail: str
    needs: tuple[str, ...] = ()
    shop_needs: tuple[str, ...] = ("name",)
    id_max: int = 80
    name_max: int = 255
    pictures_max: int = 20
    currency: str = ""
    has_categories: bool = True
    more: Callable[[Offer], Iterable[tuple[str, str, str, str]]] = lambda _: ()

    def write(
        self, shop: Shop, categories: Iterable[Category], offers: Iterable[Offer]
    ) -> Iterator[Piece | Left | Counts]:
        """See sdk.feeds.FeedWriter."""
        for name in self.shop_needs:
            if not getattr(shop, name):
                raise Refused(Fault("missing", f"a shop with its {name}", "", Place(column=name)))
        listed = _tree(categories)
        known, size = {c.id for c in listed}, 0
        count = left = 0
        waiting = [self.head(shop, listed)]
        seen: set[str] = set()
        for offer in offers:
            faults = self.faults_of(offer, known, shop)
            if offer.id in seen:
                place = Place(offer.id, column="id")
                faults.append(Fault("duplicate-id", "one offer for an id", offer.id, place))
            if faults:
                left += 1
                yield Left(offer.id, tuple(faults))
                continue
            seen.add(offer.id)
            count += 1
            waiting.append(self.offer(shop, offer))
            if len(waiting) >= _PIECE_OFFERS:
                piece = "".join(waiting).encode()
                size += len(piece)
                yield Piece(piece)
                waiting = []
        waiting.append(self.tail)
        piece = "".join(waiting).encode()
        yield Piece(piece)
        yield Counts(count, left, size + len(piece))

    def faults_of(self, offer: Offer, categories: set[str], shop: Shop) -> list[Fault]:
        """Everything that keeps an offer out, each with the field it is in."""
        found: list[Fault] = []

        def fault(code: str, expected: str, said: str, where: str) -> None:
            found.append(Fault(code, expected, said[:60], Place(offer.id, column=where)))

        for name in ("id", "name", *self.needs):
            value = getattr(offer, name)
            if not (value.strip() if isinstance(value, str) else value):
                fault("missing", f"an offer with its {name}", "", name)
        if len(offer.id) > self.id_max:
            fault("too-long", f"at most {self.id_max} characters", offer.id, "id")
        if len(offer.name) > self.name_max:
            fault("too-long", f"at most {self.name_max} characters", offer.name, "name")
        if len(offer.pictures) > self.pictures_max:
            said = str(len(offer.pictures))
            fault("too-many", f"at most {self.pictures_max} pictures", said, "pictures")
        if self.has_categories and offer.category_id not in categories:
            fault("unknown-category", "a category of the feed", offer.category_id, "category_id")
        currencies = (self.currency,) if self.currency else shop.rates
        if offer.currency not in currencies:
            expected = f"one of {', '.join(currencies)}"
            fault("unknown-currency", expected, offer.currency, "currency")
        _check_numbers(offer, fault)
        for code, expected, said, where in self.more(offer):
            fault(code, expected, said, where)
        return found


def _check_numbers(offer: Offer, fault: Callable[[str, str, str, str], None]) -> None:
    price = number(offer.price)
    if price is None or price <= 0:
        fault("number-malformed", "a price above 0", offer.price, "price")
    if offer.old_price and price is not None and (number(offer.old_price) or 0) <= price:
        fault("old-price", "an old price above the price", offer.old_price, "old_price")
    for name in ("quantity", "weight", "minimum_quantity"):
        text = getattr(offer, name)
        if text and ((amount := number(text)) is None or amount < 0):
            fault("number-malformed", "a plain decimal from 0", text, name)


def number(text: str) -> Decimal | None:
    """A plain decimal as we write it; None for anything else."""
    try:
        return Decimal(text) if plain_decimal(text) == text else None
    except (ValueError, InvalidOperation):
        return None


def _tree(categories: Iterable[Category]) -> list[Category]:
    """Each id once, the first that says it; a parent that is not listed is none."""
    found: dict[str, Category] = {}
    for category in categories:
        found.setdefault(category.id, category)
    return [
        c if c.parent_id in found and c.parent_id != c.id
        else msgspec.structs.replace(c, parent_id="")
        for c in found.values()
    ]  # fmt: skip
