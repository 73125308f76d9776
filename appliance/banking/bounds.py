"""What stands against over-payment: looked at inside the transaction that writes, behind locks.

Two people who confirm at the same moment take turns at each line and invoice, so that neither is
ever shared out beyond what it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from hashlib import blake2b
from uuid import UUID

from appliance.base.errors import Clash
from appliance.db.columns import Column
from appliance.db.wire import Call, Rows, Statement
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Kind
from appliance.kernel.money import SLOT_SCALE

_LOCK = Statement(
    "SELECT pg_advisory_xact_lock(k) FROM (SELECT unnest($1::bigint[]) AS k ORDER BY 1) AS a"
)
_LINES = Statement(
    "SELECT e.id::text, (e.data->>'amount') FROM entry e WHERE e.tenant_id = $1 "
    "AND e.id = ANY($2::uuid[]) AND e.kind = 'bank_line' AND e.reverses IS NULL "
    "AND NOT EXISTS (SELECT 1 FROM entry v WHERE v.tenant_id = $1 AND v.kind = 'bank_line' "
    "AND v.reverses = e.id)"
)


class Bounds:
    """A guard of the write path (write.Guard): raises Clash when a side has less than is taken."""

    def __init__(
        self, ctx: Ctx, lines: Mapping[UUID, Decimal], invoices: Mapping[UUID, Decimal]
    ) -> None:
        self._ctx, self._lines, self._invoices = ctx, lines, invoices
        # The invoices that are paid in full by it; known once it was checked.
        self.covered: set[UUID] = set()

    @property
    def calls(self) -> Sequence[Call]:
        """Locks, then what each line and invoice has and has given."""
        tenant = self._ctx.tenant
        lines, invoices = (
            Column("uuid", sorted(self._lines)),
            Column("uuid", sorted(self._invoices)),
        )
        keys = sorted(_lock_key(tenant, i) for i in (*self._lines, *self._invoices))
        match, line = self._kind("bank_match"), self._kind("invoice_line")
        allocation = self._kind("allocation")
        matched = Statement(
            f"SELECT {_slot(match, 'line')}::text, sum((data->>'amount')::numeric)::text FROM record "
            f"WHERE tenant_id = $1 AND kind = 'bank_match' AND {_slot(match, 'line')} = "
            "ANY($2::uuid[]) AND data->>'state' = 'confirmed' AND deleted_at IS NULL GROUP BY 1"
        )
        gross = Statement(
            f"SELECT {_slot(line, 'invoice')}::text, sum({_slot(line, 'gross')})::text FROM record "
            f"WHERE tenant_id = $1 AND kind = 'invoice_line' AND {_slot(line, 'invoice')} = "
            "ANY($2::uuid[]) AND deleted_at IS NULL GROUP BY 1"
        )
        paid = Statement(
            f"SELECT {_slot(allocation, 'invoice')}::text, sum({_slot(allocation, 'amount')})::text "
            f"FROM turnover WHERE tenant_id = $1 AND kind = 'allocation' "
            f"AND {_slot(allocation, 'invoice')} = ANY($2::uuid[]) GROUP BY 1"
        )
        return [
            (_LOCK, (Column("bigint", keys),)), (_LINES, (tenant, lines)), (matched, (tenant, lines)),
            (gross, (tenant, invoices)), (paid, (tenant, invoices)),
        ]  # fmt: skip

    def check(self, answers: Sequence[Rows]) -> None:
        """Raise Clash naming the side that has not enough."""
        _, lines, matched, gross, paid = answers
        had, given = _sums(lines), _sums(matched)
        for ident, amount in self._lines.items():
            left = had.get(ident, Decimal(0)) - given.get(ident, Decimal(0))
            if amount > left:
                _refuse("bank line", ident, left, amount)
        step = Decimal(1).scaleb(-SLOT_SCALE)
        owed, settled = _sums(gross, step), _sums(paid, step)
        for ident, amount in self._invoices.items():
            left = owed.get(ident, Decimal(0)) - settled.get(ident, Decimal(0))
            if amount > left:
                _refuse("invoice", ident, left, amount)
        self.covered = {
            i for i, a in self._invoices.items()
            if owed.get(i, Decimal(0)) - settled.get(i, Decimal(0)) == a
        }  # fmt: skip

    def _kind(self, key: str) -> Kind:
        kind = self._ctx.schema.kind(key)
        assert kind is not None, "checked before"
        return kind


def _refuse(what: str, ident: UUID, left: Decimal, amount: Decimal) -> None:
    raise Clash(
        f"The {what} {ident} has {left:f} left, {amount:f} was asked for; match again, or confirm a "
        "part.", code="banking.too_much",
    )  # fmt: skip


def _slot(kind: Kind, name: str) -> str:
    slot = kind.by_name[name].slot
    assert slot is not None, "references and ledger values have slots"
    return slot


def _sums(rows: Rows, step: Decimal = Decimal(1)) -> dict[UUID, Decimal]:
    return {UUID((i or b"").decode()): Decimal((n or b"0").decode()) * step for i, n in rows}


def _lock_key(tenant: UUID, ident: UUID) -> int:
    spread = blake2b(tenant.bytes + ident.bytes, digest_size=8, person=b"banking").digest()
    return int.from_bytes(spread, signed=True)
