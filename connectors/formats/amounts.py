"""Numbers as exchange formats write them, to plain decimals. Never through a float.

The point is the decimal mark of these formats; a comma stands for it where nothing else can be
meant. What may be read in two ways is said to be so, not guessed (research/connectors 1, 14.17-18).
"""

from __future__ import annotations

import re

MALFORMED = "number-malformed"
AMBIGUOUS = "ambiguous-number"
is_plain = re.compile(r"-?[0-9]{1,24}(?:\.[0-9]{1,12})?").fullmatch
_GROUPS = str.maketrans(
    dict.fromkeys(
        " \N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}\N{FIGURE SPACE}'’", " "
    )
    | dict.fromkeys("−–", "-")
)
_CURRENCY = re.compile(
    r"(?:руб(?:лей|\.)?|р\.|грн\.?|тг\.?|rub|uah|kzt|usd|eur|[₽₴₸$€])\Z", re.IGNORECASE
)
_GROUPED = re.compile(r"-?[0-9]{1,3}(?: [0-9]{3})+(?:[.,][0-9]{1,12})?")
_MARKED = re.compile(r"-?[0-9]{0,24}[.,][0-9]{0,12}")
_THREE = re.compile(r"-?[1-9][0-9]{0,2},[0-9]{3}")
_BOTH = re.compile(
    r"-?[0-9]{1,3}(?:,[0-9]{3})+\.[0-9]{1,12}|-?[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]{1,12}"
)


def plain_decimal(text: str) -> str:
    """The plain decimal of a number as written. Raises ValueError with the code of the fault."""
    if is_plain(text):
        return text
    found = text.translate(_GROUPS).strip().removeprefix("+")
    found = _CURRENCY.sub("", found).strip()
    if found.endswith("-") and not found.startswith("-"):
        found = "-" + found[:-1]
    if _GROUPED.fullmatch(found):
        found = found.replace(" ", "")
        # Groups are marked by blanks here, so the one mark left is the decimal one.
        return _finished(found.replace(",", "."))
    if _THREE.fullmatch(found):
        raise ValueError(AMBIGUOUS)
    if _BOTH.fullmatch(found):
        group, point = (",", ".") if found.rindex(".") > found.rindex(",") else (".", ",")
        return _finished(found.replace(group, "").replace(point, "."))
    if _MARKED.fullmatch(found):
        return _finished(found.replace(",", "."))
    return _finished(found)


def _finished(text: str) -> str:
    whole, point, rest = text.partition(".")
    if point:
        sign = "-" if whole.startswith("-") else ""
        text = f"{sign}{whole.lstrip('-') or '0'}" + (f".{rest}" if rest else "")
        if not rest and whole in ("", "-"):
            raise ValueError(MALFORMED)
    if not is_plain(text):
        raise ValueError(MALFORMED)
    return text
