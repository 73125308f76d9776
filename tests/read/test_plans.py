"""The shape of a query makes its text, and PostgreSQL's plans use the indexes behind the walls."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.base.errors import Invalid
from appliance.kernel.query import decode_query
from appliance.read import plan_query
from appliance.read.sql import Statement
from tests.read import cases
from tests.tenants import create

ROWS = 20_000
FILL = """
INSERT INTO record (tenant_id, id, kind, stream, unit_id, owner_id, data, stamps, created_at, created_by,
  updated_at, updated_by, {name}, {amount}, {stage}, {client}, search)
SELECT t.tenant_id, gen_random_uuid(), 'offer', t.stream, t.unit_id, t.owner_id,
  jsonb_build_object('name', 'offer ' || n, 'amount', n::text || '.00', 'stage', 'new'), t.stamps, now(), t.created_by,
  now(), t.created_by, 'offer ' || n, n * 10000, CASE n % 10 WHEN 0 THEN 'won' ELSE 'new' END, gen_random_uuid(),
  to_tsvector('nexus', 'offer word' || (n % 5000)) || array_to_tsvector(ARRAY['k' || replace(t.tenant_id::text, '-', '') || 'offer'])
FROM generate_series(1, {rows}) n, record t WHERE t.kind = 'offer' AND t.{name} = 'offer first'
"""


@pytest.fixture
def offers(dsns, readers):
    """A kind with many rows in one tenant."""
    tenant = readers.world.tenant
    return readers.go(fill(tenant, dsns))


async def fill(tenant, dsns):
    import psycopg

    ctx = await tenant.ctx()
    if "offer" not in ctx.schema.kinds:
        await tenant.add_kind("offer", [
            {"name": "name", "type": "text", "searchable": True}, ("amount", "money"),
            {"name": "stage", "type": "choice", "options": {"choices": [{"key": "new"}, {"key": "won"}]}},
            {"name": "customer", "type": "reference", "options": {"target": "customer"}},
        ])  # fmt: skip
        await tenant.apply(create("offer", name="offer first"))
        ctx = await tenant.ctx()
        slots = {f.name: f.slot for f in ctx.schema.kinds["offer"].fields}
        slots["client"] = slots.pop("customer")
        async with await psycopg.AsyncConnection.connect(dsns.superuser, autocommit=True) as conn:
            await conn.execute(FILL.format(rows=ROWS, **slots))
            await conn.execute("VACUUM ANALYZE record")
    return await tenant.ctx()


def explain(readers, ctx, query):
    plan = plan_query(ctx, decode_query(query))
    call = (Statement(f"EXPLAIN (FORMAT JSON, COSTS OFF) {plan.text}"), plan.params)
    # On a table this small reading all of it may look cheaper; what counts is that an index can
    # serve at all, which it could not if an operator of the condition were not leakproof.
    ways = ["enable_seqscan", *(["enable_indexscan"] if "search" in query else [])]
    off = [(Statement("SELECT set_config($1, 'off', true)"), (way,)) for way in ways]
    answer = readers.go(readers.db.read(ctx.tenant, *off, call))[-1]
    node = json.loads(b"".join(answer.column()))[0]["Plan"]
    while node["Node Type"] in ("Limit", "Append", "Result"):
        # Of the branch for rows without a value nothing is read while the first fills the page.
        node = next(n for n in node["Plans"] if n.get("Parent Relationship") != "InitPlan")
    return json.dumps(node)


@pytest.mark.parametrize(("query", "index"), [
    ({"where": {"field": "amount", "op": "gte", "value": "19000"}, "sort": ["-amount"]}, "record_n"),
    ({"sort": ["-amount"]}, "record_n"),
    ({"sort": ["name"]}, "record_t"),
    ({"where": {"field": "name", "op": "starts_with", "value": "offer 77"}}, "record_t"),
    ({"where": {"field": "name", "op": "eq", "value": "Offer 77"}}, "record_t"),
    ({"where": {"field": "customer", "op": "eq", "value": "0190c8b0-1234-7abc-8def-0123456789ab"}}, "record_r"),
    ({"search": "word77"}, "record_search"),
    ({"sort": ["-created_at"]}, "record_created"),
])  # fmt: skip
def test_indexes_serve_behind_row_level_security(readers, offers, query, index):
    found = explain(readers, offers, {"from": "offer", **query})
    assert re.search(f'"Index Name": "{index}', found), found
    assert "Seq Scan" not in found
    if query.get("sort"):
        assert '"Node Type": "Sort"' not in found, found


def test_a_deep_page_is_read_from_its_place(readers, offers):
    plan = plan_query(
        offers,
        decode_query({"from": "offer", "sort": ["-amount"], "limit": 50}),
        ["100000000", str(offers.actor)],
    )
    call = (Statement(f"EXPLAIN (ANALYZE, FORMAT JSON) {plan.text}"), plan.params)
    (answer,) = readers.go(readers.db.read(offers.tenant, call))
    found = json.loads(b"".join(answer.column()))[0]["Plan"]
    assert "ROW(" in json.dumps(found)
    assert not re.search(
        '"Rows Removed by (Filter|Index Recheck)": [1-9][0-9]{2}', json.dumps(found)
    )


def reshaped(draw, node):
    """The same shape with other values."""
    if isinstance(node, dict):
        if "op" in node and "value" in node:
            value = node["value"]
            if isinstance(value, list):
                return {**node, "value": [draw(st.sampled_from(value)) for _ in value]}
            if node["op"] in ("contains", "starts_with", "matches"):
                return {
                    **node,
                    "value": draw(
                        st.sampled_from(
                            ["x", "'; DROP TABLE record --", "ё%_\\", "\u2028", '" || $1 ||']
                        )
                    ),
                }
            return dict(node)
        return {k: reshaped(draw, v) for k, v in node.items()}
    return [reshaped(draw, v) for v in node] if isinstance(node, list) else node


@settings(max_examples=200)
@given(st.data())
def test_values_never_change_the_text(readers, data):
    query = data.draw(st.one_of(cases.lists(readers.world), cases.groupings(readers.world)))
    other = reshaped(data.draw, query)
    ctx = readers.everything().ctx
    try:
        first = plan_query(ctx, decode_query(query))
    except Invalid:
        return
    try:
        assert plan_query(ctx, decode_query(other)).text == first.text
    except Invalid as refused:
        assert {f.code for f in refused.faults} <= {"search_empty", "character_refused"}  # noqa: PT017
    for piece in re.findall(r"'[^']*'", first.text):
        assert not any(t in piece for t in ("DROP", "zorb", "kvat")), piece
