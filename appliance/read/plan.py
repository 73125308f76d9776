"""From a query to the one statement that answers it, and the cache of such plans."""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime
from hashlib import blake2b

import msgspec

from appliance.base import limits
from appliance.base.errors import Invalid
from appliance.db.wire import Call, Param
from appliance.fields import type_of
from appliance.fields.base import ValueFault
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Field, Json, Kind
from appliance.kernel.predicate import SYSTEM_FIELDS
from appliance.kernel.profile import ScopeKind
from appliance.kernel.query import And, Not, Or, Query, Related
from appliance.read.conditions import Conditions
from appliance.read.groups import group_sql, is_grouped
from appliance.read.names import Names, fail, readable_kind
from appliance.read.order import Key, after, keys_of, order_by
from appliance.read.rows import Projection, project
from appliance.read.scope import guard
from appliance.read.sql import Sql, statement
from appliance.read.words import search_condition

CACHED_PLANS_MAX = 2_000
RULER_MARKS = 20


class Plan(msgspec.Struct, frozen=True):
    """One statement with its parameters. Columns: the row, the sort keys as text."""

    text: str
    params: tuple[Param, ...]
    projection: Projection
    keys: tuple[Key, ...]
    limit: int
    grouped: bool
    cost: int
    kind: Kind

    @property
    def call(self) -> Call:
        """Ready to run."""
        return statement(self.text), self.params


_cache: OrderedDict[tuple[object, ...], Plan] = OrderedDict()


def plan_query(ctx: Ctx, query: Query, place: list[Json] | None = None) -> Plan:
    """The plan of a query from a place on; compiled once per shape, values and rights."""
    encoded = msgspec.msgpack.encode(query)
    if place is not None or b"within" in encoded or _has_rules(ctx):
        # What depends on the present day, or a place, is compiled each time: tens of µs.
        return compile_query(ctx, query, place)
    key = (
        encoded, ctx.tenant, ctx.actor, ctx.profile.id, ctx.profile.rev, ctx.schema.rev,
        ctx.units, ctx.subtree, ctx.tz, ctx.locale,
    )  # fmt: skip
    found = _cache.get(key)
    if found is None:
        found = _cache[key] = compile_query(ctx, query, None)
        if len(_cache) > CACHED_PLANS_MAX:
            _cache.popitem(last=False)
    else:
        _cache.move_to_end(key)
    return found


def _has_rules(ctx: Ctx) -> bool:
    found: bool | None = ctx.profile.__dict__.get("_has_rules")
    if found is None:
        grants = ctx.profile.grants.values()
        found = any(s.kind is ScopeKind.WHERE for g in grants for s in g.actions.values())
        ctx.profile.__dict__["_has_rules"] = found
    return found


def compile_query(ctx: Ctx, query: Query, place: list[Json] | None) -> Plan:
    """Resolve, guard, bound and compile. Raises Invalid with the place of the first fault."""
    kind = readable_kind(ctx, query.source, "/from")
    if query.deleted and ctx.profile.scope(kind.key, "restore").kind is ScopeKind.NONE:
        fail("/deleted", "not_possible", "Your profile may not see deleted records here.")
    names = Names(ctx, Sql(), kind, "a")
    where = conditions_of(names, query)
    if is_grouped(query):
        text, projection = group_sql(names, query, where)
        return _plan(names, query, text, projection, ())
    keys = keys_of(names, query.sort, query.where)
    projection = project(names, query)
    columns = ", ".join([projection.text, *(f"{k.column}::text" for k in keys)])
    source = f"FROM record a{''.join(names.joins)}"
    most = names.sql.value(query.limit + 1, "bigint")
    head, first = f"SELECT {columns} {source} WHERE ", keys[0]
    if len(keys) == 2 and first.nullable and keys[1].column == "a.id":
        text = _two_branches(names.sql, head, where, keys, place, most)
    else:
        beyond = [after(names.sql, keys, place)] if place is not None else []
        text = f"{head}{' AND '.join([*where, *beyond])} ORDER BY {order_by(keys)} LIMIT {most}"
    return _plan(names, query, text, projection, tuple(keys))


def _two_branches(
    sql: Sql, head: str, where: list[str], keys: list[Key], place: list[Json] | None, most: str
) -> str:
    """Rows with a value from the index, rows without one behind (or before) them."""
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
    where = guard(names.ctx, names.sql, names.kind, names.alias, deleted=query.deleted)
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


def _plan(
    names: Names, query: Query, text: str, projection: Projection, keys: tuple[Key, ...]
) -> Plan:
    cost = query.limit + 10 * _nodes(query.where) + 50 * len(names.joins)
    return Plan(
        text, tuple(names.sql.params), projection, keys, query.limit, is_grouped(query), cost, names.kind
    )


def _nodes(cond: object) -> int:
    match cond:
        case And(items=items) | Or(items=items):
            return 1 + sum(map(_nodes, items))
        case Not(item=item):
            return 1 + _nodes(item)
        case Related(where=where):
            return 5 + _nodes(where)
        case None:
            return 0
        case _:
            return 1


def total_call(ctx: Ctx, query: Query) -> Call:
    """Count the rows of a query up to the cap."""
    names = Names(ctx, Sql(), readable_kind(ctx, query.source, "/from"), "a")
    where = " AND ".join(conditions_of(names, query))
    cap = names.sql.value(limits.TOTAL_CAP + 1, "bigint")
    text = f"SELECT count(*) FROM (SELECT 1 FROM record a{''.join(names.joins)} WHERE {where} LIMIT {cap}) AS c"
    return statement(text), tuple(names.sql.params)


def ruler_call(ctx: Ctx, query: Query) -> Call:
    """Places spread evenly over the first rows of a list, for jumping in it."""
    names = Names(ctx, Sql(), readable_kind(ctx, query.source, "/from"), "a")
    where = " AND ".join(conditions_of(names, query))
    keys = keys_of(names, query.sort, query.where)
    columns = ", ".join(f"{k.column}::text AS k{n}" for n, k in enumerate(keys))
    listed = ", ".join(f"k{n}" for n in range(len(keys)))
    cap = names.sql.value(limits.TOTAL_CAP, "bigint")
    inner = (
        f"SELECT {columns}, row_number() OVER (ORDER BY {order_by(keys)}) AS n "
        f"FROM record a{''.join(names.joins)} WHERE {where} ORDER BY n LIMIT {cap}"
    )
    text = (
        f"SELECT n, {listed} FROM (SELECT c.*, count(*) OVER () AS all_rows FROM ({inner}) AS c) AS d "
        f"WHERE n % greatest(1, all_rows / {RULER_MARKS}) = 0 ORDER BY n LIMIT {RULER_MARKS + 1}"
    )
    return statement(text), tuple(names.sql.params)


def fingerprint(ctx: Ctx, query: Query) -> bytes:
    """What a cursor is bound to: the query but for its page, the rights and the person."""
    bare = msgspec.structs.replace(query, after=None, limit=1, total=False, ruler=False)
    parts = [msgspec.msgpack.encode(bare), ctx.tenant.bytes, ctx.actor.bytes, ctx.profile.id, ctx.profile.rev]
    return blake2b(msgspec.msgpack.encode(parts), digest_size=16).digest()


def refuse_cursor() -> Invalid:
    """One answer for every cursor that is not ours, not for this query, or too old."""
    return Invalid(
        "This cursor is not for this query, or is too old; start from the first page.",
        code="query.bad_cursor",
    )


def header_fields(plan: Plan) -> tuple[tuple[str, Field], ...]:
    """Keys of a row in order, with the fields that say how to show them."""
    return plan.projection.keys
