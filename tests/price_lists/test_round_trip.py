"""A price list leaves and comes back: nothing is changed by that, whatever its products are called."""

import asyncio
import tempfile
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.base.clock import now
from appliance.base.errors import Invalid
from appliance.price_lists import Asked, List, read_list, write
from connectors.sdk.contract import Rows
from connectors.systems.price_list import CONNECTOR
from tests.intake.test_intake import LIST, desk  # noqa: F401 - the fixture
from tests.tenants import create, update

pytestmark = pytest.mark.anyio
NAMES = (
    "=SUM(A1:A9) bolt", "+380 connector", "-40 °C grease", "@home lamp", "'quoted' nut", "'=apostrophe",
    'Pipe 1/2" "steel"', "Кабель ВВГ 3х2,5; 100 м", "00123", "Name  with   blanks",
)  # fmt: skip


async def content_of(chunks):
    return b"".join([c async for c in chunks])


async def leave(desk, form, locale="en", **asked):  # noqa: F811
    ctx = msgspec.structs.replace(await desk.firm.ctx(), locale=locale)
    found = await read_list(desk.db, ctx, Asked(at=now(), **asked))
    return await content_of(write(found, form))


async def stock_up(desk):  # noqa: F811
    """Products with hard names and prices in two types, one by number only, one in euros."""
    await desk.approve(await desk.bring(LIST))
    types = dict(
        await desk.firm.sql(
            "SELECT data->>'key', id::text FROM record WHERE kind = 'price_type' AND deleted_at IS NULL"
        )
    )
    for n, name in enumerate(NAMES):
        fields = {"name": name, "category": "Разное"}
        if n % 3:
            fields |= {"sku": f"00{n}", "barcode": f"4006381333{n:03d}"}
        made = (await desk.firm.apply(create("product", **fields))).outcomes[0].id
        prices = [("retail", f"{n + 1}.125"), ("wholesale", f"{n}.000001")]
        for key, price in prices:
            entry = {"product": str(made), "price_type": types[key], "price": price}
            await desk.firm.apply(create("price", **entry, currency="EUR" if n == 4 else "UAH"))
        # Other prices of the product are not of a general list.
        await desk.firm.apply(
            create("price", product=str(made), price_type=types["retail"], price="1",
                   minimum_quantity="10", currency="UAH")
        )  # fmt: skip


@pytest.mark.parametrize(
    ("form", "locale"), [("xlsx", "en"), ("csv", "ru"), ("csv", "uk"), ("xlsx", "ru")]
)
async def test_it_comes_back_unchanged(desk, form, locale):  # noqa: F811
    await stock_up(desk)
    content = await leave(desk, form, locale)
    back = await desk.bring(content, source="Somebody with a spreadsheet")
    counts = {
        s: back.counts.get(s, 0) for s in ("new", "changed", "suspicious", "faulty", "unchanged")
    }
    listed = [
        (r.data, r.changes, r.faults) for r in await desk.rows(back, None) if r.sort != "unchanged"
    ]
    assert listed == [] and counts["unchanged"] == len(NAMES) + 3, (counts, listed)


async def test_an_edit_is_the_only_difference(desk):  # noqa: F811
    await stock_up(desk)
    content = (await leave(desk, "csv")).replace(b";7.1250;", b";7.5;")
    back = await desk.bring(content, source="Somebody")
    (changed,) = await desk.rows(back, "changed")
    assert [(c["field"], c["from"], c["to"]) for c in changed.changes] == [
        ("price:retail", "7.125000", "7.5")
    ]
    done = await desk.approve(back)
    assert done.counts["applied"] == 1


async def test_by_type_branch_and_date(desk):  # noqa: F811
    await desk.approve(await desk.bring(LIST))
    retail, product = [
        (await desk.firm.sql(f"SELECT id::text FROM record WHERE {where}"))[0][0]
        for where in ("data->>'key' = 'retail' AND kind = 'price_type'", "data->>'sku' = 'A1'")
    ]
    ahead = now() + timedelta(days=2)
    north = desk.firm.units["north"]
    entry = {"product": product, "price_type": retail, "currency": "UAH"}
    await desk.firm.apply(create("price", **entry, price="99", unit_scope=str(north)))
    await desk.firm.apply(create("price", **entry, price="77", valid_from=ahead.isoformat()))
    await desk.firm.apply(update("product", product, name="Болт, новое имя"))

    async def row(**asked):
        found = await read_list(desk.db, await desk.firm.ctx(), Asked(**{"at": now(), **asked}))
        rows = [r async for block in found.blocks for r in block]
        return found.header[8:], next(r for r in rows if r[1] == "A1")[8:]

    header, prices = await row(types=("retail",))
    assert header == ["Price: Роздріб / Retail [retail], UAH"] and prices == [Decimal("12.5")]
    assert (await row(types=("retail",), unit=north))[1] == [Decimal(99)]
    assert (await row(types=("retail",), at=ahead + timedelta(hours=1)))[1] == [Decimal(77)]
    assert len((await row())[1]) == 3, "purchase prices are a column too"
    with pytest.raises(Invalid, match="no price type 'dearest'; known: retail"):
        await row(types=("dearest",))


TEXTS = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x52F, exclude_characters="\x7f"), min_size=3, max_size=40
).map(lambda t: " ".join(t.split())).filter(lambda t: any(c.isalpha() for c in t))  # fmt: skip
PRICES = st.decimals("0.000001", "99999999", places=6)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(TEXTS, PRICES), min_size=4, max_size=12), st.sampled_from(["csv", "xlsx"])
)
def test_texts_and_amounts_come_back_as_they_left(items, form):
    async def body():
        async def blocks():
            yield [
                [f"PRD-{n:06}", f"A{n:04}", name, price] for n, (name, price) in enumerate(items)
            ]

        header = ["Nexus number", "SKU", "Name", "Price: Retail [vip-1], EUR"]
        return await content_of(write(List(header, blocks()), form))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"list.{form}"
        path.write_bytes(asyncio.run(body()))
        source = CONNECTOR.open(path)
        frames = source.read(source.inspect({}).proposal)
        rows = {r.values["number"]: r for f in frames if isinstance(f, Rows) for r in f.rows}
    for n, (name, price) in enumerate(items):
        if name.lower().startswith(("итого", "всего", "total", "разом", "всього")):
            continue
        row = rows[f"PRD-{n:06}"]
        assert row.values["name"] == name and not row.faults
        assert Decimal(row.values["price:vip-1"]) == price
        assert row.values["currency:vip-1"] == "EUR"
