"""The query language as text, for URLs, the command line and people.

`deal where amount >= 1000 and customer.city = "Kyiv" sort -amount limit 50` is read into the JSON
form and by its strict reader into the tree, so both forms mean the same and have the same bounds.
A name that is a word of the language stands in backquotes; kernel/query_format writes a tree back.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import lark
import msgspec
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from appliance.base import limits
from appliance.base.errors import FieldFault, Invalid
from appliance.kernel.kind import Json
from appliance.kernel.query import FUNCTIONS, decode_query
from appliance.kernel.tree import FLAGS, And, Cond, Not, Or, Query, Related, Test

_COMPARE = {"=": "eq", "!=": "ne", "<>": "ne", ">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_SHOWN = {
    "PATH": "a name", "QUOTED": "a name", "STRING": 'text in "quotes"', "NUMBER": "a number",
    "DATE": "a date", "MOMENT": "a moment", "UUID": "an id",
    "FLAG": ", ".join(FLAGS),
    "COMPARE": "= != > >= < <=", "NULLS": "first, last", "LPAR": "(", "RPAR": ")", "COMMA": ",",
    "STAR": "*", "MINUS": "-", "$END": "the end",
}  # fmt: skip


class _TextError(Exception):
    """What is wrong with a text that the grammar takes."""


_Rule = Callable[[object, list[Any]], Any]


def _clause(name: str) -> _Rule:
    return lambda _, parts: (name, parts)


def _single(name: str) -> _Rule:
    return lambda _, parts: (name, parts[0])


def _test(op: str) -> _Rule:
    return lambda _, parts: {"field": parts[0], "op": op, "value": parts[1]}


def _always(value: Json) -> _Rule:
    return lambda _, _parts: value


class _ToJson(lark.Transformer[lark.Token, Any]):
    """Rule by rule from text to the JSON form; runs while parsing, so no depth is too deep."""

    def start(self, parts: list[Any]) -> Any:
        found: dict[str, Json] = {"from": parts[0]}
        for key, value in parts[1:]:
            if key in found:
                raise _TextError(f"{key} stands there twice.")
            found[key] = value
        return found

    select, group, sort = _clause("select"), _clause("group"), _clause("sort")
    where, having = _single("where"), _single("having")
    contains, starts_with = _test("contains"), _test("starts_with")
    within, under = _test("within"), _test("under")
    is_in, is_not_in = _test("in"), _test("not_in")
    has_any, has_all = _test("has_any"), _test("has_all")
    always, never = _always({"and": []}), _always({"or": []})
    yes, no = _always(True), _always(False)

    def search(self, parts: list[Any]) -> Any:
        return ("search", json.loads(parts[0]))

    def limit(self, parts: list[Any]) -> Any:
        return ("limit", _whole(parts[0]))

    def asof(self, parts: list[Any]) -> Any:
        text = parts[0]
        return ("asof", json.loads(text) if text.startswith('"') else str(text))

    def flag(self, parts: list[Any]) -> Any:
        return (str(parts[0]), True)

    def plain_item(self, parts: list[Any]) -> Any:
        return parts[0]

    def named_item(self, parts: list[Any]) -> Any:
        return {"field": parts[0], "as": parts[1]}

    def function_item(self, parts: list[Any]) -> Any:
        if parts[0] not in FUNCTIONS:
            raise _TextError(f"{parts[0]} is no function: {', '.join(sorted(FUNCTIONS))}.")
        return {str(parts[0]): str(parts[1])}

    def named_function_item(self, parts: list[Any]) -> Any:
        found = self.function_item(parts[:2])
        return {**found, "as": parts[2]}

    def plain_key(self, parts: list[Any]) -> Any:
        return parts[0]

    def named_key(self, parts: list[Any]) -> Any:
        return {"field": parts[0], "as": parts[1]}

    def bucket_key(self, parts: list[Any]) -> Any:
        return {"field": parts[0], "bucket": parts[1]}

    def named_bucket_key(self, parts: list[Any]) -> Any:
        return {"field": parts[0], "bucket": parts[1], "as": parts[2]}

    def ascending(self, parts: list[Any]) -> Any:
        return {"field": parts[0], "dir": "asc"}

    def descending(self, parts: list[Any]) -> Any:
        return {"field": parts[1], "dir": "desc"}

    def placed(self, parts: list[Any]) -> Any:
        key = parts[0]
        if "nulls" in key:
            raise _TextError("nulls stands there twice.")
        return {**key, "nulls": str(parts[1])}

    def either(self, parts: list[Any]) -> Any:
        return {"or": parts}

    def both(self, parts: list[Any]) -> Any:
        return {"and": parts}

    def negation(self, parts: list[Any]) -> Any:
        return {"not": parts[0]}

    def relation(self, parts: list[Any]) -> Any:
        return parts

    def any(self, parts: list[Any]) -> Any:
        return _related("any", parts[0])

    def none(self, parts: list[Any]) -> Any:
        return _related("none", parts[0])

    def words(self, parts: list[Any]) -> Any:
        return {"op": "matches", "value": json.loads(parts[0])}

    def compare(self, parts: list[Any]) -> Any:
        return {"field": parts[0], "op": _COMPARE[str(parts[1])], "value": parts[2]}

    def between(self, parts: list[Any]) -> Any:
        return {"field": parts[0], "op": "between", "value": parts[1:]}

    def is_null(self, parts: list[Any]) -> Any:
        return {"field": parts[0], "op": "is_null", "value": True}

    def is_not_null(self, parts: list[Any]) -> Any:
        return {"field": parts[0], "op": "is_null", "value": False}

    def last_days(self, parts: list[Any]) -> Any:
        return {"last_days": _whole(parts[0])}

    def next_days(self, parts: list[Any]) -> Any:
        return {"next_days": _whole(parts[0])}

    def values(self, parts: list[Any]) -> Any:
        return parts

    def text(self, parts: list[Any]) -> Any:
        return json.loads(parts[0])

    def number(self, parts: list[Any]) -> Any:
        return str(parts[0]) if "." in parts[0] else _whole(parts[0])

    def bare(self, parts: list[Any]) -> Any:
        return str(parts[0])

    def name(self, parts: list[Any]) -> Any:
        return str(parts[0])

    def quoted_name(self, parts: list[Any]) -> Any:
        return parts[0].strip("`")


def _whole(text: str) -> int:
    if not text.lstrip("-").isdigit() or len(text) > limits.NUMBER_DIGITS_MAX + 2:
        raise _TextError(f"{text[:30]} is not a whole number that fits.")
    return int(text)


def _related(word: str, relation: list[Json]) -> Json:
    found: dict[str, Json] = {word: relation[0]}
    return {**found, "where": relation[1]} if len(relation) > 1 else found


@lru_cache(maxsize=1)
def _parser() -> lark.Lark:
    grammar = Path(__file__).with_suffix(".lark").read_text("utf-8")
    return lark.Lark(grammar, parser="lalr", transformer=_ToJson())


def parse_text(text: str, at: str = "/text") -> Query:
    """The query of a text; what is wrong with it is found at the pointer `at`. Raises Invalid."""
    if len(text) > limits.QUERY_BYTES_MAX:
        _refuse(at, f"At most {limits.QUERY_BYTES_MAX} characters.")
    try:
        raw: Any = _parser().parse(text)
    except UnexpectedInput as fault:
        _refuse(at, _explain(fault))
    except _TextError as fault:
        _refuse(at, str(fault))
    try:
        query = decode_query(raw)
    except Invalid as invalid:
        faults = tuple(
            FieldFault(at, f.code, f"{f.pointer.lstrip('/')}: {f.detail}") for f in invalid.faults
        )
        raise Invalid(invalid.detail, code=invalid.code, faults=faults) from None
    return msgspec.structs.replace(
        query,
        select=tuple(msgspec.structs.replace(i, at=at) for i in query.select),
        group=tuple(msgspec.structs.replace(g, at=at) for g in query.group),
        sort=tuple(msgspec.structs.replace(s, at=at) for s in query.sort),
        where=_placed(query.where, at),
        having=_placed(query.having, at),
    )


def _placed(cond: Cond | None, at: str) -> Cond | None:
    """The same condition, its faults to be found at `at`; the reader has bounded its depth."""
    match cond:
        case And(items=items):
            return And(tuple(c for i in items if (c := _placed(i, at)) is not None))
        case Or(items=items):
            return Or(tuple(c for i in items if (c := _placed(i, at)) is not None))
        case Not(item=item):
            inner = _placed(item, at)
            return Not(inner) if inner is not None else None
        case Related(where=where):
            return msgspec.structs.replace(cond, where=_placed(where, at), at=at)
        case Test():
            return msgspec.structs.replace(cond, at=at)
        case _:
            return None


def _refuse(at: str, detail: str) -> NoReturn:
    fault = FieldFault(at, "text_malformed", detail)
    raise Invalid("The query cannot be read.", code="query.invalid", faults=(fault,)) from None


def _explain(fault: UnexpectedInput) -> str:
    wanted: set[str] = set()
    if isinstance(fault, UnexpectedToken):
        wanted = set(fault.accepts or fault.expected)
    elif isinstance(fault, UnexpectedCharacters):
        wanted = set(fault.allowed or ())
    ended = isinstance(fault, UnexpectedToken) and fault.token.type == "$END"
    place = "At the end" if ended else f"At line {fault.line}, column {fault.column}"
    shown = sorted({_SHOWN.get(name, name.lower()) for name in wanted})
    return f"{place}: expected {', '.join(shown) or 'something else'}."
