"""Goods of another system on a real tenant: what a package brings, again, changed, gone, undone."""

from uuid import UUID

import pytest

from appliance.intake import runs
from appliance.base.clock import now
from appliance.price_lists import Asked, export_list
from connectors.sdk.contract import Fault, Mapping, Rows
from connectors.systems.commerceml.connector import CommerceMLPackage
from tests.intake.staged import Staged, bring, row, sorts, speaking
from tests.intake.test_intake import desk  # noqa: F401 - the fixture
from tests.tenants import create, delete

pytestmark = pytest.mark.anyio
FULL = {"catalogue_full": "yes", "offers_full": "yes", "made_at": "2026-11-20T10:00:00"}
SETTINGS = {"unit:бухта": "m"}


@pytest.fixture
def shop(desk, tmp_path, monkeypatch):  # noqa: F811
    """Brings packages as one source."""
    speaking("goods", tmp_path, monkeypatch)

    async def bring_rows(rows, facts=FULL, constants=SETTINGS, **more):
        staged = Staged(rows, facts, constants)
        return await bring(desk, monkeypatch, staged, source="1C", **more)

    return bring_rows


def package(count=3, price="10.00", stock="5"):
    rows = [
        row("category", "c2", name="Болти", parent_id="c1"),
        row("category", "c1", name="Кріплення"),
        row("unit", "u1", name="шт", code="796"),
        row("price_type", "t1", name="Роздріб 1С", currency="грн"),
        row("warehouse", "w1", name="Склад 1С"),
        row("counterparty", "k1", name="ТОВ Ромашка", tax_id="30000009", is_person=False),
    ]
    for n in range(count):
        rows += [
            row("product", f"p{n}", name=f"Болт {n}", sku=f"B{n}", unit="шт", unit_code="796 ",
                category_id="c2", tax="20%", weight="0.0125", brand="Метиз"),
            row("price", f"p{n}|t1", product_id=f"p{n}", price_type_id="t1", amount=price),
            row("stock", f"p{n}|w1", product_id=f"p{n}", warehouse_id="w1", quantity=stock),
        ]  # fmt: skip
    rows += [
        row("variant", "p0#v1", product_id="p0", properties='{"Колір":"синій"}'),
        row("price", "p0#v1|t1", product_id="p0", variant_id="p0#v1", price_type_id="t1",
            amount="11.5"),
        row("order", "o1", counterparty_id="k1", currency="UAH"),
        row("order_line", "o1/1", order_id="o1", product_id="p0", quantity="2", price="10.00"),
    ]  # fmt: skip
    return rows


async def products(desk, *fields):  # noqa: F811
    listed = ", ".join(f"data->>'{f}'" for f in fields)
    return await desk.firm.sql(
        f"SELECT {listed} FROM record WHERE kind = 'product' AND deleted_at IS NULL ORDER BY t1"
    )


async def balances(desk):  # noqa: F811
    found = await desk.firm.sql(
        "SELECT p.data->>'sku', sum((e.data->>'quantity')::numeric)::text FROM entry e JOIN record p "
        "ON p.id = (e.data->>'product')::uuid WHERE e.kind = 'stock_move' GROUP BY 1"
    )
    return {sku: float(n) for sku, n in found}


