"""Single answers on a real database: what the properties do not draw."""

import csv
import io
from importlib import import_module
from uuid import UUID

import msgspec
import openpyxl
import pytest

from appliance.base import limits
from appliance.base.errors import Forbidden, Invalid, NotAcceptable, Refused, TooLarge
from appliance.fields.matching import matches
from appliance.kernel.kind import Field, Kind
from appliance.kernel.predicate import parse_row_rule
from appliance.kernel.profile import KindGrant, Mode, Profile, Scope, ScopeKind
from appliance.kernel.query import decode_query
from appliance.read import Cursors, export, fetch, fetch_one, run, stream, visible_fields
from appliance.write.rowrule import view_of
from tests.read.conftest import CURSORS
from tests.tenants import create, everything, only

pytestmark = pytest.mark.anyio


async def rows(tenant, query, ctx=None):
    page = await run(tenant.db, ctx or await tenant.ctx(), decode_query(query), CURSORS)
    return [msgspec.json.decode(r) for r in page.rows]


async def faults(tenant, query, ctx=None):
    with pytest.raises(Invalid) as refused:
        await rows(tenant, query, ctx)
    return [(f.pointer, f.code) for f in refused.value.faults]


@pytest.fixture
async def shop(tenant):
    await tenant.add_kind("client", [{"name": "name", "type": "text", "searchable": True, "labels": {"en": "Name", "uk": "Назва"}},
                                     {"name": "phone", "type": "phone", "searchable": True}, {"name": "pin", "type": "text", "searchable": True}], display="name", series="C-{n}")  # fmt: skip
    await tenant.add_kind("line", [
        ("what", "text"), ("price", "number"), {"name": "currency", "type": "text"}, {"name": "sum", "type": "money", "options": {"currency_field": "currency"}},
        {"name": "client", "type": "reference", "options": {"target": "client"}}, ("when", "moment"), ("day", "date"), ("ok", "yes_no"),
        {"name": "stage", "type": "choice", "searchable": True, "options": {"choices": [{"key": "new", "labels": {"en": "Brandnew", "uk": "Новий"}}]}}, ("note", "long_text"),
    ])  # fmt: skip
    made = await tenant.apply(
        create("client", name="Zorb", phone="+380 44 123 45 67", pin="zzsecret")
    )
    assert made.committed, made
    tenant.client = made.outcomes[0]
    done = await tenant.apply(
        create(
            "line",
            what="=1+1",
            price="-5.50",
            currency="UAH",
            sum="10.00",
            client=str(tenant.client.id),
            when="2026-11-19T22:30:00Z",
            day="2026-11-20",
            ok=True,
            stage="new",
            note="long",
        ),
        create("line", what="-dash", price="2.00", currency="EUR", sum="5.00", day="2026-11-21"),
        create(
            "line", what='plain "q", x', currency="EUR", sum="7.50", client=str(tenant.client.id)
        ),
    )
    assert done.committed, done
    return tenant


async def test_having_speaks_of_groups(shop):
    query = {
        "from": "line",
        "group": ["currency"],
        "select": [{"sum": "sum", "as": "s"}, {"count": "*", "as": "n"}],
    }
    assert await rows(shop, {**query, "having": {"field": "s", "op": "gte", "value": "11"}}) == [
        {"currency": "EUR", "s": "12.50", "n": 2}
    ]
    assert await rows(
        shop, {**query, "having": {"not": {"field": "n", "op": "gt", "value": 1}}}
    ) == [{"currency": "UAH", "s": "10.00", "n": 1}]
    assert await faults(shop, {**query, "having": {"field": "price", "op": "gt", "value": 1}}) == [
        ("/having", "unknown_alias")
    ]
    assert await faults(shop, {**query, "having": {"any": "client"}}) == [
        ("/having/any", "not_possible")
    ]
    assert await faults(
        shop, {"from": "line", "having": {"field": "n", "op": "gt", "value": 1}}
    ) == [("/having", "not_possible")]


