"""The lines of a table under its profile: a statement per account and currency, proved by its
running balances where the bank prints them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal

from connectors.formats.statements import BLOCK, Desk, Statement, fingerprint, plain
from connectors.sdk.contract import Fault, Place, Progress, Refused, Rows, Summary, Value
from connectors.systems.bank_csv.chain import Chain
from connectors.systems.bank_csv.profile import SPECIAL, Layout, compile_name
from connectors.systems.bank_csv.table import Table, TableRow
from connectors.systems.bank_csv.values import parse_date, parse_money

_ACCOUNTS_MAX = 10_000
_RAGGED_SHARE = 5
_DATES = ("booked", "value_date", "document_date")
_MONEY = ("charges", "original_amount")
_FOOTER = re.compile(r"(итого|всего|разом|усього|total|summe|totale|somme)\b", re.IGNORECASE)
_CURRENCY = re.compile(r"[A-Z]{3}")
_RENAMED = {"RUR": "RUB", "BYR": "BYN"}
_IBAN = re.compile(r"[A-Z]{2}\d{2}[A-Z0-9]{10,30}")


class Account:
    """One account of the table: its statement and the chain of its balances."""

    __slots__ = ("chain", "end", "start", "statement")

    def __init__(self, statement: Statement) -> None:
        self.statement, self.chain = statement, Chain()
        self.start = self.end = ""


class Reader:
    """One reading. `said`: what the lines above the header told."""

    def __init__(
        self, table: Table, layout: Layout, said: dict[str, str], account: str, currency: str
    ) -> None:
        profile = layout.profile
        self._layout, self._profile, self._said = layout, profile, said
        self._account = said.get("account", "") or profile.account or account
        self._currency = layout.currency or said.get("currency", "") or profile.currency or currency
        self._desk = Desk(has_controls=table.has_controls)
        self._desk.holds.extend(table.holds)
        self._desk.warnings.extend(table.warnings)
        self._accounts: dict[tuple[str, str], Account] = {}
        self._width = len(layout.header)
        self._seen = self._ragged = self._notes = 0
        words = (profile.debit_words, profile.pending, profile.skip)
        self._debit, self._pending, self._skip = (
            frozenset(w.casefold() for w in group) for group in words
        )
        self._texts = [
            (field, places)
            for field, places in layout.columns.items()
            if field not in (*SPECIAL, *_DATES, *_MONEY, "amount", "account", "currency") and places
        ]

    def read(
        self, rows: Iterator[TableRow], header: int, total: int
    ) -> Iterator[Rows | Progress | Summary]:
        """Rows block by block, after the row `header`; `total` is a guess for the progress."""
        desk = self._desk
        for number, cells in rows:
            if number > header and any(cells):
                self._take(number, cells)
                if len(desk.block) >= BLOCK:
                    yield from desk.flush(total=total)
        for account in self._accounts.values():
            self._close(account)
        if self._ragged * _RAGGED_SHARE > self._seen:
            found = f"{self._ragged} of {self._seen}"
            desk.hold(Fault("ragged", f"rows of {self._width} fields", found), "*")
        yield from desk.flush(every=1)
        facts = {"profile": self._profile.key, "statements": str(len(self._accounts))}
        if self._notes:
            facts["notes"] = str(self._notes)
        yield desk.summary(facts)

    def _take(self, number: int, cells: list[str]) -> None:
        width = self._width
        if width and [" ".join(c.split()) for c in cells] == list(self._layout.header):
            return
        place = Place(row=number)
        day_text = self._cell(cells, "booked")
        day = parse_date(day_text, self._profile.date)
        amount, fault = self._read_amount(cells, place)
        if not day and (self._is_note(cells) or (amount is None and fault is None)):
            # A group, a total, details of the line above: without a date and an amount of its own.
            self._notes += 1
            return
        status = self._cell(cells, "status").casefold()
        if status and status in self._skip:
            self._notes += 1
            return
        if amount is None and fault is None:
            self._desk.warn(Fault("no-amount", "an amount", "a dated row without", place))
            return
        self._seen += 1
        faults = [fault] if fault else []
        if width and len(cells) > width and any(cells[width:]):
            self._ragged += 1
            found = f"{len(cells)} fields"
            faults.append(Fault("ragged-row", f"{width} fields", found, place))
        if not day:
            code = "malformed-date" if day is None else "missing-date"
            expected = " or ".join(self._profile.date)
            faults.append(Fault(code, expected, day_text[:40] or "none", place))
        self._stage(cells, amount, place, tuple(faults), is_booked=status not in self._pending)

    def _stage(
        self,
        cells: list[str],
        amount: Decimal | None,
        place: Place,
        faults: tuple[Fault, ...],
        *,
        is_booked: bool,
    ) -> None:
        account = self._find_account(cells, place)
        statement = account.statement
        values = statement.begin_line()
        faults += self._fill(cells, values, place)
        if not is_booked:
            values["is_provisional"] = True
        balance_text = self._cell(cells, "balance")
        balance = parse_money(balance_text, self._profile.decimal)
        if balance_text and balance is None:
            expected = f"a balance with '{self._profile.decimal}'"
            faults += (Fault("malformed-balance", expected, balance_text[:40], place),)
        day = str(values.get("booked") or "")
        if amount is not None and not faults and is_booked:
            account.chain.add(amount, balance, day, place.row)
        if day:
            account.start = min(account.start or day, day)
            account.end = max(account.end, day)
        self._desk.add_line(statement, place, values, amount, faults, is_booked=is_booked)

    def _fill(self, cells: list[str], values: dict[str, Value], place: Place) -> tuple[Fault, ...]:
        faults: list[Fault] = []
        for field in _DATES:
            if text := self._cell(cells, field):
                day = parse_date(text, self._profile.date)
                if day:
                    values[field] = day
                elif day is None and field != "booked":
                    expected = " or ".join(self._profile.date)
                    faults.append(Fault("malformed-date", expected, text[:40], place))
        for field in _MONEY:
            text = self._cell(cells, field)
            found = parse_money(text, self._profile.decimal) if text else None
            if found:
                values[field] = plain(found)
        for field, places in self._texts:
            texts = [cells[n] for n in places if n < len(cells) and cells[n]]
            if texts:
                joined = " ".join(texts) if field == "purpose" else texts[0]
                values[field] = " ".join(joined.split())
        if "original_amount" not in values:
            values.pop("original_currency", None)
        return tuple(faults)

    def _cell(self, cells: list[str], field: str) -> str:
        for place in self._layout.columns.get(field, ()):
            if place < len(cells) and cells[place]:
                return cells[place]
        return ""

    def _read_amount(self, cells: list[str], place: Place) -> tuple[Decimal | None, Fault | None]:
        """The signed amount; no amount and no fault when all of its cells are empty."""
        profile = self._profile
        found: dict[str, Decimal] = {}
        for field in ("amount", "debit", "credit"):
            if text := self._cell(cells, field):
                value = parse_money(text, profile.decimal)
                if value is None:
                    expected = f"an amount with '{profile.decimal}'"
                    return None, Fault("malformed-amount", expected, text[:40], place)
                found[field] = value
        if not found:
            return None, None
        if "amount" in found:
            amount = found["amount"]
            if "direction" in profile.columns:
                word = self._cell(cells, "direction").casefold()
                amount = -abs(amount) if word in self._debit else abs(amount)
            return (-amount if profile.inverse else amount), None
        debit, credit = found.get("debit", Decimal(0)), found.get("credit", Decimal(0))
        return (credit + debit if profile.signed else credit - debit), None

    def _is_note(self, cells: list[str]) -> bool:
        first = next((c for c in cells if c), "")
        if _FOOTER.match(first):
            return True
        if sum(map(bool, cells)) == 1 and parse_money(first, self._profile.decimal) is None:
            return True  # words alone
        # Totals fill both columns, a movement one.
        if all(self._cell(cells, f) for f in ("debit", "credit")):
            return not any(c.isdigit() for c in self._cell(cells, "booked"))
        return any(compile_name(p).fullmatch(first) for p in self._profile.footer)

    def _find_account(self, cells: list[str], place: Place) -> Account:
        number = self._cell(cells, "account") or self._account
        currency = (self._cell(cells, "currency") or self._currency).upper()
        currency = _RENAMED.get(currency, currency)
        if not _CURRENCY.fullmatch(currency):
            currency = self._currency
        squeezed = number.replace(" ", "")
        number = squeezed if _IBAN.fullmatch(squeezed) else number
        found = self._accounts.get((number, currency))
        if found is None:
            if len(self._accounts) >= _ACCOUNTS_MAX:
                expected = f"at most {_ACCOUNTS_MAX} accounts"
                raise Refused(Fault("too-large-node", expected, "more", place))
            key = fingerprint("csv", self._profile.key, number, currency, *cells)
            statement = self._desk.open(key, number, currency, place)
            found = self._accounts[(number, currency)] = Account(statement)
        return found

    def _close(self, account: Account) -> None:
        statement, desk = account.statement, self._desk
        statement.values |= {"from": account.start, "to": account.end}
        proof = account.chain.prove()
        if proof is not None:
            statement.opening, statement.closing = proof.opening, proof.closing
            if proof.breaks:
                place = Place(row=proof.row)
                expected = "each balance = the one before + the line"
                found = f"{proof.breaks} that are not"
                if proof.opening + statement.net == proof.closing:
                    desk.hold(Fault("balance-mismatch", expected, found, place), statement.key)
                    statement.may_tie = False
                    statement.values["ties"] = False
        elif len(self._accounts) == 1:
            closing = parse_money(self._said.get("closing", ""), self._profile.decimal)
            statement.closing = closing
        desk.close(statement, wants_balances=False)
