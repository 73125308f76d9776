"""An import from its file to its effect and back, on a real tenant with real rights."""

import csv
import importlib
import io
from uuid import UUID

import msgspec
import pytest

from appliance.access.acting import act_as
from appliance.base.errors import Clash, Refused
from appliance.intake import files, mappings, rows, runs, steps
from appliance.kernel.context import Door
from appliance.kernel.query import decode_query
from appliance.read import Cursors, run
from connectors.sdk import parent
from tests.access import world as worlds
from tests.access.conftest import world  # noqa: F401 - the fixture
from tests.install.test_template import install
from tests.tenants import create, delete, update

pytestmark = pytest.mark.anyio
CURSORS = Cursors(b"c" * 32)
HEADER = ["Артикул", "Наименование", "Бренд", "Цена розница, грн", "Цена опт, грн"]


def table(*lines, header=HEADER):
    text = io.StringIO()
    csv.writer(text, delimiter=";").writerows([header, *lines])
    return text.getvalue().encode("cp1251")


LIST = table(
    ["A1", "Болт М6 оцинкованный", "Метиз", "12,50", "11,00"],
    ["A2", "Болт М8 оцинкованный", "Метиз", "14,75", "13,20"],
    ["A3", "Гайка М6 оцинкованная", "Метиз", "3,10", "2,80"],
    ["A4", "Шайба М6", "Метиз", "по запросу", "0"],
)


class Desk:
    """Somebody who imports into a firm on the default template."""

    def __init__(self, firm, folder, ctx):
        self.firm, self.folder, self.ctx = firm, folder, ctx
        self.db = firm.db

    async def bring(self, content, source="Метиз-Опт", connector="price_list", **more):
        async def chunks():
            yield content

        received = await files.receive(self.folder, self.firm.id, chunks())
        new = runs.NewRun(
            connector=connector, source=source, file_name="list.csv", sha256=received.file,
            size=received.size, **more,
        )  # fmt: skip
        ident = runs.new_id()
        async with self.db.transaction(self.firm.id) as tx:
            await tx.run(runs.insert_call(self.ctx, ident, new))
        await steps.prepare(self.db, self.firm.id, ident, self.folder, 1, quiet)
        return await self.look(ident)

    async def look(self, ident):
        return await runs.get_run(self.db, self.firm.id, ident)

    async def approve(self, made, **more):
        await runs.move(self.db, self.firm.id, made.id, ["planned"], "applying")
        await steps.carry_out(
            self.db, self.firm.id, made.id, 1, quiet, suspicious=more.get("suspicious", False)
        )
        return await self.look(made.id)

    async def revert(self, made):
        await runs.move(self.db, self.firm.id, made.id, ["applied"], "reverting")
        await steps.take_back(self.db, self.firm.id, made.id, 1, quiet)
        return await self.look(made.id)

    async def prices(self):
        raw = {"from": "price", "select": ["product.sku", "price_type.key", "price", "currency"],
               "in_force": True, "limit": 500}  # fmt: skip
        page = await run(self.db, await self.firm.ctx(), decode_query(raw), CURSORS)
        found = [msgspec.json.decode(r) for r in page.rows]
        return {(r["product.sku"], r["price_type.key"]): r["price"] for r in found}

    async def rows(self, made, sort):
        return await rows.page(self.db, self.firm.id, made.id, sort=sort, after=-1, limit=500)


async def quiet(_done, _total):
    pass


@pytest.fixture
async def desk(db, dsns, tmp_path):
    firm = await install(db, dsns, "multi_branch_sales")
    (profile,) = await firm.sql(
        "SELECT id::text FROM record WHERE kind = 'sys.profile' AND data->>'key' = 'owner'"
    )
    ctx = await act_as(
        db, firm.id, firm.people["owner"], UUID(profile[0]), frozenset({firm.units["head"]}),
        origin=1, door=Door.INTAKE,
    )  # fmt: skip
    return Desk(firm, tmp_path, ctx)


