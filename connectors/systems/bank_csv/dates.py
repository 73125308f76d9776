"""In which form the days of a column are written: what fits its cells, and what they rule out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from connectors.systems.bank_csv.values import parse_date

FORMS = (
    "yyyy-mm-dd", "dd.mm.yyyy", "dd.mm.yy", "dd/mm/yyyy", "mm/dd/yyyy", "dd/mm/yy", "mm/dd/yy",
    "dd-mm-yyyy", "mm-dd-yyyy", "dd-mm-yy", "yyyy.mm.dd", "yyyy/mm/dd", "yyyymmdd", "ddmmyyyy",
    "dd mmm yyyy", "dd mmm yy", "mmm dd, yyyy", "dd-mmm-yyyy", "dd-mmm-yy", "dd.mmm.yyyy",
    "dd mm yyyy",
)  # fmt: skip


def find_forms(cells: Sequence[str], share: float) -> tuple[str, ...]:
    """The form that at least `share` of the cells are in; none where there is no such one.

    Where day and month could be either, the reading in which the days follow each other is taken,
    then the day first, as most of the world writes it.
    """
    if not cells:
        return ()
    fits = []
    for n, form in enumerate(FORMS):
        days = [day for c in cells if (day := parse_date(c, (form,)))]
        if len(days) >= share * len(cells):
            fits.append((-len(days), _turns(days), n, form))
    return (min(fits)[-1],) if fits else ()


def _turns(days: list[str]) -> int:
    """How often the days change their direction: 0 in a table that is in order."""
    steps = [b > a for a, b in pairwise(days) if a != b]
    return min(sum(steps), len(steps) - sum(steps))
