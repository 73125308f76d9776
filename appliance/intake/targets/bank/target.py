"""Bank statements: judged line by line, held whole where their balances do not prove them.

A line is known by its content and by which one of equal ones it is on its day; a line of the day
(intraday) gives way to the booked ones of that day. An unknown account posts nothing and is
offered; a currency that is not the account's neither.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from appliance.db.database import Database
from appliance.fields.base import ValueFault
from appliance.intake.refs import kind_of
from appliance.intake.runs import IntakeRun
from appliance.intake.stage import Change, Judged
from appliance.intake.target import Finished, Phase, Row, Step, fault
from appliance.intake.targets.bank.accounts import Account, Accounts, plain
from appliance.intake.targets.bank.compose import Composer
from appliance.intake.targets.bank.days import Day, Days
from appliance.intake.targets.bank.finish import Ending, Seen
from appliance.intake.targets.bank.statements import Stored, read_stored, statement_of
from appliance.intake.targets.goods.fields import canonical
from appliance.kernel.context import Ctx
from appliance.write import Command
from connectors.sdk.contract import StagedRow, Summary


class Bank:
    """The target of one run; see target.Target."""

    phases = (Phase("statement", ("statement",)), Phase("line", ("bank_line",)))
    written = ("new", "gone")

    def __init__(self, db: Database, ctx: Ctx, run: IntakeRun, accounts: Accounts) -> None:
        self._db, self._ctx, self._run, self._accounts = db, ctx, run, accounts
        self._line = kind_of(ctx, "bank_line")
        self._days, self._seen = Days(db, ctx, self._line), Seen()
        self._no = 0
        self._ordinals: Counter[tuple[Day, str, bool]] = Counter()

    @classmethod
    async def open(cls, db: Database, ctx: Ctx, run: IntakeRun) -> Bank:
        """Raises Invalid when the tenant has no module for banks."""
        return cls(db, ctx, run, await Accounts.read(db, ctx, run))

    async def judge(self, rows: Sequence[StagedRow]) -> list[Judged]:
        """See Target."""
        sound = [r for r in rows if not r.faults]
        await self._days.load(
            (account.id, str(row.values["booked"]))
            for row in sound
            if row.entity == "bank_line" and (account := self._account(row)) is not None
        )
        keys = [r.key for r in sound if r.entity == "statement"]
        stored = await read_stored(self._db, self._ctx, keys)
        found = []
        for row in rows:
            found.append(self._judge(row, stored))
            # Rows are staged in the order they are judged.
            self._no += 1
        return found

    def _account(self, row: StagedRow) -> Account | None:
        return self._accounts.find(str(row.values["account"]), str(row.values["currency"]))

    def _judge(self, row: StagedRow, stored: dict[str, Stored]) -> Judged:
        if row.faults:
            return Judged("faulty")
        account = self._account(row)
        number, currency = str(row.values["account"]), str(row.values["currency"])
        if account is None:
            self._seen.unknown[plain(number)] += 1
            text = "an account that is kept here; add it, or map it"
            return Judged("faulty", faults=(fault("unknown-account", text, number),))
        if currency != account.currency:
            self._seen.foreign[(plain(number), account.currency, currency)] += 1
            return Judged("faulty", faults=(fault("currency-differs", account.currency, currency),))
        if row.entity == "statement":
            return self._judge_statement(row, account, stored)
        return self._judge_line(row, account)

    def _judge_statement(
        self, row: StagedRow, account: Account, stored: dict[str, Stored]
    ) -> Judged:
        found = statement_of(row, account)
        known = stored.get(row.key)
        if known is not None and known.account == account.id:
            self._seen.statements.append((found, False))
            return Judged("unchanged", known.id)
        self._seen.statements.append((found, True))
        steps = [
            Change(name, None, row.values[name], account.currency)
            for name in ("opening", "net", "closing")
            if row.values.get(name) is not None
        ]
        return Judged("new", None, tuple(steps))

    def _judge_line(self, row: StagedRow, account: Account) -> Judged:
        values = row.values
        try:
            amount = canonical(self._line.by_name["amount"], str(values["amount"]))
        except ValueFault as bad:
            return Judged("faulty", faults=(fault(bad.code, bad.detail, str(values["amount"])),))
        day = (account.id, str(values["booked"]))
        here, is_provisional = self._days.of(day), values.get("is_provisional") is True
        place = (day, row.key, is_provisional)
        self._ordinals[place] += 1
        ordinal = self._ordinals[place]
        if is_provisional:
            self._seen.provisional.setdefault(day, []).append(self._no)
            same = sum(p.fingerprint == row.key for p in here.provisional)
            is_known = ordinal <= same or bool(here.booked)
        else:
            self._seen.booked.add(day)
            is_known = ordinal <= here.booked[row.key]
        if is_known:
            self._seen.same[str(values["statement"])] += 1
            return Judged("unchanged")
        steps = (
            Change("amount", None, amount, account.currency),
            Change("ordinal", None, ordinal),
        )
        return Judged("new", None, steps)

    async def finish(self, summary: Summary) -> Finished:
        """See Target."""
        ending = Ending(self._db, self._ctx, self._run, self._days, self._seen)
        return await ending.finish(summary)

    async def prologue(self) -> list[Command]:
        """Accounts that a setting asks for."""
        return await self._composer().accounts()

    async def compose(self, rows: Sequence[Row], phase: Phase) -> list[Step]:
        """See Target."""
        return await self._composer().compose(rows)

    def _composer(self) -> Composer:
        return Composer(self._db, self._ctx, self._run, self._accounts)
