"""What follows from the entries of a ledger: the values in force, and balances.

`in_force` keeps of each key the last entry up to `asof`, and nothing that was reversed: a value
holds until the next one of its key, so two at once cannot be. `balance` puts in the place of the
entries their sums: whole months from the turnover table, the month of `asof` from the entries,
so its cost does not grow with the years.
"""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from appliance.kernel.context import Ctx
from appliance.kernel.kind import Field, Kind
from appliance.kernel.ledger import LedgerSort
from appliance.kernel.predicate import SYSTEM_FIELDS
from appliance.kernel.profile import Mode, ScopeKind
from appliance.kernel.query import Query
from appliance.read.guard import Table, guarded
from appliance.read.names import Names, fail
from appliance.read.sql import Sql

_SCOPES = frozenset({ScopeKind.ALL, ScopeKind.UNIT, ScopeKind.SUBTREE})


def check_flags(kind: Kind, query: Query) -> None:
    """Refuse a ledger's word for a kind that is none of its sort. Raises Invalid."""
    sort = kind.ledger.sort if kind.ledger else None
    if query.in_force and sort is not LedgerSort.STATE:
        fail("/in_force", "not_possible", "Only entries of a state ledger are in force.")
    if query.balance and sort is not LedgerSort.BALANCE:
        fail("/balance", "not_possible", "Only a balance ledger has balances.")
    if query.balance and not (query.group or any(i.function for i in query.select)):
        fail("/balance", "needs_group", "A balance is a sum: group by key fields and sum values.")


def in_force(names: Names, asof: datetime) -> str:
    """The condition that an entry of the main table holds at a moment: it is the last of its key.

    One probe of the index by key and moment for each entry: a sub-select with a LIMIT is never
    made a join of two whole ledgers, whatever the planner thinks of them.
    """
    sql, a = names.sql, names.alias
    at = sql.shared("asof", asof, "timestamptz")
    tenant = sql.shared("tenant", names.ctx.tenant, "uuid")
    kind = sql.shared(f"kind {names.kind.key}", names.kind.key, "text")
    last, undone = sql.alias(), sql.alias()
    of_key = f"{last}.tenant_id = {tenant} AND {last}.kind = {kind} AND {last}.key = {a}.key"
    reversal = f"{undone}.tenant_id = {tenant} AND {undone}.kind = {kind}"
    sql.guards += [(last, of_key), (undone, reversal)]
    return (
        f"{a}.at <= {at} AND {a}.reverses IS NULL AND {a}.id = (SELECT {last}.id FROM entry {last} "
        f"WHERE {of_key} AND {last}.at <= {at} AND {last}.reverses IS NULL AND ("
        f"SELECT {undone}.id FROM entry {undone} WHERE {reversal} "
        f"AND {undone}.reverses = {last}.id LIMIT 1) IS NULL "
        f"ORDER BY {last}.at DESC, {last}.id DESC LIMIT 1)"
    )


def balance_table(
    ctx: Ctx, sql: Sql, kind: Kind, asof: datetime, actions: tuple[str, ...]
) -> Table:
    """Sums by key up to a moment, in the place of the entries: one row a key and month.

    Scopes by owner or by a rule look at single entries, so under them balances are not to be had.
    """
    for action in actions:
        if ctx.profile.scope(kind.key, action).kind not in _SCOPES:
            fail("/balance", "not_possible", "Your profile sees single entries here: sum those.")
    used = sorted({str(f.slot) for f in ledger_fields(kind) if f.slot and f.slot_ready})
    columns = ", ".join([f"NULLIF(unit_id, '{UUID(int=0)}') AS unit_id", *used])
    month = sql.value(_month(asof), "timestamptz")
    until = sql.shared("asof", asof, "timestamptz")
    whole = guarded(ctx, sql, kind, actions=actions, deleted=None)
    rest = guarded(ctx, sql, kind, actions=actions, deleted=None)
    text = (
        f"(SELECT {columns} FROM turnover {whole.alias} WHERE {whole.guard} "
        f"AND {whole.alias}.month < {month} UNION ALL SELECT {columns} FROM entry {rest.alias} "
        f"WHERE {rest.guard} AND {rest.alias}.at >= {month} AND {rest.alias}.at <= {until}) a"
    )
    return Table(kind, "a", "true", text)


def ledger_fields(kind: Kind) -> list[Field]:
    """The key and value fields of a ledger: what its balances can be asked by."""
    assert kind.ledger is not None, "asked of ledgers only"
    named = {*kind.ledger.key, *kind.ledger.values}
    return [f for f in kind.fields if f.name in named]


class BalanceNames(Names):
    """Names of a query for balances: key fields and values, the unit, nothing of single entries."""

    def find(self, kind: Kind, name: str, at: str) -> tuple[Field, Mode]:
        """See `Names.find`. Raises Invalid for what differs from entry to entry."""
        found, mode = super().find(kind, name, at)
        in_balance = (*ledger_fields(kind), SYSTEM_FIELDS["unit"]) if kind is self.kind else ()
        if kind is self.kind and found not in in_balance:
            fail(at, "not_in_balance", f"{name} differs from entry to entry; balances lack it.")
        return found, mode


def _month(asof: datetime) -> datetime:
    return asof.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
