"""pain.001 of versions 03 and 09, for SEPA and elsewhere.

Counts and sums are computed; orders are grouped by the day they are wanted. Nothing is written of a
batch with a fault, and the schemas of ISO have the last word in the tests.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC
from decimal import Decimal
from itertools import groupby

from lxml import etree

from connectors.formats.identifiers import is_bic, is_iban
from connectors.formats.xml import Element
from connectors.sdk.payments import Party, PaymentBatch, PaymentOrder, Unwritable
from connectors.systems.pain001.checks import check_batch

VERSIONS = ("03", "09")
_SPACE = "urn:iso:std:iso:20022:tech:xsd:pain.001.001."


class TransferWriter:
    """Writes pain.001. `version`: 03 or 09, as the bank asks; `is_sepa`: by the rules of SEPA."""

    def __init__(self, version: str = "09", *, is_sepa: bool = True) -> None:
        if version not in VERSIONS:
            raise ValueError(f"version is one of {', '.join(VERSIONS)}, not {version}")
        self._version, self._is_sepa = version, is_sepa

    def write(self, batch: PaymentBatch) -> bytes:
        """See sdk.payments.PaymentWriter."""
        if faults := check_batch(batch, is_sepa=self._is_sepa):
            raise Unwritable(faults)
        space = _SPACE + self._version
        document = etree.Element(f"{{{space}}}Document", nsmap={None: space})
        root = _add(document, "CstmrCdtTrfInitn")
        head = _add(root, "GrpHdr")
        _add(head, "MsgId", batch.key)
        made = batch.made.astimezone(UTC).replace(microsecond=0, tzinfo=None)
        _add(head, "CreDtTm", f"{made.isoformat()}Z")
        _add_sums(head, batch.orders)
        _add(_add(head, "InitgPty"), "Nm", batch.sender or batch.payer.name)
        days = sorted(batch.orders, key=lambda o: o.execute_on)
        for number, (_, orders) in enumerate(groupby(days, key=lambda o: o.execute_on), 1):
            self._add_group(root, batch, number, list(orders))
        return bytes(etree.tostring(document, xml_declaration=True, encoding="UTF-8"))

    def _add_group(
        self, root: Element, batch: PaymentBatch, number: int, orders: list[PaymentOrder]
    ) -> None:
        group = _add(root, "PmtInf")
        _add(group, "PmtInfId", f"{batch.key[: 34 - len(str(number))]}-{number}")
        _add(group, "PmtMtd", "TRF")
        _add_sums(group, orders)
        if self._is_sepa:
            _add(_add(_add(group, "PmtTpInf"), "SvcLvl"), "Cd", "SEPA")
        day = _add(group, "ReqdExctnDt")
        if self._version == "03":
            day.text = orders[0].execute_on.isoformat()
        else:
            _add(day, "Dt", orders[0].execute_on.isoformat())
        self._add_party(group, "Dbtr", batch.payer)
        self._add_account(group, "DbtrAcct", batch.payer)
        self._add_bank(group, "DbtrAgt", batch.payer, is_wanted=True)
        _add(group, "ChrgBr", "SLEV" if self._is_sepa else "SHAR")
        for order in orders:
            self._add_order(group, order)

    def _add_order(self, group: Element, order: PaymentOrder) -> None:
        transfer = _add(group, "CdtTrfTxInf")
        identity = _add(transfer, "PmtId")
        _add(identity, "InstrId", order.number)
        _add(identity, "EndToEndId", order.end_to_end or order.number)
        amount = _add(_add(transfer, "Amt"), "InstdAmt", _show(order.amount))
        amount.set("Ccy", order.currency)
        self._add_bank(transfer, "CdtrAgt", order.payee, is_wanted=False)
        self._add_party(transfer, "Cdtr", order.payee)
        self._add_account(transfer, "CdtrAcct", order.payee)
        if order.purpose or order.reference:
            told = _add(transfer, "RmtInf")
            if order.purpose:
                _add(told, "Ustrd", order.purpose)
            if order.reference:
                reference = _add(_add(told, "Strd"), "CdtrRefInf")
                _add(_add(_add(reference, "Tp"), "CdOrPrtry"), "Cd", "SCOR")
                _add(reference, "Ref", order.reference.replace(" ", ""))

    def _add_party(self, parent: Element, name: str, party: Party) -> None:
        element = _add(parent, name)
        _add(element, "Nm", party.name)
        if party.country or party.city:
            address = _add(element, "PstlAdr")
            for tag, text in (
                ("StrtNm", party.street),
                ("BldgNb", party.building),
                ("PstCd", party.post_code),
                ("TwnNm", party.city),
                ("Ctry", party.country),
            ):
                if text:
                    _add(address, tag, text)
        if party.tax_id:
            other = _add(_add(_add(element, "Id"), "OrgId"), "Othr")
            _add(other, "Id", party.tax_id)
            _add(_add(other, "SchmeNm"), "Cd", "TXID")

    def _add_account(self, parent: Element, name: str, party: Party) -> None:
        identity = _add(_add(parent, name), "Id")
        if is_iban(party.account):
            _add(identity, "IBAN", party.account)
        else:
            _add(_add(identity, "Othr"), "Id", party.account)

    def _add_bank(self, parent: Element, name: str, party: Party, *, is_wanted: bool) -> None:
        """The agent: by BIC, by its national code, or by its absence where one is wanted."""
        if not party.bank and not is_wanted:
            return
        bank = _add(_add(parent, name), "FinInstnId")
        if is_bic(party.bank):
            _add(bank, "BIC" if self._version == "03" else "BICFI", party.bank)
        elif party.bank:
            _add(_add(bank, "ClrSysMmbId"), "MmbId", party.bank)
        else:
            _add(_add(bank, "Othr"), "Id", "NOTPROVIDED")


def _add(parent: Element, name: str, text: str = "") -> Element:
    space = etree.QName(parent).namespace
    element = etree.SubElement(parent, f"{{{space}}}{name}")
    if text:
        element.text = text
    return element


def _add_sums(parent: Element, orders: Iterable[PaymentOrder]) -> None:
    amounts = [order.amount for order in orders]
    _add(parent, "NbOfTxs", str(len(amounts)))
    _add(parent, "CtrlSum", _show(sum(amounts, Decimal(0))))


def _show(amount: Decimal) -> str:
    return format(amount, "f")
