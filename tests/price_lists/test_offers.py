"""A price list as CommerceML offers: valid, exact, by type, branch, date and the reader's rights."""

import asyncio
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from appliance.base.clock import now
from appliance.base.errors import Invalid, Refused
from appliance.base.ids import uuid7
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Schema
from appliance.kernel.profile import Profile, Scope, ScopeKind
from appliance.price_lists import Asked, export_list
from appliance.price_lists.commerceml import write_offers
from appliance.price_lists.offers import Measure, Offer, Offers
from appliance.price_lists.rows import PriceType
from tests.intake.test_intake import LIST, desk  # noqa: F401 - the fixture
from tests.tenants import create, everything

pytestmark = pytest.mark.anyio
SCHEMA = etree.XMLSchema(etree.parse(Path(__file__).with_name("offers.xsd")))
SPACE = {"c": "urn:1C.ru:commerceml_2"}


async def leave(desk, ctx=None, system="", **asked):  # noqa: F811
    chunks = await export_list(
        desk.db, ctx or await desk.firm.ctx(), Asked(**{"at": now(), **asked}), "xml", system=system
    )
    tree = etree.fromstring(await gather(chunks))
    SCHEMA.assertValid(tree)
    return tree


def offers(tree):
    return {text(o, "Артикул") or text(o, "Ид"): o for o in found(tree, "Предложение")}


def found(element, name):
    return element.findall(f".//c:{name}", SPACE)


def text(element, name):
    return element.findtext(f"c:{name}", namespaces=SPACE)


def amounts(offer):
    return [(text(p, "ЦенаЗаЕдиницу"), text(p, "Валюта")) for p in found(offer, "Цена")]


async def ids(desk, kind, field):  # noqa: F811
    rows = await desk.firm.sql(
        f"SELECT data->>'{field}', id::text FROM record WHERE kind = '{kind}' AND deleted_at IS NULL"
    )
    return dict(rows)


async def test_offers_are_valid_and_exact(desk):  # noqa: F811
    await desk.approve(await desk.bring(LIST))
    types = await ids(desk, "price_type", "key")
    hard = {
        "name": "Труба <1/2\"> & 'сталь'", "sku": "T&1", "barcode": "4006381333931", "measure": "pcs",
    }  # fmt: skip
    made = (await desk.firm.apply(create("product", **hard))).outcomes[0].id
    entry = {"product": str(made), "price_type": types["retail"]}
    await desk.firm.apply(create("price", **entry, price="0.000125", currency="EUR"))
    await desk.firm.apply(create("product", name="Without a price", sku="N1"))
    tree = await leave(desk)
    listed = offers(tree)
    assert set(listed) == {"A1", "A2", "A3", "T&1"}
    assert amounts(listed["A1"]) == [("12.50", "UAH"), ("11.00", "UAH")]
    assert amounts(listed["T&1"]) == [("0.000125", "EUR")]
    assert text(listed["T&1"], "Ид") == str(made)
    assert text(listed["T&1"], "Штрихкод") == "4006381333931"
    assert text(listed["T&1"], "Наименование") == hard["name"]
    (unit,) = found(listed["T&1"], "БазоваяЕдиница")
    assert (unit.get("Код"), unit.text) == ("796", "шт")
    heads = [(text(t, "Ид"), text(t, "Валюта")) for t in found(tree, "ТипЦены")]
    assert heads[0] == (types["retail"], "UAH")
    assert text(found(listed["A1"], "Цена")[0], "Представление") == "12.50 UAH за шт"


@settings(max_examples=80, deadline=None)
@given(
    st.text(min_size=1, max_size=300), st.text(max_size=300), st.text(max_size=20),
    st.decimals("0.000001", "99999999", places=6),
)  # fmt: skip
def test_any_text_and_amount_is_a_valid_file(name, sku, unit, price):
    """Also what XML cannot hold, and what is longer than the format allows."""

    async def blocks():
        yield [
            Offer(id=name, name=f"1{name}", sku=sku and f"1{sku}", barcode=sku, measure=Measure(unit, sku),
                  prices=((price, ""),), stock=None)
        ]  # fmt: skip

    ctx = Ctx(
        tenant=uuid7(), origin=1, actor=uuid7(), profile=Profile(id="", key=""), schema=Schema(1, {}),
        request_id=uuid7(), at=now(),
    )  # fmt: skip
    types = [PriceType(str(uuid7()), "retail", "Retail", "UAH", tax_included=True)]
    written = asyncio.run(gather(write_offers(ctx, Asked(at=now()), Offers(types, [], blocks()))))
    tree = etree.fromstring(written)
    (offer,) = found(tree, "Предложение")
    if text(offer, "Ид"):
        SCHEMA.assertValid(tree)
    assert Decimal(amounts(offer)[0][0]) == price
    kept = "".join(c for c in name if c in "\t\n" or c >= " " and c not in "\ufffe\uffff")
    if "\r" not in name and len(kept) < 250:
        assert text(offer, "Наименование") == f"1{kept}"


