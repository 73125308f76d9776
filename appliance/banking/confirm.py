"""What a person decides: a proposal becomes a payment with its allocations, or is taken back.

One change of their own: payment, allocations, the matches, and the invoices that are paid by it.
Taking a match back reverses its allocation and keeps the record of both; the payment stays, because
the money did come.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from hashlib import blake2b
from typing import Any
from uuid import UUID

import msgspec
from msgspec import UNSET

from appliance.banking.bounds import Bounds
from appliance.banking.ledger import check_kinds
from appliance.base.errors import Clash, Invalid, Refused
from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from appliance.kernel.ledger import REVERSES, reversal_id
from appliance.read import fetch
from appliance.write import Applied, Command, Op, Unchanged, apply

AT_ONCE = 500
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An amount of a line for an invoice, as a person says it."""

    line: UUID
    invoice: UUID
    amount: str


class Settled(msgspec.Struct, frozen=True):
    """What was done: the matches, the payments of their lines, the change to undo."""

    matches: list[UUID]
    payments: list[UUID]
    change_set: UUID


class _Wanted(msgspec.Struct, frozen=True):
    """One match that is to be confirmed; `known` is the proposal it comes from."""

    match: UUID
    line: UUID
    invoice: UUID
    amount: Decimal
    known: bool


async def confirm(
    db: Database, ctx: Ctx, *, matches: Sequence[UUID] = (), parts: Sequence[Part] = ()
) -> Settled:
    """Confirm proposals, and what a person says without one. Raises Refused for what is not there
    for them, Invalid, and Clash when a line or an invoice has less left than is asked for.
    """
    check_kinds(ctx)
    wanted = [*await _proposed(db, ctx, matches), *(_said(p) for p in parts)]
    if not 0 < len(wanted) <= AT_ONCE:
        raise Invalid(f"Confirm 1 to {AT_ONCE} matches at once.")
    lines = await _records(db, ctx, "bank_line", {w.line for w in wanted})
    invoices = await _records(db, ctx, "invoice", {w.invoice for w in wanted})
    for one in wanted:
        if lines[one.line]["currency"] != invoices[one.invoice]["currency"]:
            raise Invalid(
                f"The line is in {lines[one.line]['currency']}, the invoice in "
                f"{invoices[one.invoice]['currency']}: amounts of two currencies are not matched."
            )
    payments = {ident: payment_id(ident) for ident in lines}
    there = await fetch(db, ctx, "payment", sorted(payments.values()))
    commands = _payments(wanted, lines, invoices, payments, set(there))
    commands += [c for one in wanted for c in _confirmed(ctx, one, lines[one.line], payments)]
    taken, asked = _sums(wanted)
    bounds = Bounds(ctx, taken, asked)
    bounds.check(await db.read(ctx.tenant, *bounds.calls))
    commands += [
        Command(op=Op.UPDATE, kind="invoice", id=i, fields={"state": "paid"})
        for i in sorted(bounds.covered) if invoices[i].get("state") == "sent"
    ]  # fmt: skip
    result = await apply(db, _step(ctx), commands, guard=bounds)
    _check(result.outcomes, committed=result.committed)
    return Settled([w.match for w in wanted], sorted(payments.values()), result.change_set)


async def unmatch(db: Database, ctx: Ctx, matches: Sequence[UUID]) -> Settled:
    """Take confirmed matches back. Raises Refused, Clash for what is not confirmed."""
    found = await _records(db, ctx, "bank_match", set(matches))
    commands: list[Command] = []
    invoices: set[UUID] = set()
    for ident, fields in sorted(found.items()):
        if fields["state"] != "confirmed" or not fields.get("allocation"):
            raise Clash(
                f"The match {ident} is {fields['state']}, not confirmed.", code="banking.state"
            )
        allocation = UUID(fields["allocation"])
        invoices.add(UUID(fields["invoice"]))
        reversal: dict[str, Json] = {REVERSES: str(allocation)}
        commands.append(
            Command(op=Op.CREATE, kind="allocation", id=reversal_id(allocation), fields=reversal)
        )
        undone: dict[str, Json] = {
            "state": "undone", "undone_by": str(ctx.actor), "undone_at": ctx.at.isoformat(),
        }  # fmt: skip
        commands.append(Command(op=Op.UPDATE, kind="bank_match", id=ident, fields=undone))
    for ident, fields in (await _records(db, ctx, "invoice", invoices)).items():
        if fields.get("state") == "paid":
            again = {"state": "sent"}
            commands.append(Command(op=Op.UPDATE, kind="invoice", id=ident, fields={**again}))
    result = await apply(db, _step(ctx), commands)
    _check(result.outcomes, committed=result.committed)
    return Settled(sorted(found), [], result.change_set)


async def decline(db: Database, ctx: Ctx, matches: Sequence[UUID]) -> Settled:
    """Say no to proposals: they are not made again. Raises Refused, Clash."""
    found = await _records(db, ctx, "bank_match", set(matches))
    for ident, fields in found.items():
        if fields["state"] != "proposed":
            raise Clash(
                f"The match {ident} is {fields['state']}, not proposed.", code="banking.state"
            )
    commands = [
        Command(op=Op.UPDATE, kind="bank_match", id=i, fields={"state": "declined"})
        for i in sorted(found)
    ]  # fmt: skip
    result = await apply(db, _step(ctx), commands)
    _check(result.outcomes, committed=result.committed)
    return Settled(sorted(found), [], result.change_set)


