"""The bank lines that are here already, by account and day.

Equal payments on one day are told apart by how many of them there are: the third coffee of the day
is new when two are here. Statements of different extent thus overlap without adding anything, and
numbers of statements and banks' own references are no part of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime
from uuid import UUID

import msgspec

from appliance.base import limits
from appliance.db.columns import Column
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.intake.targets.goods.ledgers import ledger_key
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Kind

Day = tuple[UUID, str]
_LIVE = (
    "SELECT key::text, id::text, data->>'booked', data->>'fingerprint', data->>'provisional', "
    "data->>'amount' FROM entry WHERE tenant_id = $1 AND kind = 'bank_line' "
    "AND key = ANY($2::uuid[]) AND at = ANY($3::timestamptz[]) AND reverses IS NULL "
    "AND NOT EXISTS (SELECT 1 FROM entry v WHERE v.tenant_id = $1 AND v.kind = 'bank_line' "
    "AND v.reverses = entry.id)"
)


class Provisional(msgspec.Struct, frozen=True):
    """A line that the day's own booked lines replace."""

    id: UUID
    fingerprint: str
    amount: str


class Lines(msgspec.Struct):
    """What is here of one account and day."""

    booked: Counter[str]
    provisional: list[Provisional]


class Days:
    """Looks days up once each."""

    def __init__(self, db: Database, ctx: Ctx, kind: Kind) -> None:
        self._db, self._ctx, self._kind = db, ctx, kind
        self._known: dict[Day, Lines] = {}
        self._live = Statement(_LIVE)

    def of(self, day: Day) -> Lines:
        """What is here of a day that was loaded."""
        return self._known[day]

    async def load(self, days: Iterable[Day]) -> None:
        """Read what is not known yet."""
        wanted = {d for d in days if d not in self._known}
        if not wanted:
            return
        keys = {ledger_key(self._kind, {"account": str(a)}): a for a, _ in wanted}
        moments = [_midnight(d) for d in sorted({d for _, d in wanted})]
        tenant = self._ctx.tenant
        args = (tenant, Column("uuid", sorted(keys)), Column("timestamptz", moments))
        (rows,) = await self._db.read(
            tenant, (self._live, args), timeout_ms=limits.EXPORT_TIMEOUT_MS
        )
        for day in wanted:
            self._known[day] = Lines(Counter(), [])
        for key, ident, booked, print_, provisional, amount in rows:
            day = (keys[UUID((key or b"").decode())], (booked or b"").decode())
            if day not in wanted:
                continue
            lines, text = self._known[day], (print_ or b"").decode()
            if provisional == b"true":
                found = Provisional(UUID((ident or b"").decode()), text, (amount or b"").decode())
                lines.provisional.append(found)
            else:
                lines.booked[text] += 1


def _midnight(day: str) -> datetime:
    """A day as the ledger's moment."""
    return datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC)
