"""Numbers as suppliers type them, exact: which mark is the decimal one is the column's affair.

A value with one separator and exactly three digits behind it is ambiguous unless its column
settles it (research/connectors 1). Nothing is guessed for a single row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date
from decimal import Decimal, InvalidOperation

from connectors.formats.grid import Bad, Cell, Shown, plain, text_of
from connectors.sdk.contract import Fault
from connectors.systems.price_list.words import find_currency, is_phrase

_SPACES = re.compile("[\u00a0\u202f\u2009\u2007\u2008 '’`]")
_MONEY = re.compile(
    r"(?i)руб(?:лей|ля|ль|\.)?|р\.|грн\.?|тенге|тг\.?|uah|rub|usd|eur|kzt|byn|gbp|pln|zł|us\$|[$€£₴₽₸]|у\.е\."
)
_NUMBER = re.compile(r"[-+]?[0-9]+(?:[.,][0-9]+)*\Z")
_RANGE = re.compile(r"[0-9]\s*[-–—]\s*[$€£₴₽]?\s*[0-9]")
_DIGITS_MAX = 15


def bare(text: str) -> str:
    """A number without currency words, group marks and minus variants."""
    found = _SPACES.sub("", _MONEY.sub("", text)).replace("−", "-").replace("–", "-")
    if found.startswith("(") and found.endswith(")"):
        return f"-{found[1:-1]}"
    return f"-{found[:-1]}" if found.endswith("-") and found != "-" else found


def find_mark(texts: Iterable[str]) -> str:
    """The decimal mark of a column: '.', ',' or '' when no value needs one or none settles it."""
    votes = {".": 0, ",": 0}
    grouped = {".": 0, ",": 0}
    for text in texts:
        number = bare(text)
        if not _NUMBER.match(number):
            continue
        marks = [c for c in number if c in ".,"]
        if len(set(marks)) == 2:
            votes[marks[-1]] += 1
        elif len(marks) > 1:
            grouped[marks[0]] += 1
        elif marks:
            whole, _, rest = number.lstrip("+-").partition(marks[0])
            if len(rest) != 3 or len(whole) > 3 or whole.startswith("0"):
                votes[marks[0]] += 1
            elif find_currency(text) in ("USD", "GBP") and marks[0] == ",":
                grouped[","] += 1
    if votes["."] != votes[","]:
        return "." if votes["."] > votes[","] else ","
    if grouped[","] != grouped["."]:
        return "." if grouped[","] > grouped["."] else ","
    return ""


def read_number(cell: Cell, mark: str) -> Decimal | Fault | None:
    """A cell as a number; None for blank and for "on request"; a Fault for anything else."""
    match cell:
        case None:
            return None
        case Decimal():
            return cell
        case Shown(number=number, unit=unit):
            return (
                Fault("percent-in-price", "an amount", f"{plain(number)} %")
                if unit == "%"
                else number
            )
        case Bad(code=code, text=text):
            return Fault(code, "a number", text)
        case bool() | date():
            return Fault("date-in-price", "a number", text_of(cell))
        case _:
            return _from_text(cell, mark)


def _from_text(text: str, mark: str) -> Decimal | Fault | None:
    number = bare(text)
    if not number or is_phrase(text, "on_request"):
        return None
    if not _NUMBER.match(number):
        if _RANGE.search(text):
            return Fault("range-in-price", "one number", text[:60])
        code = "percent-in-price" if "%" in text else "no-numeric-price"
        return Fault(code, "a number", text[:60])
    marks = {c for c in number if c in ".,"}
    if len(marks) == 1 and not mark:
        (only,) = marks
        whole, _, rest = number.lstrip("+-").partition(only)
        if number.count(only) == 1 and len(rest) == 3 and len(whole) <= 3 and whole != "0":
            return Fault("ambiguous-number", "a decimal mark that the column settles", text[:60])
        mark = only if number.count(only) == 1 else ("," if only == "." else ".")
    elif len(marks) == 2:
        last = max(marks, key=number.rfind)
        if mark and last != mark:
            return Fault("ambiguous-number", f"{mark} as decimal mark, as in the column", text[:60])
        mark = last
    other = "," if mark == "." else "."
    cleaned = number.replace(other, "").replace(mark, ".") if mark else number
    if sum(c.isdigit() for c in cleaned) > _DIGITS_MAX:
        return Fault("out-of-range", f"at most {_DIGITS_MAX} digits", text[:60])
    try:
        return Decimal(cleaned)
    except InvalidOperation:
        return Fault("no-numeric-price", "a number", text[:60])
