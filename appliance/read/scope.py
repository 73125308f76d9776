"""The guard: tenant, kind, deletion and row scope, for every table of every plan.

Nothing in this room writes a FROM or JOIN without it; a row rule is compiled over the record's
own columns only, and a rule that cannot be read grants nothing.
"""

from __future__ import annotations

from appliance.kernel.context import Ctx
from appliance.kernel.kind import Kind
from appliance.kernel.predicate import parse_row_rule
from appliance.kernel.profile import ScopeKind
from appliance.read.sql import Sql


def guard(ctx: Ctx, sql: Sql, kind: Kind, alias: str, *, deleted: bool = False) -> list[str]:
    """The conditions that a table of this kind is never read without."""
    conditions = [
        f"{alias}.tenant_id = {sql.value(ctx.tenant, 'uuid')}",
        f"{alias}.kind = {sql.value(kind.key, 'text')}",
        f"{alias}.deleted_at IS {'NOT ' if deleted else ''}NULL",
    ]
    actions = ("read", "restore") if deleted else ("read",)
    for action in actions:
        scope = row_scope(ctx, sql, kind, alias, action)
        if scope:
            conditions.append(scope)
    return conditions


def row_scope(ctx: Ctx, sql: Sql, kind: Kind, alias: str, action: str) -> str:
    """The row scope of an action as a condition; empty when it reaches everything."""
    scope = ctx.profile.scope(kind.key, action)
    match scope.kind:
        case ScopeKind.ALL:
            return ""
        case ScopeKind.OWN:
            return f"{alias}.owner_id = {sql.value(ctx.actor, 'uuid')}"
        case ScopeKind.UNIT:
            return f"{alias}.unit_id = ANY({sql.value(sorted(ctx.units), 'uuid[]')})"
        case ScopeKind.SUBTREE:
            return f"{alias}.unit_id = ANY({sql.value(sorted(ctx.subtree), 'uuid[]')})"
        case ScopeKind.WHERE:
            from appliance.read.conditions import compile_rule

            rule = parse_row_rule(scope.where)
            return compile_rule(ctx, sql, kind, alias, rule) if rule is not None else "false"
        case _:
            return "false"
