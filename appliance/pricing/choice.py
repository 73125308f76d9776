"""The right price, and why: pure, so that hub and branch agree to the last digit.

The order is fixed and shown: a price of the contract, of the customer, of the branch (the nearest
one up the tree), of the price type. Within each: the variant's own price before the product's,
the highest minimum quantity that is reached, the shortest period, the line's own unit, the latest.
A price type without a price of its own may follow from another one by a markup. Nothing found is
"no price", never zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from appliance.kernel.formula import round_to
from appliance.kernel.kind import Json

STEPS = ("contract", "customer", "branch", "price_type")
# Of a price in a trace and in a line (`unit_price`): digits after the point.
DIGITS = 6
_DERIVED_MOST = 4
_ENDLESS = timedelta.max
Rank = tuple[int, bool, bool, Decimal, timedelta, bool, float, str]


@dataclass(frozen=True, slots=True)
class Offer:
    """One entry of the price ledger that holds at the moment asked for.

    `measure` None is the product's base unit; `until` None is without end.
    """

    id: UUID
    price_type: UUID
    price: Decimal
    since: datetime
    currency: str | None = None
    until: datetime | None = None
    variant: UUID | None = None
    measure: str | None = None
    minimum: Decimal = Decimal(0)
    unit: UUID | None = None
    customer: UUID | None = None
    contract: UUID | None = None


@dataclass(frozen=True, slots=True)
class PriceType:
    """A sort of prices. `markup` in per cent on `base`; `rounding` is a step such as 0.05."""

    id: UUID
    key: str
    currency: str
    tax_included: bool = False
    base: UUID | None = None
    markup: Decimal = Decimal(0)
    rounding: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is sold to whom. `units`: the selling branch, then all above it; `price_type` is that
    of the contract or else of the customer or else the company's first; `measures`: base units in
    one of each unit that the product is sold in.
    """

    quantity: Decimal
    measure: str
    price_type: UUID
    units: Sequence[UUID] = ()
    variant: UUID | None = None
    customer: UUID | None = None
    contract: UUID | None = None
    measures: Mapping[str, Decimal] = field(default_factory=dict)
    base_measure: str = "pcs"

    def factor(self, measure: str | None) -> Decimal | None:
        """Base units in one unit; None for a unit that the product does not have."""
        if measure is None or measure == self.base_measure:
            return Decimal(1)
        return self.measures.get(measure)


@dataclass(frozen=True, slots=True)
class Choice:
    """A price for one `measure` of the wanted, in `currency`, as the list says it (see
    `tax_included`). `trace` is what a person reads.
    """

    price: Decimal
    currency: str
    tax_included: bool
    trace: dict[str, Json]


@dataclass(frozen=True, slots=True)
class NoPrice:
    """There is none, and what was looked at."""

    detail: str
    trace: dict[str, Json]


def choose(
    wanted: Wanted, offers: Sequence[Offer], types: Mapping[UUID, PriceType]
) -> Choice | NoPrice:
    """The price that holds, or that there is none. `offers` are all in force for the product."""
    steps: list[Json] = []
    if wanted.factor(wanted.measure) is None:
        return NoPrice(
            f"The product is not sold by {wanted.measure}: it has no conversion to it.",
            {"chosen": None, "steps": steps},
        )
    for step in STEPS:
        fitting = [o for o in offers if _belongs(step, o, wanted)]
        best = min((o for o in fitting if _reached(o, wanted)), key=_rank(wanted), default=None)
        steps.append(
            {"step": step, "prices": len(fitting), "taken": str(best.id) if best else None}
        )
        if best is not None:
            return _taken(step, best, wanted, types[best.price_type], steps)
    return _derived(wanted, offers, types, steps)


def _belongs(step: str, offer: Offer, wanted: Wanted) -> bool:
    """Whether an offer is of a step. One for a contract or a customer names them, whatever its
    price type; the general ones hold under the price type that is wanted.
    """
    if offer.variant not in (None, wanted.variant):
        return False
    if offer.unit is not None and offer.unit not in wanted.units:
        return False
    if offer.contract is not None:
        return step == "contract" and offer.contract == wanted.contract
    if offer.customer is not None:
        return step == "customer" and offer.customer == wanted.customer
    if offer.price_type != wanted.price_type:
        return False
    return step == ("branch" if offer.unit is not None else "price_type")


