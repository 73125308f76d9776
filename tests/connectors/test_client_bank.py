"""1CClientBankExchange in: directions, days, encodings, and what a broken document costs."""

import re
from decimal import Decimal

import pytest

from tests.connectors.statements import Told, document, exchange, files_of, refusal, show

OWN, OTHER = "40702810000000000001", "40702810000000000888"


def put(path, text, encoding="cp1251", end="\r\n"):
    path.write_bytes(text.replace("\n", end).encode(encoding))
    return path


@pytest.mark.parametrize("path", files_of("1c-client-bank"))
def test_each_sample_against_a_count_of_its_own(path):
    told = Told("client_bank", path)
    show(path, told)
    text = path.read_bytes().decode("cp1251", "replace")
    blocks = re.findall(r"СекцияДокумент.*?КонецДокумента", text, re.DOTALL)
    done = [b for b in blocks if re.search(r"^Дата(Списано|Поступило)=\d", b, re.MULTILINE)]
    assert told.summary.facts["documents"] == str(len(blocks))
    assert len(told.lines) == len(told.sound) == len(done)
    if not done:
        assert told.warnings == ["not-executed"] * len(blocks) and not told.statements
        return
    sums = [Decimal(re.search(r"^Сумма=([\d.]+)", b, re.MULTILINE)[1]) for b in done]
    assert sum(abs(a) for a in told.amounts) == sum(sums)

    def said(name):
        return Decimal(re.search(rf"^{name}=([\d.]+)", text, re.MULTILINE)[1])

    came, out = said("ВсегоПоступило"), said("ВсегоСписано")
    assert sum(told.amounts) == came - out == said("КонечныйОстаток") - said("НачальныйОстаток")
    assert told.ties == [True] and not told.holds


def test_a_line_says_who_and_what_for(tmp_path):
    text = exchange(
        [document("7", "150.50", Плательщик1="ИНН 7707083893 ООО Вектор", ПлательщикБИК="044525225", Код="0")],
        closing="150.50", came="150.50",
    )  # fmt: skip
    (line,) = Told("client_bank", put(tmp_path / "a.txt", text)).lines
    assert line.values == {
        "statement": line.values["statement"], "account": OWN, "currency": "RUB", "booked": "2026-06-05",
        "document_date": "2026-06-05", "number": "7", "kind": "Платежное поручение", "amount": "150.50",
        "counterparty": "ООО Вектор", "counterparty_tax_id": "7707083893", "counterparty_account": OTHER,
        "counterparty_bank": "044525225", "purpose": "Оплата по счёту 7",
    }  # fmt: skip


def test_directions(tmp_path):
    between = document(
        "3", "5.00", out=True, ПолучательСчет="40702810000000000002", ДатаПоступило="06.06.2026"
    )
    strange = document("4", "9.00", ПолучательСчет="40702810000000000777", ДатаСписано="05.06.2026")
    text = exchange(
        [document("1", "10.00"), document("2", "4.00", out=True), between, strange],
        closing="1.00", came="10.00", out="9.00",
    ).replace("РасчСчет=40702810000000000001\nСекция", "РасчСчет=40702810000000000001\n"
              "РасчСчет=40702810000000000002\nСекция", 1)  # fmt: skip
    told = Told("client_bank", put(tmp_path / "a.txt", text))
    assert [r.values.get("amount") for r in told.lines] == ["10.00", "-4.00", "-5.00", "5.00", None]
    assert [r.values["account"] for r in told.lines][:4] == [OWN, OWN, OWN, "40702810000000000002"]
    assert told.lines[3].values["booked"] == "2026-06-06"
    assert told.faults == ["not-ours"]
    assert told.ties == [True, None] and told.holds == ["balance-missing"]


def test_without_own_account_the_date_tells_the_direction(tmp_path):
    strange = document("4", "9.00", out=True, ПлательщикСчет="123", ПолучательСчет="456")
    text = exchange([strange], opening="10.00", closing="1.00", out="9.00")
    told = Told("client_bank", put(tmp_path / "a.txt", text))
    assert told.amounts == [-9] and told.ties == [True] and not told.holds


def test_every_day_has_its_own_section(tmp_path):
    def day(date, opening, closing):
        return (
            f"СекцияРасчСчет\nДатаНачала={date}\nДатаКонца={date}\nРасчСчет={OWN}\n"
            f"НачальныйОстаток={opening}\nКонечныйОстаток={closing}\nКонецРасчСчет\n"
        )

    head = f"1CClientBankExchange\nВерсияФормата=1.02\nКодировка=Windows\nРасчСчет={OWN}\n"
    days = (
        day("01.06.2026", "0.00", "5.00")
        + day("02.06.2026", "5.00", "2.00")
        + day("03.06.2026", "3.00", "3.00")
    )
    documents = document("2", "3.00", out=True, day="02.06.2026") + document(
        "1", "5.00", day="01.06.2026"
    )
    told = Told("client_bank", put(tmp_path / "a.txt", head + days + documents + "КонецФайла\n"))
    assert told.ties == [True] * 3 and [s.values["lines"] for s in told.statements] == [
        "1",
        "1",
        "0",
    ]
    assert told.warnings == ["balance-gap"] and not told.holds


