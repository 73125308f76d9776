"""Laws that hold between answers, whatever the reference thinks."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from appliance.base.errors import Invalid
from tests.read import cases
from tests.read.world import ASOF, FIELDS

KINDS = st.sampled_from(["deal", "customer"])


def ids(readers, reader, kind, where=None):
    query = {"from": kind, "select": ["id"], "asof": ASOF, "limit": 1000}
    if where is not None:
        query["where"] = where
    try:
        return {r["id"] for r in readers.go(reader.rows(query))}
    except Invalid:
        assume(False)


@settings(max_examples=120)
@given(st.data())
def test_logic(readers, data):
    reader = readers.reader(*data.draw(cases.readers(readers.world)))
    kind = data.draw(KINDS)
    a, b = (
        data.draw(cases.conditions(readers.world, kind)),
        data.draw(cases.conditions(readers.world, kind, depth=2)),
    )
    whole, of_a, of_b = (ids(readers, reader, kind, c) for c in (None, a, b))
    assert of_a <= whole
    assert ids(readers, reader, kind, {"not": {"not": a}}) == of_a
    assert ids(readers, reader, kind, {"not": a}) == whole - of_a
    assert ids(readers, reader, kind, {"and": [a, b]}) == of_a & of_b
    assert ids(readers, reader, kind, {"or": [a, b]}) == of_a | of_b


@settings(max_examples=80)
@given(st.data())
def test_a_total_equals_the_list_behind_it(readers, data):
    reader = readers.reader(*data.draw(cases.readers(readers.world)))
    kind = data.draw(KINDS)
    where = data.draw(cases.conditions(readers.world, kind))
    listed = ids(readers, reader, kind, where)
    query = {"from": kind, "where": where, "asof": ASOF, "limit": 1}
    assert readers.go(reader.page({**query, "total": True})).total == len(listed)
    count = {"select": [{"count": "*", "as": "n"}], "limit": 1000}
    assert readers.go(reader.rows({**query, **count})) == [{"n": len(listed)}]
    for key in ("unit", "owner", "created_at"):
        groups = readers.go(reader.rows({**query, **count, "group": [key]}))
        assert sum(g["n"] for g in groups) == len(listed)


@settings(max_examples=80)
@given(st.data())
def test_a_wider_grant_never_takes_a_row_away(readers, data):
    plan, person, unit = data.draw(cases.readers(readers.world))
    kind = data.draw(KINDS)
    # Relations may shrink a "none" or a "not" as they become visible: own columns only.
    where = data.draw(cases.conditions(readers.world, kind, ruled=True))
    narrow = readers.reader(plan, person, unit)
    wide = readers.reader({**plan, kind: {**plan[kind], "scope": "all"}}, person, unit)
    assert ids(readers, narrow, kind, where) <= ids(readers, wide, kind, where)


@settings(max_examples=80)
@given(st.data())
def test_hiding_a_field_changes_nothing_that_does_not_name_it(readers, data):
    kind = data.draw(KINDS)
    name = data.draw(
        st.sampled_from(
            sorted(n for n, (t, _, s, _) in FIELDS[kind].items() if t != "rollup" and not s)
        )
    )
    mode = data.draw(st.sampled_from(["hidden", "masked"]))
    query = data.draw(cases.lists(readers.world))
    assume(
        f'"{name}' not in str(query).replace("'", '"')
        and f".{name}" not in str(query)
        and query["from"] == kind
    )
    assume("spent" not in str(query) and "deals" not in str(query) and "deal." not in str(query))
    open_, closed = readers.everything(), readers.everything(**{kind: {"fields": {name: mode}}})
    try:
        whole = readers.go(open_.rows(query))
    except Invalid:
        assume(False)
    assert readers.go(closed.rows(query)) == whole


@pytest.mark.parametrize("sort", ["amount", "-amount", "closes", "-title"])
def test_the_order_of_ties_loses_nobody(readers, sort):
    reader = readers.everything()
    query = {"from": "deal", "select": ["id"], "sort": [sort], "limit": 2}
    paged = readers.go(reader.all_pages(query))
    whole = readers.go(reader.rows({**query, "limit": 1000}))
    assert paged == whole
    assert len({r["id"] for r in paged}) == len(paged) == len(reader.reference.visible("deal"))


def test_a_ruler_leads_into_the_list(readers):
    reader = readers.everything()
    query = {"from": "deal", "select": ["id"], "sort": ["-amount"], "limit": 5}
    whole = readers.go(reader.rows({**query, "limit": 1000}))
    page = readers.go(reader.page({**query, "ruler": True}))
    assert page.ruler
    for mark in page.ruler:
        behind = readers.go(reader.rows({**query, "after": mark.after}))
        assert behind == whole[mark.position : mark.position + 5]
