"""A matching run: what is open, what is proposed for it, kept as records until somebody decides.

A proposal that is there already stays the record it is; one that no longer holds is outdated, not
removed. What a person has declined is not proposed again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from uuid import UUID

import msgspec

from appliance.banking.candidates import NAMING, Line, Proposal, find_proposals
from appliance.banking.ledger import (
    PAGE,
    Former,
    Match,
    read_former,
    read_invoices,
    read_lines,
)
from appliance.banking.wanted import Wanted
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
    work = _Proposing(db, ctx, since or ctx.at.date() - SINCE)
    await work.run()
    commands = _commands(work.currencies, work.former.proposed, work.proposals)
    if not dry_run:
        for start in range(0, len(commands), BLOCK):
            await _write(db, ctx, commands[start : start + BLOCK])
    outdated = sum(c.fields.get("state") == "outdated" for c in commands)
    return Matched(
        work.lines, work.invoices, len(work.proposals), len(work.currencies), outdated
    )  # fmt: skip


class _Proposing:
    """One run on its way. `currencies`: of the lines that have a proposal."""

    former: Former

    def __init__(self, db: Database, ctx: Ctx, since: date) -> None:
        self._db, self._ctx, self._since = db, ctx, since
        self.proposals: list[Proposal] = []
        self.currencies: dict[str, str] = {}
        self.lines = self.invoices = 0
        self._spent: dict[str, Decimal] = defaultdict(Decimal)

    async def run(self) -> None:
        """All grounds over all lines where one page holds them. Of more, those that name their
        invoice come first over all pages, so that nothing weaker takes it before them.
        """
        self.former = await read_former(self._db, self._ctx, self._since)
        pages = self._pages()
        none: list[Line] = []
        first = await anext(pages, none)
        second = await anext(pages, none)
        if not second:
            await self._match(first, slice(None))
            return
        for page in (first, second):
            await self._match(page, slice(NAMING))
        async for page in pages:
            await self._match(page, slice(NAMING))
        self.lines = 0
        async for page in self._pages():
            await self._match(page, slice(NAMING, None))

    def _pages(self) -> AsyncIterator[list[Line]]:
        return read_lines(self._db, self._ctx, self._since, self.former.taken, PAGE)

    async def _match(self, page: list[Line], grounds: slice) -> None:
        self.lines += len(page)
        lines = [line for line in page if line.id not in self.currencies]
        learned, declined = self.former.learned, self.former.declined
        # Seconds of counting for ten thousand lines: beside the loop, which others wait for too.
        wanted = await asyncio.to_thread(Wanted, lines, learned)
        invoices, self.invoices = await read_invoices(self._db, self._ctx, wanted, self._spent)
        found = await asyncio.to_thread(
            find_proposals, lines, invoices, learned=learned, declined=declined, grounds=grounds
        )
        currencies = {line.id: line.currency for line in lines}
        for one in found:
            self._spent[one.invoice] += one.amount
            self.currencies[one.line] = currencies[one.line]
        self.proposals += found


def _commands(
    currencies: Mapping[str, str], proposed: Mapping[tuple[str, str], Match],
    proposals: Sequence[Proposal],
) -> list[Command]:  # fmt: skip
    """New proposals, those that say something else now, those that no longer hold."""
    former = dict(proposed)
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
