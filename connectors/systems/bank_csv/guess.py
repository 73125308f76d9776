"""The layout of a table that no profile knows: read off its header's words and proved by its cells.

A column is taken for a field only when its name is a word for it and its cells are of that sort, so
that `Valuta` is a day for one bank and a currency for another. What is found is a profile like any
other: people see it as text, change it, and keep it for the next file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import msgspec

from connectors.systems.bank_csv.above import read_above
from connectors.systems.bank_csv.dates import find_forms
from connectors.systems.bank_csv.naming import (
    CODE,
    HELD,
    Column,
    Words,
    fold,
    rank_name,
    ranks_of,
    read_words,
    sort_by_name,
)
from connectors.systems.bank_csv.profile import Profile
from connectors.systems.bank_csv.values import parse_money

ROWS_MAX = 300
# Of the filled cells of a column; the rest are totals, notes, repeated headers.
_SHARE = 0.6
# Fewer filled cells are a title, a footer, the second line of a text.
_FILLED = 3
_HEAD_ROWS, _TRIES_MAX, _COLUMNS_MAX = 100, 8, 120
GUESSED = "guessed"
_DAYS = ("booked", "value_date", "document_date")
_SUMS = ("debit", "credit", "amount", "balance", "original_amount", "charges")
_MONIES = ("currency", "original_currency")
# A word of these makes a sum another one: of a part of the movement, of a limit, a rate.
_PARTS = frozenset(
    "detail details einzelbetrag einzelzahlung individual einzel sous singolo sub fremdwahrung "
    "foreign original estero tax steuer mwst ндс пдв".split()
)
_RATES = frozenset("limit rate kurs devisenkurs cours corso cambio курс".split())
# A day of these is one of a period, not of a movement.
_PERIODS = frozenset("von bis from to du au dal al evaluation valuation с по".split())
_TWO = re.compile(r"([.,])\d{1,2}(?:\s*[A-Z]{3}|\s*[-+)])?$")


class Guess(msgspec.Struct, frozen=True):
    """A profile that was read off a table, and by which row its header is."""

    profile: Profile
    row: int


def guess_profile(rows: Sequence[tuple[int, list[str]]]) -> Guess | None:
    """The profile of the first rows of a table; None where they do not show one."""
    best: Guess | None = None
    tried = 0
    for at, (number, cells) in enumerate(rows[:_HEAD_ROWS]):
        if tried >= _TRIES_MAX or not _may_be_header(cells):
            continue
        tried += 1
        below = [c for _, c in rows[at + 1 :] if sum(map(bool, c)) >= _FILLED]
        profile = _guess_by(cells, below, [c for _, c in rows[:at]])
        if profile and (best is None or len(profile.columns) > len(best.profile.columns)):
            best = Guess(profile, number)
    return best


def _may_be_header(cells: list[str]) -> bool:
    """A cheap look, for no table may cost much: words for a day and for a sum, and no numbers."""
    filled = [c for c in cells if c]
    if not _FILLED <= len(filled) <= _COLUMNS_MAX or len(cells) > 4 * _COLUMNS_MAX:
        return False
    words = {word for cell in filled for word in fold(cell).split()}
    return bool(words & _day_words()) and bool(words & _sum_words())


@cache
def _day_words() -> frozenset[str]:
    return frozenset(w for f in _DAYS for name in ranks_of(f) for w in name.split())


@cache
def _sum_words() -> frozenset[str]:
    return frozenset(
        w for f in ("amount", "debit", "credit") for name in ranks_of(f) for w in name.split()
    )


def _guess_by(header: list[str], below: list[list[str]], above: list[list[str]]) -> Profile | None:
    columns = [c for n, name in enumerate(header) if (c := _column(n, name, below)) is not None]
    if len({c.plain for c in columns}) < _FILLED or any(parse_money(c.name, ".") for c in columns):
        return None
    found, forms = _find_days(columns)
    if not forms:
        return None
    found |= _find_sums(columns)
    if not found.keys() & {"amount", "debit", "credit"}:
        return None
    taken = {c.place for group in found.values() for c in group}
    found |= _find_others([c for c in columns if c.place not in taken])
    return _make(found, forms, columns, above)


def _column(place: int, name: str, below: list[list[str]]) -> Column | None:
    if not name:
        return None
    found = CODE.findall(name)
    currency = found[-1] if found and found[-1] not in ("BIC", "MCC", "CCY", "UID") else ""
    bare = name.replace(currency, " ") if currency else name
    cells = tuple(row[place] for row in below if place < len(row) and row[place])
    return Column(place, name, fold(bare), currency, cells)


def _find_days(columns: list[Column]) -> tuple[dict[str, list[Column]], tuple[str, ...]]:
    """Columns of days by field, and the forms that they are written in."""
    found: dict[str, list[Column]] = {}
    forms: tuple[str, ...] = ()
    taken: set[int] = set()
    for field in ("value_date", "document_date", "booked"):
        group = []
        free = [c for c in columns if c.place not in taken]
        for column in sort_by_name([c for c in free if not _PERIODS & set(c.plain.split())], field):
            if told := find_forms(column.cells, _SHARE):
                group.append(column)
                forms = forms or told
                if told[0] not in forms:
                    forms = (*forms, *told)
        # A booking that waits has no day of booking yet, but one of its making.
        found[field] = group if field == "booked" else group[:1]
        taken |= {c.place for c in found[field]}
    if not found["booked"]:
        found["booked"] = found.pop("value_date", []) or found.pop("document_date", [])
    return {f: g for f, g in found.items() if g}, forms if found.get("booked") else ()


def _find_sums(columns: list[Column]) -> dict[str, list[Column]]:
    """Columns of money by field: the two sides, or one amount with its sign or its word."""
    found: dict[str, list[Column]] = {}
    taken: set[int] = set()
    ranked = [
        (rank, n, c.place, field, c)
        for n, field in enumerate(_SUMS)
        for c in columns
        if (rank := rank_name(c, field)) is not None and _may_be(c, field, rank)
    ]
    for *_, field, column in sorted(ranked, key=lambda x: x[:3]):
        if field not in found and column.place not in taken:
            found[field] = [column]
            taken.add(column.place)
    filled = {f: len(found[f][0].cells) for f in ("amount", "debit", "credit") if f in found}
    both = filled.get("debit", 0) + filled.get("credit", 0)
    if "amount" in filled and {"debit", "credit"} & filled.keys():
        is_pair = {"debit", "credit"} <= filled.keys() or {"debit", "credit"} <= found.keys()
        if (
            is_pair
            and "original_amount" not in found
            and sort_by_name(columns, "original_currency")
        ):
            # Beside the currency of the purchase the one amount is in that one.
            found["original_amount"] = found["amount"]
            filled["amount"] = 0
        is_amount = filled["amount"] > both or not is_pair
        for field in ("debit", "credit") if is_amount else ("amount",):
            found.pop(field, None)
    if "amount" in found:
        sides = {fold(w) or w for group in read_words().sides.values() for w in group}
        words = [c for c in sort_by_name(columns, "direction") if c.place not in taken]
        found["direction"] = [c for c in words if c.cells and _all_in(c, sides)][:1]
    return {f: g for f, g in found.items() if g}


def _may_be(column: Column, field: str, rank: int) -> bool:
    """Whether a column of that name may be a sum: by its cells, or by a name that says no other."""
    words = set(column.plain.split())
    if words & (_RATES if field == "original_amount" else _RATES | _PARTS):
        return False
    if not column.cells:
        # In a short table one side, or the balance, may stand nowhere.
        return field in ("debit", "credit", "balance") and rank < HELD
    return _is_money(column.cells)


def _all_in(column: Column, words: set[str]) -> bool:
    return all((fold(cell) or cell) in words for cell in column.cells)


def _find_others(columns: list[Column]) -> dict[str, list[Column]]:
    """Columns of texts: each is one field, the purpose may be several."""
    found: dict[str, list[Column]] = {}
    taken: set[int] = set()
    fields = [f for f in read_words().fields if f not in (*_DAYS, *_SUMS, "direction")]
    pairs = [(rank, f, c) for f in fields for c in columns if (rank := rank_name(c, f)) is not None]
    for _, field, column in sorted(pairs, key=lambda x: (x[0] // 100, x[0] % 100, x[2].place)):
        if column.place in taken or (found.get(field) and field != "purpose"):
            continue
        if not column.cells or not _suits(column, field, found):
            continue
        found.setdefault(field, []).append(column)
        taken.add(column.place)
    if "card" in found:
        card = found.pop("card")
        found.setdefault("account", card)
    if "purpose" in found:
        found["purpose"].sort(key=lambda c: c.place)
    return found


def _suits(column: Column, field: str, found: dict[str, list[Column]]) -> bool:
    distinct = set(column.cells)
    if field in ("purpose", "counterparty", "kind") and _is_money(column.cells):
        return False
    if field in _MONIES:
        return sum(len(c) == 3 and c.isalpha() for c in column.cells) >= _SHARE * len(column.cells)
    if field == "account":
        # One's own account hardly changes from line to line; that of the others does.
        is_own = len(distinct) == 1 or len(distinct) * 5 <= len(column.cells)
        return is_own and not _is_money_like(column.cells)
    if field == "counterparty_account" and "account" not in found:
        # The same in all lines is one's own.
        return len(distinct) > 1 or len(column.cells) == 1
    if field in ("counterparty_account", "card"):
        return any(any(x.isdigit() for x in c) for c in distinct)
    return True


def _is_money(cells: tuple[str, ...]) -> bool:
    if not cells:
        return False
    fit = sum(any(parse_money(c, mark) is not None for mark in ".,") for c in cells)
    return fit >= _SHARE * len(cells)


def _is_money_like(cells: tuple[str, ...]) -> bool:
    return all(_TWO.search(c) for c in cells[:20])


def _make(
    found: dict[str, list[Column]], forms: tuple[str, ...], columns: list[Column],
    above: list[list[str]],
) -> Profile:  # fmt: skip
    words = read_words()
    names = [c.plain for c in columns]
    wanted: dict[str, str | int | tuple[str | int, ...]] = {}
    header: list[str] = []
    for field, group in found.items():
        keys = tuple(_key(c, names, field) for c in group)
        wanted[field] = keys[0] if len(keys) == 1 else keys
        is_sum = field in _SUMS
        header += [_slot(c) if is_sum else c.name for c in group if names.count(c.plain) == 1]
    sums = [c for f in _SUMS for c in found.get(f, [])]
    states = {fold(c): c for g in found.get("status", []) for c in dict.fromkeys(g.cells)}
    debits = {fold(w) or w for w in words.sides["debit"]}
    sides = dict.fromkeys(c for g in found.get("direction", []) for c in g.cells)
    return Profile(
        bank="", key=GUESSED, header=tuple(dict.fromkeys(header)), columns=wanted, date=forms,
        decimal=mark_of([cell for c in sums for cell in c.cells]),
        currency=_currency_of(sums, words),
        preamble=tuple(read_above(above)),
        signed=_is_signed(found), inverse=_is_inverse(found),
        debit_words=tuple(s for s in sides if (fold(s) or s) in debits),
        pending=_states(states, words.states["pending"]),
        skip=_states(states, words.states["skip"]),
    )  # fmt: skip


def _states(found: dict[str, str], words: Sequence[str]) -> tuple[str, ...]:
    return tuple(found[fold(w)] for w in words if fold(w) in found)


def _key(column: Column, names: list[str], field: str) -> str | int:
    """How a profile names a column: by its name, by its number where that says nothing."""
    if names.count(column.plain) > 1:
        return column.place + 1
    is_slot = bool(column.currency) and field in _SUMS
    return column.name.replace(column.currency, "*") if is_slot else column.name


def _slot(column: Column) -> str:
    name = column.name
    return name.replace(column.currency, "{currency}") if column.currency else name


def mark_of(cells: list[str]) -> str:
    """The decimal mark that most cells with one or two last digits show."""
    votes = [m[1] for c in cells if (m := _TWO.search(c.strip()))]
    return "," if votes.count(",") > votes.count(".") else "."


def _currency_of(sums: list[Column], words: Words) -> str:
    """The currency that a sign in the name of a sum, or in its cells, stands for."""
    texts = [c.name for c in sums] + [cell for c in sums for cell in c.cells[:5]]
    for code, signs in words.symbols.items():
        for sign in signs:
            if not sign.isalpha() and any(sign in text for text in texts):
                return code
            if sign.isalpha() and any(f" {sign} " in f" {fold(c.name)} " for c in sums):
                return code
    return ""


def _is_signed(found: dict[str, list[Column]]) -> bool:
    """Whether what went out stands with a minus in its own column."""
    cells = [cell for c in found.get("debit", []) for cell in c.cells]
    values = [v for c in cells if (v := parse_money(c, mark_of(cells)))]
    return sum(v < 0 for v in values) * 2 > len(values)


def _is_inverse(found: dict[str, list[Column]]) -> bool:
    """Cards tell what was spent: positive, with no word for the side and no balance to prove it."""
    if "amount" not in found or found.keys() & {"direction", "balance"}:
        return False
    accounts = found.get("account", [])
    is_card = any(
        rank_name(c, "card") is not None and rank_name(c, "account") is None for c in accounts
    )
    cells = found["amount"][0].cells
    values = [v for c in cells if (v := parse_money(c, mark_of(list(cells))))]
    return is_card and sum(v > 0 for v in values) * 2 > len(values)
