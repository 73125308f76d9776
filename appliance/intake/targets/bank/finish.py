"""The end of a plan of statements: what only all of them show, and what holds them.

What is held whole is suspicious: it is written when somebody has looked and asks for it, and the
other statements of the file do not wait for it.
"""

from __future__ import annotations

from collections import Counter
from uuid import UUID

from appliance.base import limits
from appliance.db.columns import Column
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.intake.plan import count_rows, limits_hit
from appliance.intake.runs import IntakeRun, Unmapped
from appliance.intake.target import Finished
from appliance.intake.targets.bank.days import Day, Days
from appliance.intake.targets.bank.statements import Stored, Told, read_latest
from appliance.kernel.context import Ctx
from connectors.sdk.contract import Fault, Summary

_GONE_FROM = 1_000_000_000
_NOBODY = UUID(int=0)
_HELD = Statement(
    "UPDATE intake_row SET sort = 'suspicious' WHERE tenant_id = $1 AND run = $2 AND sort = 'new' "
    "AND (entity = 'statement' AND key = ANY($3::text[]) "
    "OR entity = 'bank_line' AND data->>'statement' = ANY($3::text[]))"
)
# Equal to lines that are here, in a statement that goes on where the last one ended.
_EQUAL = Statement(
    "UPDATE intake_row SET sort = 'suspicious', changes = jsonb_build_array(jsonb_build_object("
    "'field', 'amount', 'from', NULL, 'to', data->>'amount', 'currency', data->>'currency')) "
    "WHERE tenant_id = $1 AND run = $2 AND sort = 'unchanged' AND entity = 'bank_line' "
    "AND data->>'statement' = ANY($3::text[])"
)
_SAME = Statement(
    "UPDATE intake_row SET sort = 'unchanged', changes = '[]' WHERE tenant_id = $1 AND run = $2 "
    "AND no = ANY($3::bigint[])"
)
_GONE = Statement(
    "INSERT INTO intake_row (tenant_id, run, no, sheet, line, entity, key, data, sort, target, changes) "
    "SELECT $1, $2, n, '', 0, 'bank_line', k, jsonb_build_object('booked', d, 'amount', a), 'gone', i, "
    "jsonb_build_array(jsonb_build_object('field', 'amount', 'from', a, 'to', NULL)) "
    "FROM unnest($3::bigint[], $4::text[], $5::text[], $6::text[], $7::uuid[]) AS u(n, k, d, a, i)"
)


class Seen:
    """What judging has seen of a run."""

    def __init__(self) -> None:
        self.statements: list[tuple[Told, bool]] = []
        self.booked: set[Day] = set()
        self.provisional: dict[Day, list[int]] = {}
        self.same: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self.foreign: Counter[tuple[str, str, str]] = Counter()


class Ending:
    """Finishes the plan of one run."""

    def __init__(self, db: Database, ctx: Ctx, run: IntakeRun, days: Days, seen: Seen) -> None:
        self._db, self._ctx, self._run, self._days, self._seen = db, ctx, run, days, seen

    async def finish(self, summary: Summary) -> Finished:
        """Mark rows, add what is replaced, count."""
        seen = self._seen
        held: list[str] = []
        warnings: list[Fault] = []
        if seen.unknown:
            listed = ", ".join(sorted(seen.unknown)[:5])
            held.append(f"unknown-account: expected an account that is kept here, found {listed}")
        for (number, ours, theirs), rows in sorted(seen.foreign.items()):
            held.append(
                f"currency-differs: {number} is kept in {ours}, {rows} rows are in {theirs}"
            )
        await self._replace()
        await self._hold_whole(summary, held)
        await self._follow(held, warnings)
        counts = await count_rows(self._db, self._ctx.tenant, self._run.id)
        plain = {s: n for s, n in counts.items() if s not in ("gone", "suspicious")}
        held += limits_hit(plain, self._run.options)
        unmapped = tuple(Unmapped("account", n, rows) for n, rows in seen.unknown.most_common())
        return Finished(counts, tuple(held), tuple(warnings), unmapped)

    async def _replace(self) -> None:
        """Booked lines of a day take the place of its provisional ones, here and in the file."""
        seen = self._seen
        beaten = [no for day in seen.booked for no in seen.provisional.get(day, ())]
        if beaten:
            await self._write(_SAME, Column("bigint", sorted(beaten)))
        gone = [(day[1], p) for day in sorted(seen.booked) for p in self._days.of(day).provisional]
        if gone:
            await self._write(
                _GONE, Column("bigint", [_GONE_FROM + n for n in range(len(gone))]),
                Column("text", [p.fingerprint for _, p in gone]),
                Column("text", [d for d, _ in gone]), Column("text", [p.amount for _, p in gone]),
                Column("uuid", [p.id for _, p in gone]),
            )  # fmt: skip

    async def _hold_whole(self, summary: Summary, held: list[str]) -> None:
        """Statements that their own balances do not prove, and what the reader holds of them."""
        told = {h.place.column for h in summary.holds if h.place.column not in ("", "*")}
        for statement, _ in self._seen.statements:
            if statement.ties is False and statement.key not in told:
                told.add(statement.key)
                held.append(
                    f"balance-mismatch: expected opening + sum = closing, found another sum in "
                    f"{statement.account.number} {statement.first}"
                )
        everything = any(h.place.column in ("", "*") for h in summary.holds)
        if everything:
            told |= {statement.key for statement, _ in self._seen.statements}
        if told:
            await self._write(_HELD, Column("text", sorted(told)))

    async def _follow(self, held: list[str], warnings: list[Fault]) -> None:
        """Each statement begins where the last one of its account ended."""
        new = [t for t, is_new in self._seen.statements if is_new and not t.is_provisional]
        chain = [t for t in new if t.opening is not None and t.closing is not None and t.first]
        latest = await read_latest(self._db, self._ctx, sorted({t.account.id for t in chain}))
        equal: list[str] = []
        for told in sorted(chain, key=lambda t: (t.first, t.last)):
            before = latest.setdefault(told.account.id, [])
            former = next((s for s in before if s.last <= told.first), None)
            overlaps = any(s.last > told.first for s in before)
            closing = told.closing
            before.insert(0, Stored(_NOBODY, told.account.id, told.last, closing))
            before.sort(key=lambda s: s.last, reverse=True)
            if former is None or overlaps:
                continue
            same = self._seen.same[told.key]
            if former.closing == told.opening and same:
                equal.append(told.key)
                held.append(
                    f"equal-lines: {same} lines of {told.account.number} {told.first} are equal to "
                    "lines that are here, though it goes on where the last statement ended"
                )
            elif former.closing != told.opening and not same:
                found = f"{former.closing} on {former.last}, {told.opening} on {told.first}"
                gap = Fault(
                    "balance-gap", f"the last closing balance of {told.account.number}", found
                )
                if self._run.options.balance_gap == "hold":
                    held.append(f"{gap.code}: expected {gap.expected}, found {gap.found}")
                else:
                    warnings.append(gap)
        if equal:
            await self._write(_EQUAL, Column("text", equal))

    async def _write(self, statement: Statement, *args: Column) -> None:
        tenant = self._ctx.tenant
        async with self._db.transaction(tenant, timeout_ms=limits.EXPORT_TIMEOUT_MS) as tx:
            await tx.run((statement, (tenant, self._run.id, *args)))
