"""Running balances as proof: a column of balances is a chain, from the oldest line or the newest.

Both readings are summed at once, so nothing is kept; the one with fewer breaks is the order of the
file. Balances may stand at the last line of a day only.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from connectors.formats.statements import ZERO


class Proof(msgspec.Struct, frozen=True):
    """What a chain says: balances before the oldest line and after the newest, and how many links
    break, the first of them at a row.
    """

    opening: Decimal
    closing: Decimal
    breaks: int
    row: int


class Chain:
    """The balances of one account in file order."""

    def __init__(self) -> None:
        self._first: Decimal | None = None
        self._last: Decimal | None = None
        self._before = ZERO  # lines above the first balance
        self._first_amount = self._last_amount = ZERO  # the lines that carry these balances
        self._after = ZERO  # lines below the last balance
        self._old = [0, 0]  # breaks, and the row of the first of them
        self._new = [0, 0]
        self._dates = ("", "")

    def add(self, amount: Decimal, balance: Decimal | None, day: str, row: int) -> None:
        """The next line of the file."""
        self._dates = (self._dates[0] or day, day)
        if balance is None:
            if self._last is None:
                self._before += amount
            else:
                self._after += amount
            return
        if self._last is None:
            self._first, self._first_amount = balance, amount
        else:
            if balance != self._last + self._after + amount:
                _count(self._old, row)
            if self._last != balance + self._last_amount + self._after:
                _count(self._new, row)
        self._last, self._last_amount, self._after = balance, amount, ZERO

    def prove(self) -> Proof | None:
        """The reading that breaks less, by the dates when both do; None without balances."""
        if self._first is None or self._last is None:
            return None
        is_new = self._new[0] < self._old[0] or (
            self._new[0] == self._old[0] and self._dates[0] > self._dates[1]
        )
        if is_new:
            opening = self._last - self._last_amount - self._after
            return Proof(opening, self._first + self._before, self._new[0], self._new[1])
        opening = self._first - self._first_amount - self._before
        return Proof(opening, self._last + self._after, self._old[0], self._old[1])


def _count(breaks: list[int], row: int) -> None:
    breaks[0] += 1
    breaks[1] = breaks[1] or row