async def test_a_list_is_planned_applied_recognised_and_taken_back(desk):
    before = await desk.prices()
    made = await desk.bring(LIST)
    assert made.state == "planned", made.detail
    assert {s: made.counts.get(s, 0) for s in ("new", "faulty")} == {"new": 3, "faulty": 1}
    assert await desk.prices() == before
    (faulty,) = await desk.rows(made, "faulty")
    assert (faulty.row, faulty.faults[0]["code"], faulty.faults[0]["place"]["column"]) == (
        5, "price-not-positive", "E",
    )  # fmt: skip
    done = await desk.approve(made)
    assert (done.state, done.counts["applied"], done.counts["refused"]) == ("applied", 3, 0)
    assert await desk.prices() == {
        ("A1", "retail"): "12.500000", ("A1", "wholesale"): "11.000000",
        ("A2", "retail"): "14.750000", ("A2", "wholesale"): "13.200000",
        ("A3", "retail"): "3.100000", ("A3", "wholesale"): "2.800000",
    }  # fmt: skip
    again = await desk.bring(LIST)
    assert again.counts.get("unchanged") == 3 and not again.counts.get("new")
    edited = table(
        ["A1", "Болт М6 оцинкованный", "Метиз", "12,50", "11,40"],
        ["A2", "Болт М8 оцинкованный", "Метиз", "147,50", "13,20"],
        ["A9", "Новинка каталога", "Метиз", "5,00", "4,00"],
    )
    second = await desk.bring(edited)
    counts = {
        s: second.counts.get(s, 0) for s in ("new", "changed", "unchanged", "gone", "suspicious")
    }
    assert counts == {"new": 1, "changed": 1, "unchanged": 0, "gone": 1, "suspicious": 1}
    assert any("gone" in h for h in second.held_by) and any(
        "suspicious" in h for h in second.held_by
    )
    (changed,) = await desk.rows(second, "changed")
    assert changed.changes == [
        {"field": "price:wholesale", "from": "11.000000", "to": "11.4", "currency": "UAH"}
    ]
    applied = await desk.approve(second, suspicious=True)
    now = await desk.prices()
    assert (now["A1", "wholesale"], now["A2", "retail"], now["A9", "retail"]) == (
        "11.400000", "147.500000", "5.000000",
    )  # fmt: skip
    back = await desk.revert(applied)
    assert (back.state, back.detail) == ("reverted", "")
    assert (await desk.prices()) == {k: v for k, v in (await desk.prices()).items() if k[0] != "A9"}
    assert (await desk.prices())["A1", "wholesale"] == "11.000000"
    assert (await desk.prices())["A2", "retail"] == "14.750000"


async def test_a_worker_that_died_goes_on_where_it_was(desk):
    lines = [
        [f"B{n:04}", f"Позиция прайса номер {n}", "X", f"{n + 1},50", f"{n + 1},00"]
        for n in range(4000)
    ]
    made = await desk.bring(table(*lines))
    bad = [(r.row, r.faults) for r in await desk.rows(made, "faulty")][:4]
    assert made.counts["new"] == 4000, (made.counts, bad)
    await runs.move(desk.db, desk.firm.id, made.id, ["planned"], "applying")

    class Killed(Exception):
        pass

    async def dies(done, _total):
        if done >= 1500:
            raise Killed

    with pytest.raises(Killed):
        await steps.carry_out(desk.db, desk.firm.id, made.id, 1, dies, suspicious=False)
    await steps.carry_out(desk.db, desk.firm.id, made.id, 1, quiet, suspicious=False)
    (count,) = await desk.firm.sql("SELECT count(*) FROM record WHERE kind = 'product'")
    (entries,) = await desk.firm.sql("SELECT count(*) FROM entry WHERE kind = 'price'")
    assert (count, entries) == (["4000"], ["8000"])
    done = await desk.look(made.id)
    assert (done.state, done.counts["applied"]) == ("applied", 4000)


async def test_what_somebody_changed_since_is_left_alone_by_a_revert(desk):
    done = await desk.approve(await desk.bring(LIST))
    renamed = table(["A1", "Болт М6 новый", "Метиз", "12,50", "11,00"])
    second = await desk.approve(await desk.bring(renamed, options=runs.Options(gone_share_max=100)))
    (found,) = await desk.firm.sql(
        "SELECT id::text FROM record WHERE kind = 'product' AND data->>'sku' = 'A1'"
    )
    from uuid import UUID

    await desk.firm.apply(update("product", UUID(found[0]), name="Болт, который знает склад"))
    back = await desk.revert(second)
    assert back.state == "reverted" and "left as they are" in back.detail
    (name,) = await desk.firm.sql("SELECT data->>'name' FROM record WHERE id = $1", UUID(found[0]))
    assert name == ["Болт, который знает склад"]
    assert done.state == "applied"