async def test_a_package_is_planned_applied_known_again_and_taken_back(shop, desk):  # noqa: F811
    first = await shop(package())
    assert sorts(first) == {"new": 18, "unchanged": 1}, [
        r.faults for r in await desk.rows(first, "faulty")
    ]
    assert first.held_by == [] and first.told.entities["product"] == 3
    done = await desk.approve(first)
    assert (done.counts["applied"], done.counts["refused"]) == (18, 0), [
        r.faults for r in await desk.rows(done, "faulty")
    ]
    assert await products(desk, "sku", "name", "measure", "weight") == [
        ["B0", "Болт 0", "pcs", "0.013"], ["B1", "Болт 1", "pcs", "0.013"],
        ["B2", "Болт 2", "pcs", "0.013"],
    ]  # fmt: skip
    tree = await desk.firm.sql(
        "SELECT c.data->>'name', p.data->>'name' FROM record c LEFT JOIN record p "
        "ON p.id = (c.data->>'parent')::uuid WHERE c.kind = 'product_category' ORDER BY 1"
    )
    assert tree == [["Болти", "Кріплення"], ["Кріплення", None]]
    assert await balances(desk) == {"B0": 5, "B1": 5, "B2": 5}
    prices = await desk.firm.sql(
        "SELECT p.data->>'sku', v.data->>'name', e.data->>'price', e.data->>'currency' FROM entry e "
        "JOIN record p ON p.id = (e.data->>'product')::uuid LEFT JOIN record v "
        "ON v.id = (e.data->>'variant')::uuid WHERE e.kind = 'price' ORDER BY 1, 2 NULLS FIRST"
    )
    assert prices == [
        ["B0", None, "10.000000", "UAH"], ["B0", "синій", "11.500000", "UAH"],
        ["B1", None, "10.000000", "UAH"], ["B2", None, "10.000000", "UAH"],
    ]  # fmt: skip
    lines = await desk.firm.sql("SELECT data->>'net' FROM record WHERE kind = 'order_line'")
    assert lines == [["20.00"]]
    again = await shop(package())
    assert sorts(again) == {"unchanged": 19}, [
        (r.key, r.changes) for r in await desk.rows(again, "changed")
    ]
    assert again.held_by == []
    nothing = await desk.approve(again)
    assert nothing.change_sets == [] and nothing.counts["applied"] == 0
    back = await desk.revert(done)
    assert (back.state, back.detail) == ("reverted", "")
    assert await products(desk, "sku") == [] and set((await balances(desk)).values()) <= {0.0}


async def test_changes_only_touches_its_rows_and_blanks_nothing(shop, desk):  # noqa: F811
    await desk.approve(await shop(package()))
    changes = [
        row("product", "p1"), row("price", "p1|t1", product_id="p1", price_type_id="t1", amount="12"),
        row("stock", "p1|w1", product_id="p1", warehouse_id="w1", quantity="3"),
        row("product", "p2", is_deleted=True),
    ]  # fmt: skip
    made = await shop(changes, {"made_at": "2026-11-21T10:00:00"})
    assert sorts(made) == {"changed": 3, "unchanged": 1} and not made.held_by
    await desk.approve(made)
    assert await products(desk, "name", "archived") == [
        ["Болт 0", "false"], ["Болт 1", "false"], ["Болт 2", "true"],
    ]  # fmt: skip
    assert (await balances(desk))["B1"] == 3
    assert ("B1", "1C:t1") in await desk.prices()
    assert (await desk.prices())[("B1", "1C:t1")] == "12.000000"


async def test_what_was_sold_since_the_plan_stays_sold(shop, desk):  # noqa: F811
    await desk.approve(await shop(package()))
    made = await shop([row("stock", "x", product_id="p0", warehouse_id="w1", quantity="9")], {})
    ((product, warehouse),) = await desk.firm.sql(
        "SELECT data->>'product', data->>'warehouse' FROM entry e WHERE kind = 'stock_move' "
        "AND data->>'product' = (SELECT id::text FROM record WHERE data->>'sku' = 'B0')"
    )
    sold = create(
        "stock_move", product=product, warehouse=warehouse, quantity="-2", reason="shipment"
    )
    assert (await desk.firm.apply(sold)).committed
    await desk.approve(made)
    assert (await balances(desk))["B0"] == 7


async def test_a_full_package_archives_what_is_gone_and_stops_at_ten_percent(shop, desk):  # noqa: F811
    await desk.approve(await shop(package(20)))
    one = [r for r in package(20) if not r.key.startswith("p19")]
    made = await shop(one)
    assert sorts(made)["gone"] == 2 and made.held_by == [], "the product and its stock"
    two = [r for r in package(20) if not r.key.startswith(("p19", "p18"))]
    held = await shop(two)
    assert held.held_by == [
        "mass-removal: 2 of 20 products, 10 % (limit 10 %)",
        "mass-removal: 2 of 20 positions of stock, 10 % (limit 10 %)",
    ]
    told = await shop(two, options=runs.Options(gone_share_max=20))
    assert told.held_by == [] and sorts(told)["gone"] == 4
    await desk.approve(made)
    archived = [s for s, a in await products(desk, "sku", "archived") if a == "true"]
    assert archived == ["B19"]
    back = await shop(package(20))
    assert sorts(back) == {"changed": 1, "new": 1, "unchanged": sorts(back)["unchanged"]}
    prices = [r for r in package(20) if r.entity == "price" and not r.key.startswith("p1")]
    assert "gone" not in sorts(await shop(prices)), "prices alone are no catalogue"


