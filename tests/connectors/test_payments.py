"""Payment orders out: every fault before a byte, and files that schemas and banks would take."""

from datetime import UTC, date, datetime
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from connectors.formats.identifiers import (
    is_creditor_reference,
    is_iban,
    is_russian_account,
    is_russian_tax_id,
    is_ukrainian_tax_id,
)
from connectors.sdk.payments import Budget, Party, PaymentBatch, PaymentOrder, Unwritable
from connectors.systems.client_bank import OrderWriter
from connectors.systems.pain001 import TransferWriter, read_batch
from connectors.systems.pain001.checks import transliterate
from tests.connectors.statements import SAMPLES, Told, files_of

SCHEMAS = SAMPLES.parent / "schemas" / "iso20022"
MADE = datetime(2026, 6, 5, 10, 30, tzinfo=UTC)
DAY = date(2026, 6, 8)
BIK = "044525225"


def account(bank, start, weights=(7, 1, 3) * 8):
    """A Russian account with its control digit, by search: no knowledge shared with the checks."""
    for key in range(10):
        number = f"{start[:8]}{key}{start[9:]}"
        if sum(int(d) * w % 10 for d, w in zip(bank[6:] + number, weights, strict=False)) % 10 == 0:
            return number
    raise AssertionError


RUSSIAN = Party(
    name="ООО Ромашка", account=account(BIK, "40702810000000000001"), bank=BIK, bank_name="ПАО Банк",
    bank_city="г. Москва", correspondent="30101810400000000225", tax_id="7707083893",
    registration_code="770701001",
)  # fmt: skip
PAYEE = msgspec.structs.replace(
    RUSSIAN, name="АО Вектор", account=account(BIK, "40702810900000000777")
)
ORDER = PaymentOrder(
    number="15", execute_on=DAY, amount=Decimal("1500.50"), currency="RUB", payee=PAYEE,
    purpose="Оплата по счёту № 7 от 01.06.2026. В т.ч. НДС 20% 250-08",
)  # fmt: skip
EUROPEAN = Party(
    name="Romashka GmbH",
    account="DE89370400440532013000",
    bank="COBADEFFXXX",
    city="Koeln",
    country="DE",
)
SELLER = Party(name="Vector SARL", account="FR1420041010050500013M02606", street="Rue X", building="4",
               post_code="75001", city="Paris", country="FR")  # fmt: skip
TRANSFER = PaymentOrder(number="A-15", execute_on=DAY, amount=Decimal("99.90"), currency="EUR", payee=SELLER,
                        purpose="Invoice 2026/7")  # fmt: skip
UKRAINIAN = Party(
    name="ТОВ Ромашка", account="UA213223130000026007233566001", bank="322313", tax_id="14360570"
)


def batch(*orders, payer=RUSSIAN, key="M-1"):
    return PaymentBatch(key=key, made=MADE, payer=payer, orders=orders)


def change(thing, **changes):
    return msgspec.structs.replace(thing, **changes)


def faults_of(writer, found):
    with pytest.raises(Unwritable) as told:
        writer.write(found)
    return [(f.place.row, f.place.column, f.code) for f in told.value.faults]


def test_check_digits_by_known_numbers():
    assert is_iban("UA213223130000026007233566001") and is_iban("GB82WEST12345698765432")
    assert is_iban("KZ86125KZT5004100100") and not is_iban("UA213223130000026007233566010")
    assert not is_iban("DE8937040044053201300") and not is_iban("de89370400440532013000")
    assert is_russian_tax_id("7707083893") and is_russian_tax_id("500100732259")
    assert not is_russian_tax_id("7707083894") and not is_russian_tax_id("500100732258")
    assert is_ukrainian_tax_id("14360570") and not is_ukrainian_tax_id("14360571")
    assert is_russian_account("30101810400000000225", BIK)
    assert not is_russian_account("30101810400000000226", BIK)
    assert is_creditor_reference("RF18 5390 0754 7034") and not is_creditor_reference(
        "RF19539007547034"
    )


@settings(max_examples=100, deadline=None)
@given(st.text("0123456789", min_size=20, max_size=20), st.integers(0, 19), st.integers(1, 9))
def test_one_wrong_digit_of_an_account_is_seen(digits, place, by):
    number = account(BIK, "4" + digits[1:])
    wrong = number[:place] + str((int(number[place]) + by) % 10) + number[place + 1 :]
    assert is_russian_account(number, BIK)
    # Weights are odd and no multiples of five: each single digit counts.
    assert not is_russian_account(wrong, BIK) or wrong.startswith("30101")


