"""Random readers and questions over tests/read/world, as hypothesis strategies.

Only names and operators are half-way sensible: a part of the questions must be refused, and the
reference says which.
"""

from hypothesis import strategies as st

from tests.read import world as w
from tests.read.reference import FUNCTIONS, OPERATORS
from tests.read.world import FIELDS, SYSTEM

MODES = st.sampled_from(["read"] * 14 + ["write", "write", "masked", "hidden"])
PERIODS = [
    "today",
    "this_month",
    "last_month",
    "next_month",
    "this_week",
    "last_2_days",
    {"last_days": 30},
    {"next_days": 10},
    "this_year",
    "last_year",
    "next_quarter",
    "tomorrow",
]


@st.composite
def readers(draw, world):
    """A profile as data, a person and a unit."""
    plan = {}
    for kind in FIELDS:
        scope = draw(
            st.sampled_from(
                ["all", "all", "all", "own", "unit", "subtree", "rule", "rule"] * 2 + ["none"]
            )
        )
        if scope == "rule":
            scope = {"where": draw(conditions(world, kind, ruled=True, depth=2))}
        restore = draw(st.sampled_from(["none", "all", "own"]))
        plan[kind] = {
            "scope": scope,
            "restore": restore,
            "fields": {n: draw(MODES) for n in FIELDS[kind]},
        }
    return plan, draw(st.integers(0, 1)), draw(st.sampled_from(["head", "north", "south"]))


def _values(world, kind, name, type_):
    match type_:
        case "text":
            return st.sampled_from([*w.TEXTS, *w.WORDS, "A%", "_", "%", "\\", "Z", "ЁЛ", "zorb a"])
        case "number" | "money":
            return st.sampled_from([*w.AMOUNTS, *w.SCORES, 0, 10, -1])
        case "integer":
            return st.sampled_from([-1, 0, 1, 2, 2**40, 2**50])
        case "yes_no":
            return st.booleans()
        case "choice":
            return st.sampled_from(["new", "won", "lost"])
        case "multi_choice":
            return st.sampled_from("abc")
        case "date":
            return st.sampled_from(w.DATES)
        case "moment":
            return st.sampled_from(w.MOMENTS)
    if name == "unit":
        return st.sampled_from([str(u) for u in world.tenant.units.values()])
    if name in ("owner", "created_by", "updated_by"):
        return st.sampled_from([str(p) for p in world.people])
    return st.sampled_from(
        [r.id for r in world.rows if r.kind == ("customer" if name != "id" else kind)][:12]
    )


def paths(kind, *, ruled=False, use="use"):
    """Names of a kind, and of what it refers to; usable ones come more often."""
    own = [n for n, (t, f, _, _) in FIELDS[kind].items() if f or use == "select" or t == "rollup"]
    found = [
        *own,
        *own,
        *own,
        "memo" if kind == "customer" else "nothing",
        "unit",
        "owner",
        "id",
        "created_at",
    ]
    if use != "select":
        found = [n for n in found if FIELDS[kind].get(n, ("",))[0] != "rollup"] + ["spent"]
    if not ruled:
        steps = ["customer"] if kind == "deal" else ["parent"]
        found += [
            f"{s}.{n}" for s in steps for n in ("name", "city", "score", "unit", "secret", "vip")
        ]
        if kind == "deal":
            found.append("customer.parent.name")
    if ruled:
        found = [n for n in found if n in SYSTEM or (n in FIELDS[kind] and FIELDS[kind][n][1])]
    return st.sampled_from(found)


@st.composite
def tests(draw, world, kind, *, ruled):
    names = paths(kind, ruled=ruled)
    if kind == "deal":
        names = st.one_of(
            names,
            names,
            names,
            st.sampled_from(["closes", "met", "title", "customer.name" if not ruled else "title"]),
        )
    path = draw(names)
    *steps, last = path.split(".")
    holder = kind if not steps else "customer"
    type_ = SYSTEM.get(last) or FIELDS[holder].get(last, ("text",))[0]
    if type_ == "rollup":
        type_ = "number"
    ops = sorted(OPERATORS[type_]) + ["is_null"] + (["under"] * 2 if last == "unit" else [])
    ops += ["within"] * (6 if type_ in ("date", "moment") else 0)
    ops += ["contains", "starts_with"] * (2 if type_ == "text" else 0)
    if last == "number":
        ops = ["is_null"]
    op = draw(st.sampled_from(ops))
    if op == "is_null":
        return {"field": path, "op": op, "value": draw(st.booleans())}
    if op == "within":
        return {"field": path, "op": op, "value": draw(st.sampled_from(PERIODS))}
    values = _values(world, holder, last, type_)
    if op in ("contains", "starts_with"):
        values = st.sampled_from(["_", "%", "A%", "a_b", "\\", "B", "zor", "\\x", "Z"])
    if op in ("in", "not_in", "has_any", "has_all"):
        return {"field": path, "op": op, "value": draw(st.lists(values, min_size=1, max_size=3))}
    if op == "between":
        return {"field": path, "op": op, "value": [draw(values), draw(values)]}
    return {"field": path, "op": op, "value": draw(values)}


