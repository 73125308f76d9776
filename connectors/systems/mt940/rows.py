"""A statement line with its details and its narrative, as a row of the bank vocabulary."""

from __future__ import annotations

import re

from connectors.formats.statements import Desk, Statement, parse_amount
from connectors.sdk.contract import Fault, Place, Refused, Value
from connectors.systems.mt940.fields import is_iban, parse_entry
from connectors.systems.mt940.narrative import read_narrative

CONTENT_MAX = 2_000  # lines of a field, and of all the narratives of a line
_ORIGINAL = re.compile(r"/OCMT/([A-Z]{3})([\d.,]+)")
_CHARGES = re.compile(r"/CHGS/([A-Z]{3})([\d.,]+)")
_CODE = re.compile(r"/TRCD/([^/]+)/")
_OLD_RABO = re.compile(r"(\S{1,16}) {2,}(\S.*)")
_ACCOUNT = re.compile(r"P?\d{6,10}|\d{16,26}")


class Pending:
    """A :61: that waits for its :86:."""

    __slots__ = ("_lines", "_row", "_told")

    def __init__(self, lines: list[str], row: int) -> None:
        self._lines, self._row = lines, row
        self._told: list[str] = []

    def tell(self, lines: list[str]) -> None:
        """What an :86: says of it; there may be several. Raises Refused past all bounds."""
        self._told += lines
        if len(self._told) > CONTENT_MAX:
            expected = f"narratives of at most {CONTENT_MAX} lines"
            raise Refused(Fault("too-large-node", expected, ":86:", Place(row=self._row)))

    def stage(self, desk: Desk, statement: Statement) -> None:
        """The row, or the row with its fault and the statement held."""
        place = Place(row=self._row, column="61")
        entry = parse_entry(self._lines[0])
        details = " ".join(t.strip() for t in self._lines[1:]).strip()
        if entry is None and len(self._lines) > 1:
            entry = parse_entry("".join(self._lines))
            details = ""
        values = statement.begin_line()
        if entry is None:
            expected = "date, mark, amount, code and reference of a line"
            fault = Fault("malformed-line", expected, f":61:{self._lines[0][:120]}", place)
            desk.hold(fault, statement.key)
            desk.add_line(statement, place, values, None, (fault,))
            return
        values["booked"], values["value_date"] = entry.booked, entry.value_date
        if entry.is_clamped:
            expected = "a day that the month has"
            desk.warn(Fault("date-clamped", expected, self._lines[0][:6], place))
        if any(self._told):
            values |= read_narrative([t for t in self._told if t.strip()])
        _add_reference(values, entry.reference, entry.bank_reference)
        if details:
            _add_details(values, details)
        if entry.code:
            values["kind"] = f"{entry.code} {values.get('kind', '')}".strip()
        if entry.mark[0] == "R":
            values["is_reversal"] = True
        is_expected = entry.mark[0] == "E"
        if is_expected:
            values["is_provisional"] = True
        desk.add_line(statement, place, values, entry.amount, is_booked=not is_expected)


def _add_reference(values: dict[str, Value], reference: str, bank_reference: str) -> None:
    if bank_reference:
        values["bank_reference"] = bank_reference
    if not reference:
        return
    party = _OLD_RABO.fullmatch(reference)
    if party is not None and _ACCOUNT.fullmatch(party[1]):
        values.setdefault("counterparty_account", party[1])
        values.setdefault("counterparty", " ".join(party[2].split()))
    elif is_iban(reference):
        values.setdefault("counterparty_account", reference)
    else:
        values.setdefault("end_to_end", reference)


def _add_details(values: dict[str, Value], details: str) -> None:
    """The second line of :61:: amounts and charges, an account, a name, or words."""
    if details.startswith("/"):
        if found := _ORIGINAL.search(details):
            amount = parse_amount(found[2])
            if amount is not None:
                values["original_amount"] = format(amount, "f")
                values["original_currency"] = found[1]
        if found := _CHARGES.search(details):
            amount = parse_amount(found[2])
            if amount is not None:
                values["charges"] = format(amount, "f")
        if found := _CODE.search(details):
            values["kind"] = f"{found[1]} {values.get('kind', '')}".strip()
    elif is_iban(details):
        values.setdefault("counterparty_account", details)
    elif not values.get("purpose"):
        values["purpose"] = details
    elif "counterparty" not in values and "counterparty_account" in values:
        values["counterparty"] = details
    elif details not in str(values["purpose"]):
        values["purpose"] = f"{details} {values['purpose']}"