async def test_full_rests_say_nothing_of_a_warehouse_by_its_absence(shop, desk):  # noqa: F811
    """That is: nothing is there. Of changes only, nothing is known."""
    rows = [row("warehouse", f"w{n}", name=f"Склад {n}") for n in range(2)]
    rows += [row("product", f"p{n}", name=f"Болт {n}", sku=f"B{n:02}") for n in range(12)]
    rows.append(row("variant", "p1#v", product_id="p1", name="синій"))

    def rests(products, *more):
        at = [(f"p{n}", w) for n in products for w in ("w0", "w1")]
        return [
            row("stock", f"{p}|{w}", product_id=p, warehouse_id=w, quantity="5")
            for p, w in at if (p, w) not in more
        ]  # fmt: skip

    variant = row(
        "stock", "p1#v|w0", product_id="p1", variant_id="p1#v", warehouse_id="w0", quantity="1"
    )
    await desk.approve(await shop([*rows, *rests(range(12)), variant]))
    less = rests(range(12), ("p0", "w1"))
    assert sorts(await shop([*less, variant], {})) == {"unchanged": 24}
    broken = row("stock", "p2|?", product_id="p2", warehouse_id="w1", faults=[Fault("x", "y")])
    made = await shop([r for r in [*less, broken] if r.key != "p2|w1"])
    gone = [(r.key, r.changes) for r in await desk.rows(made, "gone")]
    assert made.held_by == [] and gone == [
        ("p0|w1", [{"field": "quantity", "from": "5.000", "to": "0"}]),
        ("p1#v|w0", [{"field": "quantity", "from": "1.000", "to": "0"}]),
    ]
    held = await shop([*rests(range(11)), variant])
    assert held.held_by == []
    held = await shop(rests(range(11)))
    assert held.held_by == ["mass-removal: 3 of 25 positions of stock, 12 % (limit 10 %)"]
    done = await desk.approve(made)
    assert (done.counts["applied"], done.counts["refused"]) == (2, 0)
    assert (await balances(desk))["B00"] == 5 and (await balances(desk))["B01"] == 10
    assert "gone" not in sorts(await shop([*less, broken]))
    await desk.revert(done)
    assert (await balances(desk))["B00"] == 10


async def test_an_older_package_waits(shop, desk):  # noqa: F811
    await desk.approve(await shop(package()))
    older = await shop(package(), {**FULL, "made_at": "2026-11-19T10:00:00"})
    assert older.held_by[0].startswith("older-than-applied")
    other = await shop(package(1), {**FULL, "catalogue_id": "another"})
    assert sorts(other).get("gone") == 4, "two products and their stock"


async def test_what_is_not_mapped_waits_is_counted_and_comes_with_one_setting(shop, desk):  # noqa: F811
    rows = [
        row("product", "a", name="А", unit="бухта 100м"), row("product", "b", name="Б", unit="бухта 100м"),
        row("price", "a1", product_id="a", price_type_id="t1", amount="1"),
        row("price", "z1", product_id="zz", price_type_id="t1", amount="1"),
        row("product", "c", name="В", tax="Без ПДВ"), row("product", "d"),
    ]  # fmt: skip
    made = await shop(rows)
    assert sorts(made) == {"faulty": 6}
    waits = {(u.what, u.value): u.rows for u in made.told.unmapped}
    assert waits == {
        ("unit", "бухта 100м"): 2, ("price_type", "t1"): 2, ("product", "zz"): 1,
        ("product", "a"): 1, ("tax", "Без ПДВ"): 1, ("product", "d"): 1,
    }  # fmt: skip
    told = {"unit:бухта 100м": "m", "price_type:t1": "retail", "tax:Без ПДВ": "-"}
    mapped = await shop(rows, constants=told)
    assert sorts(mapped) == {"new": 4, "faulty": 2}
    done = await desk.approve(mapped)
    assert done.counts["refused"] == 0
    replayed = await shop(rows, constants={})
    assert sorts(replayed) == {"unchanged": 4, "faulty": 2}, "what was confirmed is kept"