def payment_id(line: UUID) -> UUID:
    """The payment of a line: one, whichever invoices it is for and whoever confirms first."""
    spread = blake2b(line.bytes, digest_size=10, person=b"payment").digest()
    number = int.from_bytes(line.bytes[:6] + spread)
    number = number & ~(0xF << 76) | 0x7 << 76
    return UUID(int=number & ~(0x3 << 62) | 0x2 << 62)


async def _proposed(db: Database, ctx: Ctx, matches: Sequence[UUID]) -> list[_Wanted]:
    found = await _records(db, ctx, "bank_match", set(matches))
    for ident, fields in found.items():
        if fields["state"] not in ("proposed", "outdated"):
            raise Clash(f"The match {ident} is {fields['state']} already.", code="banking.state")
    return [
        _Wanted(i, UUID(f["line"]), UUID(f["invoice"]), Decimal(f["amount"]), known=True)
        for i, f in sorted(found.items())
    ]


def _said(part: Part) -> _Wanted:
    try:
        amount = Decimal(part.amount)
    except ArithmeticError:
        amount = Decimal(0)
    if not amount.is_finite() or amount <= 0:
        raise Invalid("An amount is a decimal above zero.")
    return _Wanted(uuid7(), part.line, part.invoice, amount, known=False)


async def _records(db: Database, ctx: Ctx, kind: str, ids: set[UUID]) -> dict[UUID, dict[str, Any]]:
    """Fields of records, all of them. Raises Refused, alike for unknown and forbidden."""
    if not ids:
        return {}
    found = {
        i: _decode(raw)["fields"] | {"unit": _decode(raw).get("unit")}
        for i, raw in (await fetch(db, ctx, kind, sorted(ids), display=False)).items()
    }
    if missing := ids - found.keys():
        listed = ", ".join(str(i) for i in sorted(missing)[:3])
        raise Refused(f"There is no such {kind} for you: {listed}.", code="record.unknown")
    return found


def _payments(
    wanted: Sequence[_Wanted],
    lines: dict[UUID, dict[str, Any]],
    invoices: dict[UUID, dict[str, Any]],
    payments: dict[UUID, UUID],
    there: set[UUID],
) -> list[Command]:
    """Payments of the lines that have none yet: all that came in, of the first invoice's customer."""
    found: dict[UUID, Command] = {}
    for one in wanted:
        ident, line = payments[one.line], lines[one.line]
        if ident in there or ident in found:
            continue
        values: dict[str, Json] = {
            "customer": invoices[one.invoice].get("customer"), "amount": line["amount"],
            "currency": line["currency"], "paid_at": line["booked"], "type": "bank",
            "purpose": line.get("purpose"),
            "reference": line.get("bank_reference") or line.get("document"),
        }  # fmt: skip
        fields: dict[str, Json] = {k: v for k, v in values.items() if v is not None}
        unit = line["unit"]
        found[ident] = Command(
            op=Op.CREATE,
            kind="payment",
            id=ident,
            fields=fields,
            unit=UUID(unit) if unit else UNSET,
        )
    return list(found.values())


def _confirmed(
    ctx: Ctx, one: _Wanted, line: dict[str, Any], payments: dict[UUID, UUID]
) -> list[Command]:
    payment, allocation = str(payments[one.line]), uuid7()
    amount = f"{one.amount:f}"
    entry: dict[str, Json] = {"invoice": str(one.invoice), "payment": payment, "amount": amount}
    decided: dict[str, Json] = {
        "state": "confirmed", "payment": payment, "allocation": str(allocation),
        "confirmed_by": str(ctx.actor), "confirmed_at": ctx.at.isoformat(),
    }  # fmt: skip
    op = Op.UPDATE
    if not one.known:
        op = Op.CREATE
        decided |= {
            "line": str(one.line), "invoice": str(one.invoice), "amount": amount,
            "currency": line["currency"], "score": 100, "reason": "by hand",
        }  # fmt: skip
    return [
        Command(op=Op.CREATE, kind="allocation", id=allocation, fields=entry),
        Command(op=op, kind="bank_match", id=one.match, fields=decided),
    ]


def _sums(wanted: Sequence[_Wanted]) -> tuple[dict[UUID, Decimal], dict[UUID, Decimal]]:
    """What is asked of each line and of each invoice."""
    lines: dict[UUID, Decimal] = defaultdict(Decimal)
    invoices: dict[UUID, Decimal] = defaultdict(Decimal)
    for one in wanted:
        lines[one.line] += one.amount
        invoices[one.invoice] += one.amount
    return lines, invoices


def _step(ctx: Ctx) -> Ctx:
    return msgspec.structs.replace(ctx, request_id=uuid7())


def _check(outcomes: Sequence[Any], *, committed: bool) -> None:
    """Raise Clash with the first refusal."""
    for outcome in outcomes:
        if not committed and not isinstance(outcome, Applied | Unchanged):
            faults = getattr(outcome, "faults", ())
            said = faults[0].detail if faults else "somebody has changed it meanwhile; look again"
            raise Clash(f"It cannot be written: {said}", code="banking.refused", faults=faults)