async def gather(chunks):
    return b"".join([c async for c in chunks])


async def test_by_type_branch_date_and_system(desk):  # noqa: F811
    await desk.approve(await desk.bring(LIST))
    types, products = await ids(desk, "price_type", "key"), await ids(desk, "product", "sku")
    north, ahead = desk.firm.units["north"], now() + timedelta(days=2)
    entry = {"product": products["A1"], "price_type": types["retail"], "currency": "UAH"}
    await desk.firm.apply(create("price", **entry, price="99", unit_scope=str(north)))
    await desk.firm.apply(create("price", **entry, price="77", valid_from=ahead.isoformat()))
    await desk.firm.apply(
        create("external_ref", system="1c", local_kind="product", external_id="guid-of-1c",
               record=products["A1"])
    )  # fmt: skip
    only = {"types": ("retail",)}
    assert amounts(offers(await leave(desk, **only))["A1"]) == [("12.50", "UAH")]
    assert amounts(offers(await leave(desk, **only, unit=north))["A1"]) == [("99.00", "UAH")]
    later = await leave(desk, **only, at=ahead + timedelta(hours=1))
    assert amounts(offers(later)["A1"]) == [("77.00", "UAH")]
    theirs = offers(await leave(desk, system="1c"))
    assert text(theirs["A1"], "Ид") == "guid-of-1c" and text(theirs["A2"], "Ид") == products["A2"]
    with pytest.raises(Invalid, match="no price type 'dearest'"):
        await leave(desk, types=("dearest",))


async def test_nothing_to_offer_is_refused(desk):  # noqa: F811
    with pytest.raises(Refused, match="No product has a price"):
        await leave(desk)


async def test_stock_is_what_can_be_sold_as_far_as_the_reader_may_see(desk):  # noqa: F811
    await desk.approve(await desk.bring(LIST))
    products = await ids(desk, "product", "sku")
    north, south = (str(desk.firm.units[u]) for u in ("north", "south"))
    places = {
        unit: str(
            (await desk.firm.apply(create("warehouse", name=name, branch=unit))).outcomes[0].id
        )
        for unit, name in ((north, "North store"), (south, "South store"))
    }
    for unit, quantity in ((north, "10.500"), (south, "4")):
        move = {"product": products["A1"], "warehouse": places[unit], "quantity": quantity}
        await desk.firm.apply(create("stock_move", **move, reason="receipt"))
    held = {"product": products["A1"], "warehouse": places[north], "quantity": "2"}
    await desk.firm.apply(create("reservation", **held))

    def stock(tree, sku):
        offer = offers(tree)[sku]
        held = {s.get("ИдСклада"): s.get("КоличествоНаСкладе") for s in found(offer, "Склад")}
        return text(offer, "Количество"), {p: n for p, n in held.items() if Decimal(n)}

    tree = await leave(desk)
    assert stock(tree, "A1") == ("12.5", {places[north]: "8.5", places[south]: "4"})
    assert stock(tree, "A2") == ("0", {})
    assert stock(await leave(desk, unit=desk.firm.units["south"]), "A1") == (
        "4",
        {places[south]: "4"},
    )

    ctx = await desk.firm.ctx()
    whole = everything(ctx.schema)
    moves = whole.grants["stock_move"]
    actions = {**moves.actions, "export": Scope(ScopeKind.NONE)}
    grants = {**whole.grants, "stock_move": msgspec.structs.replace(moves, actions=actions)}
    ctx = msgspec.structs.replace(ctx, profile=msgspec.structs.replace(whole, grants=grants))
    bare = await leave(desk, ctx)
    assert stock(bare, "A1") == (None, {}) and not found(bare, "Склады")
