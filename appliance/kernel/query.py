"""The query language as JSON, read strictly into its tree.

Every unknown key, wrong type and exceeded bound is a fault with a JSON pointer; names are only
checked for their form here, what they mean is resolved in the reader's own schema (read/names).
Grammar and operators: docs/query-language.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from appliance.base import limits
from appliance.base.errors import FieldFault, Invalid
from appliance.kernel.kind import Json
from appliance.kernel.tree import (
    EVERYTHING,
    FLAGS,
    And,
    Cond,
    Group,
    Item,
    Not,
    Or,
    Query,
    Related,
    Sort,
    Test,
    search_scope_lexeme,
)

__all__ = [
    "BUCKETS", "EVERYTHING", "FUNCTIONS", "OPERATORS", "And", "Cond", "Group", "Item", "Not", "Or",
    "Query", "Related", "Sort", "Test", "decode_condition", "decode_query", "search_scope_lexeme",
]  # fmt: skip

OPERATORS = frozenset({
    "eq", "ne", "gt", "gte", "lt", "lte", "in", "not_in", "between", "contains", "starts_with",
    "is_null", "within", "under", "matches", "has_any", "has_all",
})  # fmt: skip
FUNCTIONS = frozenset({"count", "count_distinct", "sum", "avg", "min", "max"})
BUCKETS = frozenset({"day", "week", "month", "quarter", "year"})
_PATH = re.compile(r"[a-z][a-z0-9_]{0,39}(\.[a-z][a-z0-9_]{0,39}){0,3}\Z")
_KIND = re.compile(r"(sys\.)?[a-z][a-z0-9_]{0,39}\Z")
_ALIAS = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_FAULTS_MAX = 50
_INTEGER_MAX = 2**63
_RELATION_CHARS_MAX = 90
_CURSOR_CHARS_MAX = 8_192
T = TypeVar("T")


class _Reader:
    """Collects faults and counts nodes while a tree is read."""

    def __init__(self) -> None:
        self.faults: list[FieldFault] = []
        self.nodes = 0

    def fault(self, at: str, code: str, detail: str) -> None:
        if len(self.faults) < _FAULTS_MAX:
            self.faults.append(FieldFault(at, code, detail))

    def refusal(self, what: str) -> Invalid:
        """What is raised when anything was wrong."""
        return Invalid(what, code="query.invalid", faults=tuple(self.faults))


def decode_query(raw: Json) -> Query:
    """The tree of a JSON query. Raises Invalid with all faults."""
    reader = _Reader()
    query = _query(reader, raw)
    if reader.faults or query is None:
        raise reader.refusal("The query cannot be run as it is.")
    return query


def decode_condition(raw: Json, at: str = "") -> Cond:
    """The tree of a JSON condition alone (row rules). Raises Invalid."""
    reader = _Reader()
    cond = _cond(reader, raw, at, 1)
    if reader.faults or cond is None:
        raise reader.refusal("The condition cannot be read.")
    return cond


_KEYS = frozenset({
    "from", "select", "where", "search", "group", "having", "sort", "limit", "after", "asof", *FLAGS,
})  # fmt: skip


def _query(r: _Reader, raw: Json) -> Query | None:
    if not isinstance(raw, dict):
        r.fault("", "wrong_type", 'Expected an object like {"from": "deal"}.')
        return None
    for key in sorted(map(str, raw.keys() - _KEYS)):
        r.fault(f"/{_token(key)}", "unknown_key", f"Expected one of {', '.join(sorted(_KEYS))}.")
    source = raw.get("from")
    if not (isinstance(source, str) and _KIND.match(source)):
        r.fault("/from", "required", "Say which kind to read from.")
        source = ""
    limit = raw.get("limit", limits.PAGE_ROWS_DEFAULT)
    if (
        isinstance(limit, bool)
        or not isinstance(limit, int)
        or not 0 < limit <= limits.PAGE_ROWS_MAX
    ):
        r.fault("/limit", "out_of_range", f"Expected 1 to {limits.PAGE_ROWS_MAX}.")
        limit = 1
    where, having = raw.get("where"), raw.get("having")
    return Query(
        source=source,
        select=_list(r, raw, "select", limits.SELECT_MAX, _item),
        where=_cond(r, where, "/where", 1) if where is not None else None,
        search=_text(r, raw, "search"),
        group=_list(r, raw, "group", limits.GROUP_MAX, _group),
        having=_cond(r, having, "/having", 1) if having is not None else None,
        sort=_list(r, raw, "sort", limits.SORT_MAX, _sort),
        limit=limit,
        after=_text(r, raw, "after", most=_CURSOR_CHARS_MAX),
        asof=_text(r, raw, "asof"),
        **{flag: _flag(r, raw, flag) for flag in FLAGS},
    )


def _list(
    r: _Reader,
    raw: dict[str, Json],
    key: str,
    most: int,
    read: Callable[[_Reader, Json, str], T | None],
) -> tuple[T, ...]:
    given = raw.get(key)
    if given is None:
        return ()
    if not isinstance(given, list) or len(given) > most:
        r.fault(f"/{key}", "out_of_range", f"Expected a list of at most {most}.")
        return ()
    found = [read(r, entry, f"/{key}/{n}") for n, entry in enumerate(given)]
    names = [getattr(f, "alias", None) or getattr(f, "path", "") for f in found if f is not None]
    if len(set(names)) != len(names):
        r.fault(f"/{key}", "repeated", "Two entries would have the same name; give one an `as`.")
    return tuple(f for f in found if f is not None)


def _text(
    r: _Reader, raw: dict[str, Json], key: str, most: int = limits.VALUE_CHARS_MAX
) -> str | None:
    value = raw.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > most or _UNSTORABLE.search(value):
        r.fault(f"/{key}", "wrong_type", f"Expected text of at most {most} characters.")
        return None
    return value


def _flag(r: _Reader, raw: dict[str, Json], key: str) -> bool:
    value = raw.get(key, False)
    if not isinstance(value, bool):
        r.fault(f"/{key}", "wrong_type", "Expected true or false.")
        return False
    return value


def _path(r: _Reader, value: Json, at: str) -> str | None:
    if not (isinstance(value, str) and _PATH.match(value)):
        r.fault(at, "path_malformed", "Expected a field name, or a path like customer.name.")
        return None
    if value.count(".") >= limits.PATH_STEPS_MAX:
        r.fault(at, "too_deep", f"A path has at most {limits.PATH_STEPS_MAX} steps.")
        return None
    return value


def _alias(r: _Reader, raw: dict[str, Json], at: str, default: str) -> str:
    alias = raw.get("as")
    if alias is None:
        return default
    if not (isinstance(alias, str) and _ALIAS.match(alias)):
        r.fault(f"{at}/as", "name_malformed", "Expected up to 40 of a-z, 0-9 and _.")
        return default
    return alias


def _item(r: _Reader, raw: Json, at: str) -> Item | None:
    if isinstance(raw, str):
        path = _path(r, raw, at)
        return Item(path, None, path, at) if path else None
    if isinstance(raw, dict):
        functions = [k for k in raw if k in FUNCTIONS]
        if len(functions) == 1 and raw.keys() <= {functions[0], "as"}:
            name = functions[0]
            target = raw[name]
            path = (
                EVERYTHING
                if target == EVERYTHING and name == "count"
                else _path(r, target, f"{at}/{name}")
            )
            default = name if path == EVERYTHING else f"{name}_{path}".replace(".", "_")
            return Item(path, name, _alias(r, raw, at, default), at) if path else None
        if "field" in raw and raw.keys() <= {"field", "as"}:
            path = _path(r, raw["field"], f"{at}/field")
            return Item(path, None, _alias(r, raw, at, path), at) if path else None
    r.fault(at, "item_malformed", 'Expected a path, {"field", "as"} or {"sum": path, "as"}.')
    return None


def _group(r: _Reader, raw: Json, at: str) -> Group | None:
    if isinstance(raw, str):
        path = _path(r, raw, at)
        return Group(path, None, path, at) if path else None
    if isinstance(raw, dict) and "field" in raw and raw.keys() <= {"field", "bucket", "as"}:
        path = _path(r, raw["field"], f"{at}/field")
        bucket = raw.get("bucket")
        if bucket is not None and not (isinstance(bucket, str) and bucket in BUCKETS):
            r.fault(
                f"{at}/bucket", "bucket_unknown", f"Expected one of {', '.join(sorted(BUCKETS))}."
            )
            return None
        return (
            Group(path, str(bucket) if bucket else None, _alias(r, raw, at, path), at)
            if path
            else None
        )
    r.fault(at, "group_malformed", 'Expected a path or {"field", "bucket", "as"}.')
    return None


def _sort(r: _Reader, raw: Json, at: str) -> Sort | None:
    if isinstance(raw, str):
        path = _path(r, raw.removeprefix("-"), at)
        return Sort(path, raw.startswith("-"), False, at) if path else None
    if isinstance(raw, dict) and "field" in raw and raw.keys() <= {"field", "dir", "nulls"}:
        path = _path(r, raw["field"], f"{at}/field")
        direction, nulls = raw.get("dir", "asc"), raw.get("nulls", "last")
        if direction in ("asc", "desc") and nulls in ("first", "last"):
            return Sort(path, direction == "desc", nulls == "first", at) if path else None
    r.fault(
        at,
        "sort_malformed",
        'Expected "-amount" or {"field", "dir": asc|desc, "nulls": first|last}.',
    )
    return None


def _cond(r: _Reader, raw: Json, at: str, depth: int) -> Cond | None:
    r.nodes += 1
    if r.nodes > limits.COND_NODES_MAX:
        if r.nodes == limits.COND_NODES_MAX + 1:
            r.fault(at, "too_many", f"At most {limits.COND_NODES_MAX} conditions in a query.")
        return None
    if depth > limits.COND_DEPTH_MAX:
        r.fault(at, "too_deep", f"At most {limits.COND_DEPTH_MAX} levels of conditions.")
        return None
    if not isinstance(raw, dict):
        r.fault(at, "wrong_type", "Expected an object with a condition.")
        return None
    for word in ("and", "or"):
        if raw.keys() == {word}:
            return _many(r, raw[word], f"{at}/{word}", depth, word)
    if raw.keys() == {"not"}:
        inner = _cond(r, raw["not"], f"{at}/not", depth + 1)
        return Not(inner) if inner is not None else None
    for word in ("any", "none"):
        if word in raw and raw.keys() <= {word, "where"}:
            return _related(r, raw, at, depth, word)
    if raw.keys() <= {"field", "op", "value"} and "op" in raw:
        return _test(r, raw, at)
    r.fault(
        at,
        "condition_malformed",
        'Expected {"field", "op", "value"}, {"and"}, {"or"}, {"not"}, {"any"} or {"none"}.',
    )
    return None


def _many(r: _Reader, raw: Json, at: str, depth: int, word: str) -> Cond | None:
    if not isinstance(raw, list):
        r.fault(at, "wrong_type", "Expected a list of conditions.")
        return None
    items: list[Cond] = []
    for n, entry in enumerate(raw):
        if r.nodes > limits.COND_NODES_MAX:
            break
        found = _cond(r, entry, f"{at}/{n}", depth + 1)
        if found is not None:
            items.append(found)
    return And(tuple(items)) if word == "and" else Or(tuple(items))


def _related(r: _Reader, raw: dict[str, Json], at: str, depth: int, word: str) -> Cond | None:
    relation, where = raw[word], raw.get("where")
    if not (
        isinstance(relation, str) and len(relation) <= _RELATION_CHARS_MAX and _PATH.match(relation)
    ):
        r.fault(
            f"{at}/{word}",
            "path_malformed",
            "Expected a relation, or kind.field for one that refers here.",
        )
        return None
    inner = _cond(r, where, f"{at}/where", depth + 1) if where is not None else None
    return Related(relation, inner, word == "none", f"{at}/{word}")


def _test(r: _Reader, raw: dict[str, Json], at: str) -> Cond | None:
    op, value = raw["op"], raw.get("value")
    if not (isinstance(op, str) and op in OPERATORS):
        r.fault(f"{at}/op", "operator_unknown", f"Expected one of {', '.join(sorted(OPERATORS))}.")
        return None
    given = raw.get("field", EVERYTHING if op == "matches" else None)
    path = EVERYTHING if given == EVERYTHING and op == "matches" else _path(r, given, f"{at}/field")
    if path is None or not _value_fits(r, op, value, f"{at}/value"):
        return None
    return Test(path, op, value, at)


def _value_fits(r: _Reader, op: str, value: Json, at: str) -> bool:
    many = op in ("in", "not_in", "has_any", "has_all")
    if many and not (isinstance(value, list) and 0 < len(value) <= limits.IN_LIST_MAX):
        r.fault(at, "wrong_type", f"Expected a list of 1 to {limits.IN_LIST_MAX} values.")
        return False
    if op == "between" and not (isinstance(value, list) and len(value) == 2):
        r.fault(at, "wrong_type", "Expected a list of two values.")
        return False
    if op == "is_null" and not isinstance(value, bool):
        r.fault(at, "wrong_type", "Expected true or false.")
        return False
    if op != "is_null" and value is None:
        r.fault(at, "null_compared", "Nothing compares with null; use is_null.")
        return False
    if op == "matches" and not isinstance(value, str):
        r.fault(at, "wrong_type", "Expected the words to search for.")
        return False
    for entry in value if isinstance(value, list) else [value]:
        if isinstance(entry, float):
            r.fault(at, "float_refused", 'Send decimals as text, like "10.50".')
            return False
        if isinstance(entry, int) and abs(entry) > _INTEGER_MAX:
            r.fault(at, "out_of_range", "Whole numbers go to 2^63.")
            return False
        if isinstance(entry, str) and (
            len(entry) > limits.VALUE_CHARS_MAX or _UNSTORABLE.search(entry)
        ):
            r.fault(at, "text_refused", f"At most {limits.VALUE_CHARS_MAX} storable characters.")
            return False
        if isinstance(entry, (dict, list)) and op != "within":
            r.fault(at, "wrong_type", "Expected a plain value.")
            return False
    return True


def _token(key: str) -> str:
    return key[:80].replace("~", "~0").replace("/", "~1")
