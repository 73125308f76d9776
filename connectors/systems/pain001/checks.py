"""What must be right before a pain.001 exists: every fault of a batch at once.

SEPA: EPC rulebook (EUR, IBAN of the area, the Latin set, 70 and 140 characters). Elsewhere: an
IBAN or a national account with its bank, the decimals that the currency has.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal

from connectors.formats.identifiers import (
    SEPA,
    is_bic,
    is_creditor_reference,
    is_iban,
    is_ukrainian_tax_id,
)
from connectors.formats.lines import find_control
from connectors.sdk.contract import Fault, Place
from connectors.sdk.payments import Party, PaymentBatch, PaymentOrder

_IDENTITY = re.compile(r"[A-Za-z0-9+?:().,'\- ]|/(?!/)")
_LATIN = re.compile(r"[A-Za-z0-9/\-?:().,'+ ]*")
_DECIMALS = {"JPY": 0, "KRW": 0, "ISK": 0, "VND": 0, "BHD": 3, "KWD": 3, "OMR": 3, "TND": 3}
_AMOUNT_MAX = {True: Decimal("999999999.99"), False: Decimal("1e15")}
_CYRILLIC = dict(
    zip(
        "абвгґдеёєжзиіїйклмнопрстуфхцчшщъыьэюя",
        "a b v g g d e e ie zh z i i i i k l m n o p r s t u f kh ts ch sh shch  y  e iu ia".split(
            " "
        ),
        strict=True,
    )
)


def check_batch(batch: PaymentBatch, *, is_sepa: bool) -> tuple[Fault, ...]:
    """Every fault of a batch; `place.row` is the order from 1, 0 for the batch itself."""
    check = _Check(is_sepa=is_sepa)
    check.identity(0, "key", batch.key)
    if not batch.orders:
        check.add(0, "orders", "empty-batch", "at least one order", "none")
    if batch.made.tzinfo is None:
        check.add(0, "made", "malformed", "a moment with its zone", batch.made.isoformat())
    check.party(0, "payer", batch.payer)
    seen: set[str] = set()
    for row, order in enumerate(batch.orders, 1):
        _check_order(check, row, order, batch)
        own = order.end_to_end or order.number
        if own in seen:
            check.add(row, "end_to_end", "duplicate-number", "each reference once", own)
        seen.add(own)
    return tuple(check.found)


def transliterate(text: str) -> str:
    """Latin letters that a bank takes for a text, to be shown to the person who writes it."""
    found = []
    for char in text:
        low = char.lower()
        latin = _CYRILLIC.get(low)
        if latin is None:
            plain = unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode()
            latin = plain if _LATIN.fullmatch(plain) and plain else "."
        found.append(latin.capitalize() if char != low and latin.islower() else latin)
    return "".join(found)


class _Check:
    def __init__(self, *, is_sepa: bool) -> None:
        self.found: list[Fault] = []
        self.is_sepa = is_sepa

    def add(self, row: int, column: str, code: str, expected: str, found: str) -> None:
        self.found.append(Fault(code, expected, found[:80], Place(row=row, column=column)))

    def identity(self, row: int, column: str, text: str) -> None:
        """MsgId, EndToEndId: 35 of the Latin set, no slash at an end, no two of them."""
        whole = "".join(_IDENTITY.findall(text)) == text and bool(text.strip())
        if not whole or len(text) > 35 or text[:1] == "/" or text[-1:] == "/":
            expected = "1 to 35 Latin letters and digits, no slash at the ends"
            self.add(row, column, "malformed", expected, text)

    def text(self, row: int, column: str, text: str, longest: int) -> None:
        if len(text) > longest:
            self.add(row, column, "too-long", f"at most {longest} characters", f"{len(text)}")
        if find_control(text) or any(c in text for c in "\r\n\t"):
            self.add(row, column, "control-character", "one line of text", repr(text))
        elif self.is_sepa and not _LATIN.fullmatch(text):
            expected = f"the Latin letters of SEPA, such as: {transliterate(text)[:140]}"
            self.add(row, column, "not-latin", expected, text)

    def party(self, row: int, side: str, party: Party) -> None:
        if not party.name.strip():
            self.add(row, f"{side}.name", "missing", "a name", "none")
        self.text(row, f"{side}.name", party.name, 70 if self.is_sepa else 140)
        for name, longest in (("street", 70), ("building", 16), ("post_code", 16), ("city", 35)):
            self.text(row, f"{side}.{name}", getattr(party, name), longest)
        if party.country and not re.fullmatch("[A-Z]{2}", party.country):
            self.add(row, f"{side}.country", "malformed", "two letters of ISO 3166", party.country)
        if party.street and not (party.city and party.country):
            self.add(row, f"{side}.city", "missing", "the city and country of an address", "none")
        self.account(row, side, party)

    def account(self, row: int, side: str, party: Party) -> None:
        account = party.account
        looks_iban = re.match("[A-Z]{2}[0-9]{2}", account) is not None
        if looks_iban or self.is_sepa:
            if not is_iban(account):
                expected = "an IBAN with right check digits"
                self.add(row, f"{side}.account", "wrong-check-digit", expected, account)
            elif self.is_sepa and account[:2] not in SEPA:
                expected = "an IBAN of the SEPA area"
                self.add(row, f"{side}.account", "not-sepa", expected, account[:2])
        elif not re.fullmatch("[A-Za-z0-9/-]{1,34}", account):
            expected = "an IBAN or an account of at most 34"
            self.add(row, f"{side}.account", "malformed", expected, account)
        elif not party.bank:
            self.add(row, f"{side}.bank", "missing", "the bank of an account without IBAN", "none")
        if party.bank and not is_bic(party.bank) and not re.fullmatch("[0-9]{3,12}", party.bank):
            self.add(row, f"{side}.bank", "malformed", "a BIC or a national bank code", party.bank)
        is_ukrainian = account.startswith("UA")
        if is_ukrainian and party.tax_id and not is_ukrainian_tax_id(party.tax_id):
            expected = "a ЄДРПОУ or РНОКПП with right check digits"
            self.add(row, f"{side}.tax_id", "wrong-check-digit", expected, party.tax_id)
        if not re.fullmatch("[A-Za-z0-9-]{0,35}", party.tax_id):
            self.add(row, f"{side}.tax_id", "malformed", "at most 35 characters", party.tax_id)


def _check_order(check: _Check, row: int, order: PaymentOrder, batch: PaymentBatch) -> None:
    check.identity(row, "end_to_end", order.end_to_end or order.number)
    if not re.fullmatch("[A-Z]{3}", order.currency):
        check.add(row, "currency", "malformed", "a currency of ISO 4217", order.currency)
    if check.is_sepa and order.currency != "EUR":
        check.add(row, "currency", "not-sepa", "EUR", order.currency)
    decimals = _DECIMALS.get(order.currency, 2)
    amount = order.amount
    if not amount.is_finite() or not 0 < amount <= _AMOUNT_MAX[check.is_sepa]:
        expected = f"an amount above zero, up to {_AMOUNT_MAX[check.is_sepa]:f}"
        check.add(row, "amount", "malformed-amount", expected, str(amount))
    elif amount != amount.quantize(Decimal(1).scaleb(-decimals)):
        check.add(row, "amount", "malformed-amount", f"{decimals} decimals", str(amount))
    if order.execute_on < batch.made.date():
        shown = order.execute_on.isoformat()
        check.add(row, "execute_on", "past-date", f"{batch.made.date()} or later", shown)
    check.party(row, "payee", order.payee)
    check.text(row, "purpose", order.purpose, 140)
    if order.reference:
        if order.reference.upper().startswith("RF"):
            if not is_creditor_reference(order.reference):
                expected = "an RF reference with right check digits"
                check.add(row, "reference", "wrong-check-digit", expected, order.reference)
        else:
            check.identity(row, "reference", order.reference)
        if order.purpose and check.is_sepa:
            expected = "a reference or a purpose, not both"
            check.add(row, "purpose", "both-given", expected, order.purpose)
