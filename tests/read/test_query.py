"""The query language on a real database, by example."""

import msgspec
import pytest

from appliance.base.errors import Invalid
from appliance.kernel.query import decode_query
from appliance.read import Cursors, fetch_one, run, stream
from tests.tenants import create, only

pytestmark = pytest.mark.anyio
CURSORS = Cursors(b"c" * 32)


@pytest.fixture
async def shop(tenant):
    await tenant.add_kind("customer", [
        {"name": "name", "type": "text", "searchable": True}, ("city", "text"),
        {"name": "phone", "type": "phone", "searchable": True},
        {"name": "spent", "type": "rollup", "options": {"kind": "deal", "via": "customer", "op": "sum", "field": "amount"}},
        {"name": "deals", "type": "rollup", "options": {"kind": "deal", "via": "customer", "op": "count"}},
    ], display="name")  # fmt: skip
    await tenant.add_kind("deal", [
        {"name": "title", "type": "text", "searchable": True}, ("amount", "money"),
        {"name": "stage", "type": "choice", "options": {"choices": [{"key": "new"}, {"key": "won"}, {"key": "lost"}]}},
        {"name": "customer", "type": "reference", "options": {"target": "customer"}},
        ("closes", "date"), {"name": "tags", "type": "multi_choice", "options": {"choices": [{"key": k} for k in "abc"]}},
        {"name": "open", "type": "yes_no"},
    ])  # fmt: skip
    made = await tenant.apply(
        create("customer", name="Ёлка", city="Kyiv", phone="+380 44 123 45 67"),
        create("customer", name="Oak 100%", city="Odesa"),
        create("customer", name="Birch_x"),
    )
    tenant.customers = [o.id for o in made.outcomes]
    one, two, three = map(str, tenant.customers)
    done = await tenant.apply(
        create(
            "deal",
            title="A alpha",
            amount="10.00",
            stage="new",
            customer=one,
            closes="2026-11-20",
            tags=["a"],
            open=True,
        ),
        create(
            "deal",
            title="b beta",
            amount="20.50",
            stage="won",
            customer=one,
            closes="2026-12-01",
            tags=["a", "b"],
            open=False,
        ),
        create(
            "deal", title="C gamma", amount="5.25", stage="won", customer=two, closes="2027-01-01"
        ),
        create("deal", title="d delta", stage="lost", customer=three, unit=tenant.units["south"]),
        create("deal", title="E epsilon", amount="20.50"),
    )
    assert done.committed, done
    return tenant


async def rows(tenant, query, ctx=None):
    page = await run(tenant.db, ctx or await tenant.ctx(), decode_query(query), CURSORS)
    return [msgspec.json.decode(r) for r in page.rows]


async def titles(tenant, where, **extra):
    found = await rows(
        tenant, {"from": "deal", "select": ["title"], "where": where, "sort": ["title"], **extra}
    )
    return "".join(r["title"][0] for r in found)


@pytest.mark.parametrize(("where", "expected"), [
    ({"field": "title", "op": "eq", "value": "a ALPHA"}, "A"),
    ({"field": "title", "op": "starts_with", "value": "B"}, "b"),
    ({"field": "title", "op": "contains", "value": "ET"}, "b"),
    ({"field": "amount", "op": "gte", "value": "10"}, "AbE"),
    ({"field": "amount", "op": "between", "value": ["5.25", 10]}, "AC"),
    ({"field": "amount", "op": "ne", "value": "20.50"}, "ACd"),
    ({"not": {"field": "amount", "op": "gt", "value": "6"}}, "Cd"),
    ({"field": "amount", "op": "is_null", "value": True}, "d"),
    ({"field": "stage", "op": "in", "value": ["won", "lost"]}, "bCd"),
    ({"field": "stage", "op": "not_in", "value": ["won"]}, "AdE"),
    ({"field": "customer.city", "op": "eq", "value": "kyiv"}, "Ab"),
    ({"field": "customer.name", "op": "contains", "value": "100%"}, "C"),
    ({"field": "customer.name", "op": "contains", "value": "h_"}, "d"),
    ({"field": "tags", "op": "has_any", "value": ["b", "c"]}, "b"),
    ({"field": "tags", "op": "has_all", "value": ["a", "b"]}, "b"),
    ({"field": "tags", "op": "is_null", "value": True}, "CdE"),
    ({"field": "closes", "op": "within", "value": "this_month"}, "A"),
    ({"field": "closes", "op": "within", "value": "next_month"}, "b"),
    ({"field": "closes", "op": "within", "value": "next_60_days"}, "AbC"),
    ({"field": "open", "op": "eq", "value": True}, "A"),
    ({"op": "matches", "value": "alph"}, "A"),
    ({"any": "customer", "where": {"field": "city", "op": "eq", "value": "Odesa"}}, "C"),
    ({"none": "customer"}, "E"),
    ({"or": [{"field": "title", "op": "eq", "value": "A alpha"}, {"not": {"field": "stage", "op": "ne", "value": "lost"}}]}, "Ad"),
    ({"and": []}, "AbCdE"), ({"or": []}, ""),
])  # fmt: skip
async def test_conditions(shop, where, expected):
    assert await titles(shop, where, asof="2026-11-20T10:00:00Z") == expected


