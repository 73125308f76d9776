"""What is still open: lines that nothing is matched to, invoices that are not paid.

Read through the one read path, so under the rights of whoever asks: what they may not see is not
proposed to them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec

from appliance.banking.candidates import Invoice, Line
from appliance.base.errors import Invalid
from appliance.db.database import Database
from appliance.kernel.context import Ctx
from appliance.kernel.query import decode_query
from appliance.read import stream

_LINE = ["id", "amount", "currency", "booked", "purpose", "reference", "end_to_end", "document",
         "counterparty", "counterparty_tax_id", "counterparty_account", "reverses",
         "provisional"]  # fmt: skip
_INVOICE = ["id", "number", "customer", "customer.name", "customer.tax_id", "currency",
            "gross_total", "paid", "issued", "due"]  # fmt: skip
_MATCH = ["id", "line", "invoice", "amount", "state", "score", "reason"]
KINDS = ("bank_line", "bank_match", "invoice", "invoice_line", "payment", "allocation")
_ROW = msgspec.json.Decoder(dict[str, Any]).decode


class Match(msgspec.Struct, frozen=True):
    """A match that is here, in whatever state."""

    id: str
    line: str
    invoice: str
    amount: Decimal
    state: str
    score: int
    reason: str


class Open(msgspec.Struct, frozen=True):
    """What there is to match. `learned`: counterparty's account to customer."""

    lines: list[Line]
    invoices: list[Invoice]
    matches: list[Match]
    learned: dict[str, str]


def check_kinds(ctx: Ctx) -> None:
    """Raises Invalid when the tenant, or the profile, lacks a kind that matching needs."""
    for key in KINDS:
        kind = ctx.schema.kind(key)
        if kind is None or not ctx.profile.sees(kind):
            raise Invalid(
                f"Matching needs the kind {key}; switch the module on, or ask for the right to read "
                "it.", code="banking.kind_missing",
            )  # fmt: skip


async def read_open(db: Database, ctx: Ctx, since: date) -> Open:
    """Lines booked since a day, and all open invoices. Raises Invalid."""
    check_kinds(ctx)
    matches = [m async for m in _matches(db, ctx)]
    taken: dict[str, Decimal] = defaultdict(Decimal)
    for match in matches:
        if match.state == "confirmed":
            taken[match.line] += match.amount
    rows = [
        row async for row in _rows(
            db, ctx, {"from": "bank_line", "select": _LINE,
                      "where": {"field": "booked", "op": "gte", "value": since.isoformat()}},
        )
    ]  # fmt: skip
    undone = {row["reverses"] for row in rows if row["reverses"]}
    lines, accounts = [], {}
    for row in rows:
        accounts[row["id"]] = row["counterparty_account"] or ""
        left = Decimal(row["amount"]) - taken[row["id"]]
        if left > 0 and not row["reverses"] and not row["provisional"] and row["id"] not in undone:
            lines.append(_line(row, left))
    invoices, customers = [], {}
    wanted = {"from": "invoice", "select": _INVOICE,
              "where": {"field": "state", "op": "eq", "value": "sent"}}  # fmt: skip
    async for row in _rows(db, ctx, wanted):
        customers[row["id"]] = row["customer"] or ""
        left = Decimal(row["gross_total"] or 0) - Decimal(row["paid"] or 0)
        if left > 0:
            invoices.append(_invoice(row, left))
    learned = {
        accounts[m.line]: customers[m.invoice]
        for m in matches
        if m.state == "confirmed" and accounts.get(m.line) and customers.get(m.invoice)
    }
    learned |= await _learn(db, ctx, matches, accounts, customers)
    return Open(lines, invoices, matches, learned)


async def _learn(
    db: Database, ctx: Ctx, matches: list[Match], accounts: dict[str, str], known: dict[str, str]
) -> dict[str, str]:
    """Payers of confirmed matches whose invoices are paid, so not among the open ones."""
    paid = {m.invoice: m.line for m in matches
            if m.state == "confirmed" and m.invoice not in known and accounts.get(m.line)}  # fmt: skip
    found: dict[str, str] = {}
    ids = sorted(paid)
    for start in range(0, len(ids), 500):
        asked = {"from": "invoice", "select": ["id", "customer"],
                 "where": {"field": "id", "op": "in", "value": ids[start : start + 500]}}  # fmt: skip
        async for row in _rows(db, ctx, asked):
            if row["customer"]:
                found[accounts[paid[row["id"]]]] = row["customer"]
    return found


def _line(row: dict[str, Any], left: Decimal) -> Line:
    text = " ".join(str(row[n]) for n in ("purpose", "end_to_end", "document") if row[n])
    return Line(
        row["id"], left, row["currency"], date.fromisoformat(row["booked"]), text,
        row["reference"] or "", row["counterparty"] or "", row["counterparty_tax_id"] or "",
        row["counterparty_account"] or "",
    )  # fmt: skip


def _invoice(row: dict[str, Any], left: Decimal) -> Invoice:
    issued, due = row["issued"], row["due"]
    return Invoice(
        row["id"], row["number"] or "", left, row["currency"] or "", row["customer"] or "",
        row["customer.name"] or "", row["customer.tax_id"] or "",
        date.fromisoformat(issued) if issued else None, date.fromisoformat(due) if due else None,
    )  # fmt: skip


async def _matches(db: Database, ctx: Ctx) -> AsyncIterator[Match]:
    async for row in _rows(db, ctx, {"from": "bank_match", "select": _MATCH}):
        yield Match(
            row["id"], row["line"], row["invoice"], Decimal(row["amount"]), row["state"],
            int(row["score"] or 0), row["reason"] or "",
        )  # fmt: skip


async def _rows(db: Database, ctx: Ctx, query: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    async for _, rows in stream(db, ctx, decode_query(query)):
        for row in rows:
            yield _ROW(row)
