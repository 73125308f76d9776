"""The order of prices against a second telling of the same rules, offer by offer."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from appliance.pricing import Choice, NoPrice, Offer, PriceType, Wanted, choose

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def ident(number):
    return UUID(int=number)


RETAIL, WHOLESALE, DEALER = ident(1), ident(2), ident(3)
SHOP, REGION, COMPANY, OTHER_SHOP = ident(11), ident(12), ident(13), ident(14)
CUSTOMER, CONTRACT, VARIANT = ident(21), ident(31), ident(41)
TYPES = {
    RETAIL: PriceType(RETAIL, "retail", "UAH"),
    WHOLESALE: PriceType(WHOLESALE, "wholesale", "UAH"),
    DEALER: PriceType(DEALER, "dealer", "UAH", base=WHOLESALE, markup=Decimal("-5"),
                      rounding=Decimal("0.5")),
}  # fmt: skip
MEASURES = {"box": Decimal(12), "pair": Decimal(2)}


def offer(number, price="10", **more):
    more.setdefault("price_type", RETAIL)
    return Offer(id=ident(1000 + number), price=Decimal(price), since=EPOCH, **more)


def want(**more):
    fields = {
        "quantity": Decimal(1), "measure": "pcs", "price_type": RETAIL,
        "units": (SHOP, REGION, COMPANY), "variant": VARIANT, "customer": CUSTOMER,
        "contract": CONTRACT, "measures": MEASURES,
    }  # fmt: skip
    return Wanted(**{**fields, **more})


@st.composite
def offers(draw):
    made = []
    for number in range(draw(st.integers(0, 12))):
        days = draw(st.none() | st.integers(1, 40))
        since = EPOCH + timedelta(days=draw(st.integers(-30, 0)))
        made.append(
            Offer(
                id=ident(1000 + number),
                price_type=draw(st.sampled_from([RETAIL, WHOLESALE])),
                price=Decimal(draw(st.integers(1, 10**6))) / 100,
                since=since,
                until=since + timedelta(days=days) if days else None,
                variant=draw(st.sampled_from([None, None, VARIANT, ident(42)])),
                measure=draw(st.sampled_from([None, "pcs", "box", "pair", "pallet"])),
                minimum=Decimal(draw(st.sampled_from([0, 1, 5, 10]))),
                unit=draw(st.sampled_from([None, None, SHOP, REGION, COMPANY, OTHER_SHOP])),
                customer=draw(st.sampled_from([None, None, CUSTOMER, ident(22)])),
                contract=draw(st.sampled_from([None, None, CONTRACT, ident(32)])),
            )
        )
    return made


def better(a, b, wanted):
    """Whether offer `a` goes before `b`, rule by rule as docs/price-choice.md has them."""
    units = [*wanted.units, None]
    base = {None: Decimal(1), "pcs": Decimal(1), **MEASURES}
    for left, right in (
        (units.index(a.unit), units.index(b.unit)),
        (0 if a.variant else 1, 0 if b.variant else 1),
        (0 if a.price_type == wanted.price_type else 1,
         0 if b.price_type == wanted.price_type else 1),
        (-a.minimum * base[a.measure], -b.minimum * base[b.measure]),
        ((a.until or EPOCH.replace(year=9999)) - a.since if a.until else timedelta.max,
         (b.until or EPOCH.replace(year=9999)) - b.since if b.until else timedelta.max),
        (0 if (a.measure or "pcs") == wanted.measure else 1,
         0 if (b.measure or "pcs") == wanted.measure else 1),
        (-a.since.timestamp(), -b.since.timestamp()),
        (str(a.id), str(b.id)),
    ):  # fmt: skip
        if left != right:
            return left < right
    return False


def naive(wanted, offered):
    base = {None: Decimal(1), "pcs": Decimal(1), **MEASURES}
    for tier in range(4):
        best = None
        for one in offered:
            if one.variant and one.variant != wanted.variant:
                continue
            if one.measure not in base or one.unit not in (None, *wanted.units):
                continue
            if wanted.quantity * base[wanted.measure] < one.minimum * base[one.measure]:
                continue
            if one.contract:
                mine = 0 if one.contract == wanted.contract else None
            elif one.customer:
                mine = 1 if one.customer == wanted.customer else None
            elif one.price_type != wanted.price_type:
                mine = None
            else:
                mine = 2 if one.unit else 3
            if mine == tier and (best is None or better(one, best, wanted)):
                best = one
        if best:
            return best
    return None


@given(offers(), st.integers(1, 30), st.sampled_from(["pcs", "box", "pair"]),
       st.sampled_from([None, VARIANT]), st.sampled_from([None, CUSTOMER]))  # fmt: skip
def test_the_choice_is_that_of_the_rules(offered, quantity, measure, variant, customer):
    wanted = want(quantity=Decimal(quantity), measure=measure, variant=variant, customer=customer)
    expected, found = naive(wanted, offered), choose(wanted, offered, TYPES)
    if expected is None:
        assert isinstance(found, NoPrice)
        return
    assert isinstance(found, Choice) and found.trace["entry"] == str(expected.id)
    base = {None: Decimal(1), "pcs": Decimal(1), **MEASURES}
    exact = expected.price * base[measure] / base[expected.measure]
    assert abs(found.price - exact) <= Decimal("0.0000005")
    assert choose(wanted, list(reversed(offered)), TYPES) == found, (
        "the order of reading is nothing"
    )


def test_each_step_goes_before_the_next():
    everybody = offer(1, "100")
    branch = offer(2, "90", unit=REGION)
    nearer = offer(3, "95", unit=SHOP)
    own = offer(4, "99", customer=CUSTOMER)
    agreed = offer(5, "98", contract=CONTRACT, price_type=WHOLESALE)
    for known, step, price in (
        ([everybody], "price_type", "100"), ([everybody, branch], "branch", "90"),
        ([everybody, branch, nearer], "branch", "95"),
        ([everybody, branch, nearer, own], "customer", "99"),
        ([everybody, branch, nearer, own, agreed], "contract", "98"),
    ):  # fmt: skip
        found = choose(want(), known, TYPES)
        assert (found.trace["chosen"], found.price) == (step, Decimal(price))
    steps = {s["step"]: s["prices"] for s in found.trace["steps"]}
    assert steps == {"contract": 1}, "a step that was not reached is not in the trace"


def test_quantity_breaks_and_units():
    breaks = [offer(1, "10"), offer(2, "9", minimum=Decimal(10)),
              offer(3, "96", measure="box", minimum=Decimal(1))]  # fmt: skip
    assert choose(want(quantity=Decimal(9)), breaks, TYPES).price == 10
    assert choose(want(quantity=Decimal(11)), breaks, TYPES).price == 9
    # Twelve pieces are a box: its price holds, per piece.
    found = choose(want(quantity=Decimal(12)), breaks, TYPES)
    assert found.price == 8 and found.trace["list_measure"] == "box"
    assert found.trace["conversion"]["measure"] == "pcs"
    nowhere = choose(want(measure="kg"), breaks, TYPES)
    assert isinstance(nowhere, NoPrice) and "kg" in nowhere.detail


def test_a_type_that_follows_from_another():
    found = choose(want(price_type=DEALER), [offer(1, "101.30", price_type=WHOLESALE)], TYPES)
    assert found.price == Decimal("96.0"), "less 5 % is 96.235, in steps of a half"
    assert found.trace["markups"] == [
        {"price_type": "dealer", "markup": "-5", "rounding": "0.5", "price": "96"}
    ]
    own = choose(
        want(price_type=DEALER),
        [offer(1, "101.30", price_type=WHOLESALE), offer(2, "80", price_type=DEALER)], TYPES,
    )  # fmt: skip
    assert own.price == 80
    circle = {**TYPES, WHOLESALE: PriceType(WHOLESALE, "wholesale", "UAH", base=DEALER)}
    assert isinstance(choose(want(price_type=DEALER), [], circle), NoPrice)
