"""What prices and stock are at a moment, for many keys in one round trip."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from appliance.db.columns import Column
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.intake.match import IN_FORCE
from appliance.intake.refs import slot_of
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json, Kind
from appliance.write.balances import key_of

Prices = dict[UUID, tuple[Decimal | None, str]]


def ledger_key(kind: Kind, values: dict[str, Json]) -> UUID:
    """The key of an entry, from values by name in the form of their fields."""
    return key_of(kind, {kind.by_name[name].fid: value for name, value in values.items()})


async def prices_at(db: Database, ctx: Ctx, keys: Sequence[UUID], asof: datetime) -> Prices:
    """The prices in force by ledger key: amount and currency."""
    if not keys:
        return {}
    call = (IN_FORCE, (ctx.tenant, Column("uuid", sorted(set(keys))), asof))
    (rows,) = await db.read(ctx.tenant, call)
    return {
        UUID((key or b"").decode()): (
            Decimal(amount.decode()) if amount else None,
            (currency or b"").decode(),
        )
        for key, amount, currency in rows
    }


async def balances_at(
    db: Database, ctx: Ctx, kind: Kind, keys: Sequence[UUID], asof: datetime
) -> dict[UUID, Decimal]:
    """Balances by ledger key: all that ever came and went, without what happened later."""
    if not keys:
        return {}
    slot = slot_of(kind, "quantity")
    wanted = Column("uuid", sorted(set(keys)))
    head = f"SELECT key::text, sum({slot})::text FROM"
    where = "WHERE tenant_id = $1 AND kind = $2 AND key = ANY($3::uuid[])"
    total = Statement(f"{head} turnover {where} GROUP BY key")
    later = Statement(f"{head} entry {where} AND at > $4 GROUP BY key")
    args = (ctx.tenant, kind.key, wanted)
    sums, after = await db.read(ctx.tenant, (total, args), (later, (*args, asof)))
    scale = kind.by_name["quantity"].option("scale", 3)
    step = Decimal(1).scaleb(-scale if isinstance(scale, int) else -3)
    found = {UUID((k or b"").decode()): int(n or 0) * step for k, n in sums}
    for key, amount in after:
        ident = UUID((key or b"").decode())
        found[ident] = found.get(ident, Decimal(0)) - int(amount or 0) * step
    return found
