"""Which open invoices a payment may be for: pure, over all lines and invoices at once.

The strongest grounds first, over all lines, so that a payment which names its invoice takes it
before one that only has its amount: structured reference, number in the text, tax id, account,
name. A score says how sure a ground is; nothing here is more than a proposal. Amounts of a line are
never proposed beyond what it has, nor of an invoice beyond what is open.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from itertools import combinations

import msgspec

from appliance.banking.names import best_name, normal_name, normal_number, numbers_in, tail_of

# A payment is looked for this long after an invoice, and this long before it (a deposit).
LATE, EARLY = timedelta(days=365), timedelta(days=10)
# Among how many invoices of one customer a sum of several is looked for, and of how many.
SUM_AMONG, SUM_OF = 12, 3
TAIL_MIN = 3
NAMED_MAX = 300


class Line(msgspec.Struct, frozen=True):
    """Money that came in; `amount` is what of it is not matched yet."""

    id: str
    amount: Decimal
    currency: str
    booked: date
    text: str = ""
    reference: str = ""
    name: str = ""
    tax_id: str = ""
    account: str = ""


class Invoice(msgspec.Struct, frozen=True):
    """An invoice with `left` still open."""

    id: str
    number: str
    left: Decimal
    currency: str
    customer: str = ""
    name: str = ""
    tax_id: str = ""
    issued: date | None = None
    due: date | None = None


class Proposal(msgspec.Struct, frozen=True):
    """That an amount of a line is for an invoice; `score` of 100."""

    line: str
    invoice: str
    amount: Decimal
    score: int
    reason: str


class _Book:
    """The invoices by what payments say of them, and what is open while lines take from it."""

    def __init__(self, invoices: Sequence[Invoice], declined: frozenset[tuple[str, str]]) -> None:
        self.invoices, self._declined = invoices, declined
        self.left = [i.left for i in invoices]
        self.numbers: dict[str, int] = {}
        self.digits: dict[str, list[int]] = defaultdict(list)
        self.tails: dict[str, list[int]] = defaultdict(list)
        self.tax: dict[str, list[int]] = defaultdict(list)
        self.customers: dict[str, list[int]] = defaultdict(list)
        self.amounts: dict[tuple[str, Decimal], list[int]] = defaultdict(list)
        self.names: dict[int, str] = {}
        known: dict[str, str] = {}
        for n in sorted(range(len(invoices)), key=lambda n: _age(invoices[n])):
            one = invoices[n]
            number = normal_number(one.number)
            if number:
                self.numbers[number] = n
                self.digits["".join(c for c in number if c.isdigit())].append(n)
                self.tails[tail_of(one.number)].append(n)
            if one.tax_id:
                self.tax[one.tax_id].append(n)
            if one.customer:
                self.customers[one.customer].append(n)
            self.amounts[(one.currency, one.left.normalize())].append(n)
            if one.name:
                self.names[n] = known.setdefault(one.name, normal_name(one.name))

    def open(self, line: Line, among: Iterable[int]) -> list[int]:
        """Those of some invoices that are still open and may be meant, the oldest first."""
        return [
            n for n in among
            if self.left[n] > 0 and (one := self.invoices[n]).currency == line.currency
            and _in_time(line, one) and (line.id, one.id) not in self._declined
        ]  # fmt: skip


class _Desk:
    """What is proposed so far, and what of each line is left."""

    def __init__(self, book: _Book) -> None:
        self.book = book
        self.proposals: list[Proposal] = []

    def take(self, line: Line, parts: Sequence[tuple[int, Decimal]], score: int, why: str) -> bool:
        """Propose parts of a line; what it has is never more than shared out."""
        for n, amount in parts:
            self.book.left[n] -= amount
            found = Proposal(line.id, self.book.invoices[n].id, amount, score, why)
            self.proposals.append(found)
        return bool(parts)


Ground = Callable[[_Desk, Line], bool]
# How many grounds, of the strongest, are those of a payment that names its invoice.
NAMING = 2


def find_proposals(
    lines: Sequence[Line],
    invoices: Sequence[Invoice],
    *,
    learned: Mapping[str, str] | None = None,
    declined: frozenset[tuple[str, str]] = frozenset(),
    grounds: slice = slice(None),
) -> list[Proposal]:
    """Proposals for all lines. `learned`: counterparty's account to customer, of what was confirmed
    before; `declined`: pairs of line and invoice that somebody has said no to; `grounds`: these
    alone of them, the strongest first.
    """
    book = _Book(invoices, declined)
    desk, customers = _Desk(book), learned or {}

    def of_payer(line: Line) -> list[int]:
        return book.open(line, book.customers.get(customers.get(line.account, ""), ()))

    def of_tax(line: Line) -> list[int]:
        return book.open(line, book.tax.get(line.tax_id, ())) if line.tax_id else []

    known: tuple[Ground, ...] = (
        _by_reference,
        _by_number,
        lambda d, one: _by_tail(d, one, {*of_tax(one), *of_payer(one)}),
        lambda d, one: _by_amount(d, one, of_tax(one), 88, "tax id and amount"),
        lambda d, one: _by_amount(d, one, of_payer(one), 82, "payer's account and amount"),
        lambda d, one: _by_sum(d, one, of_tax(one), 78, "tax id and sum of invoices"),
        lambda d, one: _by_sum(d, one, of_payer(one), 74, "payer's account and sum of invoices"),
        _by_name,
        lambda d, one: _in_order(d, one, of_tax(one), 50, "tax id, oldest first"),
        lambda d, one: _in_order(d, one, of_payer(one), 45, "payer's account, oldest first"),
    )
    waiting = sorted(lines, key=lambda one: (one.booked, one.id))
    for ground in known[grounds]:
        waiting = [one for one in waiting if one.amount > 0 and not ground(desk, one)]
    return desk.proposals


def _by_reference(desk: _Desk, line: Line) -> bool:
    """A structured creditor reference: our number, or its digits behind a check sum (RF18…)."""
    if not line.reference:
        return False
    book, said = desk.book, normal_number(line.reference)
    bare = said[4:] if said.startswith("RF") else said
    found = [book.numbers[s] for s in (said, bare) if s in book.numbers]
    found = found or (book.digits.get(bare.lstrip("0")) or book.digits.get(bare) or [])
    found = book.open(line, dict.fromkeys(found)) if len(found) < NAMED_MAX else []
    if len(found) != 1:
        return False
    amount = min(line.amount, book.left[found[0]])
    score = 100 if amount == line.amount == book.left[found[0]] else 96
    return desk.take(line, [(found[0], amount)], score, "structured reference")


def _by_number(desk: _Desk, line: Line) -> bool:
    """Whole numbers of invoices in the text: one, or several that share the payment."""
    book = desk.book
    named = (book.numbers[t] for t in numbers_in(line.text) if t in book.numbers)
    found = book.open(line, dict.fromkeys(named))
    if not found:
        return False
    total = sum((book.left[n] for n in found), Decimal(0))
    score = 95 if total == line.amount else 85
    why = "number in the text" if len(found) == 1 else f"{len(found)} numbers in the text"
    return desk.take(line, _share(book, line, found), score, why)


def _by_tail(desk: _Desk, line: Line, payer: set[int]) -> bool:
    """The end of a number (`№ 123`), where the payer or the amount says the same."""
    book = desk.book
    found: dict[int, None] = {}
    for said in numbers_in(line.text):
        tail = said.lstrip("0")
        if not tail.isdigit() or (len(tail) < TAIL_MIN and not payer):
            continue
        among = book.tails.get(tail, ())
        for n in book.open(line, among) if len(among) < NAMED_MAX else ():
            if n in payer or book.left[n] == line.amount:
                found.setdefault(n)
    if not found:
        return False
    same = [n for n in found if book.left[n] == line.amount]
    chosen = same[:1] or [n for n in found if n in payer]
    score = 90 if same and same[0] in payer else 76
    return desk.take(line, _share(book, line, chosen), score, "end of a number in the text")


def _by_amount(desk: _Desk, line: Line, among: list[int], score: int, why: str) -> bool:
    """One invoice of the payer with this very amount; the oldest of several is less sure."""
    same = [n for n in among if desk.book.left[n] == line.amount]
    if not same:
        return False
    return desk.take(line, [(same[0], line.amount)], score - 10 * (len(same) > 1), why)


def _by_sum(desk: _Desk, line: Line, among: list[int], score: int, why: str) -> bool:
    """Several invoices of the payer that make the amount: the oldest ones, else any few."""
    left = desk.book.left
    total = Decimal(0)
    for count, n in enumerate(among, 1):
        total += left[n]
        if total == line.amount and count > 1:
            return desk.take(line, [(k, left[k]) for k in among[:count]], score, why)
        if total > line.amount:
            break
    for size in range(2, SUM_OF + 1):
        for chosen in combinations(among[:SUM_AMONG], size):
            if sum((left[n] for n in chosen), Decimal(0)) == line.amount:
                return desk.take(line, [(n, left[n]) for n in chosen], score - 6, why)
    return False


def _by_name(desk: _Desk, line: Line) -> bool:
    """The amount, and a name that is like the customer's."""
    book = desk.book
    among = book.open(line, book.amounts.get((line.currency, line.amount.normalize()), ()))
    among = [n for n in among if book.left[n] == line.amount and n in book.names]
    if not line.name or not among:
        return False
    found = best_name(normal_name(line.name), {n: book.names[n] for n in among[:NAMED_MAX]})
    if found is None:
        return False
    n, likeness = found
    score = 40 + int((likeness - 80) * 1.5)
    return desk.take(line, [(n, line.amount)], score, "amount and a name like it")


def _in_order(desk: _Desk, line: Line, among: list[int], score: int, why: str) -> bool:
    """A payer whose amount fits nothing: the oldest invoices first."""
    return desk.take(line, _share(desk.book, line, among), score, why)


def _share(book: _Book, line: Line, among: Sequence[int]) -> list[tuple[int, Decimal]]:
    """A line's amount over invoices in their order, as far as it goes."""
    rest, found = line.amount, []
    for n in among:
        amount = min(rest, book.left[n])
        if amount <= 0:
            break
        found.append((n, amount))
        rest -= amount
    return found


def _in_time(line: Line, invoice: Invoice) -> bool:
    issued = invoice.issued
    return issued is None or issued - EARLY <= line.booked <= issued + LATE


def _age(invoice: Invoice) -> tuple[date, str]:
    return (invoice.due or invoice.issued or date.max, invoice.number)
