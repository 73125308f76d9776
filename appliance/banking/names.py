"""Names and numbers as payments write them: legal forms apart, numbers without their separators."""

from __future__ import annotations

import re

from rapidfuzz import fuzz, process, utils

# Words that say what sort of company it is, not which (research/connectors 9).
_FORMS = frozenset(
    "тов товариство з обмеженою відповідальністю ооо общество с ограниченной ответственностью пп фоп "
    "фізична особа підприємець ип индивидуальный предприниматель ао ат оао зао пао пат прат приватне "
    "публічне акціонерне акционерное частное предприятие підприємство тдв дп гп llc ltd limited inc "
    "corp gmbh ag kg sp zoo oo sa srl bv oü oy ab the company co".split()
)
_RUN = re.compile(r"[^\W_]+")
_WINDOW = 5
NAME_MIN = 80


def normal_name(name: str) -> str:
    """A company's own words, in order, without case, quotes and legal form."""
    words = utils.default_process(name).split()
    return " ".join(w for w in words if w not in _FORMS) or " ".join(words)


def normal_number(text: str) -> str:
    """A number of a document without its separators."""
    return "".join(_RUN.findall(text)).upper()


def numbers_in(text: str) -> list[str]:
    """Everything in a text that may be a number: runs of letters and digits, and neighbours of
    them joined, as separators are written or left out at will.
    """
    runs = [r.upper() for r in _RUN.findall(text)]
    found: dict[str, None] = {}
    for start in range(len(runs)):
        joined = ""
        for run in runs[start : start + _WINDOW]:
            joined += run
            if any(c.isdigit() for c in joined):
                found.setdefault(joined)
    return list(found)


def tail_of(number: str) -> str:
    """The last digits of a number without the zeros in front: what people write of it."""
    runs = re.findall(r"[0-9]+", number)
    return runs[-1].lstrip("0") if runs else ""


def best_name(name: str, others: dict[int, str]) -> tuple[int, float] | None:
    """Which of some normalised names is most like this one, and how much (80 to 100)."""
    found = process.extractOne(name, others, scorer=fuzz.token_set_ratio, score_cutoff=NAME_MIN)
    return (found[2], found[1]) if found else None
