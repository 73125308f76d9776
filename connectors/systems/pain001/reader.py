"""pain.001 read back: what a file tells a bank to do, and whether its own counts and sums agree."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import msgspec

from connectors.formats.statements import ZERO, parse_amount
from connectors.formats.xml import LOCAL, Element, XmlFile
from connectors.sdk.contract import Fault, Place, Refused


class Transfer(msgspec.Struct, frozen=True):
    """One transfer as the file says it. `execute_on`: ISO text."""

    end_to_end: str
    amount: Decimal
    currency: str
    execute_on: str
    payer_account: str
    payee: str
    payee_account: str
    purpose: str = ""
    reference: str = ""


class Told(msgspec.Struct, frozen=True):
    """A whole file. `faults`: where its counts or sums contradict what it holds."""

    key: str
    version: str
    transfers: tuple[Transfer, ...]
    faults: tuple[Fault, ...] = ()


def read_batch(path: Path) -> Told:
    """The transfers of a file of any version. Raises Refused for what is no pain.001."""
    xml = XmlFile(path)
    key, declared = "", {"NbOfTxs": "", "CtrlSum": ""}
    found: list[Transfer] = []
    faults: list[Fault] = []
    payer = day = ""
    seen = False
    for element in xml.iter_elements(
        "GrpHdr", "ReqdExctnDt", "DbtrAcct", "CdtTrfTxInf", whole=("CdtTrfTxInf",)
    ):
        name = LOCAL[element.tag]
        if LOCAL[element.getparent().tag] not in ("PmtInf", "CstmrCdtTrfInitn", "pain.001.001.02"):
            continue
        seen = True
        if name == "GrpHdr":
            key = _text(element, "MsgId")
            declared = {tag: _text(element, tag) for tag in declared}
        elif name == "ReqdExctnDt":
            day = (_text(element, "Dt") or _text(element, "DtTm") or element.text or "").strip()[
                :10
            ]
        elif name == "DbtrAcct":
            payer = _text(element, "Id/IBAN") or _text(element, "Id/Othr/Id")
        else:
            found.append(_read_transfer(element, day, payer, faults, xml))
    if not seen:
        looks = f"<{xml.head.root}> without one"
        raise Refused(Fault("not-this-format", "a credit transfer initiation", looks))
    faults += _compare(declared, found)
    version = xml.head.namespace.rpartition(":")[2]
    return Told(key, version, tuple(found), tuple(faults))


def _read_transfer(
    element: Element, day: str, payer: str, faults: list[Fault], xml: XmlFile
) -> Transfer:
    amount_at = _find(element, "Amt/InstdAmt")
    if amount_at is None:
        amount_at = _find(element, "Amt/EqvtAmt/Amt")
    amount = parse_amount(amount_at.text or "") if amount_at is not None else None
    if amount is None:
        place = xml.place_of(element, "Amt")
        faults.append(Fault("malformed-amount", "an instructed amount", "none", place))
    return Transfer(
        _text(element, "PmtId/EndToEndId"),
        amount if amount is not None else ZERO,
        amount_at.get("Ccy", "") if amount_at is not None else "",
        day,
        payer,
        _text(element, "Cdtr/Nm"),
        _text(element, "CdtrAcct/Id/IBAN") or _text(element, "CdtrAcct/Id/Othr/Id"),
        _text(element, "RmtInf/Ustrd"),
        _text(element, "RmtInf/Strd/CdtrRefInf/Ref"),
    )


def _compare(declared: dict[str, str], found: list[Transfer]) -> list[Fault]:
    faults = []
    if declared["NbOfTxs"] and declared["NbOfTxs"] != str(len(found)):
        place = Place(column="GrpHdr/NbOfTxs")
        faults.append(Fault("count-mismatch", declared["NbOfTxs"], str(len(found)), place))
    total = sum((t.amount for t in found), ZERO)
    if declared["CtrlSum"] and parse_amount(declared["CtrlSum"]) != total:
        place = Place(column="GrpHdr/CtrlSum")
        faults.append(Fault("totals-mismatch", declared["CtrlSum"], format(total, "f"), place))
    return faults


def _find(element: Element, path: str) -> Element:
    for name in path.split("/"):
        element = next((c for c in element if LOCAL[c.tag] == name), None)
        if element is None:
            return None
    return element


def _text(element: Element, path: str) -> str:
    found = _find(element, path)
    return (found.text or "").strip() if found is not None else ""