async def test_a_number_that_is_taken_waits_for_a_rule(shop, desk):  # noqa: F811
    await desk.firm.apply(create("product", name="Свій болт", sku="B0"))
    rows = [row("product", "p0", name="Болт 0", sku="B0")]
    made = await shop(rows)
    (faulty,) = await desk.rows(made, "faulty")
    assert faulty.faults[0]["code"] == "sku-taken"
    linked = await shop(rows, constants={"link_by": "sku"})
    assert sorts(linked) == {"changed": 1}
    await desk.approve(linked)
    assert await products(desk, "name") == [["Болт 0"]]
    assert sorts(await shop(rows)) == {"unchanged": 1}


async def test_an_article_that_the_source_repeats_stays_with_the_first(shop, desk):  # noqa: F811
    rows = [row("price_type", "net", name="Нетто", currency="UAH", tax_included=False)]
    for n in range(3):
        rows += [row("product", f"p{n}", name=f"Болт {n}", sku="SAME"),
                 row("variant", f"p{n}#v", product_id=f"p{n}", name="синій", sku="SAME")]  # fmt: skip
    made = await shop(rows)
    assert sorts(made) == {"new": 7}
    assert [(w.code, w.found) for w in made.told.warnings] == [("number-repeated", "4 rows")]
    done = await desk.approve(made)
    assert done.counts["refused"] == 0
    assert sorted(await products(desk, "name", "sku")) == [
        ["Болт 0", "SAME"], ["Болт 1", None], ["Болт 2", None],
    ]  # fmt: skip
    assert sorts(await shop(rows)) == {"unchanged": 7}


async def test_several_barcodes_come_in_move_and_leave(shop, desk):  # noqa: F811
    ean = ["4006381333931", "4006381333948", "4006381333955", "4006381333962"]
    await desk.firm.apply(create("product", name="Свій"))
    ((own,),) = await desk.firm.sql("SELECT id::text FROM record WHERE kind = 'product'")
    await desk.firm.apply(create("barcode", code="OWN-0001", product=own))
    rows = [
        row("price_type", "t", name="Т", currency="UAH"),
        row("product", "a", name="А", barcode=ean[0], barcodes="\n".join([*ean[:3], "OWN-0001", "?!"])),
        row("product", "b", name="Б", barcode=ean[3], barcodes=f"{ean[3]}\n{ean[2]}"),
        row("variant", "a#v", product_id="a", name="с", barcodes="VAR-1\nVAR-2"),
        row("price", "a|t", product_id="a", price_type_id="t", amount="1"),
    ]  # fmt: skip

    async def codes():
        found = await desk.firm.sql(
            "SELECT c.data->>'code', p.data->>'name', v.data->>'name' FROM record c "
            "JOIN record p ON p.id = (c.data->>'product')::uuid "
            "LEFT JOIN record v ON v.id = (c.data->>'variant')::uuid WHERE c.kind = 'barcode'"
        )
        return {code: who for code, *who in found}

    made = await shop(rows)
    assert [(w.code, w.found) for w in made.told.warnings] == [("number-repeated", "3 rows")]
    done = await desk.approve(made)
    assert done.counts["refused"] == 0, [r.faults for r in await desk.rows(done, "faulty")]
    here = {
        ean[1]: ["А", None],
        ean[2]: ["А", None],
        "OWN-0001": ["Свій", None],
        "VAR-2": ["А", "с"],
    }
    assert await codes() == here
    assert sorts(await shop(rows)) == {"unchanged": 5}
    chunks = await export_list(desk.db, await desk.firm.ctx(), Asked(at=now()), "xml", system="1C")
    path = desk.folder / "offers.xml"
    path.write_bytes(b"".join([c async for c in chunks]))
    frames = list(CommerceMLPackage(path).read(Mapping()))
    offers = [r.values for f in frames if isinstance(f, Rows) for r in f.rows if r.key == "a"]
    assert offers[0]["barcodes"].split("\n") == ean[:3]
    rows[2] = row("product", "b", name="Б", barcode=ean[3], barcodes=f"{ean[3]}\n{ean[2]}")
    moved = await shop([rows[2]], {})
    assert sorts(moved) == {"changed": 1}
    await desk.approve(moved)
    assert await codes() == here | {ean[2]: ["Б", None]}


