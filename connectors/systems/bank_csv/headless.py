"""The layout of a table without a header: by what stands in its columns, proved by its balances.

Nothing says which of two sums is the movement, so it is taken only when it and another column make
a chain of balances; a single column of sums needs no other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import permutations

from connectors.systems.bank_csv.chain import Chain
from connectors.systems.bank_csv.dates import find_forms
from connectors.systems.bank_csv.guess import GUESSED, Guess, mark_of
from connectors.systems.bank_csv.profile import Profile
from connectors.systems.bank_csv.values import compile_date, parse_date, parse_money

_SHARE = 0.8
_LINES_MIN, _COLUMNS_MAX = 3, 30
_NUMBER = r"[-+(]?[\d.,' ]*\d[\d.,' ]*[-+)]?|"
Rows = Sequence[tuple[int, list[str]]]


def guess_headless(rows: Rows) -> Guess | None:
    """The profile of the first rows of a table without header; None where none is proved."""
    filled = [(n, c) for n, c in rows if sum(map(bool, c)) >= 3]
    width = Counter(len(c) for _, c in filled).most_common(1)[0][0] if filled else 0
    if not width or width > _COLUMNS_MAX:
        return None
    columns = [[c[n] for _, c in filled if n < len(c) and c[n]] for n in range(width)]
    days = {n: found for n, cells in enumerate(columns) if (found := find_forms(cells, _SHARE))}
    if not days:
        return None
    forms = next(iter(days.values()))
    days = {n: f for n, f in days.items() if f == forms}
    first = min(days)
    lines = [(n, c) for n, c in filled if first < len(c) and parse_date(c[first], forms)]
    sums = [n for n in range(width) if n not in days and _is_sum(lines, n)]
    if len(lines) < _LINES_MIN or _has_header(filled, lines[0][0], width):
        return None
    mark = mark_of([c[n] for _, c in lines for n in sums if n < len(c)])
    fields = _find_fields(lines, sums, mark)
    if fields is None:
        return None
    texts = [n for n in range(width) if n not in days and n not in sums and columns[n]]
    wanted: dict[str, str | int | tuple[str | int, ...]] = {"booked": first + 1}
    if len(days) > 1:
        wanted["value_date"] = sorted(days)[1] + 1
    wanted |= {field: n + 1 for field, n in fields.items()}
    if texts:
        wanted["purpose"] = tuple(n + 1 for n in texts)
    patterns = tuple(_pattern(n, days, sums, forms) for n in range(width))
    profile = Profile(
        bank="", key=GUESSED, columns=wanted, date=forms, row=patterns, decimal=mark
    )  # fmt: skip
    return Guess(profile, lines[0][0])


def _has_header(filled: Rows, first: int, width: int) -> bool:
    """Whether words stand above the first line: then they say what the columns are, or nobody does."""
    above = [[x for x in c if x] for n, c in filled if n < first]
    return any(
        len(c) >= _SHARE * width and not any(d.isdigit() for x in c for d in x) for c in above
    )


def _is_sum(lines: Rows, n: int) -> bool:
    cells = [c[n] for _, c in lines if n < len(c) and c[n]]
    return bool(cells) and all(
        any(parse_money(c, mark) is not None for mark in ".,") for c in cells
    )


def _find_fields(lines: Rows, sums: list[int], mark: str) -> dict[str, int] | None:
    """Which sums are what: the reading whose balances break least, and seldom."""
    if len(sums) == 1:
        return {"amount": sums[0]}
    best: tuple[int, dict[str, int]] | None = None
    for fields in _readings(sums):
        told = _count_breaks(lines, fields, mark)
        if told is not None and (best is None or told < best[0]):
            best = told, fields
    return best[1] if best and best[0] * 10 <= len(lines) else None


def _readings(sums: list[int]) -> Iterator[dict[str, int]]:
    for amount, balance in permutations(sums[:6], 2):
        yield {"amount": amount, "balance": balance}
    for debit, credit, balance in permutations(sums[:6], 3):
        yield {"debit": debit, "credit": credit, "balance": balance}


def _count_breaks(lines: Rows, fields: dict[str, int], mark: str) -> int | None:
    """Links that break; None where it is no reading: too few balances, both sides in a line."""
    chain, balances = Chain(), 0
    for number, cells in lines:
        found = {f: _value(cells, n, mark) for f, n in fields.items()}
        balance, debit, credit = found["balance"], found.get("debit"), found.get("credit")
        if debit is not None and credit is not None:
            return None
        amount = found.get("amount")
        if amount is None:
            amount = credit if credit is not None else -(debit or Decimal(0))
        balances += balance is not None
        chain.add(amount, balance, "", number)
    proof = chain.prove()
    return proof.breaks if proof is not None and balances >= _LINES_MIN else None


def _value(cells: list[str], n: int, mark: str) -> Decimal | None:
    return parse_money(cells[n], mark) if n < len(cells) and cells[n] else None


def _pattern(n: int, days: dict[int, tuple[str, ...]], sums: list[int], forms: tuple[str, ...]) -> str:  # fmt: skip
    if n in days:
        return compile_date(forms[0]).pattern
    return f"(?:{_NUMBER})" if n in sums else "(?s:.*)"