async def test_same_keys_and_foreign_products_are_faults(desk):
    twice = table(
        ["A1", "Один и тот же", "X", "1,00", "1,00"], ["A1", "Один и тот же", "X", "2,00", "1,00"],
        ["A2", "Дважды одинаково", "X", "3,00", "3,00"], ["A2", "Дважды одинаково", "X", "3,00", "3,00"],
    )  # fmt: skip
    made = await desk.bring(twice)
    assert {s: made.counts.get(s, 0) for s in ("new", "unchanged", "faulty")} == {
        "new": 1, "unchanged": 1, "faulty": 2,
    }  # fmt: skip
    assert {r.faults[0]["code"] for r in await desk.rows(made, "faulty")} == {"duplicate-key"}
    for n in range(2):
        await desk.firm.apply(create("product", name=f"Twin {n}", barcode="4006381333931"))
    header = ["Штрихкод", "Наименование", "Цена"]
    again = await desk.bring(table(["4006381333931", "Ручка", "5,00"], header=header))
    (row,) = await desk.rows(again, "faulty")
    assert row.faults[0]["code"] == "several-matches"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"%PDF-1.6", "PDF"), (b"PK\x03\x04", "workbook"), (b"\xff\xfe\x00", "bad-encoding"),
        (b"just one line of text", "No table"), (b"a;b\n1;2\n", "No table"),
    ],
)  # fmt: skip
async def test_what_cannot_be_read_fails_and_says_why(desk, content, words):
    made = await desk.bring(content)
    assert made.state == "failed" and words in made.detail, made.detail


async def test_states_move_one_way_only(desk):
    made = await desk.bring(LIST)
    await runs.move(desk.db, desk.firm.id, made.id, ["planned"], "applying")
    with pytest.raises(Clash):
        await runs.move(desk.db, desk.firm.id, made.id, ["planned"], "applying")


async def test_rights_that_are_gone_end_the_run(desk):
    made = await desk.bring(LIST)
    await runs.move(desk.db, desk.firm.id, made.id, ["planned"], "applying")
    from appliance.db.wire import Statement

    async with desk.db.transaction(desk.firm.id) as tx:
        await tx.run(
            (
                Statement("UPDATE credential SET state = 'suspended' WHERE tenant_id = $1"),
                (desk.firm.id,),
            )
        )
    with pytest.raises(Refused):
        await steps.carry_out(desk.db, desk.firm.id, made.id, 1, quiet, suspicious=False)


async def test_the_report_is_a_workbook_that_opens(desk, tmp_path):
    import openpyxl

    made = await desk.bring(LIST)
    await rows.write_report(desk.db, desk.firm.id, made.id, tmp_path / "faults.xlsx")
    sheet = openpyxl.load_workbook(tmp_path / "faults.xlsx").active
    assert [c.value for c in sheet[2]][1:4] == [5, "E", "price-not-positive"]
    assert worlds.PASSWORD


async def test_the_same_file_again_is_looked_at_when_anybody_touched_the_catalogue(
    desk, monkeypatch
):
    done = await desk.approve(await desk.bring(LIST))
    assert done.state == "applied"
    opened = []
    open_input = parent.open_input

    def watch(*args, **limits):
        opened.append(args)
        return open_input(*args, **limits)

    monkeypatch.setattr(parent, "open_input", watch)
    again = await desk.bring(LIST)
    assert not opened, "the log says that nothing was touched"
    assert (again.counts["unchanged"], again.counts["faulty"], again.counts["rows"]) == (3, 1, 4)
    assert [r.target for r in await desk.rows(again, "unchanged")] == [
        r.target for r in await desk.rows(done, "new")
    ]
    await desk.firm.apply(create("customer", name="Somebody"))
    await desk.bring(LIST)
    assert not opened, "a customer is no ground of a plan"
    target = (await desk.rows(done, "new"))[0].target
    await desk.firm.apply(update("product", target, name="Renamed"))
    touched = await desk.bring(LIST)
    assert len(opened) == 1 and touched.counts["changed"] == 1
    await desk.approve(touched)
    await desk.bring(LIST, options=runs.Options(price_factor_max=9))
    assert len(opened) == 2, "other options are another question"
    prices = await desk.firm.sql(
        "SELECT data->>'price_type' FROM entry WHERE kind = 'price' AND data->>'product' = $1",
        str(target),
    )
    entry = {"product": str(target), "price_type": prices[0][0], "price": "1", "currency": "UAH"}
    await desk.firm.apply(create("price", **entry))
    dearer = await desk.bring(LIST)
    assert len(opened) == 3 and dearer.counts["suspicious"] == 1