async def test_ids_that_stand_twice(shop, desk):  # noqa: F811
    again = [Fault("duplicate-id", "one for an id, or the same twice", "x")]
    rows = [
        row("product", "p", "a.xml", name="Один", sku="S1"), row("product", "p", "b.xml", barcode="4006381333931"),
        row("product", "q", "a.xml", name="Так", sku="S2"), row("product", "q", "a.xml", name="Інакше", sku="S2"),
        row("category", "x", name="X", parent_id="y"), row("category", "y", name="Y", parent_id="x"),
        row("price_type", "t", name="Т", currency="UAH"), row("price_type", "u", name="У", currency="UAH"),
        row("price", "p|t", product_id="p", price_type_id="t", amount="1"),
        row("price", "p|u", product_id="p", price_type_id="u", amount="1"),
        row("price", "p|t", product_id="p", price_type_id="t", amount="2", faults=again),
        row("stock", "p|w", product_id="p", warehouse_id="w", quantity="1"),
        row("warehouse", "w", name="W"), row("counterparty", "k", name="К"),
        row("order", "o", counterparty_id="k"), row("order_line", "o|1", order_id="o", name="А", quantity="1", price="1"),
        row("order", "o", counterparty_id="k", currency="EUR", faults=again),
        row("order_line", "o|2", order_id="o", name="Б", quantity="1", price="1"),
    ]  # fmt: skip
    made = await shop(rows)
    faulty = {(r.key, r.faults[0]["code"]) for r in await desk.rows(made, "faulty")}
    assert faulty == {
        ("q", "duplicate-key"), ("p|t", "duplicate-id"), ("p|u", "duplicate-id"),
        ("o", "duplicate-id"), ("o|1", "duplicate-id"), ("o|2", "duplicate-id"),
    }  # fmt: skip
    assert sorts(made) == {"new": 8, "changed": 1, "faulty": 9}
    assert {f.code for f in made.told.warnings} == {"loop"}
    done = await desk.approve(made)
    assert done.counts["refused"] == 0
    assert await products(desk, "sku", "barcode") == [["S1", "4006381333931"]]
    both = [row("product", "p", name="Один"), row("product", "p", name="Два", faults=again)]
    made = await shop(both, {**FULL, "made_at": "2026-11-22T10:00:00"})
    assert "gone" not in sorts(made), "what is at fault is there"


