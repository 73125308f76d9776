"""Whatever is asked, the answer is rows or a refusal: never a fault of the database or of ours."""

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.base.errors import ApplianceError, Invalid
from appliance.kernel.query import BUCKETS, FUNCTIONS, OPERATORS
from tests.read import world as w
from tests.read.world import FIELDS, SYSTEM

NAMES = st.sampled_from([
    *FIELDS["deal"], *FIELDS["customer"], *SYSTEM, "version", "nothing", "kind", "data", "tenant_id", "search", "customer.name", "customer.spent",
    "customer.parent.name", "customer.version", "watchers.name", "unit.name", "owner.name", "tags.x", "deal.customer", "customer.parent", "deal.watchers", "sys.unit.parent", "sys.person", "id.id",
])  # fmt: skip
VALUES = st.one_of(
    st.sampled_from([*w.TEXTS, *w.AMOUNTS, *w.DATES, *w.MOMENTS, "today", "last_9999_days", "last_0_days", "0001-01-01", "9999-12-31", "2026-02-30", "1e5", "NaN", "Infinity", "-0", "0190c8b0-1234-7abc-8def-0123456789ab",
                     "{}", "$1", "'", '"', "\\", "%", "\u2028", "\ufffe", "\x7f", "ǰ", "ﬁ", "İ", "9" * 30, "x" * 1024]),
    st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=5),
    st.sampled_from([{"last_days": 3}, {"last_days": -1}, {"last_days": 10**9}, {"next_days": True}, {"x": 1}, {}]),
)  # fmt: skip
# Values near to what a type takes come more often, or little but refusals is tried.
NEAR = st.one_of(
    VALUES,
    st.sampled_from(
        [
            *w.TEXTS,
            *w.AMOUNTS,
            *w.DATES,
            *w.MOMENTS,
            "won",
            "a",
            True,
            3,
            "0190c8b0-1234-7abc-8def-0123456789ab",
        ]
    ),
)


def _fitting(op):
    match op:
        case "is_null":
            return st.booleans()
        case "in" | "not_in" | "has_any" | "has_all":
            return st.lists(NEAR, min_size=1, max_size=2)
        case "between":
            return st.lists(NEAR, min_size=2, max_size=2)
        case "within":
            return st.one_of(
                VALUES,
                st.sampled_from(["this_week", "last_year", {"last_days": 3660}, {"next_days": 1}]),
            )
    return NEAR


TESTS = st.sampled_from(sorted(OPERATORS - {"matches"})).flatmap(
    lambda op: st.fixed_dictionaries({"field": NAMES, "op": st.just(op), "value": _fitting(op)})
)
CONDS = st.recursive(
    st.one_of(TESTS, st.fixed_dictionaries({"op": st.just("matches"), "value": st.text(max_size=12)})),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"and": st.lists(inner, max_size=3)}), st.fixed_dictionaries({"not": inner}),
        st.fixed_dictionaries({"any": NAMES, "where": inner}), st.fixed_dictionaries({"none": NAMES}),
    ),
    max_leaves=6,
)  # fmt: skip
QUERIES = st.fixed_dictionaries(
    {"from": st.sampled_from(["deal", "customer", "deal", "customer", "sys.unit"])},
    optional={
        "where": CONDS, "search": st.text(max_size=12), "sort": st.lists(NAMES.map(lambda n: f"-{n}") | NAMES, max_size=1),
        "select": st.lists(st.one_of(NAMES, st.builds(lambda f, n: {f: n, "as": "f"}, st.sampled_from(sorted(FUNCTIONS)), NAMES)), max_size=1),
        "group": st.lists(st.builds(lambda n, b: {"field": n, "bucket": b, "as": "g"}, NAMES, st.sampled_from([*sorted(BUCKETS), None])), max_size=1),
        "having": st.fixed_dictionaries({"field": st.sampled_from(["f", "g", "x"]), "op": st.sampled_from(sorted(OPERATORS)), "value": VALUES}),
        "asof": st.sampled_from([w.ASOF, "x", "9999-01-01T00:00:00Z", "1900-01-01T00:00:00Z", "2200-12-31T23:59:59Z"]),
        "total": st.booleans(), "ruler": st.booleans(), "display": st.booleans(), "deleted": st.booleans(), "limit": st.sampled_from([1, 50]),
    },
)  # fmt: skip


def ask(readers, query):
    reader = readers.everything()
    try:
        readers.go(reader.page(query))
    except Invalid as refused:
        assert refused.faults or refused.code.startswith("query.")
    except ApplianceError as fault:
        raise AssertionError(f"{query} -> {fault.code}") from fault.__cause__


@settings(max_examples=700)
@given(QUERIES)
def test_odd_questions(readers, query):
    ask(readers, query)


@settings(max_examples=700)
@given(TESTS)
def test_odd_comparisons(readers, test):
    ask(readers, {"from": "deal", "where": test})
    ask(readers, {"from": "customer", "where": {"not": test}, "select": ["id"]})


@settings(max_examples=500)
@given(st.text(max_size=30) | st.text("ab'\"\\&|!():*<> -+½²ё\u0301", max_size=20))
def test_odd_words(readers, typed):
    ask(readers, {"from": "deal", "search": typed})


def test_every_field_sorts_groups_and_counts_or_refuses(readers):
    for kind, fields in FIELDS.items():
        for name in [*fields, *SYSTEM]:
            ask(readers, {"from": kind, "sort": [name], "limit": 2})
            for function in FUNCTIONS:
                ask(
                    readers,
                    {"from": kind, "group": [name], "select": [{function: name, "as": "f"}]},
                )
            for bucket in BUCKETS:
                ask(
                    readers,
                    {
                        "from": kind,
                        "group": [{"field": name, "bucket": bucket}],
                        "select": [{"count": "*"}],
                    },
                )
