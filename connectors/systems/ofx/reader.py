"""OFX as a stream of transactions: several accounts and statements in one file, cash only.

The sign of an amount is its sign, whatever its type says. An identity of a bank (FITID) is kept
and never trusted: it repeats, and with some banks it changes with each download.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from functools import lru_cache

from connectors.formats.lines import Text
from connectors.formats.statements import Desk, Statement, fingerprint, parse_amount
from connectors.sdk.contract import Fault, Place, Progress, Refused, Rows, Summary
from connectors.systems.ofx.tokens import read_tokens

_STATEMENTS = frozenset({"STMTRS", "CCSTMTRS", "INVSTMTRS"})
_LINES = frozenset({"STMTTRN", "STMTTRNP"})
_PARTS = frozenset(
    {"BANKACCTFROM", "CCACCTFROM", "INVACCTFROM", "LEDGERBAL", "AVAILBAL", "STATUS"}
    | {"PAYEE", "BANKACCTTO", "CCACCTTO", "CURRENCY", "ORIGCURRENCY"}
)
_LEFT_OUT = frozenset(
    {"INVBUY", "INVSELL", "INCOME", "REINVEST", "TRANSFER", "INVEXPENSE", "MARGININTEREST"}
    | {"JRNLFUND", "JRNLSEC", "RETOFCAP", "SPLIT", "CLOSUREOPT"}
)
_AGGREGATES = _STATEMENTS | _LINES | _PARTS
_FIELDS_MAX = 500
_THREE = re.compile(r"[+-]?\d{1,3}(,\d{3})+")


class Reader:
    """One reading of one file. `account`, `currency`: for files that name none."""

    def __init__(self, text: Text, account: str, currency: str) -> None:
        self._text, self._account, self._currency = text, account, currency
        self._desk = Desk(has_controls=text.has_controls)
        self._desk.holds.extend(text.holds)
        self._desk.warnings.extend(text.warnings)
        self._head: dict[str, str] = {}
        self._head_row = 0
        self._statement: Statement | None = None
        self._is_inside = False
        self._statements = self._left_out = 0
        self._errors: list[str] = []

    def read(self, total: int) -> Iterator[Rows | Progress | Summary]:
        """Rows block by block; `total` of rows is a guess for the progress."""
        desk = self._desk
        is_ended = False
        fields = self._head
        line: dict[str, str] | None = None
        part, row, number = "", 0, 0
        with self._text.path.open("r", encoding=self._text.encoding, newline=None) as file:
            for name, text, number in self._tokens(file):
                if text and name not in _AGGREGATES:
                    if len(fields) < _FIELDS_MAX and name[0] != "/":
                        fields.setdefault(f"{part}.{name}" if part else name, text)
                elif name in _LINES:
                    if line is not None:
                        self._warn_unclosed(row)
                        self._stage(line, row)
                    fields = line = {"": name}
                    row, part = number, ""
                    if len(desk.block) >= 1_000:
                        yield from desk.flush(total=total)
                elif name[1:] in _LINES:
                    if line is not None:
                        self._stage(line, row)
                    fields, line, part = self._head, None, ""
                elif name in _PARTS:
                    part = name
                elif name[1:] in _PARTS:
                    self._end_part(name[1:])
                    part = ""
                elif name in _STATEMENTS:
                    self._begin(number)
                    fields, part = self._head, ""
                elif name[1:] in _STATEMENTS:
                    if line is not None:
                        self._warn_unclosed(row)
                        self._stage(line, row)
                    self._close()
                    fields, line, part = self._head, None, ""
                elif name in _LEFT_OUT:
                    self._left_out += 1
                is_ended = is_ended or name == "/OFX"
        self._finish(is_ended=is_ended, is_open=line is not None, row=number)
        yield from desk.flush(every=1)
        yield desk.summary({"statements": str(self._statements)})

    def _tokens(self, file: object) -> Iterator[tuple[str, str, int]]:
        try:
            yield from read_tokens(file)  # type: ignore[arg-type]
        except UnicodeDecodeError as error:
            found = f"byte 0x{error.object[error.start]:02X}"
            raise Refused(Fault("bad-encoding", f"text in {error.encoding}", found)) from None

    def _begin(self, row: int) -> None:
        if self._is_inside:
            self._warn_unclosed(row)
            self._close()
        self._is_inside = True
        self._head.clear()
        self._head_row = row

    def _end_part(self, part: str) -> None:
        if part == "STATUS":
            if self._head.pop("STATUS.SEVERITY", "") == "ERROR" and len(self._errors) < 20:
                code = self._head.get("STATUS.CODE", "")
                self._errors.append(f"{code} {self._head.get('STATUS.MESSAGE', '')}".strip())
            self._head.pop("STATUS.CODE", "")
            self._head.pop("STATUS.MESSAGE", "")

    def _open(self) -> Statement:
        """The statement of the head, when its first line or its end comes."""
        if self._statement is not None:
            return self._statement
        get = self._head.get
        account = (
            get("BANKACCTFROM.ACCTID") or get("CCACCTFROM.ACCTID") or get("INVACCTFROM.ACCTID")
        )
        account = account or self._account
        bank = get("BANKACCTFROM.BANKID") or get("INVACCTFROM.BROKERID") or ""
        currency = (get("CURDEF") or self._currency).upper()
        start, end = get("DTSTART", ""), get("DTEND", "")
        key = fingerprint("ofx", bank, account, currency, start, end)
        statement = self._desk.open(key, account, currency, Place(row=self._head_row))
        statement.values |= {
            "bank": bank,
            "from": parse_moment(start) or "",
            "to": parse_moment(end) or "",
        }
        self._statement = statement
        self._statements += 1
        return statement

    def _close(self) -> None:
        self._is_inside = False
        statement, get = self._open(), self._head.get
        closing = _read_amount(get("LEDGERBAL.BALAMT", ""))
        if isinstance(closing, Decimal):
            statement.closing = closing
            statement.values["closing_date"] = parse_moment(get("LEDGERBAL.DTASOF", "")) or ""
        self._desk.close(statement, wants_balances=False)
        self._statement = None
        self._head.clear()

    def _stage(self, line: dict[str, str], row: int) -> None:
        statement, get = self._open(), line.get
        place = Place(row=row, column=get("FITID", "")[:80])
        values = statement.begin_line()
        faults: list[Fault] = []
        amount = _read_amount(get("TRNAMT", ""))
        if isinstance(amount, str):
            faults.append(Fault(amount, "a signed amount", get("TRNAMT", "")[:40], place))
        for name, key in (("DTPOSTED", "booked"), ("DTAVAIL", "value_date")):
            text = get(name) or (get("DTTRAN", "") if key == "booked" else "")
            day = parse_moment(text)
            if day is None:
                faults.append(Fault("malformed-date", "yyyymmdd", text[:40], place))
            elif day:
                values[key] = day
            elif key == "booked":
                faults.append(Fault("missing-date", "DTPOSTED", text or "none", place))
        said = {
            "kind": get("TRNTYPE", "").upper(),
            "number": get("CHECKNUM", ""),
            "counterparty": get("NAME") or get("PAYEE.NAME", ""),
            "counterparty_account": get("BANKACCTTO.ACCTID") or get("CCACCTTO.ACCTID", ""),
            "counterparty_bank": get("BANKACCTTO.BANKID", ""),
            "purpose": get("MEMO") or get("NAME") or get("PAYEE.NAME", ""),
            "end_to_end": get("REFNUM", ""),
            "bank_reference": get("FITID", ""),
        }
        values |= {name: text for name, text in said.items() if text}
        is_booked = line[""] == "STMTTRN"
        if not is_booked:
            values["is_provisional"] = True
        currency = get("CURRENCY.CURSYM", "").upper()
        if currency and not statement.currency:
            statement.currency = currency
            values["currency"] = currency
        if currency and currency != statement.currency:
            expected = f"the currency of the account, {statement.currency}"
            fault = Fault("currency-mismatch", expected, currency, place)
            self._desk.hold(fault, statement.key)
            faults.append(fault)
        number = None if isinstance(amount, str) else amount
        own = get("REFNUM") or get("CHECKNUM", "")
        self._desk.add_line(
            statement, place, values, number, tuple(faults), is_booked=is_booked, reference=own
        )

    def _warn_unclosed(self, row: int) -> None:
        self._desk.warn(
            Fault("unclosed-aggregate", "its closing tag", "another tag", Place(row=row))
        )

    def _finish(self, *, is_ended: bool, is_open: bool, row: int) -> None:
        place = Place(row=row)
        if is_open or self._is_inside:
            raise Refused(Fault("truncated", "</STMTRS> and </OFX>", "the end of the file", place))
        if not self._statements:
            told = "; ".join(self._errors)[:200]
            looks = f"the bank's answer: {told}" if told else "an OFX without a statement"
            raise Refused(Fault("not-this-format", "an OFX with a statement", looks))
        if not is_ended:
            self._desk.hold(Fault("truncated", "</OFX>", "the end of the file", place), "*")
        for told in self._errors:
            self._desk.warn(Fault("bank-error", "a status without error", told[:200]))
        if self._left_out:
            expected = "cash movements only"
            found = f"{self._left_out} investment transactions left out"
            self._desk.warn(Fault("left-out", expected, found))


@lru_cache(maxsize=4_096)
def parse_moment(text: str) -> str | None:
    """The day of YYYYMMDD[HHMMSS[.XXX]][[zone]] as told; '' for zeros, None when it is none."""
    digits = text.strip()[:8]
    if not digits.strip("0"):
        return ""
    if len(digits) < 8 or not (digits.isascii() and digits.isdigit()):
        return None
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:])).isoformat()
    except ValueError:
        return None


def _read_amount(text: str) -> Decimal | str:
    """A decimal with '.' or ',', blanks inside tolerated; else the code of its fault."""
    text = "".join(text.split())
    if _THREE.fullmatch(text):
        return "ambiguous-number"
    if "," in text and "." in text:
        group = "," if text.rfind(".") > text.rfind(",") else "."
        text = text.replace(group, "")
    amount = parse_amount(text)
    return "malformed-amount" if amount is None else amount
