"""The guard: tenant, kind, deletion and row scope, for every table of every plan.

A table of a plan is a `Table`, made by `guarded` alone and noted in the statement under
construction, which refuses to be finished when a table stands in it without its guard. A row
rule is compiled over the record's own columns only, and a rule that cannot be read grants
nothing.
"""

from __future__ import annotations

import msgspec

from appliance.kernel.context import Ctx
from appliance.kernel.kind import Kind
from appliance.kernel.predicate import parse_row_rule
from appliance.kernel.profile import ScopeKind
from appliance.read.sql import Sql

READ: tuple[str, ...] = ("read",)


class Table(msgspec.Struct, frozen=True):
    """A table of a plan and the condition it is never read without.

    `source` is what stands in FROM; where it is a sub-select, that has its own guards inside.
    """

    kind: Kind
    alias: str
    guard: str
    source: str


def guarded(
    ctx: Ctx,
    sql: Sql,
    kind: Kind,
    *,
    alias: str | None = None,
    actions: tuple[str, ...] = READ,
    deleted: bool | None = False,
) -> Table:
    """A table of a kind; its rows lie in the row scopes of all `actions`.

    `deleted` None where nothing is ever deleted: facts and what is summed from them.
    """
    alias = alias or sql.alias()
    conditions = [
        f"{alias}.tenant_id = {sql.shared('tenant', ctx.tenant, 'uuid')}",
        f"{alias}.kind = {sql.shared(f'kind {kind.key}', kind.key, 'text')}",
    ]
    if deleted is not None:
        conditions.append(f"{alias}.deleted_at IS {'NOT ' if deleted else ''}NULL")
    for action in actions:
        scope = row_scope(ctx, sql, kind, alias, action)
        if scope and scope not in conditions:
            conditions.append(scope)
    guard = " AND ".join(conditions)
    sql.guards.append((alias, guard))
    return Table(kind, alias, guard, f"{kind.table} {alias}")


def row_scope(ctx: Ctx, sql: Sql, kind: Kind, alias: str, action: str) -> str:
    """The row scope of an action as a condition; empty when it reaches everything."""
    scope = ctx.profile.scope(kind.key, action)
    match scope.kind:
        case ScopeKind.ALL:
            return ""
        case ScopeKind.OWN:
            return f"{alias}.owner_id = {sql.shared('actor', ctx.actor, 'uuid')}"
        case ScopeKind.UNIT:
            return f"{alias}.unit_id = ANY({sql.shared('units', sorted(ctx.units), 'uuid[]')})"
        case ScopeKind.SUBTREE:
            return f"{alias}.unit_id = ANY({sql.shared('subtree', sorted(ctx.subtree), 'uuid[]')})"
        case ScopeKind.WHERE:
            # Rules are conditions, and conditions over relations need guards.
            from appliance.read.conditions import compile_rule

            rule = parse_row_rule(scope.where)
            return compile_rule(ctx, sql, kind, alias, rule) if rule is not None else "false"
        case _:
            return "false"
