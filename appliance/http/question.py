"""Queries as they come: the JSON tree, or the text form in a body, a parameter, a stream's name."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from appliance.base.errors import FieldFault, Invalid
from appliance.http.ask import Ask
from appliance.http.bodies import check_storable
from appliance.kernel.kind import Json
from appliance.kernel.query import Query, decode_query
from appliance.kernel.query_text import parse_text

_KEPT_MAX = 1_000
_KEPT_BYTES_MAX = 4_096


class QueryBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"source": "from"}):
    """A query as a tree; docs/query-language.md tells all of it."""

    source: str
    select: list[Json] = []
    where: dict[str, Json] | None = None
    search: str | None = None
    group: list[Json] = []
    having: dict[str, Json] | None = None
    sort: list[Json] = []
    limit: int = 50
    after: str | None = None
    asof: str | None = None
    total: bool = False
    ruler: bool = False
    display: bool = False
    deleted: bool = False
    in_force: bool = False
    balance: bool = False


class TextBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A query in text form."""

    text: str
    after: str | None = None


class Questions:
    """Queries by the bytes they came in: a tree holds nothing of the one who asks, and the same
    lists are asked for all day long. Only what was accepted is kept.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, Query] = OrderedDict()

    def read(self, ask: Ask) -> Query:
        """The query of a request's body. Raises Malformed, TooLarge, Invalid."""
        body = ask.visit.body
        found = self._known.get(body)
        if found is None:
            found = body_question(ask.json())
            if len(body) <= _KEPT_BYTES_MAX:
                self._known[body] = found
                if len(self._known) > _KEPT_MAX:
                    self._known.popitem(last=False)
        return found


def body_question(body: Json) -> Query:
    """The query of a body. Raises Invalid with all faults."""
    if isinstance(body, dict) and "text" in body:
        text, after = body["text"], body.get("after")
        for key in body.keys() - {"text", "after"}:
            raise _wrong(f"/{key[:80]}", "unknown_key", "With text there is only after.")
        if not isinstance(text, str):
            raise _wrong("/text", "wrong_type", "Expected text.")
        if after is not None and not isinstance(after, str):
            raise _wrong("/after", "wrong_type", "Expected the next of a page.")
        return text_question(text, after, "/text")
    return decode_query(body)


def text_question(text: str, after: str | None, pointer: str) -> Query:
    """The query of a text, from a place on. Raises Invalid."""
    query = read_text(text, pointer)
    check_storable(after, "/after")
    return msgspec.structs.replace(query, after=after) if after else query


def read_text(text: str, pointer: str) -> Query:
    """The query of a text; a kind alone is a query. Raises Invalid."""
    check_storable(text, pointer)
    return parse_text(text, pointer)


def _wrong(pointer: str, code: str, detail: str) -> Invalid:
    faults = (FieldFault(pointer, code, detail),)
    return Invalid("The query cannot be run as it is.", code="query.invalid", faults=faults)
