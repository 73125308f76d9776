"""What a channel is given: its SKU, the price in force, what can be sold, and never what is hidden."""

from decimal import Decimal
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.base.errors import Forbidden
from appliance.base.ids import uuid7
from appliance.channels.channel import Channel
from appliance.channels.kept import Kept, judge_price
from appliance.channels.stock import sellable
from appliance.kernel.profile import KindGrant, Mode, Profile, Scope, ScopeKind
from tests.channels.firm import everything, seller
from tests.tenants import delete

pytestmark = pytest.mark.anyio
amounts = st.decimals("-1000", "1000", places=3)


@settings(max_examples=60)
@given(st.lists(amounts, max_size=5), st.decimals("0", "50", places=3), st.decimals("0", "100", places=2),
       st.none() | st.decimals("0", "500", places=3))  # fmt: skip
def test_what_is_told_is_never_more_than_there_is(free, units, percent, cap):
    told = sellable(free, units=units, percent=percent, cap=cap)
    there = sum((f for f in free if f > 0), Decimal(0))
    assert told >= 0 and told == int(told)
    assert told <= there and (cap is None or told <= cap)
    if told:
        assert told + units + there * percent / 100 <= there
    more = sellable([*free, Decimal(5)], units=units, percent=percent, cap=cap)
    assert more >= told
    assert sellable([*free, Decimal(-5)], units=units, percent=percent, cap=cap) == told
    assert sellable(free, units=units + 1, percent=percent, cap=cap) <= told
    whole = sellable(free, units=Decimal(0), percent=Decimal(0), cap=None)
    assert there - 1 < whole <= there
    assert not sellable(free, units=units, percent=Decimal(100), cap=cap)


def a_channel(**more):
    empty = dict.fromkeys(
        ("price_type", "branch", "price_min", "price_change_max", "shrink_max", "cap")
    )
    return Channel(**{
        **empty, "id": uuid7(), "name": "C", "system": "yml", "source": "c", "by_sku": False, "active": True,
        "dry_run": False, "currency": "UAH", "warehouses": (), "buffer_units": Decimal(0),
        "buffer_percent": Decimal(0), "language": "uk", "categories": {}, "texts": {}, **more,
    })  # fmt: skip


@settings(max_examples=60)
@given(st.decimals("0.01", "100000", places=2), st.decimals("0.01", "100000", places=2),
       st.decimals("0", "300", places=2))  # fmt: skip
def test_a_price_jumps_by_no_more_than_is_allowed(last, wanted, most):
    channel = a_channel(price_change_max=most)
    found = judge_price(channel, wanted, Kept(price=last, currency="UAH"))
    assert abs(found.price - last) * 100 <= most * last
    assert (found.held == wanted) == (found.price != wanted)
    again = judge_price(channel, wanted, Kept(price=last, currency="UAH", released=wanted))
    assert (again.price, again.held) == (wanted, None)
    assert judge_price(channel, wanted, Kept(price=last, currency="USD")).price == wanted
    assert judge_price(a_channel(price_min=wanted + 1), wanted, Kept()).price is None


async def test_offers(db, dsns):
    firm = await seller(db, dsns, buffer_units="1", buffer_percent="10", cap="50")
    tea = await firm.product("Чай", "T1", stock={firm.north: "12", firm.south: "3"}, barcode="4601",
                             brand="Leaf", description="Чорний")  # fmt: skip
    await firm.make("barcode", code="4602", product=tea)
    many = await firm.product("Rice", "R1", "10", {firm.north: "900"})
    await firm.product("Without a price", "N1", None, {firm.north: "9"})
    await firm.product("Unmapped", "U1", stock={firm.north: "9"}, ref=False)
    shirt = await firm.product("Shirt", "S1", "50", {firm.north: "7"}, ref=False)
    red = await firm.make("variant", product=shirt, name="Red", sku="S1-R", barcode="4603")
    await firm.refer(red, "m-S1-R", "variant")
    await firm.move(shirt, firm.south, "4", variant=red)
    await firm.price(shirt, "55", variant=red)
    await firm.refer(many, "other", system="elsewhere")
    deal = await firm.make("deal", title="D", customer=await firm.make("customer", name="C"))
    await firm.make("reservation", product=tea, warehouse=firm.north, deal=deal, quantity="2")
    found = await firm.scan()
    assert set(found) == {"m-T1", "m-R1", "m-N1", "m-S1-R"}
    told = {sku: (o.price, o.available, o.faults) for sku, o in found.items()}
    # 13 are free; 1 and a tenth of them are kept back.
    assert told == {
        "m-T1": ("120.00", "10", ()), "m-R1": ("10.00", "50", ()), "m-N1": (None, "0", ("no-price",)),
        "m-S1-R": ("55.00", "2", ()),
    }  # fmt: skip
    offer = found["m-T1"]
    assert (offer.name, offer.brand, offer.barcodes) == ("Чай", "Leaf", ("4601", "4602"))
    assert offer.category == "Tea" and offer.category_id.isdigit()
    assert (found["m-S1-R"].name, found["m-S1-R"].group) == ("Shirt Red", shirt)
    # By our own SKU where no reference says otherwise; a family's is nobody's.
    await firm.change("sales_channel", firm.channel, link_by="sku")
    assert set(await firm.scan()) == {"m-T1", "m-R1", "m-N1", "U1", "m-S1-R"}