def test_orders_are_written_as_1c_reads_them(tmp_path):
    budget = Budget(
        status="01", kbk="18210301000011000110", oktmo="45382000", basis="ТП", period="МС.05.2026"
    )
    tax = change(ORDER, number="16", amount=Decimal(7), budget=budget, code="0")
    data = OrderWriter().write(batch(ORDER, tax))
    text = data.decode("cp1251")
    assert text.count("\r\n") == text.count("\n") and text.endswith("КонецФайла\r\n")
    lines = text.split("\r\n")
    assert lines[:3] == ["1CClientBankExchange", "ВерсияФормата=1.03", "Кодировка=Windows"]
    for wanted in ("Номер=15", "Дата=08.06.2026", "Сумма=1500.50", "Сумма=7.00", "ПлательщикИНН=7707083893",
                   "Плательщик=ИНН 7707083893 ООО Ромашка", f"ПолучательСчет={PAYEE.account}", "Очередность=5",
                   "ПоказательКБК=18210301000011000110", "ДатаНачала=08.06.2026",
                   f"НазначениеПлатежа={ORDER.purpose}"):  # fmt: skip
        assert wanted in lines, wanted
    assert lines.count("СекцияДокумент=Платежное поручение") == lines.count("КонецДокумента") == 2
    path = tmp_path / "out.txt"
    path.write_bytes(data)
    told = Told("client_bank", path)  # orders that are not executed are no lines of an account
    assert not told.lines and told.summary.facts == {"documents": "2", "not_executed": "2"}
    assert (
        OrderWriter("cp866").write(batch(ORDER)).decode("cp866").splitlines()[2] == "Кодировка=DOS"
    )


def test_an_order_of_ukraine(tmp_path):
    order = change(
        ORDER,
        payee=change(UKRAINIAN, name="ТОВ «Їжак»"),
        currency="UAH",
        purpose="Сплата за рахунком",
    )
    text = OrderWriter().write(batch(order, payer=UKRAINIAN)).decode("cp1251")
    assert (
        "Получатель1=ТОВ «Їжак»" in text and "ПлательщикСчет=UA213223130000026007233566001" in text
    )
    wrong = change(
        order, payee=change(UKRAINIAN, tax_id="14360571", account="UA213223130000026007233566002")
    )
    assert {f[2] for f in faults_of(OrderWriter(), batch(wrong, payer=UKRAINIAN))} == {
        "wrong-check-digit"
    }


def test_every_fault_of_orders_at_once():
    wrong = PaymentOrder(
        number="1234567", execute_on=date(2026, 6, 4), amount=Decimal("10.005"), currency="RUB",
        payee=change(PAYEE, name="x" * 161, account=PAYEE.account[:-1] + "8", bank="04452522", tax_id="7707083890",
                     registration_code="7"),
        purpose="ы" * 211, priority="9", code="12",
    )  # fmt: skip
    other = change(
        ORDER,
        purpose="два\r\nКонецДокумента",
        payee=change(PAYEE, name="株式会社", account=PAYEE.account[:-1] + "0"),
    )
    same = change(ORDER, amount=Decimal(0))
    found = faults_of(OrderWriter(), batch(wrong, other, same))
    assert set(found) == {
        (1, "number", "malformed"), (1, "execute_on", "past-date"), (1, "amount", "malformed-amount"),
        (1, "payee.name", "too-long"), (1, "payee.bank", "malformed"), (1, "payee.tax_id", "wrong-check-digit"),
        (1, "payee.registration_code", "malformed"), (1, "purpose", "too-long"), (1, "priority", "malformed"),
        (1, "code", "malformed"), (2, "purpose", "control-character"), (2, "payee.name", "unencodable"),
        (2, "payee.account", "wrong-check-digit"), (3, "number", "duplicate-number"),
        (3, "amount", "malformed-amount"),
    }  # fmt: skip
    assert faults_of(OrderWriter(), batch()) == [(0, "orders", "empty-batch")]


def schema(version):
    path = SCHEMAS / f"pain.001.001.{version}.xsd"
    if not path.exists():
        pytest.skip("the schemas are not part of the repository")
    return etree.XMLSchema(etree.parse(str(path)))