async def test_amounts_of_several_currencies_have_no_sum(shop):
    assert await faults(shop, {"from": "line", "select": [{"sum": "sum"}]}) == [
        ("/select/0", "mixed_currency")
    ]
    ctx = await shop.ctx()
    blind = await shop.ctx(only(ctx.schema, "line", {"read": "all"}, {"sum": "read"}))
    with pytest.raises(Invalid) as refused:
        await rows(shop, {"from": "line", "select": [{"sum": "sum"}]}, blind)
    assert "currency" not in refused.value.faults[0].detail.replace("currencies", "")


async def test_an_unindexed_field_says_so_and_one_being_indexed_too(shop):
    assert await faults(
        shop, {"from": "line", "where": {"field": "note", "op": "eq", "value": "x"}}
    ) == [("/where", "not_filterable")]
    assert await faults(shop, {"from": "line", "sort": ["note"]}) == [("/sort/0", "not_filterable")]
    ctx = await shop.ctx()
    kind = ctx.schema.kinds["line"]
    busy = tuple(msgspec.structs.replace(f, slot_ready=f.name != "price") for f in kind.fields)
    schema = msgspec.structs.replace(
        ctx.schema, kinds={**ctx.schema.kinds, "line": msgspec.structs.replace(kind, fields=busy)}
    )
    with pytest.raises(Invalid) as refused:
        await rows(
            shop, {"from": "line", "sort": ["price"]}, msgspec.structs.replace(ctx, schema=schema)
        )
    assert refused.value.code == "field.indexing"


async def test_a_kind_with_many_references_shows_all_their_texts(tenant):
    await tenant.add_kind("spot", [("name", "text")])
    await tenant.add_kind(
        "web",
        [
            {"name": f"r{n}", "type": "reference", "options": {"target": "spot"}}
            for n in range(limits.JOINS_MAX + 2)
        ],
    )
    spot = (await tenant.apply(create("spot", name="here"))).outcomes[0].id
    web = (
        (
            await tenant.apply(
                create("web", **{f"r{n}": str(spot) for n in range(limits.JOINS_MAX + 2)})
            )
        )
        .outcomes[0]
        .id
    )
    record = msgspec.json.decode(await fetch_one(tenant.db, await tenant.ctx(), "web", web))
    assert set(record["display"].values()) == {"here"}
    assert len(record["display"]) == limits.JOINS_MAX + 2
    paths = [f"r{n}.name" for n in range(limits.JOINS_MAX + 1)]
    with pytest.raises(Invalid) as refused:
        await rows(tenant, {"from": "web", "select": paths})
    assert refused.value.code == "query.too_many_joins"


async def test_relations_of_system_kinds_and_malformed_ones(shop):
    found = await rows(
        shop, {"from": "sys.unit", "where": {"any": "sys.unit.parent"}, "select": ["name"]}
    )
    assert [r["name"] for r in found] == ["head"]
    for relation in ("line.client.name", "line.what", "client.line", "nothing.client", "what.x.y"):
        assert (await faults(shop, {"from": "client", "where": {"any": relation}}))[0][
            1
        ] == "unknown_field"
    assert await faults(shop, {"from": "line", "where": {"any": "what"}}) == [
        ("/where/any", "not_a_relation")
    ]


async def test_a_number_is_found_as_it_is(shop):
    (one,) = await rows(shop, {"from": "client", "select": ["number"]})
    number = one["number"]
    assert number
    for op, value in (
        ("eq", number),
        ("in", [number]),
        ("starts_with", number[:2]),
        ("contains", number[1:]),
    ):
        assert (
            len(
                await rows(
                    shop, {"from": "client", "where": {"field": "number", "op": op, "value": value}}
                )
            )
            == 1
        ), op


