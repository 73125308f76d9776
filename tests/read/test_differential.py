"""SQL against the reference: the same answer, or the same refusal, for random readers."""

from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.base.errors import Invalid
from tests.read import cases
from tests.read.reference import Illegal, key

SEEN = Counter()


@pytest.fixture(scope="module", autouse=True)
def vacuity():
    """Prints how many cases said something, and fails when too few did."""
    yield
    print("\ndifferential cases:", dict(SEEN))
    answered = sum(SEEN[k] for k in ("list with rows", "list empty", "groups", "groups empty"))
    assert answered > 0.25 * (answered + SEEN["list refused"] + SEEN["groups refused"])
    assert SEEN["list with rows"] > SEEN["list empty"]


def draw_case(data, readers, questions):
    plan, person, unit = data.draw(cases.readers(readers.world))
    return readers.reader(plan, person, unit), data.draw(questions(readers.world))


@settings(max_examples=2400)
@given(st.data())
def test_lists_are_what_the_reference_lists(readers, data):
    reader, query = draw_case(data, readers, cases.lists)
    readers.go(same_list(reader, query))


async def same_list(reader, query):
    try:
        expected = reader.reference.listed(query)
    except Illegal:
        SEEN["list refused"] += 1
        with pytest.raises(Invalid):
            await reader.page(query)
        return
    SEEN["list with rows" if expected else "list empty"] += 1
    assert await reader.all_pages(query) == expected
    if query["limit"] == 7:
        page = await reader.page({**query, "total": True})
        assert page.total == len(expected)


@settings(max_examples=900)
@given(st.data())
def test_groups_are_what_the_reference_groups(readers, data):
    reader, query = draw_case(data, readers, cases.groupings)
    readers.go(same_groups(reader, query))


async def same_groups(reader, query):
    try:
        expected = reader.reference.grouped(query)
    except Illegal:
        SEEN["groups refused"] += 1
        with pytest.raises(Invalid):
            await reader.page(query)
        return
    SEEN["groups" if expected else "groups empty"] += 1
    kind, keys = query["from"], query.get("group", [])
    found = {}
    for row in await reader.rows(query):
        place = tuple(_shown_key(reader.reference, kind, g, row[g["as"]]) for g in keys)
        assert place not in found
        found[place] = [_figure(reader.reference, kind, i, row[i["as"]]) for i in query["select"]]
    assert found.keys() == expected.keys()
    for place, figures in expected.items():
        for mine, theirs in zip(found[place], figures, strict=True):
            near = isinstance(theirs, Decimal) and mine is not None
            assert abs(mine - theirs) <= Decimal("0.005") if near else mine == theirs


def _shown_key(reference, kind, group, value):
    type_ = reference.type_of(kind, group["field"])
    return key("text", value) if type_ == "text" and value is not None else value


def _figure(reference, kind, item, value):
    ((function, path),) = [(f, p) for f, p in item.items() if f != "as"]
    if value is None or path == "*" or function.startswith("count"):
        return value
    type_ = reference.type_of(kind, path)
    return Decimal(str(value)) if type_ in ("number", "money", "integer") else key(type_, value)
