"""The fields of an MT940 that have a form: balances, statement lines, accounts.

Forms of banks as they are (research/connectors 6): amounts with ',' or '.', ',50' and '20,',
leading zeros, blanks around, no transaction code, references longer than the book allows.
"""

from __future__ import annotations

import re
from calendar import monthrange
from decimal import Decimal
from functools import lru_cache

import msgspec

_BALANCE = re.compile(r"\s*([CD])\s?(\d{6})\s?([A-Z]{3})?\s?(\d{0,18}[.,]?\d{0,5})\s*")
_LINE = re.compile(
    r"(\d{6})(\d{4})? ?(RC|RD|EC|ED|C|D|c|d)([A-Z])?(\d{0,15}[.,]?\d{0,5})(?![\d.,]) *(.*)",
    re.DOTALL,
)
_CODE = re.compile(r"(?!NONREF)[A-Z][A-Z0-9]{2}[A-Z0-9 ]")
_CURRENCY_AT_END = re.compile(r"(?<=[0-9])[ /]?([A-Z]{3})$")
_IBAN = re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{10,30}")
_FLOOR = re.compile(r"\s*([A-Z]{3})([CD]?)(\d{0,15}[.,]?\d{0,5})")
_DECLARED = re.compile(r"\s*(\d{1,6})\s*([A-Z]{3})(\d{0,15}[.,]?\d{0,5})\s*")
_NO_REFERENCE = frozenset({"", "NONREF", "NOREF", "EREF", "PREF", "MARF", "KREF", "KREF+", "EREF+"})
# Reversals of credits and debits, expected entries: what each does to the balance.
SIGNS = {"C": 1, "D": -1, "RC": -1, "RD": 1, "EC": 1, "ED": -1}


class Balance(msgspec.Struct, frozen=True):
    """:60F: and its like: the date as ISO text, the amount signed."""

    date: str
    currency: str
    amount: Decimal


class Entry(msgspec.Struct, frozen=True):
    """:61: as read. `is_clamped`: the value date named a day its month does not have."""

    value_date: str
    booked: str
    mark: str
    amount: Decimal
    code: str
    reference: str
    bank_reference: str
    is_clamped: bool = False


def parse_balance(text: str) -> Balance | None:
    """A balance, None when it is none. Some banks leave the currency out: then it is empty."""
    found = _BALANCE.fullmatch(text)
    amount = parse_mt_amount(found[4]) if found else None
    date = parse_day(found[2])[0] if found else ""
    if found is None or amount is None or not date:
        return None
    return Balance(date, found[3] or "", amount if found[1] == "C" else -amount)


def parse_entry(text: str) -> Entry | None:
    """A statement line, None when it is malformed."""
    found = _LINE.match(text)
    if found is None:
        return None
    day, entry_day, mark, _funds, digits, rest = found.groups()
    mark = mark.upper()  # some write it small
    value_date, is_clamped = parse_day(day)
    amount = parse_mt_amount(digits)
    booked = _find_booked(value_date, entry_day) if entry_day else value_date
    if not value_date or not booked or amount is None:
        return None
    code = _CODE.match(rest)
    if code is not None:
        rest = rest[4:]
    reference, _, bank_reference = rest.partition("//")
    reference = reference.strip()
    return Entry(
        value_date,
        booked,
        mark,
        amount if SIGNS[mark] > 0 else -amount,
        code[0].strip() if code is not None else "",
        "" if reference in _NO_REFERENCE else reference,
        bank_reference.strip(),
        is_clamped,
    )


def parse_mt_amount(text: str) -> Decimal | None:
    """'20,' and ',50' and '000300.00' are amounts; a mark alone is none."""
    text = text.replace(",", ".")
    return Decimal(text) if text.strip(".") else None


@lru_cache(maxsize=4_096)
def parse_day(text: str) -> tuple[str, bool]:
    """A date as yyMMdd in ISO form ('' when there is no such month or day), and whether the day was clamped
    to the end of its month: banks write 30 February for value dates.
    """
    year, month, day = int(text[:2]), int(text[2:4]), int(text[4:])
    year += 1900 if year >= 80 else 2000
    if not 1 <= month <= 12 or not 1 <= day <= 31:
        return "", False
    last = monthrange(year, month)[1]
    return f"{year}-{month:02}-{min(day, last):02}", day > last


@lru_cache(maxsize=4_096)
def _find_booked(value_date: str, entry_day: str) -> str:
    """MMDD in the year that is nearest to the value date."""
    month, day = int(entry_day[:2]), int(entry_day[2:])
    year = int(value_date[:4]) if value_date else 2000
    if not 1 <= month <= 12 or not 1 <= day <= 31:
        return ""
    distance = month - int(value_date[5:7] or 1) if value_date else 0
    year += -1 if distance > 6 else 1 if distance < -6 else 0
    return f"{year}-{month:02}-{min(day, monthrange(year, month)[1]):02}"


def parse_account(text: str) -> tuple[str, str, str]:
    """Bank, account and currency of :25:. An IBAN loses its blanks, others stay as written."""
    text = text.strip()
    currency = ""
    if found := _CURRENCY_AT_END.search(text):
        currency, text = found[1], text[: found.start()].rstrip(" /")
    if is_iban(text.replace(" ", "")):
        return "", text.replace(" ", ""), currency
    bank, mark, account = text.rpartition("/")
    return (bank.strip(), account.strip(), currency) if mark else ("", text, currency)


def is_iban(text: str) -> bool:
    """Whether a text has the form of an IBAN (its check digits are not asked)."""
    return _IBAN.fullmatch(text) is not None


def parse_floor(text: str) -> str:
    """The currency of :34F:."""
    found = _FLOOR.match(text)
    return found[1] if found else ""


def parse_declared(text: str) -> tuple[int, str, Decimal] | None:
    """Count, currency and sum of :90D: and :90C:."""
    found = _DECLARED.fullmatch(text)
    amount = parse_mt_amount(found[3]) if found else None
    return (int(found[1]), found[2], amount) if found and amount is not None else None
