"""camt as a stream of entries: each whole in memory, none longer than the next is asked for.

The entry's amount is booked, once. Where its transactions sum to it they are lines of their own;
where they do not, the entry is one line and that is told. CdtDbtInd is the sign, RvslInd never is.
"""

from __future__ import annotations

from collections.abc import Iterator

from connectors.formats.statements import Desk, Statement, fingerprint, parse_amount, plain
from connectors.formats.xml import LOCAL, Element, XmlFile
from connectors.sdk.contract import Fault, Progress, Rows
from connectors.systems.camt.entries import Entry, stage_entry
from connectors.systems.camt.flat import Flat, Paths, flatten, read_day, sign

_REPORTS = ("Stmt", "Rpt", "Ntfctn")
_OPENING = ("OPBD", "PRCD")
_BALANCES_MAX = 1_000


class Report:
    """What is known of a statement before its first entry."""

    def __init__(self) -> None:
        self.head: Flat = {}
        self.account: Flat = {}
        self.balances: list[Flat] = []
        self.summary: Flat = {}
        self.statement: Statement | None = None
        self.entries = 0
        self.made = ""


class Reader:
    """One reading of one document. `kind`: 052, 053 or 054; `desk`: where its rows go."""

    def __init__(self, xml: XmlFile, kind: str, desk: Desk, *, splits_batches: bool) -> None:
        self._xml, self._kind, self._splits = xml, kind, splits_batches
        self.desk = desk
        self._report = Report()
        self._paths = Paths()

    def read(self, total: int) -> Iterator[Rows | Progress]:
        """Whole blocks of rows, the rest stays on the desk; `total` is a guess for the progress."""
        desk, tags = self.desk, ("Acct", "Bal", "TxsSummry", "Ntry", *_REPORTS)
        for element in self._xml.iter_elements(*tags, whole=("Ntry",)):
            name = LOCAL[element.tag]
            if name == "Ntry":
                self._stage(element)
                if len(desk.block) >= 1_000:
                    yield from desk.flush(total=total)
            elif name == "Bal" and len(self._report.balances) < _BALANCES_MAX:
                self._report.balances.append(flatten(element, Paths())[0])
            elif name == "Acct" and LOCAL[element.getparent().tag] in _REPORTS:
                self._report.account = flatten(element, Paths())[0]
                self._report.head = flatten(element.getparent(), Paths())[0]
            elif name == "TxsSummry":
                self._report.summary = flatten(element, Paths())[0]
            elif name in _REPORTS:
                self._close(element)

    def _stage(self, element: Element) -> None:
        report = self._report
        if report.statement is None:
            report.statement = self._open(element)
        report.entries += 1
        self.desk.has_controls = self._xml.has_controls
        entry = Entry(element, self._xml, self._paths, report.made)
        stage_entry(self.desk, report.statement, entry, splits=self._splits)

    def _open(self, element: Element) -> Statement:
        """The statement, with its balances: they stand before the entries in every version."""
        report = self._report
        head = report.head = report.head or flatten(_report_of(element), Paths())[0]
        account = _read_account(report.account)
        currency = report.account.get("Ccy") or _currency_of(report.balances, element)
        opening = _balance(report.balances, _OPENING, currency)
        closing = _balance(report.balances, ("CLBD",), currency)
        number = head.get("ElctrncSeqNb") or head.get("LglSeqNb") or ""
        start = head.get("FrToDt/FrDtTm") or head.get("FrToDt/FrDt") or ""
        end = head.get("FrToDt/ToDtTm") or head.get("FrToDt/ToDt") or ""
        page = head.get("StmtPgntn/PgNb") or head.get("RptPgntn/PgNb") or ""
        known = (number, start, end, page, _mark(opening), _mark(closing))
        report.made = (head.get("CreDtTm") or end)[:10]
        own = "" if any(known) else head.get("Id", "")
        key = fingerprint("camt", self._kind, account, currency, *known, own)
        statement = self.desk.open(key, account, currency, self._xml.place_of(element))
        values = statement.values
        values |= {"number": number, "page": page, "from": start[:10], "to": end[:10]}
        values["account_name"] = report.account.get("Nm") or report.account.get("Ownr/Nm") or ""
        bank = "Svcr/FinInstnId/"
        values["bank"] = (
            report.account.get(f"{bank}BICFI") or report.account.get(f"{bank}BIC") or ""
        )
        if opening is not None:
            statement.opening = sign(opening, "Amt", is_debit=opening.get("CdtDbtInd") == "DBIT")
            values["opening_date"] = read_day(opening, "Dt") or ""
        if closing is not None:
            statement.closing = sign(closing, "Amt", is_debit=closing.get("CdtDbtInd") == "DBIT")
            values["closing_date"] = read_day(closing, "Dt") or ""
        report.made = report.made or str(values.get("closing_date") or "")
        has_both = statement.opening is not None and statement.closing is not None
        statement.is_provisional = self._kind != "053" and not has_both
        for name, path in (("total_in", "TtlCdtNtries/Sum"), ("total_out", "TtlDbtNtries/Sum")):
            amount = parse_amount(report.summary.get(path, ""))
            values[name] = plain(amount) if amount is not None else None
        return statement

    def _close(self, element: Element) -> None:
        report = self._report
        statement = report.statement or self._open(element)
        self.desk.close(statement, wants_balances=True)
        declared = report.summary.get("TtlNtries/NbOfNtries", "")
        if declared.isdigit() and int(declared) != report.entries:
            found = f"{report.entries} entries"
            place = statement.place
            self.desk.warn(Fault("count-mismatch", f"{declared} entries", found, place))
        self._report = Report()


def _report_of(element: Element) -> Element:
    while LOCAL[element.tag] not in _REPORTS and element.getparent() is not None:
        element = element.getparent()
    return element


def _read_account(account: Flat) -> str:
    found = account.get("Id/IBAN") or account.get("Id/Othr/Id") or account.get("Id/PrtryAcct/Id")
    return (found or account.get("Id/BBAN") or account.get("Id/UPIC") or "").replace(" ", "")


def _currency_of(balances: list[Flat], element: Element) -> str:
    for balance in balances:
        if balance.get("Amt@"):
            return balance["Amt@"]
    if LOCAL[element.tag] == "Ntry":
        return flatten(element, Paths())[0].get("Amt@", "")
    return ""


def _balance(balances: list[Flat], codes: tuple[str, ...], currency: str) -> Flat | None:
    """The balance of the first of these codes, in the currency of the account."""
    for code in codes:
        for balance in balances:
            said = balance.get("Tp/CdOrPrtry/Cd") or balance.get("Tp/Cd") or ""
            if said == code and balance.get("Amt@", currency) in (currency, ""):
                return balance
    return None


def _mark(balance: Flat | None) -> str:
    if balance is None:
        return ""
    amount = parse_amount(balance.get("Amt", ""))
    shown = str(amount.normalize()) if amount is not None else ""
    return f"{balance.get('CdtDbtInd')} {shown} {read_day(balance, 'Dt')}"
