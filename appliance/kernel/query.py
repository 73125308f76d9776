"""The query language as a tree, and its strict reader from JSON.

Every unknown key, wrong type and exceeded bound is a fault with a JSON pointer; names are only
checked for their form here, what they mean is resolved in the reader's own schema (read/names).
Grammar and operators: docs/query-language.md.
"""

from __future__ import annotations

import re
from uuid import UUID

import msgspec

from appliance.base import limits
from appliance.base.errors import FieldFault, Invalid
from appliance.kernel.kind import Json

OPERATORS = frozenset(
    "eq ne gt gte lt lte in not_in between contains starts_with is_null within under matches "
    "has_any has_all".split()
)
FUNCTIONS = frozenset({"count", "count_distinct", "sum", "avg", "min", "max"})
BUCKETS = frozenset({"day", "week", "month", "quarter", "year"})
EVERYTHING = "*"
_PATH = re.compile(r"[a-z][a-z0-9_]{0,39}(\.[a-z][a-z0-9_]{0,39}){0,3}\Z")
_KIND = re.compile(r"(sys\.)?[a-z][a-z0-9_]{0,39}\Z")
_ALIAS = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class And(msgspec.Struct, frozen=True):
    """All of them; none at all is true."""

    items: tuple[Cond, ...]


class Or(msgspec.Struct, frozen=True):
    """At least one of them; none at all is false."""

    items: tuple[Cond, ...]


class Not(msgspec.Struct, frozen=True):
    """The exact complement: what is not true."""

    item: Cond


class Test(msgspec.Struct, frozen=True):
    """A field, an operator and a value; `at` is where it stands in the request."""

    path: str
    op: str
    value: Json
    at: str


class Related(msgspec.Struct, frozen=True):
    """Whether a related record exists: `any`, or `none` when negated."""

    relation: str
    where: Cond | None
    negated: bool
    at: str


Cond = And | Or | Not | Test | Related


class Item(msgspec.Struct, frozen=True):
    """One selected value: a path, or a function over one."""

    path: str
    function: str | None
    alias: str
    at: str


class Group(msgspec.Struct, frozen=True):
    """One grouping key: a path, in buckets of time if one is named."""

    path: str
    bucket: str | None
    alias: str
    at: str


class Sort(msgspec.Struct, frozen=True):
    """One sort key; nulls come last unless said otherwise."""

    path: str
    descending: bool
    nulls_first: bool
    at: str


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """A whole query. `select` empty means the record as a whole."""

    source: str
    select: tuple[Item, ...] = ()
    where: Cond | None = None
    search: str | None = None
    group: tuple[Group, ...] = ()
    sort: tuple[Sort, ...] = ()
    limit: int = limits.PAGE_ROWS_DEFAULT
    after: str | None = None
    asof: str | None = None
    total: bool = False
    ruler: bool = False
    display: bool = False
    deleted: bool = False


def search_scope_lexeme(tenant: UUID, kind: str) -> str:
    """The lexeme every record of a kind carries in its search vector."""
    return f"k{tenant.hex}{kind}"


class _Reader:
    """Collects faults and counts nodes while a tree is read."""

    def __init__(self) -> None:
        self.faults: list[FieldFault] = []
        self.nodes = 0

    def fault(self, at: str, code: str, detail: str) -> None:
        self.faults.append(FieldFault(at, code, detail))


def decode_query(raw: Json) -> Query:
    """The tree of a JSON query. Raises Invalid with all faults."""
    reader = _Reader()
    query = _query(reader, raw)
    if reader.faults or query is None:
        raise Invalid("The query cannot be run as it is.", code="query.invalid", faults=tuple(reader.faults))
    return query


def decode_condition(raw: Json, at: str = "") -> Cond:
    """The tree of a JSON condition alone (row rules). Raises Invalid."""
    reader = _Reader()
    cond = _cond(reader, raw, at, 1)
    if reader.faults or cond is None:
        raise Invalid("The condition cannot be read.", code="query.invalid", faults=tuple(reader.faults))
    return cond