async def test_under_a_unit(shop):
    assert (
        await titles(shop, {"field": "unit", "op": "under", "value": str(shop.units["south"])})
        == "d"
    )
    assert (
        await titles(shop, {"field": "unit", "op": "under", "value": str(shop.units["head"])})
        == "AbCdE"
    )


async def test_reverse_relations_and_rollups(shop):
    found = await rows(shop, {"from": "customer", "select": ["name", "spent", "deals"], "sort": ["name"],
                              "where": {"any": "deal.customer", "where": {"field": "stage", "op": "eq", "value": "won"}}})  # fmt: skip
    assert [(r["name"], r["spent"], r["deals"]) for r in found] == [
        ("Oak 100%", "5.25", 1),
        ("Ёлка", "30.50", 2),
    ]


async def test_search_finds_prefixes_phones_and_either_spelling(shop):
    for typed, expected in [
        ("елк", 1),
        ("ёлка", 1),
        ("380441234567", 1),
        ("oak", 1),
        ('"oak 100"', 1),
        ("nothing", 0),
        ("o'k \\ & | !", 0),
    ]:
        found = await rows(shop, {"from": "customer", "search": typed})
        assert len(found) == expected, typed


@pytest.mark.parametrize("sort", [[], ["title"], ["-title"], ["amount"], ["-amount"], [{"field": "amount", "nulls": "first"}],
                                  [{"field": "amount", "dir": "desc", "nulls": "first"}], ["stage", "-amount"], ["customer.name", "title"], ["-created_at"]])  # fmt: skip
async def test_pages_join_to_the_whole(shop, sort):
    whole = await rows(shop, {"from": "deal", "select": ["title", "amount", "stage"], "sort": sort})
    assert len(whole) == 5
    pieces, after = [], None
    for _ in range(6):
        query = {
            "from": "deal",
            "select": ["title", "amount", "stage"],
            "sort": sort,
            "limit": 2,
            **({"after": after} if after else {}),
        }
        page = await run(shop.db, await shop.ctx(), decode_query(query), CURSORS)
        pieces += [msgspec.json.decode(r) for r in page.rows]
        after = page.next
        if after is None:
            break
    assert pieces == whole


async def test_nulls_come_last_unless_asked(shop):
    last = await rows(shop, {"from": "deal", "select": ["amount"], "sort": ["-amount"]})
    assert [r["amount"] for r in last] == ["20.50", "20.50", "10.00", "5.25", None]
    first = await rows(
        shop,
        {"from": "deal", "select": ["amount"], "sort": [{"field": "amount", "nulls": "first"}]},
    )
    assert [r["amount"] for r in first] == [None, "5.25", "10.00", "20.50", "20.50"]


async def test_groups_and_aggregates(shop):
    found = await rows(
        shop,
        {
            "from": "deal",
            "group": ["stage"],
            "select": [{"sum": "amount", "as": "total"}, {"count": "*", "as": "n"}],
            "sort": ["-total"],
        },
    )
    assert found == [{"stage": "won", "total": "25.75", "n": 2}, {"stage": None, "total": "20.50", "n": 1},
                     {"stage": "new", "total": "10.00", "n": 1}, {"stage": "lost", "total": None, "n": 1}]  # fmt: skip
    by_month = await rows(
        shop,
        {
            "from": "deal",
            "group": [{"field": "closes", "bucket": "month", "as": "month"}],
            "select": [{"max": "amount", "as": "m"}],
        },
    )
    assert by_month == [
        {"month": "2026-11-01", "m": "10.00"},
        {"month": "2026-12-01", "m": "20.50"},
        {"month": "2027-01-01", "m": "5.25"},
        {"month": None, "m": "20.50"},
    ]
    by_city = await rows(
        shop,
        {
            "from": "deal",
            "group": ["customer.city"],
            "select": [{"avg": "amount", "as": "a"}, {"min": "closes", "as": "c"}],
        },
    )
    assert {r["customer.city"]: (r["a"], r["c"]) for r in by_city}["Kyiv"] == (
        "15.2500",
        "2026-11-20",
    )
    assert await rows(shop, {"from": "deal", "select": [{"count": "*", "as": "n"}]}) == [{"n": 5}]


async def test_total_ruler_display_and_whole_records(shop):
    ctx = await shop.ctx()
    page = await run(
        shop.db,
        ctx,
        decode_query(
            {
                "from": "deal",
                "limit": 2,
                "total": True,
                "ruler": True,
                "display": True,
                "sort": ["title"],
            }
        ),
        CURSORS,
    )
    assert page.total == 5
    assert page.ruler[0].position == 1
    record = msgspec.json.decode(page.rows[0])
    assert record["fields"]["title"] == "A alpha"
    assert record["display"]["customer"] == "Ёлка"
    same = msgspec.json.decode(
        await fetch_one(
            shop.db, ctx, "deal", record["id"] and __import__("uuid").UUID(record["id"])
        )
    )
    assert same["version"] == record["version"]
    batches = [len(rows) async for _, rows in stream(shop.db, ctx, decode_query({"from": "deal"}))]
    assert sum(batches) == 5