async def test_a_confirmed_mapping_is_kept_and_used_for_the_layout(desk):
    made = await desk.bring(LIST)
    (table_,) = made.mapping.tables
    narrow = msgspec.structs.replace(
        made.mapping,
        tables=(msgspec.structs.replace(
            table_, columns=tuple(c for c in table_.columns if c.target != "brand")),),
    )  # fmt: skip
    first = await desk.bring(LIST, source="Перший", mapping=narrow)
    assert await kept(desk) == [], "nobody has confirmed anything yet"
    await desk.approve(first)
    ((name, used, ident),) = await kept(desk)
    assert (name, used) == ("Перший", 1)
    other = table(["B1", "Шуруп 4х40", "Метиз", "1,50", "1,10"])
    second = await desk.bring(other, source="Другий")
    assert second.mapping == narrow, "the layout is known, whoever it is from"
    await desk.approve(second)
    assert [(n, u) for n, u, _ in await kept(desk)] == [("Перший", 2)]
    await desk.firm.apply(update("sys.mapping", ident, name="Наш постачальник"))
    named = await mappings.get_named(desk.db, desk.firm.id, "price_list", "наш постачальник")
    assert named.mapping == narrow
    with pytest.raises(Refused):
        await mappings.get_named(desk.db, desk.firm.id, "price_list", "Перший")
    moved = table(["x", "Шуруп", "9"], header=["Код", "Назва", "Ціна"])
    unfit = await desk.bring(moved, mapping=named.mapping)
    assert unfit.state == "failed"
    assert "column A was 'Артикул', it is 'Код' here" in unfit.detail
    assert "column D was 'Цена розница, грн', there is none here" in unfit.detail
    await desk.firm.apply(delete("sys.mapping", ident))
    again = await desk.bring(table(["B2", "Шуруп 4х50", "Метиз", "1,70", "1,20"]), source="Другий")
    assert again.mapping != narrow, "without it the file is looked at anew"


async def kept(desk):
    rows = await desk.firm.sql(
        "SELECT data->>'name', data->>'used', id::text FROM record WHERE kind = 'sys.mapping' "
        "AND deleted_at IS NULL"
    )
    return [(name, int(used), UUID(ident)) for name, used, ident in rows]


async def test_a_run_that_was_killed_goes_on_although_rows_were_refused(desk, monkeypatch):
    """What was refused before the kill is refused still, and nothing is written twice."""
    lines = [[f"K{n}", f"Болт номер {n}", "Метиз", "12,50", "11,00"] for n in range(1, 8)]
    made = await desk.bring(table(*lines))
    for sku in ("K1", "K4"):
        assert (await desk.firm.apply(create("product", name="Taken meanwhile", sku=sku))).committed
    monkeypatch.setattr(importlib.import_module("appliance.intake.apply"), "BLOCK", 2)

    class Killed(Exception):
        pass

    async def kill(done, _total):
        if done == 4:
            raise Killed

    await runs.move(desk.db, desk.firm.id, made.id, ["planned"], "applying")
    with pytest.raises(Killed):
        await steps.carry_out(desk.db, desk.firm.id, made.id, 1, kill, suspicious=False)
    await steps.carry_out(desk.db, desk.firm.id, made.id, 1, quiet, suspicious=False)
    done = await desk.look(made.id)
    assert (done.state, done.counts["applied"], done.counts["refused"]) == ("applied", 5, 2)
    refused = await desk.rows(done, "faulty")
    assert [r.row for r in refused] == [2, 5]
    written = {(f"K{n}", key) for n in (2, 3, 5, 6, 7) for key in ("retail", "wholesale")}
    assert {*await desk.prices()} == written
    assert len(done.change_sets) == 5, "the document and four blocks"
