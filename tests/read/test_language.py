"""Both forms of the language: strict reading, one meaning, refusals with a place."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.base import limits
from appliance.base.errors import FieldFault, Invalid
from appliance.kernel.query import And, Not, Or, Related, decode_condition, decode_query
from appliance.kernel.query_format import format_text
from appliance.kernel.query_text import parse_text
from tests.read import cases, world


class _World:
    """Enough of a world to draw questions from."""

    class tenant:
        units = {"head": "0190c8b0-1234-7abc-8def-0123456789ab"}

    people = ["0190c8b0-1234-7abc-8def-0123456789ac"]
    rows = [
        world.Row("0190c8b0-1234-7abc-8def-0123456789ad", k, None, None, {})
        for k in ("deal", "customer")
    ]


def bare(node):
    """A tree without its places, with single-membered conditions as their member."""
    if isinstance(node, (And, Or)):
        items = tuple(map(bare, node.items))
        return items[0] if len(items) == 1 else type(node)(items)
    if isinstance(node, Not):
        return Not(bare(node.item))
    if isinstance(node, Related):
        return msgspec.structs.replace(node, where=bare(node.where), at="")
    if isinstance(node, tuple):
        return tuple(map(bare, node))
    if isinstance(node, msgspec.Struct):
        changed = {
            f: bare(getattr(node, f))
            for f in node.__struct_fields__
            if f in ("where", "having", "select", "group", "sort")
        }
        return msgspec.structs.replace(
            node, **changed, **({"at": ""} if hasattr(node, "at") else {})
        )
    return node


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@settings(max_examples=400)
@given(st.one_of(cases.lists(_World), cases.groupings(_World)), TEXTS, st.booleans())
def test_text_and_tree_say_the_same(raw, text, flag):
    raw = {**raw, "search": text or "x", "deleted": flag}
    if raw.get("group"):
        raw["having"] = {
            "and": [
                {"field": "n", "op": "gt", "value": 1},
                {"field": "k0", "op": "ne", "value": text},
            ]
        }
    query = decode_query(raw)
    again = parse_text(format_text(query))
    assert bare(again) == bare(query)
    assert format_text(again) == format_text(bare(query))


@pytest.mark.parametrize(("text", "same"), [
    ("deal", {"from": "deal"}),
    ('deal where amount >= 1000 and customer.city = "Kyiv" sort -amount limit 50',
     {"from": "deal", "where": {"and": [{"field": "amount", "op": "gte", "value": 1000}, {"field": "customer.city", "op": "eq", "value": "Kyiv"}]}, "sort": ["-amount"], "limit": 50}),
    ("sys.person sort name nulls first total", {"from": "sys.person", "sort": [{"field": "name", "nulls": "first"}], "total": True}),
    ("deal select title, customer.name as who, sum(amount) as total, count(*) group stage, closes by month as m having total > 10.5",
     {"from": "deal", "select": ["title", {"field": "customer.name", "as": "who"}, {"sum": "amount", "as": "total"}, {"count": "*"}],
      "group": ["stage", {"field": "closes", "bucket": "month", "as": "m"}], "having": {"field": "total", "op": "gt", "value": "10.5"}}),
    ("deal where not (stage in (won, lost) or closes is null)",
     {"from": "deal", "where": {"not": {"or": [{"field": "stage", "op": "in", "value": ["won", "lost"]}, {"field": "closes", "op": "is_null", "value": True}]}}}),
    ("deal where closes within last 30 days and met within this_month and closes between 2026-01-01 and 2026-12-31",
     {"from": "deal", "where": {"and": [{"field": "closes", "op": "within", "value": {"last_days": 30}}, {"field": "met", "op": "within", "value": "this_month"}, {"field": "closes", "op": "between", "value": ["2026-01-01", "2026-12-31"]}]}}),
    ('customer where any(deal.customer where stage = won) and none(parent) and tags has all (a) and name starts with "A" and name contains b and matches "x y"',
     {"from": "customer", "where": {"and": [{"any": "deal.customer", "where": {"field": "stage", "op": "eq", "value": "won"}}, {"none": "parent"}, {"field": "tags", "op": "has_all", "value": ["a"]},
      {"field": "name", "op": "starts_with", "value": "A"}, {"field": "name", "op": "contains", "value": "b"}, {"op": "matches", "value": "x y"}]}}),
    ("deal where `any` = true and a.b != -3", {"from": "deal", "where": {"and": [{"field": "any", "op": "eq", "value": True}, {"field": "a.b", "op": "ne", "value": -3}]}}),
    ("deal where true or false", {"from": "deal", "where": {"or": [{"and": []}, {"or": []}]}}),
])  # fmt: skip
def test_text_form(text, same):
    assert bare(parse_text(text)) == bare(decode_query(same))


@pytest.mark.parametrize(("text", "column"), [
    ("", "the end"), ("DEAL", "column 1"), ("deal where", "the end"), ("deal where a =", "the end"), ("deal where a ~ 1", "column 14"),
    ("deal where (a = 1", "the end"), ("deal where a = 1 2", "column 18"), ("deal limit x", "column 12"), ("deal\nwhere a in 1", "line 2, column 12"),
    ('deal where a = "x', "column 16"), ("deal where a = 'x'", "column 16"), ("deal; drop table record", "column 5"), ("deal where a = \x00", "column 16"),
])  # fmt: skip
def test_faults_of_text_say_where(text, column):
    with pytest.raises(Invalid) as refused:
        parse_text(text, "/q")
    (fault,) = refused.value.faults
    assert fault.pointer == "/q"
    assert fault.code == "text_malformed"
    assert column in fault.detail.replace("At the end", "the end"), fault.detail


DEEP = {"field": "a", "op": "eq", "value": 1}
for _ in range(limits.COND_DEPTH_MAX):
    DEEP = {"not": DEEP}
TEST = {"field": "a", "op": "eq", "value": 1}


@pytest.mark.parametrize(("raw", "pointer"), [
    (None, ""), ([], ""), ("deal", ""), (1, ""), ({}, "/from"), ({"from": None}, "/from"), ({"from": "Deal"}, "/from"), ({"from": "a" * 41}, "/from"),
    ({"from": "deal\n"}, "/from"), ({"from": "deal", "form": 1}, "/form"), ({"from": "deal", "a/b~c": 1}, "/a~1b~0c"),
    ({"from": "deal", "limit": 0}, "/limit"), ({"from": "deal", "limit": True}, "/limit"), ({"from": "deal", "limit": 1e9}, "/limit"), ({"from": "deal", "limit": 1001}, "/limit"),
    ({"from": "deal", "select": "a"}, "/select"), ({"from": "deal", "select": ["a"] * 101}, "/select"), ({"from": "deal", "select": ["a", "a"]}, "/select"),
    ({"from": "deal", "select": ["a;--"]}, "/select/0"), ({"from": "deal", "select": [{"sum": "a", "avg": "b"}]}, "/select/0"), ({"from": "deal", "select": [{"field": "a", "as": 'x"y'}]}, "/select/0/as"),
    ({"from": "deal", "select": ["a.b.c.d"]}, "/select/0"), ({"from": "deal", "select": ["a..b"]}, "/select/0"), ({"from": "deal", "select": [{"sum": "*"}]}, "/select/0/sum"),
    ({"from": "deal", "group": [{"field": "a", "bucket": "century"}]}, "/group/0/bucket"), ({"from": "deal", "group": ["a"] * 5}, "/group"),
    ({"from": "deal", "sort": [{"field": "a", "dir": "up"}]}, "/sort/0"), ({"from": "deal", "sort": ["a", "b", "c", "d"]}, "/sort"), ({"from": "deal", "sort": ["--a"]}, "/sort/0"),
    ({"from": "deal", "where": []}, "/where"), ({"from": "deal", "where": {}}, "/where"), ({"from": "deal", "where": {"and": [], "or": []}}, "/where"),
    ({"from": "deal", "where": {"and": {}}}, "/where/and"), ({"from": "deal", "where": {"or": [TEST, None]}}, "/where/or/1"),
    ({"from": "deal", "where": {**TEST, "op": "regex"}}, "/where/op"), ({"from": "deal", "where": {**TEST, "op": ["eq"]}}, "/where/op"), ({"from": "deal", "where": {**TEST, "extra": 1}}, "/where"),
    ({"from": "deal", "where": {**TEST, "value": None}}, "/where/value"), ({"from": "deal", "where": {**TEST, "value": {"$gt": 1}}}, "/where/value"), ({"from": "deal", "where": {**TEST, "value": [1]}}, None),
    ({"from": "deal", "where": {**TEST, "value": "a\0b"}}, "/where/value"), ({"from": "deal", "where": {**TEST, "value": "\ud800"}}, "/where/value"), ({"from": "deal", "where": {**TEST, "value": "x" * 1025}}, "/where/value"),
    ({"from": "deal", "where": {**TEST, "value": 2**64}}, "/where/value"), ({"from": "deal", "where": {**TEST, "value": 1.5}}, "/where/value"), ({"from": "deal", "where": {**TEST, "value": float("nan")}}, "/where/value"),
    ({"from": "deal", "where": {"field": "a", "op": "in", "value": []}}, "/where/value"), ({"from": "deal", "where": {"field": "a", "op": "in", "value": [1] * 501}}, "/where/value"),
    ({"from": "deal", "where": {"field": "a", "op": "in", "value": [[1]]}}, "/where/value"), ({"from": "deal", "where": {"field": "a", "op": "between", "value": [1]}}, "/where/value"),
    ({"from": "deal", "where": {"field": "a", "op": "is_null", "value": 1}}, "/where/value"), ({"from": "deal", "where": {"op": "matches", "value": ["x"]}}, "/where/value"),
    ({"from": "deal", "where": {"any": "a b"}}, "/where/any"), ({"from": "deal", "where": {"any": "a", "where": 1}}, "/where/where"), ({"from": "deal", "where": {"not": None}}, "/where/not"),
    ({"from": "deal", "where": DEEP}, "/where" + "/not" * 8), ({"from": "deal", "where": {"and": [TEST] * 64}}, "/where/and/63"),
    ({"from": "deal", "search": "\0"}, "/search"), ({"from": "deal", "search": 1}, "/search"), ({"from": "deal", "after": 1}, "/after"), ({"from": "deal", "total": 1}, "/total"),
    ({"from": "deal", "having": {"x": 1}}, "/having"),
])  # fmt: skip
def test_hostile_trees_are_refused_at_their_place(raw, pointer):
    if pointer is None:
        decode_query(raw)
        return
    with pytest.raises(Invalid) as refused:
        decode_query(raw)
    assert pointer in [f.pointer for f in refused.value.faults]
    assert len(refused.value.faults) <= 50


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
        ["from", "where", "and", "or", "not", "any", "none", "field", "op", "value", "select", "sum", "as", "group", "bucket", "sort", "dir", "limit", "after", "x"]), inner, max_size=5),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=500)
@given(ANYTHING)
def test_anything_is_read_or_refused(raw):
    for read in (
        decode_query,
        decode_condition,
        lambda r: decode_query({"from": "deal", "where": r}),
    ):
        try:
            read(raw)
        except Invalid as refused:
            assert all(isinstance(f, FieldFault) for f in refused.faults)
            assert refused.faults


@settings(max_examples=500)
@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(
    ["deal", "where", "select", "a", "=", "(", ")", "and", "or", "not", "in", '"x"', "1", "-", "any", "between", "within", "last", "days", ",", "limit", "sort", "as", "by", "group"]), max_size=14).map(" ".join)))  # fmt: skip
def test_any_text_is_read_or_refused(text):
    try:
        parse_text(text)
    except Invalid as refused:
        assert refused.faults


def test_long_nesting_does_not_break_the_reader():
    for text in (
        "deal where " + "(" * 30_000,
        "deal where " + "not " * 16_000 + "true",
        "deal where " + "(" * 20_000 + "a = 1" + ")" * 20_000,
        "x" * 70_000,
    ):
        with pytest.raises(Invalid):
            query = parse_text(text)
            assert query.where.path == "a"
            raise Invalid("redundant brackets are no depth")
