"""From a query to the one statement that answers it, and the cache of such plans.

A plan is kept with the very profile and schema objects it was made from, and used for no others:
a right that was taken away cannot live on here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2b

import msgspec

from appliance.base import limits
from appliance.db.wire import Call, Param
from appliance.fields import type_of
from appliance.fields.base import ValueFault
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json, Kind, Schema
from appliance.kernel.predicate import SYSTEM_FIELDS
from appliance.kernel.profile import Profile, ScopeKind
from appliance.kernel.query import Query
from appliance.read.cells import project_cells
from appliance.read.conditions import Conditions
from appliance.read.cost import estimate
from appliance.read.groups import group_sql, is_grouped
from appliance.read.guard import READ, guarded
from appliance.read.ledger import BalanceNames, balance_table, check_flags, in_force
from appliance.read.names import Names, fail, readable_kind
from appliance.read.order import Key, after, keys_of, order_by
from appliance.read.rows import Projection, project
from appliance.read.sql import Guards, Sql, statement
from appliance.read.words import search_condition

CACHED_PLANS_MAX = 2_000
RULER_MARKS = 20
# Stands in a plan for a value of the place it goes on from; no query can say a NUL.
_MARK = "\0place "
_LIMITS = (2, 11, 21, 26, 51, 101, 201, 501, limits.PAGE_ROWS_MAX + 1)


class Plan(msgspec.Struct, frozen=True):
    """One statement with its parameters. Columns: the row, the sort keys as text.

    It cannot be made of a text that reads a table without one of the `guards`.
    """

    text: str
    guards: Guards
    params: tuple[Param, ...]
    projection: Projection
    keys: tuple[Key, ...]
    limit: int
    grouped: bool
    cost: int
    kind: Kind

    def __post_init__(self) -> None:
        statement(self.text, self.guards)

    @property
    def call(self) -> Call:
        """Ready to run."""
        return statement(self.text, self.guards), self.params


class _Kept(msgspec.Struct, frozen=True):
    """A plan with the very rights and schema it was made from."""

    profile: Profile
    schema: Schema
    plan: Plan


_cache: OrderedDict[tuple[object, ...], _Kept] = OrderedDict()


def plan_query(
    ctx: Ctx,
    query: Query,
    place: Sequence[Json] | None = None,
    *,
    action: str = "read",
    cells: bool = False,
) -> Plan:
    """The plan of a query from a place on; compiled once per shape, values and rights.

    Rows lie in the scope of `read` and of `action`. With `cells` they are the texts of their cells
    where that is possible (read/cells). Raises Invalid.
    """
    # All pages behind the first have one plan: the place is put into its parameters.
    marks = (
        None
        if place is None
        else [None if v is None else f"{_MARK}{n}" for n, v in enumerate(place)]
    )
    bare = msgspec.structs.replace(query, after=None) if query.after else query
    key = (
        msgspec.msgpack.encode((bare, marks)), ctx.tenant, ctx.actor, ctx.units, ctx.subtree,
        ctx.tz, action, ctx.locale if cells else None,
    )  # fmt: skip
    kept = _cache.get(key)
    if kept and kept.profile is ctx.profile and kept.schema is ctx.schema:
        _cache.move_to_end(key)
        return _placed(kept.plan, place)
    plan, lasting = _compile(ctx, bare, marks, action, cells=cells)
    if lasting:
        _cache[key] = _Kept(ctx.profile, ctx.schema, plan)
        if len(_cache) > CACHED_PLANS_MAX:
            _cache.popitem(last=False)
    return _placed(plan, place)


def _placed(plan: Plan, place: Sequence[Json] | None) -> Plan:
    """The plan of one page: the values of its place where their marks stand."""
    if place is None:
        return plan
    params = tuple(
        str(place[int(p[len(_MARK) :])]) if isinstance(p, str) and p.startswith(_MARK) else p
        for p in plan.params
    )
    return msgspec.structs.replace(plan, params=params)


def compile_query(ctx: Ctx, query: Query, place: Sequence[Json] | None = None) -> Plan:
    """Resolve, guard, bound and compile, past the cache. Raises Invalid at the first fault."""
    return _compile(ctx, query, place, "read")[0]


def _compile(
    ctx: Ctx, query: Query, place: Sequence[Json] | None, action: str, *, cells: bool = False
) -> tuple[Plan, bool]:
    names = _main(ctx, query, action)
    sql = names.sql
    where = conditions_of(names, query)
    if is_grouped(query):
        text, projection = group_sql(names, query, where)
        return _plan(names, query, text, projection, ()), sql.lasting
    if query.having is not None:
        fail("/having", "not_possible", "having is for groups; where is for records.")
    keys = keys_of(names, query.sort, query.where)
    projection = (project_cells(names, query) if cells else None) or project(names, query)
    columns = ", ".join([projection.text, *(f"{k.column}::text" for k in keys)])
    most = rows_read(query.limit + 1)
    head, first = f"SELECT {columns} {names.source} WHERE ", keys[0]
    if len(keys) == 2 and first.nullable and keys[1].column == f"{names.alias}.id":
        text = _two_branches(sql, head, where, keys, place=place, most=most)
    else:
        beyond = [after(sql, keys, place)] if place is not None else []
        text = f"{head}{' AND '.join([*where, *beyond])} ORDER BY {order_by(keys)} LIMIT {most}"
    return _plan(names, query, text, projection, tuple(keys)), sql.lasting


def _main(ctx: Ctx, query: Query, action: str = "read") -> Names:
    """The guarded main table of a query. Raises Invalid."""
    kind = readable_kind(ctx, query.source, "/from")
    actions = tuple(dict.fromkeys((*READ, action, *(("restore",) if query.deleted else ()))))
    if query.deleted and ctx.profile.scope(kind.key, "restore").kind is ScopeKind.NONE:
        fail("/deleted", "not_possible", "Your profile may not see deleted records here.")
    check_flags(kind, query)
    sql = Sql()
    if query.balance:
        # The tenant is the first parameter of every plan.
        sql.shared("tenant", ctx.tenant, "uuid")
        sql.lasting = query.asof is not None
        return BalanceNames(ctx, sql, balance_table(ctx, sql, kind, asof(query, ctx), actions))
    table = guarded(ctx, sql, kind, alias="a", actions=actions, deleted=query.deleted)
    return Names(ctx, sql, table)


def _two_branches(
    sql: Sql,
    head: str,
    where: list[str],
    keys: list[Key],
    *,
    place: Sequence[Json] | None,
    most: int,
) -> str:
    """Rows with a value from the index, rows without one behind (or before) them.

    PostgreSQL appends in the order written: a branch with a LIMIT is never run in parallel, and
    db/database switches parallel appends off besides.
    """
    key, last = keys
    valued = msgspec.structs.replace(key, nullable=False)
    in_nulls = place is not None and place[0] is None
    parts: dict[str, str | None] = {"valued": None, "empty": None}
    if not (in_nulls and not key.nulls_first):
        beyond = [after(sql, [valued, last], place)] if place is not None and not in_nulls else []
        tests = " AND ".join([*where, f"{key.column} IS NOT NULL", *beyond])
        parts["valued"] = f"({head}{tests} ORDER BY {order_by([valued, last])} LIMIT {most})"
    if not (place is not None and not in_nulls and key.nulls_first):
        beyond = [after(sql, [last], place[1:])] if in_nulls and place is not None else []
        tests = " AND ".join([*where, f"{key.column} IS NULL", *beyond])
        parts["empty"] = f"({head}{tests} ORDER BY {order_by([last])} LIMIT {most})"
    order = ("empty", "valued") if key.nulls_first else ("valued", "empty")
    found = [text for name in order if (text := parts[name]) is not None]
    return f"{' UNION ALL '.join(found)} LIMIT {most}" if len(found) > 1 else found[0]


def conditions_of(names: Names, query: Query) -> list[str]:
    """Guard, filter and search of the main table."""
    where = [names.guard]
    if query.in_force:
        names.sql.lasting = names.sql.lasting and query.asof is not None
        where.append(in_force(names, asof(query, names.ctx)))
    if query.where is not None:
        where.append(Conditions(names, asof(query, names.ctx)).compile(query.where))
    if query.search is not None:
        where.append(search_condition(names, query.search, "/search"))
    return where


def asof(query: Query, ctx: Ctx) -> datetime:
    """The moment that relative dates are counted from."""
    if query.asof is None:
        return ctx.at
    try:
        found = type_of("moment").operand(SYSTEM_FIELDS["created_at"], query.asof)
    except ValueFault as bad:
        fail("/asof", bad.code, bad.detail)
    assert isinstance(found, datetime), "moments have moments for slots"
    return found


def rows_read(wanted: int) -> int:
    """The LIMIT of a statement: one of a few figures, at least as many rows as are wanted.

    It stands in the text and not among the parameters: a plan for any values that does not know
    how few rows are wanted reads and sorts whole kinds (measured: 7.6 ms against 0.2 ms).
    """
    return next(figure for figure in _LIMITS if figure >= wanted)


def moment_text(at: datetime) -> str:
    """A moment as queries say it."""
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"


def _plan(
    names: Names, query: Query, text: str, projection: Projection, keys: tuple[Key, ...]
) -> Plan:
    return Plan(
        text, tuple(names.sql.guards), tuple(names.sql.params), projection, keys, query.limit,
        is_grouped(query), estimate(query, names.sql), names.kind,
    )  # fmt: skip


def total_call(ctx: Ctx, query: Query) -> Call:
    """Count the rows of a query up to the cap."""
    names = _main(ctx, query)
    where = " AND ".join(conditions_of(names, query))
    found = f"SELECT 1 {names.source} WHERE {where} LIMIT {limits.TOTAL_CAP + 1}"
    text = f"SELECT count(*) FROM ({found}) AS c"
    return names.sql.finish(text)


def ruler_call(ctx: Ctx, query: Query) -> Call:
    """Places spread evenly over the first rows of a list, for jumping in it."""
    names = _main(ctx, query)
    where = " AND ".join(conditions_of(names, query))
    keys = keys_of(names, query.sort, query.where)
    columns = ", ".join(f"{k.column}::text AS k{n}" for n, k in enumerate(keys))
    listed = ", ".join(f"k{n}" for n in range(len(keys)))
    inner = (
        f"SELECT {columns}, row_number() OVER (ORDER BY {order_by(keys)}) AS n "
        f"{names.source} WHERE {where} ORDER BY n LIMIT {limits.TOTAL_CAP}"
    )
    counted = f"SELECT c.*, count(*) OVER () AS all_rows FROM ({inner}) AS c"
    text = (
        f"SELECT n, {listed} FROM ({counted}) AS d "
        f"WHERE n % greatest(1, all_rows / {RULER_MARKS}) = 0 ORDER BY n LIMIT {RULER_MARKS + 1}"
    )
    return names.sql.finish(text)


def fingerprint(ctx: Ctx, query: Query) -> bytes:
    """What a cursor is bound to: the query but for its page, the rights and the person."""
    bare = msgspec.structs.replace(query, after=None, limit=1, total=False, ruler=False)
    parts = [
        msgspec.msgpack.encode(bare), ctx.tenant.bytes, ctx.actor.bytes, ctx.profile.id,
        ctx.profile.rev, ctx.schema.rev,
    ]  # fmt: skip
    return blake2b(msgspec.msgpack.encode(parts), digest_size=16).digest()