_KEYS = frozenset(
    "from select where search group sort limit after asof total ruler display deleted".split()
)


def _query(r: _Reader, raw: Json) -> Query | None:
    if not isinstance(raw, dict):
        r.fault("", "wrong_type", 'Expected an object like {"from": "deal"}.')
        return None
    for key in raw.keys() - _KEYS:
        r.fault(f"/{_token(key)}", "unknown_key", f"Expected one of {', '.join(sorted(_KEYS))}.")
    source = raw.get("from")
    if not (isinstance(source, str) and _KIND.match(source)):
        r.fault("/from", "required", "Say which kind to read from.")
        source = ""
    limit = raw.get("limit", limits.PAGE_ROWS_DEFAULT)
    if isinstance(limit, bool) or not isinstance(limit, int) or not 0 < limit <= limits.PAGE_ROWS_MAX:
        r.fault("/limit", "out_of_range", f"Expected 1 to {limits.PAGE_ROWS_MAX}.")
        limit = 1
    where = raw.get("where")
    return Query(
        source=source,
        select=tuple(_list(r, raw, "select", limits.SELECT_MAX, _item)),
        where=_cond(r, where, "/where", 1) if where is not None else None,
        search=_text(r, raw, "search"),
        group=tuple(_list(r, raw, "group", limits.GROUP_MAX, _group)),
        sort=tuple(_list(r, raw, "sort", limits.SORT_MAX, _sort)),
        limit=limit,
        after=_text(r, raw, "after", most=4_096),
        asof=_text(r, raw, "asof"),
        **{flag: _flag(r, raw, flag) for flag in ("total", "ruler", "display", "deleted")},
    )


def _list(r: _Reader, raw: dict[str, Json], key: str, most: int, read: object) -> list[object]:
    given = raw.get(key)
    if given is None:
        return []
    if not isinstance(given, list) or len(given) > most:
        r.fault(f"/{key}", "out_of_range", f"Expected a list of at most {most}.")
        return []
    found = [read(r, entry, f"/{key}/{n}") for n, entry in enumerate(given)]  # type: ignore[operator]
    aliases = [f.alias for f in found if f is not None and hasattr(f, "alias")]
    if len(set(aliases)) != len(aliases):
        r.fault(f"/{key}", "repeated", "Two entries would have the same name; give one an `as`.")
    return [f for f in found if f is not None]


def _text(r: _Reader, raw: dict[str, Json], key: str, most: int = limits.VALUE_CHARS_MAX) -> str | None:
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
            path = EVERYTHING if target == EVERYTHING and name == "count" else _path(r, target, f"{at}/{name}")
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
            r.fault(f"{at}/bucket", "bucket_unknown", f"Expected one of {', '.join(sorted(BUCKETS))}.")
            return None
        return Group(path, str(bucket) if bucket else None, _alias(r, raw, at, path), at) if path else None
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
    r.fault(at, "sort_malformed", 'Expected "-amount" or {"field", "dir": asc|desc, "nulls": first|last}.')
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
    r.fault(at, "condition_malformed", 'Expected {"field", "op", "value"}, {"and"}, {"or"}, {"not"}, {"any"} or {"none"}.')
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
    if not (isinstance(relation, str) and len(relation) <= 90 and _PATH.match(relation)):
        r.fault(f"{at}/{word}", "path_malformed", "Expected a relation, or kind.field for one that refers here.")
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
    if op not in ("is_null",) and value is None:
        r.fault(at, "null_compared", "Nothing compares with null; use is_null.")
        return False
    for entry in value if isinstance(value, list) else [value]:
        if isinstance(entry, str) and (len(entry) > limits.VALUE_CHARS_MAX or _UNSTORABLE.search(entry)):
            r.fault(at, "text_refused", f"At most {limits.VALUE_CHARS_MAX} storable characters.")
            return False
        if isinstance(entry, (dict, list)) and op != "within":
            r.fault(at, "wrong_type", "Expected a plain value.")
            return False
    return True


def _token(key: str) -> str:
    return key[:80].replace("~", "~0").replace("/", "~1")
