"""The commands of a block of bank rows: accounts that are asked for, statements, lines.

A provisional line that is replaced is answered by a reversing entry of its day; the ledger loses
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import msgspec

from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.fields.base import ValueFault
from appliance.intake.ids import derived_id
from appliance.intake.refs import kind_of
from appliance.intake.runs import IntakeRun
from appliance.intake.target import Row, Step, create, fault
from appliance.intake.targets.bank.accounts import Account, Accounts
from appliance.intake.targets.bank.statements import Stored, read_stored
from appliance.intake.targets.goods.fields import canonical
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json, Kind
from appliance.kernel.ledger import REVERSES, reversal_id
from appliance.write import Command

# Our fields by the row's, where the names differ or the value is only taken over.
_STATEMENT = {
    "number": "label", "from": "period_from", "to": "period_to", "currency": "currency",
    "opening": "opening", "closing": "closing", "total_in": "total_in", "total_out": "total_out",
    "net": "net", "ties": "ties", "is_provisional": "provisional",
}  # fmt: skip
_LINE = {
    "booked": "booked", "value_date": "value_date", "amount": "amount", "currency": "currency",
    "number": "document", "document_date": "document_date", "kind": "type",
    "counterparty": "counterparty", "counterparty_tax_id": "counterparty_tax_id",
    "counterparty_account": "counterparty_account", "counterparty_bank": "counterparty_bank",
    "purpose": "purpose", "reference": "reference", "end_to_end": "end_to_end",
    "bank_reference": "bank_reference", "mandate": "mandate", "batch": "batch",
    "original_amount": "original_amount", "original_currency": "original_currency",
    "charges": "charges", "is_reversal": "reversal", "is_provisional": "provisional",
}  # fmt: skip
_STATEMENTS = Statement(
    "SELECT data FROM intake_row WHERE tenant_id = $1 AND run = $2 AND entity = 'statement' "
    "AND sort <> 'faulty' ORDER BY intake_row.no"
)
_TEXT_MAX = 255
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Composer:
    """Makes the commands of blocks."""

    def __init__(self, db: Database, ctx: Ctx, run: IntakeRun, accounts: Accounts) -> None:
        self._db, self._ctx, self._run, self._accounts = db, ctx, run, accounts

    async def accounts(self) -> list[Command]:
        """Accounts that a setting of the mapping asks for, as their statements name them."""
        (rows,) = await self._db.read(
            self._ctx.tenant, (_STATEMENTS, (self._ctx.tenant, self._run.id))
        )
        found: dict[str, Command] = {}
        for raw in rows.column():
            data = _decode(raw or b"{}")
            account = self._accounts.find(str(data["account"]), str(data["currency"]))
            if account is not None and account.is_new and account.number not in found:
                values: dict[str, Json] = {
                    "account": account.number, "currency": account.currency,
                    "bank": data.get("bank"), "name": data.get("account_name") or account.number,
                }  # fmt: skip
                found[account.number] = create("bank_account", account.id, values)
        return list(found.values())

    async def compose(self, rows: Sequence[Row]) -> list[Step]:
        """The steps of a block."""
        keys = sorted({str(r.data["statement"]) for r in rows if r.data.get("statement")})
        stored = await read_stored(self._db, self._ctx, keys)
        return [self._step(row, stored) for row in rows]

    def _step(self, row: Row, stored: dict[str, Stored]) -> Step:
        if row.sort == "gone":
            assert row.target is not None, "a line that goes is here"
            values: dict[str, Json] = {REVERSES: str(row.target), "booked": row.data.get("booked")}
            return Step(row, (create("bank_line", reversal_id(row.target), values),))
        account = self._accounts.find(str(row.data["account"]), str(row.data["currency"]))
        if account is None:
            text = fault(
                "unknown-account", "an account that is kept here", str(row.data["account"])
            )
            return Step(row, faults=(text,))
        if row.entity == "statement":
            return self._statement(row, account)
        statement = stored.get(str(row.data.get("statement")))
        more: dict[str, Json] = {
            "account": str(account.id), "statement": str(statement.id) if statement else None,
            "fingerprint": row.key, "ordinal": row.after("ordinal"),
        }  # fmt: skip
        ident = derived_id(self._run.id, f"line:{row.no}")
        values = {**_taken(kind_of(self._ctx, "bank_line"), _LINE, row.data), **more}
        return Step(row, (create("bank_line", ident, values, account.unit),), ident)

    def _statement(self, row: Row, account: Account) -> Step:
        kind = kind_of(self._ctx, "bank_statement")
        values = _taken(kind, _STATEMENT, row.data)
        data = row.data
        values.setdefault("period_from", data.get("opening_date"))
        values.setdefault("period_to", data.get("closing_date"))
        values |= {"account": str(account.id), "source_key": row.key}
        if data.get("lines"):
            values["lines"] = int(str(data["lines"]))
        values.setdefault("label", str(values.get("period_to") or "")[:_TEXT_MAX] or None)
        ident = derived_id(self._run.id, f"statement:{row.key}")
        return Step(row, (create("bank_statement", ident, values, account.unit),), ident)


def _taken(kind: Kind, names: dict[str, str], row: dict[str, Json]) -> dict[str, Json]:
    """What a row says, in the form of our fields. A text that is longer than ours is cut; what is
    only told besides (a charge of five decimals) and does not fit is left to the purpose's words.
    """
    found: dict[str, Json] = {}
    for theirs, ours in names.items():
        field, value = kind.by_name.get(ours), row.get(theirs)
        if field is None or value in (None, ""):
            continue
        if field.type == "text" and isinstance(value, str):
            value = " ".join(value.split())[:_TEXT_MAX]
        if field.type == "number" and isinstance(value, str):
            value = f"{Decimal(value).quantize(Decimal('0.0001'), ROUND_HALF_UP):f}"
        try:
            found[ours] = canonical(field, value)
        except ValueFault:
            found[ours] = value
    return found