@pytest.mark.parametrize(("declared", "encoding", "mismatch"), [
    ("Windows", "cp1251", False), ("DOS", "cp866", False), ("DOS", "cp1251", True), ("Windows", "utf-8", True),
    ("Windows", "koi8-r", True), ("Windows", "cp866", True), ("UTF-8", "utf-8-sig", False),
])  # fmt: skip
def test_the_bytes_tell_the_encoding(tmp_path, declared, encoding, mismatch):
    text = exchange([document("7", "150.50")], closing="150.50", came="150.50")
    text = text.replace("Кодировка=Windows", f"Кодировка={declared}")
    told = Told("client_bank", put(tmp_path / "a.txt", text, encoding))
    assert told.lines[0].values["purpose"] == "Оплата по счёту 7" and told.ties == [True]
    assert [f.code for f in told.inspection.warnings] == ["encoding-mismatch"] * mismatch


@pytest.mark.parametrize(
    "day", ["23.08.201819202122", "30.02.2026", "05.13.2026", "2026-06-05", "вчера"]
)
def test_a_malformed_date_costs_its_row(tmp_path, day):
    text = exchange(
        [document("1", "5.00", day=day), document("2", "3.00")], closing="8.00", came="8.00"
    )
    told = Told("client_bank", put(tmp_path / "a.txt", text))
    assert told.faults == ["malformed-date"] and len(told.sound) == 1
    assert told.lines[0].faults[0].found == day and told.lines[0].place.row == 14
    assert set(told.holds) == {"balance-mismatch", "totals-mismatch"}


@pytest.mark.parametrize(
    "amount", ["NaN", "inf", "1e5", "0x10", "-5.00", "", "1 000.00", "٣.00", "9" * 40]
)
def test_a_malformed_amount_costs_its_row(tmp_path, amount):
    text = exchange([document("1", amount), document("2", "3.00")], closing="3.00", came="3.00")
    told = Told("client_bank", put(tmp_path / "a.txt", text, "utf-8"))
    assert told.faults == ["malformed-amount"] and told.ties == [True]


def test_what_is_tolerated(tmp_path):
    loose = (
        "СекцияДокумент\nПлатежное требование\n\n номер = 1 \nДата=05.06.2026\nСумма=5.00\nСумма=77.00\n"
        f"ПлательщикСчет={OTHER}\nПолучательСчет={OWN}\nДатаПоступило=05.06.2026\n"
        "НазначениеПлатежа=\nНазначениеПлатежа1=За\nНазначениеПлатежа2=товары\nЛишнее поле=x\n"
    )
    text = exchange([loose, document("2", "3.00")], closing="8.00", came="8.00", end="")
    told = Told("client_bank", put(tmp_path / "a.txt", text, end="\r"))
    first = told.lines[0].values
    assert (first["kind"], first["number"], first["amount"]) == (
        "Платежное требование",
        "1",
        "5.00",
    )
    assert first["purpose"] == "За товары" and told.ties == [True] and not told.holds
    assert told.warnings == ["unclosed-section", "unclosed-file"]


def test_a_cut_file_is_refused_or_held(tmp_path):
    documents = [document("1", "5.00"), document("2", "3.00")]
    whole = exchange(documents, closing="8.00", came="8.00").encode("cp1251")
    path, refused = tmp_path / "a.txt", 0
    for cut in range(60, len(whole) - 12, 11):
        path.write_bytes(whole[:cut])
        try:
            told = Told("client_bank", path)
        except Exception as error:  # noqa: BLE001 the code is looked at
            assert "truncated" in str(error), cut
            refused += 1
            continue
        assert told.holds or told.amounts == [5, 3], cut
    assert refused > 30


def test_truncation_names_its_line(tmp_path):
    whole = exchange([document("1", "5.00")], closing="5.00", came="5.00")
    fault = refusal(
        "client_bank", put(tmp_path / "a.txt", whole[: whole.index("НазначениеПлатежа")])
    )
    assert (fault.code, fault.expected, fault.place.row) == ("truncated", "КонецДокумента", 22)


def test_controls_cost_their_row(tmp_path):
    text = exchange(
        [document("1", "5.00", Плательщик1="ООО\x00Клиент")], closing="5.00", came="5.00"
    )
    told = Told("client_bank", put(tmp_path / "a.txt", text))
    assert told.faults == ["control-character"] and "balance-mismatch" in told.holds


@pytest.mark.parametrize("text", ["<html>нет</html>", "Номер;Дата;Сумма\n1;2;3\n", "1CClientBank"])
def test_what_is_no_exchange_is_refused(tmp_path, text):
    assert refusal("client_bank", put(tmp_path / "a.txt", text)).code == "not-this-format"


def test_the_same_content_has_the_same_keys(tmp_path):
    text = exchange([document("1", "5.00"), document("1", "5.00")], closing="10.00", came="10.00")
    one = Told("client_bank", put(tmp_path / "a.txt", text))
    other = Told("client_bank", put(tmp_path / "b.txt", text, "utf-8", "\n\n"))
    assert [r.key for r in one.rows] == [r.key for r in other.rows]
    assert one.lines[0].key == one.lines[1].key and one.statements[0].key != one.lines[0].key


@pytest.mark.parametrize(
    "more", ["".join(f"П{n}=1\n" for n in range(2_100)), ("Примечание=" + "x" * 999_000 + "\n") * 6]
)
def test_a_document_without_bounds_is_refused(tmp_path, more):
    text = exchange([document("1", "5.00").replace("КонецДокумента", more + "КонецДокумента")])
    fault = refusal("client_bank", put(tmp_path / "a.txt", text))
    assert (fault.code, fault.place.row) == ("too-large-node", 14)