def _reached(offer: Offer, wanted: Wanted) -> bool:
    theirs, mine = wanted.factor(offer.measure), wanted.factor(wanted.measure)
    return (
        theirs is not None
        and mine is not None
        and (wanted.quantity * mine >= offer.minimum * theirs)
    )


def _rank(wanted: Wanted) -> Callable[[Offer], Rank]:
    """Smaller is better; the last member makes the order total."""
    depth = {unit: n for n, unit in enumerate(wanted.units)}

    def rank(offer: Offer) -> Rank:
        period = offer.until - offer.since if offer.until else _ENDLESS
        return (
            depth[offer.unit] if offer.unit else len(depth),
            offer.variant is None,
            offer.price_type != wanted.price_type,
            -offer.minimum * (wanted.factor(offer.measure) or Decimal(0)),
            period,
            (offer.measure or wanted.base_measure) != wanted.measure,
            -offer.since.timestamp(),
            str(offer.id),
        )

    return rank


def _taken(step: str, offer: Offer, wanted: Wanted, type_: PriceType, steps: list[Json]) -> Choice:
    theirs, mine = wanted.factor(offer.measure), wanted.factor(wanted.measure)
    assert theirs is not None and mine is not None, "only reached offers are taken"
    price = round_to(offer.price * mine / theirs, DIGITS, "half_up")
    currency = offer.currency or type_.currency
    trace: dict[str, Json] = {
        "chosen": step, "entry": str(offer.id), "price_type": type_.key,
        "list_price": _text(offer.price), "list_measure": offer.measure or wanted.base_measure,
        "list_currency": currency, "from_quantity": _text(offer.minimum),
        "valid_from": offer.since.isoformat(),
        "valid_to": offer.until.isoformat() if offer.until else None,
        "tax_included": type_.tax_included, "steps": steps,
    }  # fmt: skip
    if theirs != mine:
        trace["conversion"] = {
            "measure": wanted.measure,
            "factor": _text(round_to(mine / theirs, DIGITS)),
        }
    return Choice(price, currency, type_.tax_included, trace)


def _derived(
    wanted: Wanted, offers: Sequence[Offer], types: Mapping[UUID, PriceType], steps: list[Json]
) -> Choice | NoPrice:
    """A general price of the base type and the markup; types may stand on one another."""
    type_ = types.get(wanted.price_type)
    chain: list[PriceType] = []
    while type_ is not None and type_.base is not None and len(chain) < _DERIVED_MOST:
        chain.append(type_)
        type_ = types.get(type_.base)
        if type_ is None or type_ in chain:
            break
        of_base = [o for o in offers if o.price_type == type_.id and not (o.contract or o.customer)
                   and o.unit is None and o.variant in (None, wanted.variant)]  # fmt: skip
        best = min((o for o in of_base if _reached(o, wanted)), key=_rank(wanted), default=None)
        steps.append({"step": "base", "price_type": type_.key, "prices": len(of_base),
                      "taken": str(best.id) if best else None})  # fmt: skip
        if best is not None:
            return _marked_up(_taken("base", best, wanted, type_, steps), chain)
    key = types[wanted.price_type].key if wanted.price_type in types else "?"
    return NoPrice(
        f"There is no price of type {key} for this product, customer and quantity.",
        {"chosen": None, "price_type": key, "steps": steps},
    )


def _marked_up(base: Choice, chain: Sequence[PriceType]) -> Choice:
    price, applied = base.price, list[Json]()
    for type_ in reversed(chain):
        price = price * (100 + type_.markup) / 100
        if type_.rounding:
            price = round_to(price / type_.rounding, 0, "half_up") * type_.rounding
        price = round_to(price, DIGITS, "half_up")
        applied.append({"price_type": type_.key, "markup": _text(type_.markup),
                        "rounding": _text(type_.rounding), "price": _text(price)})  # fmt: skip
    return Choice(price, base.currency, base.tax_included, {**base.trace, "markups": applied})


def _text(value: Decimal) -> str:
    """A decimal as people write it: 120.5, not 120.500000 nor 1.2E+2."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
