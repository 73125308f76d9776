"""Numbers and dates of bank tables, strictly by what a profile says of them.

A number that does not fit the profile's decimal mark is none: no majority and no guess decides.
"""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from functools import lru_cache

_SPACES = re.compile("[\\s\u00a0\u202f\u2009\u2007'\u2019`]")
_WORDS = r"US\$|[$€£₴₽₸¥]|руб\.?|р\.|грн\.?|тг\.?"
_MONEY = re.compile(
    rf"^(?:{_WORDS}|(?-i:[A-Z]{{3}})(?=[\d.,]))|(?:{_WORDS}|(?<=[\d.,])(?-i:[A-Z]{{3}}))$",
    re.IGNORECASE,
)
_NUMBER = {
    ".": re.compile(r"([+-]?)(\d{1,3}(?:,\d{3})+|\d*)(?:\.(\d*))?", re.ASCII),
    ",": re.compile(r"([+-]?)(\d{1,3}(?:\.\d{3})+|\d*)(?:,(\d*))?", re.ASCII),
}
_DIGITS_MAX = 20
_MONTHS = {
    name: n
    for names in (
        "jan feb mar apr may jun jul aug sep oct nov dec",
        "янв фев мар апр мая июн июл авг сен окт ноя дек",
        "січ лют бер кві тра чер лип сер вер жов лис гру",
        "jan feb mär apr mai jun jul aug sep okt nov dez",
    )
    for n, name in enumerate(names.split(), 1)
}
_PARTS = {
    "yyyy": r"(?P<y>\d{4})",
    "yy": r"(?P<y>\d{2})",
    "mmm": r"(?P<m>[^\W\d_]{3})[^\W\d_]*\.?",
    "mm": r"(?P<m>\d{1,2})",
    "dd": r"(?P<d>\d{1,2})",
}
_FORM = re.compile(r"yyyy|yy|mmm|mm|dd")
_NONE = frozenset({"", "0", "00.00.0000", "0001-01-01", "30.12.1899", "0000-00-00"})


@lru_cache(maxsize=8_192)
def parse_money(text: str, decimal: str) -> Decimal | None:
    """An amount as people write it, None when it is none.

    Blanks and apostrophes group, currency words go, a minus may stand after, in brackets or apart.
    """
    text = _SPACES.sub("", text).replace("−", "-").replace("–", "-")
    sign = ""
    if text.startswith("(") and text.endswith(")"):
        text, sign = text[1:-1], "-"
    if text[:1] in ("-", "+"):
        if sign:
            return None
        text, sign = text[1:], text[0]
    text = _MONEY.sub("", text)
    if text[-1:] in ("-", "+"):
        text, sign = text[:-1], "?" if sign else text[-1]
    found = _NUMBER[decimal].fullmatch(text)
    if found is None or sign == "?" or (found[1] and sign):
        return None
    whole, part = re.sub(r"\D", "", found[2]), found[3] or ""
    if not whole + part or len(whole + part) > _DIGITS_MAX:
        return None
    return Decimal(
        f"{sign or found[1]}{whole or 0}.{part or 0}" if part else f"{sign or found[1]}{whole}"
    )


@lru_cache(maxsize=64)
def compile_date(form: str) -> re.Pattern[str]:
    """A form such as dd.mm.yyyy as an expression; a time may follow. Raises ValueError."""
    text, at = "", 0
    for found in _FORM.finditer(form):
        text += re.escape(form[at : found.start()]) + _PARTS[found[0]]
        at = found.end()
    if not all(f"<{part}>" in text for part in "ymd"):
        raise ValueError(f"the date form {form} wants yyyy or yy, mm or mmm, dd")
    return re.compile(rf"{text}{re.escape(form[at:])}(?:[T ,].*)?", re.ASCII | re.DOTALL)


@lru_cache(maxsize=8_192)
def parse_date(text: str, forms: tuple[str, ...]) -> str | None:
    """The day in ISO form by the first form that fits; '' for none; None for what is no date."""
    text = text.strip()
    if text in _NONE:
        return ""
    for form in forms:
        # Names of months are letters of any language.
        expression = compile_date(form)
        found = expression.fullmatch(text)
        if found is None and "mmm" in form:
            found = re.compile(expression.pattern, re.DOTALL).fullmatch(text)
        if found is None:
            continue
        year, month = int(found["y"]), found["m"].casefold()
        year += (1900 if year >= 80 else 2000) if year < 100 else 0
        number = int(month) if month.isdigit() else _MONTHS.get(month, 0)
        try:
            return date(year, number, int(found["d"])).isoformat()
        except ValueError:
            continue
    return None
