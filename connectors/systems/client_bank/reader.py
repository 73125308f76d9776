"""The text as sections: balances of accounts, documents, one document in memory at a time.

Lines of a document go to the section of its account whose days hold it; the sections' own rows
follow at the end, each with its sum. An order that was only written is no line of an account.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from connectors.formats.lines import Text
from connectors.formats.statements import Desk, Statement, fingerprint, parse_amount
from connectors.sdk.contract import Fault, Place, Progress, Refused, Rows, Summary
from connectors.systems.client_bank.documents import (
    Document,
    fill_line,
    find_currency,
    find_sides,
    is_executed,
    name_currency,
    parse_date,
)

_FIELDS_MAX = 2_000
_CHARS_MAX = 4 << 20
_SECTIONS_MAX = 50_000
_END = "конецфайла"


class Section:
    """Balances of one account over some days."""

    __slots__ = ("end", "start", "statement", "total_in", "total_out")

    def __init__(self, statement: Statement, start: str, end: str) -> None:
        self.statement, self.start, self.end = statement, start, end
        self.total_in: Decimal | None = None
        self.total_out: Decimal | None = None


class Reader:
    """One reading of one file."""

    def __init__(self, text: Text, accounts: list[str], currency: str) -> None:
        self._text, self._currency = text, currency
        self._desk = Desk(has_controls=text.has_controls)
        self._desk.warnings.extend(text.warnings)
        self._own: dict[str, str] = dict.fromkeys(accounts, currency)
        self._sections: dict[str, list[Section]] = {}
        self._names: dict[str, str] = {}
        self._documents = self._unexecuted = 0
        self._period = ("", "")

    def read(self, total: int) -> Iterator[Rows | Progress | Summary]:
        """Rows block by block; `total` of rows is a guess for the progress."""
        desk, names = self._desk, self._names
        fields: Document = {}
        inside, start, number, size, is_ended = "", 0, 0, 0, False
        for number, line in enumerate(self._text.lines(), 1):
            key, mark, value = line.partition("=")
            name = names.get(key) or self._fold(key)
            if mark and inside:
                size += len(value)
                if value and not fields.get(name):
                    fields[name] = value.strip()
                if name == "секциядокумент":
                    self._warn_unclosed(inside, start)
                    self._take(inside, fields, start)
                    inside, start, fields = name, number, {name: value.strip()}
                elif len(fields) > _FIELDS_MAX or size > _CHARS_MAX:
                    expected = f"a section of at most {_FIELDS_MAX} fields"
                    raise Refused(Fault("too-large-node", expected, "", Place(row=start)))
            elif name in ("секциядокумент", "секциярасчсчет"):
                if inside:
                    self._warn_unclosed(inside, start)
                    self._take(inside, fields, start)
                inside, start, size, fields = name, number, 0, {name: value.strip()}
            elif name in ("конецдокумента", "конецрасчсчет"):
                self._take(inside, fields, start)
                inside, fields = "", {}
                if len(desk.block) >= 1_000:
                    yield from desk.flush(total=total)
            elif name == _END or _heal(line) == _END:
                is_ended = True
                break
            elif inside:
                self._add_loose(inside, fields, line.strip())
            elif mark:
                self._head(name, value.strip())
        yield from self._finish(inside, is_ended=is_ended, row=number)

    def _finish(
        self, inside: str, *, is_ended: bool, row: int
    ) -> Iterator[Rows | Progress | Summary]:
        desk = self._desk
        if inside:
            end = "КонецДокумента" if inside == "секциядокумент" else "КонецРасчСчет"
            raise Refused(Fault("truncated", end, "the end of the file", Place(row=row)))
        self._close(is_ended=is_ended)
        yield from desk.flush(every=1)
        facts = {"documents": str(self._documents)}
        if self._unexecuted:
            facts["not_executed"] = str(self._unexecuted)
        yield desk.summary(facts)

    def _fold(self, key: str) -> str:
        """Names compare without case and blanks; those seen are remembered."""
        name = key.strip().casefold()
        if len(self._names) < _FIELDS_MAX:
            self._names[key] = name
        return name

    def _warn_unclosed(self, inside: str, row: int) -> None:
        fault = Fault("unclosed-section", "the end of the section", inside, Place(row=row))
        self._desk.warn(fault)

    def _add_loose(self, inside: str, fields: Document, line: str) -> None:
        """A line without '=': the kind of a document on its own line, or a purpose that goes on."""
        if not line:
            return
        if inside == "секциядокумент" and len(fields) == 1 and not fields[inside]:
            fields[inside] = line
        elif inside == "секциядокумент" and len(fields.get("назначениеплатежа", "")) in range(
            1, 2_000
        ):
            fields["назначениеплатежа"] = f"{fields['назначениеплатежа']} {line}"

    def _head(self, name: str, value: str) -> None:
        if name == "расчсчет" and value:
            self._own.setdefault(value, self._currency)
        elif name == "датаначала":
            self._period = (parse_date(value) or "", self._period[1])
        elif name == "датаконца":
            self._period = (self._period[0], parse_date(value) or "")

    def _take(self, inside: str, fields: Document, row: int) -> None:
        if inside == "секциярасчсчет":
            self._open_section(fields, row)
        elif inside == "секциядокумент":
            self._stage(fields, row)

    def _open_section(self, fields: Document, row: int) -> None:
        place = Place(row=row)
        account = fields.get("расчсчет", "")
        currency = name_currency(fields.get("валюта", "")) or find_currency(account)
        self._own[account] = currency = currency or self._currency
        start, end = (
            parse_date(fields.get("датаначала", "")),
            parse_date(fields.get("датаконца", "")),
        )
        opening = parse_amount(fields.get("начальныйостаток", ""))
        key = fingerprint("1c", account, start or "", end or "", str(opening))
        statement = self._desk.open(key, account, currency, place)
        statement.opening = opening
        statement.closing = parse_amount(fields.get("конечныйостаток", ""))
        for name in ("начальныйостаток", "конечныйостаток"):
            text = fields.get(name, "")
            if text and parse_amount(text) is None:
                fault = Fault("malformed-balance", "an amount with '.'", text[:40], place)
                self._desk.hold(fault, key)
        statement.values |= {"from": start or "", "to": end or "", "bank": fields.get("бик", "")}
        if start:
            statement.values["opening_date"] = start
        if end:
            statement.values["closing_date"] = end
        section = Section(statement, start or "", end or "")
        section.total_in = parse_amount(fields.get("всегопоступило", ""))
        section.total_out = parse_amount(fields.get("всегосписано", ""))
        if section.total_in is not None:
            statement.values["total_in"] = format(section.total_in, "f")
        if section.total_out is not None:
            statement.values["total_out"] = format(section.total_out, "f")
        sections = self._sections.setdefault(account, [])
        sections.append(section)
        if len(sections) > _SECTIONS_MAX or len(self._sections) > _SECTIONS_MAX:
            expected = f"at most {_SECTIONS_MAX} sections of balances"
            raise Refused(Fault("too-large-node", expected, "more", place))

    def _stage(self, document: Document, row: int) -> None:
        self._documents += 1
        place = Place(row=row)
        if not is_executed(document):
            self._unexecuted += 1
            found = f"{document.get('секциядокумент', '')} {document.get('номер', '')}".strip()
            expected = "ДатаСписано or ДатаПоступило of an executed document"
            self._desk.warn(Fault("not-executed", expected, found, place))
            return
        sides = find_sides(document, self._own)
        for account, ours, theirs in sides:
            statement = self._find_statement(account, document, ours)
            values = statement.begin_line()
            amount, faults = fill_line(document, ours, theirs, place, values)
            self._desk.add_line(statement, place, values, amount, faults)
        if not sides:
            self._refuse(document, place)

    def _refuse(self, document: Document, place: Place) -> None:
        """A document that is neither a debit nor a credit of an account of ours."""
        expected = "the payer's or the payee's account among " + (", ".join(self._own) or "none")
        payer, payee = document.get("плательщиксчет", ""), document.get("получательсчет", "")
        fault = Fault("not-ours", expected[:300], f"{payer} to {payee}", place)
        statement = Statement("", "", "", place)
        values = statement.begin_line()
        fill_line(document, "получатель", "плательщик", place, values)
        self._desk.add_line(statement, place, values, None, (fault,))

    def _find_statement(self, account: str, document: Document, ours: str) -> Statement:
        """The section whose days hold the document; the only one there is; or one of its own for
        an account without a section.
        """
        sections = self._sections.get(account)
        if not sections:
            start, end = self._period
            currency = self._own[account] or find_currency(account) or self._currency
            key = fingerprint("1c", account, start, end, "None")
            statement = self._desk.open(key, account, currency, Place(row=1))
            statement.values |= {"from": start, "to": end}
            sections = self._sections[account] = [Section(statement, start, end)]
        if len(sections) == 1:
            return sections[0].statement
        names = ("датасписано", "датапоступило")
        first, second = names if ours == "плательщик" else names[::-1]
        day = parse_date(document.get(first, "")) or parse_date(document.get(second, "")) or ""
        return next(
            (s.statement for s in sections if s.start <= day <= (s.end or day)),
            sections[-1].statement,
        )

    def _close(self, *, is_ended: bool) -> None:
        desk = self._desk
        for sections in self._sections.values():
            for section in sections:
                desk.close(section.statement, wants_balances=True)
                self._compare_totals(section)
        if not is_ended:
            fault = Fault("unclosed-file", "КонецФайла", "the end of the file")
            desk.warn(fault)
            if not self._sections:
                desk.hold(fault, "*")

    def _compare_totals(self, section: Section) -> None:
        """What the bank says came and went, against what was read: a document that is missing
        twice with opposite signs would still tie.
        """
        statement = section.statement
        if section.total_in is None or section.total_out is None:
            return
        declared = section.total_in - section.total_out
        if declared != statement.net:
            expected = f"in {section.total_in}, out {section.total_out}"
            fault = Fault("totals-mismatch", expected, f"net {statement.net}", statement.place)
            self._desk.hold(fault, statement.key)


def _heal(line: str) -> str:
    """Some banks append the last line in another encoding than the rest."""
    if line.isascii() or len(line) > 40:
        return ""
    for one, other in (("cp1251", "utf-8"), ("cp866", "cp1251"), ("cp866", "utf-8")):
        try:
            if (text := line.strip().encode(one).decode(other).casefold()) == _END:
                return text
        except UnicodeError:
            continue
    return ""