@st.composite
def conditions(draw, world, kind, *, ruled=False, depth=3):
    shape = draw(
        st.sampled_from(
            ["test"] * 4 + ["and", "or", "not"] + ([] if ruled else ["any", "none", "words"])
        )
    )
    if depth <= 1 and shape not in ("test", "words"):
        shape = "test"
    inner = conditions(world, kind, ruled=ruled, depth=depth - 1)
    match shape:
        case "and" | "or":
            return {shape: draw(st.lists(inner, min_size=0 if not ruled else 1, max_size=3))}
        case "not":
            return {"not": draw(inner)}
        case "words":
            return {"op": "matches", "value": draw(searches())}
        case "any" | "none":
            related, name = draw(st.sampled_from(
                [("customer", "customer"), ("customer", "watchers")] if kind == "deal"
                else [("deal", "deal.customer"), ("deal", "deal.watchers"), ("customer", "parent"), ("customer", "customer.parent")]
            ))  # fmt: skip
            found = {shape: name}
            if draw(st.booleans()):
                found["where"] = draw(conditions(world, related, depth=depth - 1))
            return found
    return draw(tests(world, kind, ruled=ruled))


def searches():
    return st.sampled_from(["zorb", "kv", "mipq 77", "ZOR kvat", "7731", "nothere", "b"])


@st.composite
def lists(draw, world):
    """A question for records."""
    kind = draw(st.sampled_from(["deal", "deal", "customer"]))
    query = {
        "from": kind, "asof": w.ASOF,
        "select": draw(st.lists(paths(kind, use="select"), min_size=1, max_size=4, unique=True)),
    }  # fmt: skip
    if draw(st.integers(0, 3)):
        query["where"] = draw(conditions(world, kind))
    if not draw(st.integers(0, 7)):
        query["search"] = draw(searches())
    sorts = draw(st.lists(paths(kind), max_size=2, unique=True))
    query["sort"] = [
        draw(st.sampled_from([p, f"-{p}", {"field": p, "dir": "desc", "nulls": "first"}, {"field": p, "dir": "asc", "nulls": "first"}]))
        for p in sorts
    ]  # fmt: skip
    if not draw(st.integers(0, 9)):
        query["deleted"] = True
    query["limit"] = draw(st.sampled_from([3, 7, 1000, 1000, 1000]))
    return query


@st.composite
def groupings(draw, world):
    """A question for groups."""
    kind = draw(st.sampled_from(["deal", "deal", "customer"]))
    keys = []
    dated = st.sampled_from(
        ["closes", "met", "met", "created_at"] if kind == "deal" else ["created_at"]
    )
    for n, path in enumerate(
        draw(st.lists(st.one_of(paths(kind), dated), max_size=2, unique=True))
    ):
        key = {"field": path, "as": f"k{n}"}
        if path in ("closes", "met", "created_at") and draw(st.booleans()):
            key["bucket"] = draw(st.sampled_from(["day", "week", "month", "quarter", "year"]))
        keys.append(key)
    items = [{"count": "*", "as": "n"}]
    for n in range(draw(st.integers(0, 2))):
        path = draw(paths(kind))
        type_ = FIELDS[kind].get(path, ("text",))[0]
        known = sorted(FUNCTIONS.get(type_, {"count"}))
        items.append({draw(st.sampled_from(known)): path, "as": f"f{n}"})
    query = {"from": kind, "asof": w.ASOF, "select": items, "group": keys, "limit": 1000}
    if draw(st.booleans()):
        query["where"] = draw(conditions(world, kind))
    if not draw(st.integers(0, 7)):
        query["search"] = draw(searches())
    return query
