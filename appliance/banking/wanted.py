"""Which invoices some lines may be for at all, so that the others are passed over as they stream.

Whatever a ground of candidates.py finds an invoice by stands here: an invoice that none of these
lines asks for is found by no ground, so leaving it out changes no proposal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from appliance.banking.candidates import Invoice, Line
from appliance.banking.names import normal_number, numbers_in, tail_of


class Wanted:
    """What the lines of one page say. `learned`: counterparty's account to customer."""

    def __init__(self, lines: Sequence[Line], learned: Mapping[str, str]) -> None:
        self._numbers: set[str] = set()
        self._tails: set[str] = set()
        self._tax: set[str] = set()
        self._customers: set[str] = set()
        self._amounts: set[tuple[str, Decimal]] = set()
        for line in lines:
            self._take(line)
            if customer := learned.get(line.account):
                self._customers.add(customer)

    def _take(self, line: Line) -> None:
        if line.reference:
            said = normal_number(line.reference)
            bare = said[4:] if said.startswith("RF") else said
            self._numbers |= {said, bare, bare.lstrip("0")}
        for said in numbers_in(line.text):
            self._numbers.add(said)
            if said.isdigit():
                self._tails.add(said.lstrip("0"))
        if line.tax_id:
            self._tax.add(line.tax_id)
        self._amounts.add((line.currency, line.amount.normalize()))

    def asks_for(self, invoice: Invoice) -> bool:
        """Whether a ground may find it."""
        if invoice.tax_id in self._tax or invoice.customer in self._customers:
            return True
        if (invoice.currency, invoice.left.normalize()) in self._amounts:
            return True
        number = normal_number(invoice.number)
        if not number:
            return False
        digits = "".join(c for c in number if c.isdigit())
        return (
            number in self._numbers or digits in self._numbers
            or tail_of(invoice.number) in self._tails
        )  # fmt: skip
