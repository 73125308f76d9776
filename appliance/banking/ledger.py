"""What is still open: lines that nothing is matched to, invoices that are not paid.

Read through the one read path, so under the rights of whoever asks: what they may not see is not
proposed to them. Everything streams: of lines a page is held at a time, of invoices those that a
page may be for, of former matches what they say of lines since a day.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec

from appliance.banking.candidates import Invoice, Line
from appliance.banking.wanted import Wanted
from appliance.base.errors import Invalid
from appliance.db.database import Database
from appliance.kernel.context import Ctx
from appliance.kernel.query import decode_query
from appliance.read import stream

PAGE = 10_000
_LINE = ["id", "amount", "currency", "booked", "purpose", "reference", "end_to_end", "document",
         "counterparty", "counterparty_tax_id", "counterparty_account", "reverses",
         "provisional"]  # fmt: skip
_INVOICE = ["id", "number", "customer", "customer.name", "customer.tax_id", "currency",
            "gross_total", "paid", "issued", "due"]  # fmt: skip
_MATCH = ["id", "line", "invoice", "amount", "state", "score", "reason",
          "line.counterparty_account", "invoice.customer"]  # fmt: skip
_ZERO = Decimal(0)
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


class Former(msgspec.Struct, frozen=True):
    """What former matches say. `taken` of lines by those that are confirmed; `learned`:
    counterparty's account to customer, of these; `proposed` wait, whatever their lines' day.
    """

    taken: dict[str, Decimal]
    declined: frozenset[tuple[str, str]]
    proposed: dict[tuple[str, str], Match]
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


async def read_former(db: Database, ctx: Ctx, since: date) -> Former:
    """The matches of lines booked since a day, and all that are proposed. Raises Invalid."""
    check_kinds(ctx)
    taken: dict[str, Decimal] = defaultdict(Decimal)
    declined: set[tuple[str, str]] = set()
    proposed: dict[tuple[str, str], Match] = {}
    learned: dict[str, str] = {}
    async for row in _rows(db, ctx, _matches_since(since)):
        pair = (row["line"], row["invoice"])
        if row["state"] == "declined":
            declined.add(pair)
        elif row["state"] == "proposed":
            proposed[pair] = _match(row)
        else:
            taken[row["line"]] += Decimal(row["amount"])
            if row["line.counterparty_account"] and row["invoice.customer"]:
                learned[row["line.counterparty_account"]] = row["invoice.customer"]
    return Former(taken, frozenset(declined), proposed, learned)


def _matches_since(since: date) -> dict[str, Any]:
    recent = {"field": "line.booked", "op": "gte", "value": since.isoformat()}
    decided = {"field": "state", "op": "in", "value": ["confirmed", "declined"]}
    waiting = {"field": "state", "op": "eq", "value": "proposed"}
    where = {"or": [waiting, {"and": [decided, recent]}]}
    return {"from": "bank_match", "select": _MATCH, "where": where}


async def read_lines(
    db: Database, ctx: Ctx, since: date, taken: Mapping[str, Decimal], most: int = PAGE
) -> AsyncIterator[list[Line]]:
    """The open lines booked since a day, page by page; no page is empty."""
    recent = {"field": "booked", "op": "gte", "value": since.isoformat()}
    reversing = {"field": "reverses", "op": "is_null", "value": False}
    asked: dict[str, Any] = {
        "from": "bank_line", "select": ["reverses"], "where": {"and": [recent, reversing]},
    }  # fmt: skip
    undone = {row["reverses"] async for row in _rows(db, ctx, asked)}
    came = {"field": "amount", "op": "gt", "value": "0"}
    asked = {"from": "bank_line", "select": _LINE, "where": {"and": [recent, came]}}
    page: list[Line] = []
    async for row in _rows(db, ctx, asked):
        left = Decimal(row["amount"]) - taken.get(row["id"], _ZERO)
        if left <= 0 or row["reverses"] or row["provisional"] or row["id"] in undone:
            continue
        if len(page) >= most:
            yield page
            page = []
        page.append(_line(row, left))
    if page:
        yield page


async def read_invoices(
    db: Database, ctx: Ctx, wanted: Wanted, spent: Mapping[str, Decimal]
) -> tuple[list[Invoice], int]:
    """The open invoices that some lines may be for, less what other lines take of them; and how
    many are open at all.
    """
    asked = {"from": "invoice", "select": _INVOICE,
             "where": {"field": "state", "op": "eq", "value": "sent"}}  # fmt: skip
    found, count = [], 0
    async for row in _rows(db, ctx, asked):
        left = Decimal(row["gross_total"] or 0) - Decimal(row["paid"] or 0)
        if left <= 0:
            continue
        count += 1
        if (rest := left - spent.get(row["id"], _ZERO)) > 0:
            invoice = _invoice(row, rest)
            if wanted.asks_for(invoice):
                found.append(invoice)
    return found, count


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


def _match(row: dict[str, Any]) -> Match:
    return Match(
        row["id"], row["line"], row["invoice"], Decimal(row["amount"]), row["state"],
        int(row["score"] or 0), row["reason"] or "",
    )  # fmt: skip


async def _rows(db: Database, ctx: Ctx, query: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    async for _, rows in stream(db, ctx, decode_query(query)):
        for row in rows:
            yield _ROW(row)