async def test_an_order_comes_back_with_what_accounting_says_of_it(shop, desk):  # noqa: F811
    await desk.approve(await shop([row("product", "p1", name="Болт", sku="B1")]))
    ((product,),) = await desk.firm.sql("SELECT id::text FROM record WHERE kind = 'product'")

    async def make(kind, **fields):
        return str((await desk.firm.apply(create(kind, **fields))).outcomes[0].id)

    async def said(kind, *names):
        listed = ", ".join(f"data->>'{n}'" for n in names)
        return await desk.firm.sql(f"SELECT {listed} FROM record WHERE kind = '{kind}' "
                                   "AND deleted_at IS NULL ORDER BY id")  # fmt: skip

    customer = await make("customer", name="Ромашка")
    order = await make("order", customer=customer, currency="UAH")
    for product_id, text in ((product, "Болт"), (product, "Ще болт"), (None, "Доставка")):
        more = {"product": product_id} if product_id else {}
        await make("order_line", order=order, text=text, quantity="2", unit_price="5.00", **more)

    def back(status="Новый", **more):
        rows = [
            row("counterparty", customer, name="Ромашка", full_name="Ромашка"),
            row("order", order, counterparty_id=customer, currency="UAH", operation="Заказ товара",
                status=status, external_number="ЗК-7", external_date="2026-11-21", is_posted=True,
                **more),
            row("order_line", f"{order}|p1|1", order_id=order, product_id="p1", name="Болт", quantity="2", price="5.00"),
            row("order_line", f"{order}|p1|2", order_id=order, product_id="p1", name="Ще болт", quantity="3", price="5.00"),
            row("order_line", f"{order}|Доставка|1", order_id=order, name="Доставка", quantity="2", price="5.00"),
            row("payment", "pay1", order_id=order, counterparty_id=customer, amount="10.00", currency="UAH",
                date="2026-11-22", number="15", method="card"),
            row("payment", "pay0", order_id=order, amount="1.00", is_deleted=True),
            row("order", "bill", parent_id=order, operation="Счет на оплату"),
            row("order_line", "bill|p1|1", order_id="bill", product_id="p1", quantity="2"),
        ]  # fmt: skip
        return rows

    made = await shop(back(is_paid=True, paid_date="2026-11-22"))
    assert sorts(made) == {"changed": 4, "new": 1, "unchanged": 4}, [
        (r.key, r.faults) for r in await desk.rows(made, "faulty")
    ]
    assert [(w.code, w.found) for w in made.told.warnings] == [("document-not-kept", "1 rows")]
    done = await desk.approve(made)
    assert done.counts["refused"] == 0, [r.faults for r in await desk.rows(done, "faulty")]
    assert await said("order", "state", "external_number", "external_posted", "paid", "paid_date") == [
        ["new", "ЗК-7", "true", "true", "2026-11-22"],
    ]  # fmt: skip
    lines = await said("order_line", "text", "quantity")
    assert lines == [["Болт", "2.000"], ["Ще болт", "3.000"], ["Доставка", "2.000"]]
    paid = await said("payment", "amount", "paid_at", "reference", "type", "order", "customer")
    assert paid == [["10.00", "2026-11-22", "15", "card", order, customer]]
    assert set(sorts(await shop(back(is_paid=True)))) == {"unchanged"}
    shipped = await desk.approve(await shop(back("Отгружен", shipped_date="2026-11-23")))
    assert shipped.counts["refused"] == 0
    for told in ("Новый", "Отменён"):
        made = await shop(back(told))
        assert made.told.warnings[1].code == "state-kept" and not made.held_by
        await desk.approve(made)
        assert await said("order", "state", "external_status") == [["shipped", told]]
    gone = await shop([r if r.key != "pay1" else row("payment", "pay1", order_id=order, amount="10.00", is_deleted=True)
                       for r in back()])  # fmt: skip
    assert [r.faults[0]["code"] for r in await desk.rows(gone, "faulty")] == ["payment-withdrawn"]
    none = await shop(back()[5:6], {}, constants={"payments": "-"})
    assert sorts(none) == {"unchanged": 1} and none.told.warnings[0].code == "document-not-kept"


async def test_a_record_that_was_deleted_is_not_made_again(shop, desk):  # noqa: F811
    await desk.approve(await shop([row("product", "p", name="Один")]))
    ((ident,),) = await desk.firm.sql("SELECT id::text FROM record WHERE kind = 'product'")
    await desk.firm.apply(delete("product", UUID(ident)))
    (faulty,) = await desk.rows(await shop([row("product", "p", name="Один")]), "faulty")
    assert faulty.faults[0]["code"] == "target-deleted"


async def test_a_line_names_a_variant_by_a_number_that_is_no_products(shop, desk):  # noqa: F811
    await desk.approve(
        await shop(
            [row("product", "p1", name="Футболка"), row("variant", "v9", product_id="p1", name="M")]
        )
    )
    order = [row("counterparty", "k", name="Ромашка"), row("order", "o", counterparty_id="k", currency="UAH"),
             row("order_line", "o|v9|1", order_id="o", product_id="v9", name="Футболка M", quantity="1", price="5.00")]  # fmt: skip
    made = await shop(order, facts={"full": "no"})
    done = await desk.approve(made)
    assert done.counts.get("faulty", 0) == 0 and done.counts["refused"] == 0, await desk.rows(
        done, "faulty"
    )
    ((product, variant),) = await desk.firm.sql(
        "SELECT (SELECT id::text FROM record WHERE kind = 'product'), (SELECT id::text FROM record WHERE kind = 'variant')"
    )
    told = await desk.firm.sql(
        "SELECT data->>'product', data->>'variant' FROM record WHERE kind = 'order_line'"
    )
    assert told == [[product, variant]]
    assert sorts(await shop(order, facts={"full": "no"})) == {"unchanged": 3}