async def test_what_is_said_of_one_item_and_what_is_gone(db, dsns):
    firm = await seller(db, dsns)
    tea = await firm.product("Tea", "T1", stock={firm.north: "10"})
    rice = await firm.product("Rice", "R1", stock={firm.north: "10"})
    item = await firm.make(
        "channel_item", channel=firm.channel, product=tea, buffer_units="4", price_factor="1.1000",
        title="Tea there", listing="77", category="5", pictures="https://a.example/1.jpg\nhttps://a.example/2.jpg",
    )  # fmt: skip
    first = await firm.scan()
    offer = first["m-T1"]
    assert (offer.price, offer.available, offer.name, offer.offer_id) == (
        "132.00",
        "6",
        "Tea there",
        "77",
    )
    assert offer.category_id == "5" and len(offer.pictures) == 2
    assert await firm.scan() == first
    await firm.change("channel_item", item, off_sale=True)
    await firm.firm.apply(delete("product", UUID(rice)), ctx=await firm.ctx())
    second = await firm.scan()
    assert second["m-T1"].is_off and second["m-T1"].available == "0"
    gone = second["m-R1"]
    assert gone.is_gone and gone.available == "0" and gone.revision != first["m-R1"].revision
    assert (await firm.scan())["m-R1"] == gone
    # Looking alone keeps nothing.
    await firm.product("Late", "L1", stock={firm.north: "1"})
    looks = [await firm.scan(note=False) for _ in range(2)]
    assert looks[0]["m-L1"].changed_at < looks[1]["m-L1"].changed_at


async def test_a_price_that_jumps_waits_and_one_in_another_currency_is_converted(db, dsns):
    firm = await seller(db, dsns, price_min="5")
    tea = await firm.product("Tea", "T1", "100", {firm.north: "10"})
    await firm.product("Cheap", "C1", "4", {firm.north: "10"})
    assert (await firm.scan())["m-T1"].price == "100.00"
    await firm.price(tea, "1000")
    await firm.move(tea, firm.north, "-3")
    found = await firm.scan()
    assert (found["m-T1"].price, found["m-T1"].available) == ("100.00", "7")
    assert (found["m-T1"].held.code, found["m-T1"].held.price) == ("price-jump", "1000.00")
    assert (found["m-C1"].price, found["m-C1"].faults, found["m-C1"].available) == (
        None,
        ("below-minimum",),
        "0",
    )
    await firm.price(tea, "140")
    found = await firm.scan()
    assert (found["m-T1"].price, found["m-T1"].held) == ("140.00", None)
    # In another currency it is no jump; without a rate it is no price.
    await firm.change("sales_channel", firm.channel, currency="USD", price_min=None)
    net = await firm.make("price_type", key="net", name="Net", currency="UAH", tax_included=False,
                          base=firm.types["retail"], markup="10")  # fmt: skip
    tax = await firm.make("tax", name="VAT", rate="20")
    await firm.product("Oil", "O1", "1000", {firm.north: "1"}, tax=tax)
    assert (await firm.scan())["m-O1"].faults == ("no-price",)
    await firm.make("currency_rate", currency="USD", day="2026-11-01", rate="40")
    assert (await firm.scan())["m-O1"].price == "25.00"
    await firm.change("sales_channel", firm.channel, price_type=net)
    # The base price has its tax in it already: what follows from it has, too.
    assert (await firm.scan())["m-O1"].price == "27.50"


def narrowed(schema, **changes):
    """Everything but what is said otherwise: a grant by kind."""
    whole = everything(schema)
    return Profile(id="narrow", key="narrow", grants={**whole.grants, **changes})


async def test_what_is_hidden_never_leaves(db, dsns):
    firm = await seller(db, dsns)
    tea = await firm.product("Tea", "T1", "100", {firm.north: "10"}, brand="Leaf", description="d")
    schema = (await firm.ctx()).schema
    whole = everything(schema).grants

    async def scan(**changes):
        return await firm.scan(await firm.ctx(narrowed(schema, **changes)), note=False)

    def without(kind, *fields, action=None, scope=ScopeKind.NONE, where=None):
        grant = whole[kind]
        actions = {**grant.actions, **({action: Scope(scope, where)} if action else {})}
        return KindGrant(actions, {**grant.fields, **dict.fromkeys(fields, Mode.HIDDEN)})

    for changes in (
        {"price_type": without("price_type", action="export")}, {"price": without("price", "price")},
        {"price": without("price", action="export")}, {"stock_move": without("stock_move", "quantity")},
        {"reservation": without("reservation", action="export")}, {"product": without("product", action="export")},
        {"price_type": without("price_type", action="read", scope=ScopeKind.WHERE,
                               where={"field": "key", "op": "eq", "value": "wholesale"})},
    ):  # fmt: skip
        with pytest.raises(Forbidden):
            await scan(**changes)
    masked = whole["product"]
    hidden = KindGrant(
        masked.actions, {**masked.fields, "brand": Mode.HIDDEN, "description": Mode.MASKED}
    )
    found = await scan(product=hidden)
    assert (found["m-T1"].brand, found["m-T1"].description, found["m-T1"].price) == (
        "",
        "",
        "100.00",
    )
    # A rule over entries of prices hides those that it does not cover.
    await firm.price(tea, "90", type_="wholesale")
    rule = {"field": "price_type", "op": "eq", "value": firm.types["wholesale"]}
    ruled = without("price", action="export", scope=ScopeKind.WHERE, where=rule)
    assert (await scan(price=ruled))["m-T1"].faults == ("no-price",)
    assert not await scan(external_ref=without("external_ref", action="export"))
    assert msgspec.json.encode(found["m-T1"])
