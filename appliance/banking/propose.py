"""A matching run: what is open, what is proposed for it, kept as records until somebody decides.

A proposal that is there already stays the record it is; one that no longer holds is outdated, not
removed. What a person has declined is not proposed again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import date, timedelta
from uuid import UUID

import msgspec

from appliance.banking.candidates import Line, Proposal, find_proposals
from appliance.banking.ledger import Match, read_open
from appliance.base.errors import Clash
from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from appliance.write import Applied, Command, Op, Unchanged, apply

SINCE = timedelta(days=180)
BLOCK = 2_000


class Matched(msgspec.Struct, frozen=True):
    """What a run has looked at and proposed; `lines` and `invoices` are those that were open."""

    lines: int
    invoices: int
    proposed: int
    lines_proposed: int
    outdated: int


async def propose_matches(
    db: Database, ctx: Ctx, *, since: date | None = None, dry_run: bool = False
) -> Matched:
    """Match lines booked since a day (180 days) with open invoices. Raises Invalid, Clash."""
    found = await read_open(db, ctx, since or ctx.at.date() - SINCE)
    declined = frozenset((m.line, m.invoice) for m in found.matches if m.state == "declined")
    # Seconds of counting for ten thousand lines: beside the loop, which others wait for too.
    proposals = await asyncio.to_thread(
        find_proposals, found.lines, found.invoices, learned=found.learned, declined=declined
    )
    commands = _commands(found.lines, found.matches, proposals)
    if not dry_run:
        for start in range(0, len(commands), BLOCK):
            await _write(db, ctx, commands[start : start + BLOCK])
    outdated = sum(c.fields.get("state") == "outdated" for c in commands)
    return Matched(
        len(found.lines), len(found.invoices), len(proposals), len({p.line for p in proposals}),
        outdated,
    )  # fmt: skip


def _commands(
    lines: Sequence[Line], matches: Sequence[Match], proposals: Sequence[Proposal]
) -> list[Command]:
    """New proposals, those that say something else now, those that no longer hold."""
    currencies = {line.id: line.currency for line in lines}
    former = {(m.line, m.invoice): m for m in matches if m.state == "proposed"}
    found: list[Command] = []
    for one in proposals:
        values: dict[str, Json] = {
            "amount": f"{one.amount:f}", "score": one.score, "reason": one.reason,
        }  # fmt: skip
        known = former.pop((one.line, one.invoice), None)
        if known is None:
            more: dict[str, Json] = {
                "line": one.line, "invoice": one.invoice, "currency": currencies[one.line],
                "state": "proposed",
            }  # fmt: skip
            found.append(Command(op=Op.CREATE, kind="bank_match", fields={**more, **values}))
        elif (known.amount, known.score, known.reason) != (one.amount, one.score, one.reason):
            ident = UUID(known.id)
            found.append(Command(op=Op.UPDATE, kind="bank_match", id=ident, fields=values))
    for known in former.values():
        found.append(
            Command(
                op=Op.UPDATE, kind="bank_match", id=UUID(known.id), fields={"state": "outdated"}
            )
        )
    return found


async def _write(db: Database, ctx: Ctx, commands: Sequence[Command]) -> None:
    step = msgspec.structs.replace(ctx, request_id=uuid7())
    result = await apply(db, step, commands, atomic=False)
    for outcome in result.outcomes:
        if not isinstance(outcome, Applied | Unchanged):
            faults = getattr(outcome, "faults", ())
            said = faults[0].detail if faults else "somebody has changed it meanwhile"
            raise Clash(f"A proposal cannot be kept: {said}", code="banking.refused")