async def test_search_within_the_fields_one_may_read(shop):
    ctx = await shop.ctx()
    blind = await shop.ctx(
        only(
            ctx.schema,
            "client",
            {"read": "all"},
            {"name": "read", "phone": "read", "pin": "masked"},
        )
    )
    for typed, count in (
        ("zorb", 1),
        ("380441234567", 1),
        ("3804", 1),
        ("zzsecret", 0),
        ("zorb zzsecret", 0),
        ("½", 0),
        ("²", 0),
    ):
        assert len(await rows(shop, {"from": "client", "search": typed}, blind)) == count, typed
    labels = await shop.ctx(only(ctx.schema, "line", {"read": "all"}, {"stage": "read"}))
    assert len(await rows(shop, {"from": "line", "search": "brandn"}, labels)) == 1
    assert await faults(shop, {"from": "client", "search": "!&|"}) == [("/search", "search_empty")]


async def test_cursors_keep_the_day_they_began_on(shop):
    ctx = await shop.ctx()
    day = {"field": "day", "op": "within", "value": {"next_days": 2}}
    query = decode_query({"from": "line", "where": day, "sort": ["day"], "limit": 1})
    began = msgspec.structs.replace(ctx, at=ctx.at.replace(year=2026, month=11, day=20, hour=12))
    page = await run(shop.db, began, query, CURSORS)
    later = msgspec.structs.replace(began, at=began.at.replace(day=27))
    rest = await run(shop.db, later, msgspec.structs.replace(query, after=page.next), CURSORS)
    assert len(page.rows) == len(rest.rows) == 1
    for stranger in (
        msgspec.structs.replace(began, tenant=began.actor),
        msgspec.structs.replace(began, profile=msgspec.structs.replace(began.profile, rev=9)),
        msgspec.structs.replace(began, schema=msgspec.structs.replace(began.schema, rev=10**6)),
    ):
        with pytest.raises(Invalid) as refused:
            await run(shop.db, stranger, msgspec.structs.replace(query, after=page.next), CURSORS)
        assert refused.value.code == "query.bad_cursor"
    for forged in (
        "",
        "A",
        "é",
        "A" * 100,
        page.next[:-4],
        page.next[:20],
        Cursors(b"d" * 32).seal(["x"], "", b""),
    ):
        if forged:
            with pytest.raises(Invalid):
                await run(shop.db, began, msgspec.structs.replace(query, after=forged), CURSORS)


async def test_old_cursors_end(shop, monkeypatch):
    ctx = await shop.ctx()
    query = decode_query({"from": "line", "limit": 1})
    page = await run(shop.db, ctx, query, CURSORS)
    import time

    now = time.time()
    monkeypatch.setattr("appliance.read.cursor.time.time", lambda: now + 25 * 3600)
    with pytest.raises(Invalid):
        await run(shop.db, ctx, msgspec.structs.replace(query, after=page.next), CURSORS)


RULES = [
    {"field": "what", "op": "contains", "value": "a"}, {"not": {"field": "nothing", "op": "eq", "value": 1}}, {"not": {"any": "client"}},
    {"not": {"op": "matches", "value": "x"}}, {"not": {"field": "note", "op": "eq", "value": "x"}}, {"not": {"field": "price", "op": "contains", "value": "x"}},
    {"not": {"field": "price", "op": "eq", "value": "abc"}}, {"field": "note", "op": "is_null", "value": True}, {"or": [{"field": "ok", "op": "eq", "value": True}, {"field": "client.name", "op": "eq", "value": "x"}]},
    {"field": "price", "op": "ne", "value": "2"}, {"not": {"field": "price", "op": "lt", "value": 0}}, {"nonsense": 1}, "x", None,
]  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
async def test_a_rule_means_the_same_in_memory_and_what_is_not_understood_grants_nothing(
    shop, rule
):
    from appliance.db.wire import Statement
    from appliance.write.load import COLUMNS, read_state

    ctx = await shop.ctx()
    profile = everything(ctx.schema)
    grant = profile.grants["line"]
    ruled = KindGrant({**grant.actions, "read": Scope(ScopeKind.WHERE, rule)}, grant.fields)
    ruled_ctx = await shop.ctx(
        msgspec.structs.replace(profile, grants={**profile.grants, "line": ruled})
    )
    shown = {r["id"] for r in await rows(shop, {"from": "line"}, ruled_ctx)}
    (answer,) = await shop.db.read(
        shop.id, (Statement(f"SELECT {COLUMNS} FROM record WHERE kind = 'line'"), ())
    )
    states = [read_state(row) for row in answer]
    tree, kind = parse_row_rule(rule), ctx.schema.kinds["line"]
    assert shown == {
        str(s.id) for s in states if tree is not None and matches(tree, view_of(s), ctx, kind)
    }
    assert bool(shown) == (RULES.index(rule) in (0, 7, 9, 10))