@pytest.mark.parametrize("version", ["03", "09"])
@pytest.mark.parametrize("is_sepa", [True, False])
def test_transfers_are_valid_and_read_back(tmp_path, version, is_sepa):
    later = change(
        TRANSFER,
        number="A-16",
        execute_on=date(2026, 6, 9),
        purpose="",
        reference="RF18539007547034",
    )
    orders = [later, TRANSFER]
    if not is_sepa:
        hryvnia = change(TRANSFER, number="A-17", amount=Decimal("1000.01"), currency="UAH", payee=UKRAINIAN,
                         purpose="Сплата за рахунком № 7")  # fmt: skip
        yen = change(TRANSFER, number="A-18", amount=Decimal(5000), currency="JPY",
                     payee=Party(name="KK", account="1234567", bank="BOTKJPJT", city="Tokyo", country="JP"))  # fmt: skip
        orders += [hryvnia, yen]
    data = TransferWriter(version, is_sepa=is_sepa).write(batch(*orders, payer=EUROPEAN))
    schema(version).assertValid(etree.fromstring(data))
    path = tmp_path / "out.xml"
    path.write_bytes(data)
    told = read_batch(path)
    assert (told.key, told.version, told.faults) == ("M-1", f"pain.001.001.{version}", ())
    assert sorted(
        (t.end_to_end, t.amount, t.currency, t.execute_on, t.payee_account) for t in told.transfers
    ) == sorted(
        (o.number, o.amount, o.currency, o.execute_on.isoformat(), o.payee.account) for o in orders
    )
    assert {t.reference for t in told.transfers} >= {"RF18539007547034"}
    tree = etree.fromstring(data)
    assert tree.xpath("string(//*[local-name()='GrpHdr']/*[local-name()='CtrlSum'])") == str(
        sum(o.amount for o in orders)
    )
    assert len(tree.xpath("//*[local-name()='PmtInf']")) == 2


def test_every_fault_of_transfers_at_once():
    wrong = PaymentOrder(
        number="1", execute_on=date(2026, 6, 4), amount=Decimal("1.001"), currency="USD", purpose="Оплата",
        payee=Party(name="Müller", account="DE89370400440532013001", bank="X", country="Germany"),
    )  # fmt: skip
    other = change(TRANSFER, number="//x", amount=Decimal("NaN"), reference="RF00539007547034",
                   payee=change(SELLER, account=UKRAINIAN.account, name="n" * 71))  # fmt: skip
    found = faults_of(
        TransferWriter(),
        batch(wrong, other, change(other, purpose=""), payer=EUROPEAN, key="k" * 36),
    )
    assert set(found) >= {
        (0, "key", "malformed"), (1, "execute_on", "past-date"), (1, "amount", "malformed-amount"),
        (1, "currency", "not-sepa"), (1, "purpose", "not-latin"), (1, "payee.name", "not-latin"),
        (1, "payee.account", "wrong-check-digit"), (1, "payee.bank", "malformed"), (1, "payee.country", "malformed"),
        (2, "end_to_end", "malformed"), (2, "amount", "malformed-amount"), (2, "reference", "wrong-check-digit"),
        (2, "payee.account", "not-sepa"), (2, "payee.name", "too-long"), (2, "purpose", "both-given"),
        (3, "end_to_end", "duplicate-number"),
    }  # fmt: skip
    bare = change(
        TRANSFER, payee=Party(name="KK", account="1234567"), currency="JPY", amount=Decimal("5.5")
    )
    assert set(faults_of(TransferWriter(is_sepa=False), batch(bare, payer=EUROPEAN))) == {
        (1, "payee.bank", "missing"), (1, "amount", "malformed-amount"),
    }  # fmt: skip


def test_a_refusal_shows_the_latin_letters():
    assert transliterate("Оплата за щебінь, Müller") == "Oplata za shchebin, Muller"
    with pytest.raises(Unwritable) as told:
        TransferWriter().write(batch(change(TRANSFER, purpose="Оплата"), payer=EUROPEAN))
    assert "Oplata" in told.value.faults[0].expected and "Оплата" not in str(told.value)


@pytest.mark.parametrize("path", files_of("pain001"))
def test_each_sample_of_transfers_against_xpath(path):
    told, tree = read_batch(path), etree.parse(str(path))
    mine = [Decimal(a.text.strip()) for a in tree.xpath("//*[local-name()='InstdAmt']")]
    assert [t.amount for t in told.transfers] == mine
    print(
        f"{path.name:50} {told.version:16} transfers {len(mine):2} sum {sum(mine)} {[f.code for f in told.faults]}"
    )
