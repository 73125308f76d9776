"""A document of the file as a bank line: whose account it moves, which way, with whom."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from functools import lru_cache

from connectors.formats.statements import parse_amount
from connectors.sdk.contract import Fault, Place, Value

_DATE = re.compile(r"(\d{2})\.(\d{2})\.(\d{4})")
_EMPTY = frozenset({"", "00.00.0000", "01.01.0001", "30.12.1899", ".  .", "  .  ."})
_CODES = {
    "810": "RUB",
    "643": "RUB",
    "840": "USD",
    "978": "EUR",
    "156": "CNY",
    "398": "KZT",
    "933": "BYN",
    "974": "BYN",
    "980": "UAH",
    "826": "GBP",
    "756": "CHF",
    "392": "JPY",
    "949": "TRY",
    "784": "AED",
    "356": "INR",
    "051": "AMD",
    "417": "KGS",
    "860": "UZS",
    "944": "AZN",
    "985": "PLN",
}
_COUNTRIES = {"UA": "UAH", "KZ": "KZT", "BY": "BYN", "GE": "GEL", "AZ": "AZN"}
_ISO = re.compile(r"[A-Z]{3}")
_TAX_ID = re.compile(r"^\s*ИНН\s+(\d{10,12})\s+")

Document = dict[str, str]


@lru_cache(maxsize=4_096)
def parse_date(text: str) -> str | None:
    """dd.mm.yyyy as ISO text; '' for what means none; None for what is malformed."""
    text = text.strip()
    if text in _EMPTY:
        return ""
    found = _DATE.fullmatch(text)
    if found is None:
        return None
    try:
        day = date(int(found[3]), int(found[2]), int(found[1]))
    except ValueError:
        return None
    return day.isoformat() if day.year >= 1900 else ""


@lru_cache(maxsize=4_096)
def find_currency(account: str) -> str:
    """The currency that an account's number tells: positions 6 to 8 of the Russian twenty, the
    country of an IBAN. '' when it tells none.
    """
    if len(account) == 20 and account.isdigit():
        return _CODES.get(account[5:8], "")
    return _COUNTRIES.get(account[:2], "") if account[2:4].isdigit() else ""


def name_currency(text: str) -> str:
    """A currency as the file writes it: a code of letters or of digits."""
    text = text.strip().upper()
    text = {"RUR": "RUB", "BYR": "BYN"}.get(text, text)
    return text if _ISO.fullmatch(text) else _CODES.get(text, "")


def account_of(document: Document, side: str) -> str:
    """The account of the payer or the payee."""
    return document.get(f"{side}счет", "") or document.get(f"{side}расчсчет", "")


def find_sides(document: Document, own: dict[str, str]) -> list[tuple[str, str, str]]:
    """Own account, our side, the other side. Two for a transfer between own accounts, none when
    it cannot be told whose money it was.
    """
    found = []
    for ours, theirs in (("плательщик", "получатель"), ("получатель", "плательщик")):
        for key in ("счет", "расчсчет"):
            account = document.get(ours + key, "")
            if account in own:
                found.append((account, ours, theirs))
                break
    if not found and len(own) == 1:
        account = next(iter(own))
        out, came = document.get("датасписано", ""), document.get("датапоступило", "")
        if bool(out.strip()) != bool(came.strip()):
            sides = ("плательщик", "получатель")
            found.append((account, *(sides if out.strip() else sides[::-1])))
    return found


def is_executed(document: Document) -> bool:
    """Whether money has moved: an order that is only written has neither date."""
    return bool(
        document.get("датасписано", "").strip() or document.get("датапоступило", "").strip()
    )


def fill_line(
    document: Document, ours: str, theirs: str, place: Place, values: dict[str, Value]
) -> tuple[Decimal | None, tuple[Fault, ...]]:
    """The fields of a line into `values`; its signed amount and its faults."""
    get = document.get
    faults: list[Fault] = []
    is_out = ours == "плательщик"
    for key, name in (
        (
            ("датасписано", "датапоступило") if is_out else ("датапоступило", "датасписано"),
            "booked",
        ),
        (("дата",), "document_date"),
    ):
        text = next((get(k, "") for k in key if get(k, "").strip()), "")
        day = parse_date(text)
        if day is None:
            at = Place(row=place.row, column=key[0])
            faults.append(Fault("malformed-date", "dd.mm.yyyy", text[:40], at))
        elif day:
            values[name] = day
    amount = parse_amount(get("сумма", ""))
    if amount is None or amount < 0:
        at = Place(row=place.row, column="сумма")
        expected = "an amount with '.' and without a sign"
        faults.append(Fault("malformed-amount", expected, get("сумма", "")[:40], at))
        amount = None
    if "booked" not in values and not faults:
        faults.append(Fault("missing-date", "ДатаСписано or ДатаПоступило", "none", place))
    said = {
        "number": get("номер", ""),
        "kind": get("секциядокумент", ""),
        "counterparty_account": account_of(document, theirs),
        "counterparty_bank": get(f"{theirs}бик", "") or get(f"{theirs}мфо", ""),
        "purpose": _read_purpose(document),
        "reference": get("код", "") if get("код", "").strip("0 ") else "",
    }
    values |= {name: value for name, value in said.items() if value}
    _name_party(document, theirs, values)
    return (-amount if is_out else amount) if amount is not None else None, tuple(faults)


def _name_party(document: Document, side: str, values: dict[str, Value]) -> None:
    name = document.get(f"{side}1", "") or document.get(side, "")
    tax_id = document.get(f"{side}инн", "") or document.get(f"{side}едрпоу", "")
    if found := _TAX_ID.match(name):
        name, tax_id = name[found.end() :], tax_id or found[1]
    if name:
        values["counterparty"] = name
    if tax_id.strip("0"):
        values["counterparty_tax_id"] = tax_id


def _read_purpose(document: Document) -> str:
    text = document.get("назначениеплатежа", "")
    if not text:
        parts = (document.get(f"назначениеплатежа{n}", "") for n in range(1, 7))
        text = " ".join(p for p in parts if p)
    return text
