"""Sums over the entries of a balance ledger: turnover by key and month.

Turnover is a projection like a slot: added to in the transaction that writes the entries, made
again from them by `rebuild`. What bounds them stands in floors.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from uuid import UUID

from appliance.db.wire import Call, Param, Statement
from appliance.fields import type_of
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Field, Json, Kind
from appliance.kernel.ledger import LedgerSort, entry_key
from appliance.kernel.record import RecordState

# What stands for no unit in the key of a turnover row.
NOWHERE = UUID(int=0)
_SLOT_TYPES = {"t": "text", "n": "bigint", "d": "timestamptz", "r": "uuid"}


def key_of(kind: Kind, data: dict[str, Json]) -> UUID:
    """What the key fields of an entry say."""
    assert kind.ledger is not None, "asked of entries only"
    values = (data.get(kind.by_name[name].fid) for name in kind.ledger.key)
    return entry_key([str(v) if v is not None else None for v in values])


def moment_of(kind: Kind, data: dict[str, Json]) -> datetime:
    """When an entry holds from or happened."""
    assert kind.ledger is not None, "asked of entries only"
    field = kind.by_name[kind.ledger.at]
    moment = type_of(field.type).slot_value(field, data[field.fid])
    assert isinstance(moment, datetime), "ledgers are dated"
    return moment


def turnover_calls(ctx: Ctx, kind: Kind, states: Sequence[RecordState]) -> list[Call]:
    """Add new entries to the sums of their keys and months."""
    if kind.ledger is None or kind.ledger.sort is not LedgerSort.BALANCE or not states:
        return []
    keys, values = balance_fields(kind)
    rows: dict[tuple[UUID, datetime, UUID], list[Param]] = {}
    for state in states:
        place = (
            key_of(kind, state.data),
            month_of(moment_of(kind, state.data)),
            state.unit or NOWHERE,
        )
        amounts = [amount_of(f, state.data) for f in values]
        row = rows.get(place)
        if row is None:
            rows[place] = [*place, *(_slot(f, state.data) for f in keys), *amounts]
            continue
        for n, amount in enumerate(amounts, len(row) - len(amounts)):
            row[n] = int(str(row[n])) + amount
    ordered = [rows[p] for p in sorted(rows, key=str)]
    columns = [list(c) for c in zip(*ordered, strict=True)]
    statement = _turnover_statement(
        tuple(str(f.slot) for f in keys), tuple(str(f.slot) for f in values)
    )
    return [(statement, (ctx.tenant, kind.key, *columns))]


def balance_fields(kind: Kind) -> tuple[list[Field], list[Field]]:
    """Key fields and values of a ledger that have a slot."""
    assert kind.ledger is not None, "asked of entries only"
    keys = [kind.by_name[n] for n in kind.ledger.key]
    return [f for f in keys if f.slot], [
        f for n in kind.ledger.values if (f := kind.by_name[n]).slot
    ]


def amount_of(field: Field, data: dict[str, Json]) -> int:
    """A value as it is added up, scaled to a whole number; nothing is 0."""
    value = _slot(field, data)
    return int(str(value)) if value is not None else 0


def _slot(field: Field, data: dict[str, Json]) -> Param:
    value = data.get(field.fid)
    return type_of(field.type).slot_value(field, value) if value is not None else None


@lru_cache(maxsize=500)
def _turnover_statement(keys: tuple[str, ...], values: tuple[str, ...]) -> Statement:
    names = [("key", "uuid"), ("month", "timestamptz"), ("unit_id", "uuid")]
    names += [(slot, _SLOT_TYPES[slot[0]]) for slot in (*keys, *values)]
    listed = ", ".join(n for n, _ in names)
    arrays = ", ".join(f"${n}::{t}[]" for n, (_, t) in enumerate(names, 3))
    sums = ", ".join(f"{v} = turnover.{v} + EXCLUDED.{v}" for v in values)
    return Statement(
        f"INSERT INTO turnover (tenant_id, kind, {listed}) SELECT $1, $2, {listed} "
        f"FROM unnest({arrays}) AS u({listed}) "
        f"ON CONFLICT (tenant_id, kind, key, month, unit_id) DO UPDATE SET {sums}"
    )


def month_of(moment: datetime) -> datetime:
    """The start of a moment's month in UTC."""
    return moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
