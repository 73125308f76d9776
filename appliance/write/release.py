"""Amounts of a ledger that are promised until a moment: released when it has passed.

What was taken from a key since counts against its oldest promise first, so a release takes back
exactly what is left of the expired ones. It is an entry like any other, with an id that follows
from what it releases: two nodes that release the same while apart release it once, and doing it
again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec

from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.db.wire import Call, Statement
from appliance.fields import type_of
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json, Kind, Schema
from appliance.kernel.ledger import REVERSES, LedgerSort, release_id
from appliance.kernel.money import format_scaled
from appliance.meta import load_schema
from appliance.write.balances import amount_of, balance_fields
from appliance.write.command import Command, Op
from appliance.write.load import COLUMNS, read_state
from appliance.write.outcome import Applied
from appliance.write.pipeline import apply

_ANY_OPEN = (
    "SELECT 1 FROM turnover t WHERE t.tenant_id = $1 AND t.kind = $2 "
    "GROUP BY t.key HAVING sum(t.{value}) > 0 LIMIT 1"
)
_OPEN = (
    "(SELECT t.key FROM turnover t WHERE t.tenant_id = $1 AND t.kind = $2 "
    "GROUP BY t.key HAVING sum(t.{value}) > 0)"
)
_REVISION = Statement("SELECT schema_rev::text FROM tenant_state WHERE tenant_id = $1")
_ENTRIES = (
    "SELECT {columns}, key::text FROM entry WHERE tenant_id = $1 AND kind = $2 "
    "AND key IN {open} ORDER BY key, at, id"
)

_KEY_AT = COLUMNS.count(",") + 1


@dataclass(slots=True)
class Promise:
    """One positive entry and what is left of it, scaled to a whole number."""

    id: UUID
    unit: UUID | None
    until: datetime | None
    left: int
    data: dict[str, Json]


class Watch:
    """Which tenants have a promise that is open, at the cost of one round trip for each.

    What its ledgers are is remembered by the revision of its schema; a schema is large, and most
    tenants have nothing open at most times.
    """

    def __init__(self) -> None:
        self._known: dict[UUID, tuple[bytes, tuple[Call, ...]]] = {}

    async def has_open(self, db: Database, tenant: UUID) -> bool:
        """Whether there is anything to look at."""
        revision, calls = self._known.get(tenant, (b"", ()))
        rev, *found = await db.read(tenant, (_REVISION, (tenant,)), *calls)
        now = (rev.first() or (b"",))[0] or b""
        if now != revision:
            calls = _open_calls(tenant, await load_schema(db, tenant))
            self._known[tenant] = (now, calls)
            found = await db.read(tenant, *calls) if calls else []
        return any(len(rows) for rows in found)


def _open_calls(tenant: UUID, schema: Schema) -> tuple[Call, ...]:
    kinds = [k for k in schema.kinds.values() if _promises(k)]
    return tuple(
        (Statement(_ANY_OPEN.format(value=balance_fields(k)[1][0].slot)), (tenant, k.key))
        for k in kinds
    )


async def release_due(db: Database, ctx: Ctx) -> int:
    """Write the releases that are due in one tenant; how many. `ctx` is the node's own."""
    count = 0
    for kind in ctx.schema.kinds.values():
        if not _promises(kind):
            continue
        commands = [
            _release(kind, promise)
            for entries in await _read(db, ctx, kind)
            for promise in left_of(entries)
            if promise.until is not None and promise.until <= ctx.at and promise.left
        ]
        if commands:
            step = msgspec.structs.replace(ctx, request_id=uuid7())
            result = await apply(db, step, commands, atomic=False)
            count += sum(isinstance(outcome, Applied) for outcome in result.outcomes)
    return count


def left_of(entries: Iterable[Promise | int]) -> list[Promise]:
    """What is left of each promise of one key; numbers are what was taken (below zero).

    The one that ends first is used up first; one without an end is used up last.
    """
    promises = [e for e in entries if isinstance(e, Promise)]
    taken = -sum(e for e in entries if isinstance(e, int))
    for promise in sorted(promises, key=lambda p: (p.until is None, p.until, p.id)):
        used = min(taken, promise.left)
        promise.left, taken = promise.left - used, taken - used
    return promises


def _promises(kind: Kind) -> bool:
    ledger = kind.ledger
    return (
        ledger is not None and ledger.sort is LedgerSort.BALANCE and ledger.until in kind.by_name
        and len(balance_fields(kind)[1]) == 1
    )  # fmt: skip


async def _read(db: Database, ctx: Ctx, kind: Kind) -> list[list[Promise | int]]:
    """The entries of each key that has something left, reversed ones left out."""
    value = balance_fields(kind)[1][0]
    open_keys = _OPEN.format(value=value.slot)
    statement = Statement(_ENTRIES.format(columns=COLUMNS, open=open_keys))
    (rows,) = await db.read(ctx.tenant, (statement, (ctx.tenant, kind.key)))
    states = [(row[_KEY_AT] or b"", read_state(row)) for row in rows]
    undone = {s.data[REVERSES] for _, s in states if s.data.get(REVERSES) is not None}
    found: dict[bytes, list[Promise | int]] = {}
    for key, state in states:
        if state.data.get(REVERSES) is not None or str(state.id) in undone:
            continue
        amount = amount_of(value, state.data)
        promise = Promise(state.id, state.unit, _until(kind, state.data), amount, state.data)
        found.setdefault(key, []).append(promise if amount > 0 else amount)
    return list(found.values())


def _until(kind: Kind, data: dict[str, Json]) -> datetime | None:
    assert kind.ledger is not None, "asked of ledgers only"
    field = kind.by_name[kind.ledger.until]
    value = data.get(field.fid)
    found = type_of(field.type).slot_value(field, value) if value is not None else None
    return found if isinstance(found, datetime) else None


def _release(kind: Kind, promise: Promise) -> Command:
    assert kind.ledger is not None, "asked of ledgers only"
    value = balance_fields(kind)[1][0]
    scale = type_of(value.type).slot_scale(value)  # type: ignore[attr-defined]
    fields: dict[str, Json] = {
        name: held
        for name in kind.ledger.key
        if (held := promise.data.get(kind.by_name[name].fid)) is not None
    }
    fields[value.name] = format_scaled(-promise.left, scale)
    ident = release_id(promise.id, promise.left)
    return Command(op=Op.CREATE, kind=kind.key, id=ident, fields=fields, unit=promise.unit)
