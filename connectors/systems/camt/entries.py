"""One entry as lines: itself, or its transactions where they prove to be all of it."""

from __future__ import annotations

from decimal import Decimal

from connectors.formats.statements import ZERO, Desk, Statement, key_line, parse_amount, plain
from connectors.formats.xml import Element, XmlFile
from connectors.sdk.contract import Fault, Place, Value
from connectors.systems.camt.flat import (
    Flat,
    Paths,
    flatten,
    parse_day,
    pick,
    read_day,
    read_kind,
    read_party,
    read_status,
    sign,
)

_BOOKED = "BOOK"


class Entry:
    """An Ntry as read: itself flat, its transactions flat. `made`: the day of the message."""

    __slots__ = ("details", "flat", "is_booked", "is_debit", "is_reversal", "made", "place")

    def __init__(self, element: Element, xml: XmlFile, paths: Paths, made: str) -> None:
        self.made = made
        self.place: Place = xml.place_of(element)
        self.flat, self.details = flatten(element, paths)
        self.is_debit = self.flat.get("CdtDbtInd") == "DBIT"
        self.is_reversal = self.flat.get("RvslInd", "") in ("true", "1")
        self.is_booked = read_status(self.flat) == _BOOKED


def stage_entry(desk: Desk, statement: Statement, entry: Entry, *, splits: bool) -> None:
    """The lines of an entry."""
    amount = sign(entry.flat, "Amt", is_debit=entry.is_debit)
    values, faults = _begin(desk, statement, entry, amount)
    parts: list[Decimal] | None = None
    if len(entry.details) > 1 and amount is not None and not faults:
        parts = _share(entry, amount)
        if parts is None:
            expected = f"transactions that sum to {plain(amount)}"
            found = f"{len(entry.details)} transactions that do not"
            desk.warn(Fault("batch-mismatch", expected, found, entry.place))
    if parts is None or not splits:
        detail = entry.details[0] if len(entry.details) == 1 else {}
        _fill(values, entry, detail)
        if len(entry.details) > 1:
            values["purpose"] = _note(entry) or values.get("purpose")
        desk.add_line(
            statement, entry.place, values, amount, tuple(faults), is_booked=entry.is_booked
        )
        return
    whole = dict(values)
    _fill(whole, entry, {})
    batch = key_line(whole, amount or ZERO)
    for detail, part in zip(entry.details, parts, strict=True):
        line = dict(values)
        _fill(line, entry, detail)
        line["batch"] = batch
        desk.add_line(statement, entry.place, line, part, is_booked=entry.is_booked)


def _begin(
    desk: Desk, statement: Statement, entry: Entry, amount: Decimal | None
) -> tuple[dict[str, Value], list[Fault]]:
    """What all lines of an entry share, and what is wrong with it."""
    flat, faults = entry.flat, []
    values = statement.begin_line()
    currency = flat.get("Amt@") or statement.currency
    values["currency"] = currency
    if amount is None:
        faults.append(_fault(entry, "malformed-amount", "an amount", "Amt", flat.get("Amt", "")))
    if flat.get("CdtDbtInd") not in ("CRDT", "DBIT"):
        found = flat.get("CdtDbtInd", "")
        faults.append(_fault(entry, "missing-sign", "CRDT or DBIT", "CdtDbtInd", found))
    booked, value_date = read_day(flat, "BookgDt"), read_day(flat, "ValDt")
    for name, day in (("BookgDt", booked), ("ValDt", value_date)):
        if day is None:
            found = flat.get(f"{name}/Dt") or flat.get(f"{name}/DtTm") or ""
            faults.append(_fault(entry, "malformed-date", "a date", name, found))
    if not faults and not booked and not value_date:
        booked = parse_day(entry.made)
        code = "date-assumed" if booked else "missing-date"
        fault = _fault(entry, code, "a booking or value date", "BookgDt", booked or "none")
        if booked:
            desk.warn(fault)
        else:
            faults.append(fault)
    values["booked"] = booked or value_date or None
    if value_date:
        values["value_date"] = value_date
    if currency != statement.currency and statement.currency:
        expected = f"the currency of the account, {statement.currency}"
        fault = Fault("currency-mismatch", expected, currency, entry.place)
        desk.hold(fault, statement.key)
        faults.append(fault)
    if entry.is_reversal:
        values["is_reversal"] = True
    if not entry.is_booked:
        values["is_provisional"] = True
    return values, faults


def _fault(entry: Entry, code: str, expected: str, path: str, found: str) -> Fault:
    place = Place(entry.place.sheet, entry.place.row, f"Ntry/{path}")
    return Fault(code, expected, found[:60], place)


def _fill(values: dict[str, Value], entry: Entry, detail: Flat) -> None:
    """The fields of a line from a transaction, and from its entry where that says nothing."""
    flat = entry.flat
    is_debit = detail.get("CdtDbtInd", flat.get("CdtDbtInd")) == "DBIT"
    # The other side of a reversal is the one that the first payment had.
    read_party(detail, "Cdtr" if is_debit != entry.is_reversal else "Dbtr", values)
    said = {
        "kind": read_kind(detail) or read_kind(flat),
        "number": pick(detail, "Refs/ChqNb"),
        "purpose": pick(detail, "RmtInf/Ustrd", "RmtInf/Strd/AddtlRmtInf", "AddtlTxInf")
        or flat.get("AddtlNtryInf", ""),
        "reference": pick(detail, "RmtInf/Strd/CdtrRefInf/Ref", "RmtInf/Strd/CdtrRefInf/CdtrRef"),
        "end_to_end": pick(detail, "Refs/EndToEndId", "Refs/InstrId", "Refs/PmtInfId"),
        "bank_reference": pick(detail, "Refs/AcctSvcrRef", "Refs/TxId")
        or pick(flat, "AcctSvcrRef", "NtryRef"),
        "mandate": pick(detail, "Refs/MndtId"),
    }
    values |= {name: text for name, text in said.items() if text}
    for source in (detail, flat):
        text = pick(source, "Chrgs/TtlChrgsAndTaxAmt", "Chrgs/Rcrd/Amt", "Chrgs/Amt")
        if text and (charges := parse_amount(text)):
            values["charges"] = plain(charges)
            break
    for source in (detail, flat):
        currency = source.get("AmtDtls/InstdAmt/Amt@", "")
        if currency and currency != values["currency"]:
            original = parse_amount(source["AmtDtls/InstdAmt/Amt"])
            if original is not None:
                values["original_amount"], values["original_currency"] = plain(original), currency
                break


def _share(entry: Entry, amount: Decimal) -> list[Decimal] | None:
    """The signed amount of each transaction, None unless they sum to the entry in its currency."""
    currency = entry.flat.get("Amt@", "")
    found: list[Decimal] = []
    for detail in entry.details:
        is_debit = detail.get("CdtDbtInd", entry.flat.get("CdtDbtInd")) == "DBIT"
        for path in ("Amt", "AmtDtls/TxAmt/Amt", "AmtDtls/InstdAmt/Amt"):
            part = sign(detail, path, is_debit=is_debit)
            if part is not None and detail.get(f"{path}@", currency) == currency:
                found.append(part)
                break
        else:
            return None
    return found if sum(found, ZERO) == amount else None


def _note(entry: Entry) -> str:
    """The transactions of an entry that stays one line, in words."""
    told = [
        " ".join(filter(None, (d.get("RmtInf/Ustrd"), d.get("Refs/EndToEndId"))))
        for d in entry.details[:20]
    ]
    return "; ".join(filter(None, (entry.flat.get("AddtlNtryInf", ""), *told)))[:2_000]