async def test_hidden_fields_do_not_exist_in_any_clause(shop):
    ctx = await shop.ctx()
    profile = only(ctx.schema, "deal", {"read": "all"}, {"title": "read", "amount": "masked"})
    blind = await shop.ctx(profile)
    clauses = [
        {"select": ["X"]}, {"where": {"field": "X", "op": "eq", "value": "new"}}, {"where": {"field": "X", "op": "is_null", "value": True}},
        {"sort": ["X"]}, {"group": ["X"]}, {"select": [{"count": "X"}]}, {"where": {"any": "X"}},
        {"where": {"field": "X.name", "op": "eq", "value": "a"}},
    ]  # fmt: skip
    for clause in clauses:
        answers = []
        for name in ("stage", "neverwas"):
            query = msgspec.json.decode(
                msgspec.json.encode({"from": "deal", **clause}).replace(b"X", name.encode())
            )
            with pytest.raises(Invalid) as refused:
                await rows(shop, query, blind)
            answers.append([(f.pointer, f.code, f.detail) for f in refused.value.faults])
        assert answers[0] == answers[1], clause
    for clause in clauses[1:6]:
        query = msgspec.json.decode(
            msgspec.json.encode({"from": "deal", **clause}).replace(b"X", b"amount")
        )
        with pytest.raises(Invalid):
            await rows(shop, query, blind)
    shown = await rows(
        shop, {"from": "deal", "select": ["title", "amount"], "sort": ["title"]}, blind
    )
    assert shown[0]["amount"] == "•••"
    with pytest.raises(Invalid) as unknown:
        await rows(shop, {"from": "customer"}, blind)
    assert unknown.value.faults[0].code == "unknown_kind"


async def test_search_never_finds_a_hidden_text(shop):
    ctx = await shop.ctx()
    blind = await shop.ctx(
        only(ctx.schema, "customer", {"read": "all"}, {"city": "read", "name": "read"})
    )
    assert len(await rows(shop, {"from": "customer", "search": "oak"}, blind)) == 1
    assert await rows(shop, {"from": "customer", "search": "380441234567"}, blind) == []


async def test_a_row_out_of_scope_reads_as_empty_through_a_path(shop):
    ctx = await shop.ctx()
    schema = ctx.schema
    grants = only(schema, "customer", {"read": "where"}, {"name": "read", "city": "read"}).grants
    from appliance.kernel.profile import KindGrant, Scope, ScopeKind

    rule = Scope(ScopeKind.WHERE, {"field": "city", "op": "eq", "value": "Odesa"})
    customer = KindGrant({"read": rule}, grants["customer"].fields)
    profile = only(
        schema, "deal", {"read": "all"}, {"title": "read", "customer": "read"}, customer=customer
    )
    ruled = await shop.ctx(profile)
    found = await rows(
        shop, {"from": "deal", "select": ["title", "customer.name"], "sort": ["title"]}, ruled
    )
    assert [r["customer.name"] for r in found] == [None, None, "Oak 100%", None, None]
    assert await titles(shop, {"field": "title", "op": "contains", "value": "a"}) == "AbCd"


async def test_cursors_are_bound_and_sealed(shop):
    ctx = await shop.ctx()
    page = await run(
        shop.db, ctx, decode_query({"from": "deal", "limit": 2, "sort": ["title"]}), CURSORS
    )
    assert "alpha" not in page.next
    for query, who in [
        ({"from": "deal", "limit": 2, "sort": ["-title"], "after": page.next}, ctx),
        ({"from": "deal", "limit": 2, "sort": ["title"], "after": page.next[:-2] + "xx"}, ctx),
        ({"from": "deal", "limit": 2, "sort": ["title"], "after": "AAAA"}, ctx),
        ({"from": "deal", "limit": 2, "sort": ["title"], "after": page.next}, msgspec.structs.replace(ctx, actor=shop.customers[0])),
    ]:  # fmt: skip
        with pytest.raises(Invalid) as refused:
            await run(shop.db, who, decode_query(query), CURSORS)
        assert refused.value.code == "query.bad_cursor"


async def test_the_text_of_a_statement_depends_on_the_shape_only(shop):
    from appliance.read import plan_query

    ctx = await shop.ctx()
    texts = set()
    for value in ["x", "'; DROP TABLE record --", "ё%_\\", "\u2028"]:
        where = {
            "and": [
                {"field": "title", "op": op, "value": value}
                for op in ("eq", "contains", "starts_with", "ne")
            ]
        }
        texts.add(
            plan_query(
                ctx, decode_query({"from": "deal", "where": where, "search": "a" + value})
            ).text
        )
    assert len(texts) == 1