async def test_fetching_nothing_finds_nothing(shop):
    ctx = await shop.ctx()
    assert await fetch(shop.db, ctx, "client", []) == {}
    both = await fetch(shop.db, ctx, "client", [shop.client.id, ctx.actor])
    assert set(both) == {shop.client.id}
    with pytest.raises(Refused):
        await fetch_one(shop.db, ctx, "line", shop.client.id)
    with pytest.raises(Refused):
        await fetch_one(shop.db, ctx, "neverwas", shop.client.id)


async def test_the_version_token_says_nothing_of_hidden_fields(shop):
    from tests.tenants import update

    ctx = await shop.ctx()
    await shop.apply(update("client", shop.client.id, pin="other"))
    await shop.apply(update("client", shop.client.id, name="Zorb2"))
    blind = await shop.ctx(
        only(ctx.schema, "client", {"read": "all"}, {"name": "read", "pin": "masked"})
    )
    whole = msgspec.json.decode(await fetch_one(shop.db, ctx, "client", shop.client.id))["version"]
    part = msgspec.json.decode(await fetch_one(shop.db, blind, "client", shop.client.id))["version"]
    assert "pin=" in whole
    assert "pin" not in part
    assert "name=" in part


async def test_visible_fields(shop):
    ctx = await shop.ctx()
    kind = ctx.schema.kinds["client"]
    blind = await shop.ctx(
        only(ctx.schema, "client", {"read": "all"}, {"name": "read", "pin": "masked"})
    )
    assert [(f.name, m) for f, m in visible_fields(blind, kind)] == [
        ("name", Mode.READ),
        ("pin", Mode.MASKED),
    ]


async def test_exports_need_both_scopes_and_are_whole(shop, monkeypatch):
    ctx = await shop.ctx()
    query = decode_query({"from": "line"})
    for action, count in (("all", 3), ("own", 0)):
        out = Profile(
            id="x",
            key="x",
            grants={
                "line": KindGrant(
                    {"read": Scope(ScopeKind.ALL), "export": Scope(ScopeKind(action))},
                    {"what": Mode.READ},
                )
            },
        )
        reader = msgspec.structs.replace(await shop.ctx(out), actor=shop.client.id)
        assert (
            sum([len(r) async for _, r in stream(shop.db, reader, query, action="export")]) == count
        )
    with pytest.raises(Forbidden):
        await export(
            shop.db,
            await shop.ctx(only(ctx.schema, "line", {"read": "all"}, {"what": "read"})),
            query,
            "csv",
        )
    with pytest.raises(NotAcceptable):
        await export(shop.db, ctx, query, "pdf")
    monkeypatch.setattr(import_module("appliance.read.run"), "BATCH", 1)
    assert [len(r) async for _, r in stream(shop.db, ctx, query)] == [1, 1, 1]
    monkeypatch.setattr(limits, "EXPORT_ROWS_MAX", 2)
    with pytest.raises(TooLarge):
        [r async for r in stream(shop.db, ctx, query)]


