"""Payment orders as 1CClientBankExchange text: cp1251 (or cp866), CRLF, version 1.03.

All that a bank's own check would find is found first: lengths, control digits of ИНН and accounts,
letters that the code page lacks, line ends that would begin another field.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal

from connectors.formats.identifiers import (
    is_iban,
    is_russian_account,
    is_russian_tax_id,
    is_ukrainian_tax_id,
)
from connectors.formats.lines import find_control
from connectors.sdk.contract import Fault, Place
from connectors.sdk.payments import Party, PaymentBatch, PaymentOrder, Unwritable

PURPOSE_MAX, NAME_MAX = 210, 160
_AMOUNT_MAX = Decimal("1e15")
_ENCODINGS = {"cp1251": "Windows", "cp866": "DOS"}
_SIDES = {"payer": "Плательщик", "payee": "Получатель"}


class OrderWriter:
    """Writes 1CClientBankExchange. `encoding`: cp1251, or cp866 for old bank clients."""

    def __init__(self, encoding: str = "cp1251") -> None:
        if encoding not in _ENCODINGS:
            raise ValueError(f"encoding is one of {', '.join(_ENCODINGS)}, not {encoding}")
        self._encoding = encoding

    def write(self, batch: PaymentBatch) -> bytes:
        """See sdk.payments.PaymentWriter."""
        faults = _Faults(self._encoding)
        if not batch.orders:
            faults.add(0, "orders", "empty-batch", "at least one order", "none")
        faults.check_text(0, "sender", batch.sender, NAME_MAX)
        _check_party(faults, 0, "payer", batch.payer)
        numbers: set[str] = set()
        for row, order in enumerate(batch.orders, 1):
            _check_order(faults, row, order, batch)
            if order.number in numbers:
                faults.add(row, "number", "duplicate-number", "each number once", order.number)
            numbers.add(order.number)
        if faults.found:
            raise Unwritable(tuple(faults.found))
        lines = _write_head(batch, _ENCODINGS[self._encoding])
        for order in batch.orders:
            lines += _write_order(batch.payer, order)
        lines.append("КонецФайла")
        return "".join(f"{line}\r\n" for line in lines).encode(self._encoding)


def write_orders(batch: PaymentBatch, encoding: str = "cp1251") -> bytes:
    """The file of a batch. Raises Unwritable with all faults."""
    return OrderWriter(encoding).write(batch)


class _Faults:
    def __init__(self, encoding: str) -> None:
        self.found: list[Fault] = []
        self._encoding = encoding

    def add(self, row: int, column: str, code: str, expected: str, found: str) -> None:
        self.found.append(Fault(code, expected, found[:80], Place(row=row, column=column)))

    def check_text(self, row: int, column: str, text: str, longest: int) -> None:
        if len(text) > longest:
            self.add(row, column, "too-long", f"at most {longest} characters", f"{len(text)}")
        if find_control(text) or any(c in text for c in "\r\n\t"):
            self.add(row, column, "control-character", "one line of text", repr(text))
        lost = sorted({c for c in text if not _fits(c, self._encoding)})
        if lost:
            expected = f"letters of {self._encoding}"
            self.add(row, column, "unencodable", expected, " ".join(lost))

    def check_form(self, row: int, column: str, text: str, form: str, expected: str) -> None:
        if not re.fullmatch(form, text):
            self.add(row, column, "malformed", expected, text)


def _fits(char: str, encoding: str) -> bool:
    try:
        char.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _check_order(faults: _Faults, row: int, order: PaymentOrder, batch: PaymentBatch) -> None:
    faults.check_form(row, "number", order.number, "[0-9]{1,6}", "a number of at most six digits")
    if order.execute_on < batch.made.date():
        shown = order.execute_on.isoformat()
        faults.add(row, "execute_on", "past-date", f"{batch.made.date()} or later", shown)
    amount = order.amount
    if not amount.is_finite() or not 0 < amount < _AMOUNT_MAX:
        faults.add(row, "amount", "malformed-amount", "an amount above zero", str(amount))
    elif amount != amount.quantize(Decimal("0.01")):
        faults.add(row, "amount", "malformed-amount", "two decimals", str(amount))
    _check_party(faults, row, "payee", order.payee)
    if not order.purpose.strip():
        faults.add(row, "purpose", "missing", "what the payment is for", "none")
    faults.check_text(row, "purpose", order.purpose, PURPOSE_MAX)
    faults.check_text(row, "kind", order.kind, NAME_MAX)
    faults.check_form(row, "priority", order.priority, "[1-5]", "a priority of 1 to 5")
    if order.code:
        form, expected = "0|[0-9]{20}|[0-9]{25}", "0 or an УИН of 20 or 25 digits"
        faults.check_form(row, "code", order.code, form, expected)
    if order.budget is not None:
        budget = order.budget
        faults.check_form(row, "kbk", budget.kbk, "0|[0-9]{20}", "a КБК of 20 digits")
        faults.check_form(row, "oktmo", budget.oktmo, "0|[0-9]{8}|[0-9]{11}", "8 or 11 digits")
        faults.check_form(row, "status", budget.status, "[0-9]{2}", "two digits")
        for name in ("basis", "period", "document_number", "document_date"):
            faults.check_text(row, name, getattr(budget, name), 15)


def _check_party(faults: _Faults, row: int, side: str, party: Party) -> None:
    if not party.name.strip():
        faults.add(row, f"{side}.name", "missing", "a name", "none")
    for name in ("name", "bank_name", "bank_city"):
        faults.check_text(row, f"{side}.{name}", getattr(party, name), NAME_MAX)
    is_ukrainian = party.account.startswith("UA")
    check: Callable[[str], bool] = is_russian_tax_id
    if is_ukrainian:
        check = is_ukrainian_tax_id
        if not is_iban(party.account):
            expected = "an IBAN of 29 with right check digits"
            faults.add(row, f"{side}.account", "wrong-check-digit", expected, party.account)
        if party.bank:
            faults.check_form(row, f"{side}.bank", party.bank, "[0-9]{6}", "a МФО of six digits")
    else:
        _check_russian(faults, row, side, party)
    if party.tax_id and party.tax_id != "0" and not check(party.tax_id):
        kind = "a ЄДРПОУ or РНОКПП" if is_ukrainian else "an ИНН of 10 or 12"
        expected = f"{kind} with right check digits"
        faults.add(row, f"{side}.tax_id", "wrong-check-digit", expected, party.tax_id)


def _check_russian(faults: _Faults, row: int, side: str, party: Party) -> None:
    faults.check_form(row, f"{side}.bank", party.bank, "[0-9]{9}", "a БИК of nine digits")
    faults.check_form(row, f"{side}.account", party.account, "[0-9]{20}", "twenty digits")
    is_formed = re.fullmatch("[0-9]{9}", party.bank) is not None
    for name in ("account", "correspondent"):
        account = getattr(party, name)
        if not is_formed or not re.fullmatch("[0-9]{20}", account):
            if name == "correspondent" and account and is_formed:
                faults.add(row, f"{side}.{name}", "malformed", "twenty digits", account)
        elif not is_russian_account(account, party.bank):
            expected = f"an account of the bank {party.bank}"
            faults.add(row, f"{side}.{name}", "wrong-check-digit", expected, account)
    if party.registration_code:
        code, expected = party.registration_code, "a КПП of nine"
        faults.check_form(
            row, f"{side}.registration_code", code, "0|[0-9]{4}[0-9A-Z]{2}[0-9]{3}", expected
        )


def _write_head(batch: PaymentBatch, encoding: str) -> list[str]:
    days = [order.execute_on for order in batch.orders]
    kinds = dict.fromkeys(order.kind for order in batch.orders)
    return [
        "1CClientBankExchange",
        "ВерсияФормата=1.03",
        f"Кодировка={encoding}",
        f"Отправитель={batch.sender}",
        "Получатель=",
        f"ДатаСоздания={batch.made:%d.%m.%Y}",
        f"ВремяСоздания={batch.made:%H:%M:%S}",
        f"ДатаНачала={min(days):%d.%m.%Y}",
        f"ДатаКонца={max(days):%d.%m.%Y}",
        f"РасчСчет={batch.payer.account}",
        *(f"Документ={kind}" for kind in kinds),
    ]


def _write_order(payer: Party, order: PaymentOrder) -> list[str]:
    lines = [
        f"СекцияДокумент={order.kind}",
        f"Номер={order.number}",
        f"Дата={order.execute_on:%d.%m.%Y}",
        f"Сумма={order.amount:.2f}",
        *_write_party(_SIDES["payer"], payer),
        *_write_party(_SIDES["payee"], order.payee),
        "ВидОплаты=01",
        f"Код={order.code or '0'}",
    ]
    if order.budget is not None:
        budget = order.budget
        lines += [
            f"СтатусСоставителя={budget.status}",
            f"ПоказательКБК={budget.kbk}",
            f"ОКАТО={budget.oktmo}",
            f"ПоказательОснования={budget.basis}",
            f"ПоказательПериода={budget.period}",
            f"ПоказательНомера={budget.document_number}",
            f"ПоказательДаты={budget.document_date}",
        ]
    return [
        *lines,
        f"Очередность={order.priority}",
        f"НазначениеПлатежа={order.purpose}",
        "КонецДокумента",
    ]


def _write_party(side: str, party: Party) -> list[str]:
    tax = f"ИНН {party.tax_id} " if party.tax_id else ""
    found = {
        "Счет": party.account,
        "": f"{tax}{party.name}",
        "ИНН": party.tax_id,
        "КПП": party.registration_code,
        "1": party.name,
        "РасчСчет": party.account,
        "Банк1": party.bank_name,
        "Банк2": party.bank_city,
        "БИК": party.bank,
        "Корсчет": party.correspondent,
    }
    return [f"{side}{name}={value}" for name, value in found.items()]
