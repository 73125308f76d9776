"""MT940 and MT942 as a state machine over tags: one wrong line costs its statement, no other.

Promises: one pass, one statement line in memory; :61: goes out when the next one begins; pages
(:60M: and :62M:) of one statement are one statement; what is malformed is shown with its line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal

from connectors.formats.lines import Text
from connectors.formats.statements import ZERO, Desk, Statement, fingerprint
from connectors.sdk.contract import Fault, Place, Progress, Refused, Rows, Summary
from connectors.systems.mt940.fields import (
    Balance,
    parse_account,
    parse_balance,
    parse_declared,
    parse_floor,
)
from connectors.systems.mt940.rows import CONTENT_MAX, Pending

_TAG = re.compile(r":(20|21|25P?|28C?|34F|13D?|60[FM]|61|62[FM]|64|65|86|90[DC]|NS|940|942) ?:")
_ENVELOPE = re.compile(r"[\x01\x03]?\{[1-5]:|-\}")
_END = re.compile(r"\s*-[X\x03]*\s*")
_CHARS_MAX = 1 << 20


class Header:
    """What stands before the first line or balance of a statement."""

    def __init__(self) -> None:
        self.reference = self.account = self.number = self.currency = self.made = ""
        self.row = 0
        self.is_intraday = self.is_begun = False


class Reader:
    """One reading of one file."""

    def __init__(self, text: Text, currency: str) -> None:
        self._text, self._currency = text, currency
        self._desk = Desk(has_controls=text.has_controls)
        self._desk.holds.extend(text.holds)
        self._desk.warnings.extend(text.warnings)
        self._header = Header()
        self._statement: Statement | None = None
        self._pending: Pending | None = None
        self._is_closed = False  # a closing balance was seen: what follows may be a preamble
        self._page: Balance | None = None  # the :62M: that a next page goes on from
        self._declared: dict[str, tuple[int, Decimal]] = {}
        self._statements = 0

    def read(self, total: int) -> Iterator[Rows | Progress | Summary]:
        """Rows block by block; `total` of rows is a guess for the progress."""
        match, desk = _TAG.match, self._desk
        tag, content, row, size = "", [""], 0, 0
        number = 0
        for number, line in enumerate(self._text.lines(), 1):
            if line[:1] == ":" and (found := match(line)):
                if tag:
                    self._take(tag, content, row)
                tag, row, size = found[1], number, 0
                content = [line[found.end() :]]
                if len(desk.block) >= 1_000:
                    yield from desk.flush(total=total)
            elif not tag:
                self._look_at_preamble(line)
            elif self._ends(line, tag):
                self._take(tag, content, row)
                tag = ""
                self._look_at_preamble(line)
            else:
                size += len(line)
                content.append(line)
                if size > _CHARS_MAX or len(content) > CONTENT_MAX:
                    expected = f"a field of at most {CONTENT_MAX} lines"
                    raise Refused(Fault("too-large-node", expected, f":{tag}:", Place(row=row)))
        if tag:
            self._take(tag, content, row)
        if not self._statements and self._statement is None and not self._header.is_intraday:
            expected = "a balance or a line after the account"
            raise Refused(Fault("truncated", expected, "the end", Place(row=number)))
        self._tell_unbegun()
        self._close()
        yield from desk.flush(every=1)
        yield desk.summary({"statements": str(self._statements)})

    def _ends(self, line: str, tag: str) -> bool:
        if line[:1] not in ("-", "{", "\x01", "\x03", " ", ""):
            return self._is_closed and tag != "86" and bool(line.strip())
        if _ENVELOPE.match(line):
            return True
        if not _END.fullmatch(line):
            return False
        # A dash alone is text inside a narrative, as long as no closing balance was seen.
        return tag != "86" or self._is_closed or self._header.is_intraday

    def _look_at_preamble(self, line: str) -> None:
        if line.startswith("{1:") or (line.startswith("{") and self._is_closed):
            self._close()
        if "{2:I942" in line or "{2:O942" in line:
            self._header.is_intraday = True

    def _take(self, tag: str, content: list[str], row: int) -> None:
        """One field that is whole now."""
        if tag == "61":
            self._begin(row)
            self._emit()
            self._pending = Pending(content, row)
        elif tag == "86":
            if self._pending is not None and not self._is_closed:
                self._pending.tell(content)
        elif tag in ("62F", "62M"):
            self._end_page(tag, content[0], row)
        elif tag in ("60F", "60M"):
            self._open_page(tag, content[0], row)
        elif tag in ("20", "25", "25P", "28", "28C", "13", "13D", "34F", "940", "942"):
            self._head(tag, content[0].strip(), row)
        elif tag in ("90D", "90C"):
            self._declare(tag, content[0], row)

    def _head(self, tag: str, value: str, row: int) -> None:
        header = self._header
        if tag == "20" or (tag[:2] == "25" and header.account) or tag in ("940", "942"):
            self._emit()
            is_page = self._page is not None or not self._is_closed
            if self._statement is not None and not is_page:
                self._close()
            self._tell_unbegun()
            is_intraday = header.is_intraday and self._statement is None
            self._header = header = Header()
            header.row = row
            header.is_intraday = tag == "942" or is_intraday
        header.row = header.row or row
        if tag == "20":
            header.reference = value
        elif tag[:2] == "25":
            header.account = value
        elif tag[:2] == "28":
            header.number = value
        elif tag[:2] == "13":
            header.made = value
        elif tag == "34F":
            header.currency = parse_floor(value)
            header.is_intraday = True

    def _tell_unbegun(self) -> None:
        """A header that nothing followed: the rest of its statement is missing."""
        header = self._header
        if (header.reference or header.account) and not header.is_begun:
            place = Place(row=header.row)
            found = header.account or header.reference
            fault = Fault("balance-missing", "balances after the header", found[:80], place)
            self._desk.hold(fault, "*")

    def _open_page(self, tag: str, value: str, row: int) -> None:
        balance = parse_balance(value)
        statement, page = self._statement, self._page
        self._emit()
        if statement is not None and tag == "60M" and balance and page and self._is_same(statement):
            is_other = balance.currency and page.currency and balance.currency != page.currency
            if balance.amount == page.amount and not is_other:
                self._is_closed, self._page, self._header.is_begun = False, None, True
                statement.values["page"] = self._header.number.partition("/")[2].strip()
                return
        self._close()
        self._begin(row, balance)
        if balance is None and self._statement is not None:
            fault = Fault("malformed-balance", "an opening balance", value[:80], Place(row=row))
            self._desk.hold(fault, self._statement.key)

    def _is_same(self, statement: Statement) -> bool:
        header = self._header
        account = parse_account(header.account)[1]
        number = header.number.partition("/")[0].strip()
        return account == statement.account and number == statement.values.get("number", "")

    def _begin(self, row: int, balance: Balance | None = None) -> None:
        """The statement of the header, if it has not begun. A page without an opening balance
        belongs to the statement before it.
        """
        header = self._header
        if self._statement is not None:
            if header.is_begun or not header.account or self._is_same(self._statement):
                header.is_begun = True
                return
            self._close()
        bank, account, currency = parse_account(header.account)
        if balance is not None:
            currency = balance.currency
        currency = currency or header.currency or self._currency
        number, _, page = (part.strip() for part in header.number.partition("/"))
        start = (balance.date, str(balance.amount.normalize())) if balance else (header.made, "")
        own = header.reference if balance is None and not header.made else ""
        key = fingerprint("mt", account, currency, number, page, *start, own)
        statement = self._desk.open(key, account, currency, Place(row=header.row or row))
        statement.values |= {"bank": bank, "number": number, "page": page}
        if balance is not None:
            statement.opening = balance.amount
            statement.values["opening_date"] = balance.date
        statement.is_provisional = header.is_intraday and balance is None
        self._statement, self._is_closed, self._page = statement, False, None
        header.is_begun = True
        self._statements += 1

    def _end_page(self, tag: str, value: str, row: int) -> None:
        self._begin(row)
        self._emit()
        statement, balance = self._statement, parse_balance(value)
        if statement is None:
            return
        self._is_closed = True
        self._page = balance if tag == "62M" else None
        if balance is None:
            fault = Fault("malformed-balance", "a closing balance", value[:80], Place(row=row))
            self._desk.hold(fault, statement.key)
            return
        if not balance.currency:
            expected = f"a closing balance in {statement.currency or 'a currency'}"
            self._desk.warn(Fault("missing-currency", expected, value[:80], Place(row=row)))
        elif balance.currency != statement.currency and statement.currency:
            expected = f"the currency of the statement, {statement.currency}"
            fault = Fault("currency-mismatch", expected, balance.currency, Place(row=row))
            self._desk.hold(fault, statement.key)
        statement.currency = statement.currency or balance.currency
        statement.closing = balance.amount
        statement.values["closing_date"] = balance.date

    def _declare(self, tag: str, value: str, row: int) -> None:
        self._header.is_intraday = True
        self._begin(row)
        self._emit()
        found = parse_declared(value)
        if found is not None and self._statement is not None:
            self._declared[tag] = (found[0], found[2])
            self._is_closed = True

    def _emit(self) -> None:
        """The line that waited for its narrative."""
        pending, statement = self._pending, self._statement
        self._pending = None
        if pending is not None and statement is not None:
            pending.stage(self._desk, statement)

    def _close(self) -> None:
        self._emit()
        statement = self._statement
        self._statement, self._is_closed, self._page = None, False, None
        if statement is None:
            return
        if self._declared:
            self._compare_declared(statement)
        self._desk.close(statement, wants_balances=True)

    def _compare_declared(self, statement: Statement) -> None:
        """:90D: and :90C: of an intraday report: their counts and sums against what was read."""
        out, came = self._declared.get("90D"), self._declared.get("90C")
        self._declared = {}
        if came:
            statement.values["total_in"] = format(came[1], "f")
        if out:
            statement.values["total_out"] = format(out[1], "f")
        if statement.is_provisional and out and came:
            lines, net = out[0] + came[0], (came[1] or ZERO) - (out[1] or ZERO)
            if lines != statement.lines or net != statement.net:
                found = f"{statement.lines} lines, {statement.net}"
                fault = Fault("totals-mismatch", f"{lines} lines, {net}", found, statement.place)
                self._desk.hold(fault, statement.key)
