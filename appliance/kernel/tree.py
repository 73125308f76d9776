"""The query language as a tree: what a query and a condition are made of.

The structs of a condition are tagged, so that two different trees never encode alike: plans and
cursors are kept by the encoded tree. Read from JSON by kernel/query and from text by
kernel/query_text; names are resolved in the reader's own schema by read/names.
"""

from __future__ import annotations

from uuid import UUID

import msgspec

from appliance.base import limits
from appliance.kernel.kind import Json

EVERYTHING = "*"


class And(msgspec.Struct, frozen=True, tag=True):
    """All of them; none at all is true."""

    items: tuple[Cond, ...]


class Or(msgspec.Struct, frozen=True, tag=True):
    """At least one of them; none at all is false."""

    items: tuple[Cond, ...]


class Not(msgspec.Struct, frozen=True, tag=True):
    """The exact complement: what is not true."""

    item: Cond


class Test(msgspec.Struct, frozen=True, tag=True):
    """A field, an operator and a value; `at` is where it stands in the request."""

    path: str
    op: str
    value: Json
    at: str


class Related(msgspec.Struct, frozen=True, tag=True):
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


# What a query may ask for in one word.
FLAGS = ("deleted", "total", "ruler", "display", "in_force", "balance")


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """A whole query. `select` empty means the record as a whole.

    `having` is a condition over the aliases of a grouped query, `asof` the moment relative dates
    are counted from, `deleted` asks for what was deleted and may be restored. Of a ledger,
    `in_force` asks for the entries that hold at `asof`, `balance` for the sums up to it.
    """

    source: str
    select: tuple[Item, ...] = ()
    where: Cond | None = None
    search: str | None = None
    group: tuple[Group, ...] = ()
    having: Cond | None = None
    sort: tuple[Sort, ...] = ()
    limit: int = limits.PAGE_ROWS_DEFAULT
    after: str | None = None
    asof: str | None = None
    total: bool = False
    ruler: bool = False
    display: bool = False
    deleted: bool = False
    in_force: bool = False
    balance: bool = False


def search_scope_lexeme(tenant: UUID, kind: str) -> str:
    """The lexeme every record of a kind carries in its search vector."""
    return f"k{tenant.hex}{kind}"
