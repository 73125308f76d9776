"""Sums over the entries of a balance ledger: turnover by key and month, and floors.

Turnover is a projection like a slot: added to in the transaction that writes the entries, made
again from them by `rebuild`. A floor is looked at behind the lock of the stream, so that two
sellers of one branch cannot both take the last piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from uuid import UUID

from appliance.db.wire import Call, Param, Rows, Statement
from appliance.fields import type_of
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Field, Json, Kind
from appliance.kernel.ledger import LedgerSort, entry_key
from appliance.kernel.record import RecordState
from appliance.write.draft import Draft
from appliance.write.load import Loaded

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
    keys, values = _balance_fields(kind)
    rows: dict[tuple[UUID, datetime, UUID], list[Param]] = {}
    for state in states:
        place = (
            key_of(kind, state.data),
            month_of(moment_of(kind, state.data)),
            state.unit or NOWHERE,
        )
        amounts = [_amount(f, state.data) for f in values]
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


def _balance_fields(kind: Kind) -> tuple[list[Field], list[Field]]:
    assert kind.ledger is not None, "asked of entries only"
    keys = [kind.by_name[n] for n in kind.ledger.key]
    return [f for f in keys if f.slot], [
        f for n in kind.ledger.values if (f := kind.by_name[n]).slot
    ]


def _amount(field: Field, data: dict[str, Json]) -> int:
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


@lru_cache(maxsize=100)
def _sums_statement(values: tuple[str, ...]) -> Statement:
    sums = ", ".join(f"sum({v})::bigint" for v in values)
    return Statement(
        f"SELECT key::text, {sums} FROM turnover WHERE tenant_id = $1 AND kind = $2 "
        "AND key = ANY($3::uuid[]) GROUP BY key"
    )


def month_of(moment: datetime) -> datetime:
    """The start of a moment's month in UTC."""
    return moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


class Floors:
    """Ledgers that may not sink below zero: their balances, and what the batch takes from them."""

    def __init__(self, ctx: Ctx, drafts: Sequence[Draft], loaded: Loaded) -> None:
        self._groups: dict[str, list[Draft]] = {}
        self.loaded = loaded
        self._ctx = ctx
        for draft in drafts:
            kind = draft.kind
            if kind and kind.ledger and kind.ledger.floor and not self._lifted(kind, draft):
                self._groups.setdefault(kind.key, []).append(draft)

    def calls(self) -> list[Call]:
        """Ask for the balances; the streams are locked before."""
        found: list[Call] = []
        for kind_key, drafts in self._groups.items():
            kind = drafts[0].kind
            assert kind is not None, "grouped by kind"
            keys = sorted({key_of(kind, d.values) for d in drafts})
            statement = _sums_statement(tuple(str(f.slot) for f in _balance_fields(kind)[1]))
            found.append((statement, (self._ctx.tenant, kind_key, keys)))
        return found

    def check(self, answers: Sequence[Rows]) -> None:
        """Refuse each draft that would bring a balance below zero, in the batch's order."""
        for drafts, rows in zip(self._groups.values(), answers, strict=True):
            kind = drafts[0].kind
            assert kind is not None, "grouped by kind"
            fields = _balance_fields(kind)[1]
            left = {
                UUID((row[0] or b"").decode()): [int(v or b"0") for v in row[1:]] for row in rows
            }
            for draft in drafts:
                self._take(
                    draft, fields, left.setdefault(key_of(kind, draft.values), [0] * len(fields))
                )

    def _take(self, draft: Draft, fields: list[Field], left: list[int]) -> None:
        steps = [_amount(f, draft.values) for f in fields]
        for n, (field, step) in enumerate(zip(fields, steps, strict=True)):
            if step < 0 and left[n] + step < 0:
                draft.fault(
                    f"/fields/{field.name}", "below_zero",
                    f"There is not enough: {_shown(field, left[n])} are there.", status=409,
                )  # fmt: skip
                return
        for n, step in enumerate(steps):
            left[n] += step

    def _lifted(self, kind: Kind, draft: Draft) -> bool:
        """Whether the record that the floor depends on allows less than nothing."""
        assert kind.ledger is not None, "ledgers only"
        reference, _, flag = kind.ledger.unless.partition(".")
        field = kind.by_name.get(reference)
        target_id = draft.values.get(field.fid) if field else None
        target = self.loaded.targets.get(UUID(target_id)) if isinstance(target_id, str) else None
        held = self._ctx.schema.kind(target.kind) if target else None
        lifting = held.by_name.get(flag) if held else None
        return bool(target and lifting and target.data.get(lifting.fid) is True)


def _shown(field: Field, amount: int) -> str:
    scale = type_of(field.type).slot_scale(field)  # type: ignore[attr-defined]
    return f"{(Decimal(amount) / 10**scale).normalize():f}"