async def test_forms(shop):
    ctx = msgspec.structs.replace(await shop.ctx(), locale="uk")
    query = decode_query(
        {
            "from": "line",
            "sort": ["what"],
            "select": [
                "what",
                "price",
                "client",
                "client.name",
                "when",
                "day",
                "ok",
                "stage",
                {"field": "what", "as": "again"},
            ],
        }
    )

    async def whole(form, q=query):
        return b"".join([piece async for piece in await export(shop.db, ctx, q, form)])

    assert len(msgspec.json.decode(await whole("json"))["rows"]) == 3
    assert len([msgspec.json.decode(r) for r in (await whole("ndjson")).splitlines()]) == 3
    text = (await whole("csv")).decode()
    assert text.startswith("\ufeff")
    assert "\r\n" in text
    table = list(csv.reader(io.StringIO(text[1:], newline="")))
    assert table[0] == [
        "what",
        "price",
        "client",
        "client.Назва",
        "when",
        "day",
        "ok",
        "stage",
        "again",
    ]
    assert [r[0] for r in table[1:]] == ["'-dash", "'=1+1", 'plain "q", x']
    assert table[2][1:8] == [
        "-5.50",
        "Zorb",
        "Zorb",
        "2026-11-19T22:30:00.000Z",
        "2026-11-20",
        "true",
        "Новий",
    ]
    sheet = openpyxl.load_workbook(io.BytesIO(await whole("xlsx"))).active
    cells = [[c.value for c in row] for row in sheet.iter_rows()]
    assert cells[2][0] == "=1+1"
    assert sheet["A3"].data_type == "s"
    assert cells[2][1] == -5.5
    assert str(cells[2][4]) == "2026-11-20 00:30:00"
    assert str(cells[2][5]) == "2026-11-20 00:00:00"
    assert cells[2][6] is True
    grouped = decode_query(
        {
            "from": "line",
            "group": [{"field": "day", "bucket": "month", "as": "m"}],
            "select": [{"avg": "price", "as": "p"}],
        }
    )
    assert (await whole("csv", grouped)).decode().splitlines()[0] == "\ufeffm,p"
    records = list(
        csv.reader(
            io.StringIO(
                (await whole("csv", decode_query({"from": "line"}))).decode()[1:], newline=""
            )
        )
    )
    assert records[0][0] == "Номер"
    assert len(records) == 4
    nothing = decode_query({"from": "line", "where": {"or": []}})
    assert msgspec.json.decode(await whole("json", nothing))["rows"] == []
    assert (await whole("csv", nothing)).count(b"\r\n") == 1


@pytest.mark.parametrize("text", ["=a", "+a", "-a", "@a", "\ta", "\ra", "a=b", "", "'x"])
def test_no_text_becomes_a_formula(text):
    from appliance.read.shape.comma_separated import write_cell

    assert write_cell(Field(fid="a", name="a", type="text"), text) == (
        f"'{text}" if text[:1] in "=+-@\t\r" and text else text
    )


def test_a_hostile_name_of_the_catalogue_cannot_stand_in_sql():
    from appliance.read.sql import literal

    assert literal("it's") == "'it''s'"
    for text in ("a\\", "a\0", "a\nb"):
        with pytest.raises(Exception, match="catalogue"):
            literal(text)


async def test_a_field_id_with_a_quote_reads_nothing_else(shop):
    ctx = await shop.ctx()
    evil = "x'||(SELECT string_agg(data::text,'') FROM record)||'"
    kind = Kind(key="line", fields=(Field(fid=evil, name="what", type="text"),))
    schema = msgspec.structs.replace(ctx.schema, kinds={"line": kind})
    grant = KindGrant({"read": Scope(ScopeKind.ALL)}, {evil: Mode.READ})
    hostile = msgspec.structs.replace(
        ctx, schema=schema, profile=Profile(id="h", key="h", grants={"line": grant})
    )
    found = await rows(shop, {"from": "line", "select": ["what"]}, hostile)
    assert [r["what"] for r in found] == [None] * 3


async def test_deleted_records_for_those_who_may_restore(shop):
    from tests.tenants import delete

    await shop.apply(delete("client", shop.client.id))
    ctx = await shop.ctx()
    (gone,) = await rows(shop, {"from": "client", "deleted": True})
    assert gone["deleted_at"]
    assert UUID(gone["deleted_by"]) == ctx.actor
    reader = await shop.ctx(only(ctx.schema, "client", {"read": "all"}, {"name": "read"}))
    assert await faults(shop, {"from": "client", "deleted": True}, reader) == [
        ("/deleted", "not_possible")
    ]
