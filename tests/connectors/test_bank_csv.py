"""Tables of banks: profiles recognised by headers, running balances as proof, doubt as a fault."""

import csv
import io
import re
import time
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.sdk.contract import Mapping, Refused, Rows
from connectors.systems.bank_csv import CONNECTOR
from connectors.systems.bank_csv.chain import Chain
from connectors.systems.bank_csv.profile import FOLDER, decode_profile, find_layout, read_profiles
from connectors.systems.bank_csv.table import clean_cell
from connectors.systems.bank_csv.values import parse_date, parse_money
from tests.connectors.statements import Told, files_of, refusal, show

# How a count of its own reads each layout: a piece of the name, the delimiter, the column of the
# date, and of each amount with its sign.
LAYOUTS = (
    ("nkb", ";", 0, {2: 1}), ("akb_example_format1", ";", 0, {3: -1, 4: 1}), ("akb_example_format3", ";", 0, {2: -1, 3: 1}),
    ("bancastato_example_format1", ",", 0, {5: 1}), ("bancastato_example_format3", ";", 0, {5: -1, 6: 1}),
    ("bcv", ";", 0, {2: -1, 3: 1}), ("bekb", ";", 1, {10: 1}), ("bkb_example_format1A", ";", 0, {3: -1, 4: 1}),
    ("bkb_example_format2", ";", 0, {3: -1, 4: 1}), ("clerbank", ";", 0, {4: -1, 5: 1}),
    ("lkb_example_format1", ";", 0, {3: -1, 4: 1}), ("lkb_example_format6", ";", 0, {5: -1, 4: 1}),
    ("migrosbank_example_format1", ";", 0, {2: 1}), ("migrosbank_example_format2", ";", 0, {4: 1}),
    ("postfinance_example_format1", ";", 1, {2: 1}), ("postfinance_example_format3", ";", 0, {4: 1, 5: 1}),
    ("sss", ";", 1, {14: 1}), ("tkb_example_format1", ",", 0, {3: -1, 4: 1}), ("tkb_example_format4", ";", 0, {5: -1, 6: 1}),
    ("twint", ";", 0, {4: 1}), ("yuh", ";", 0, {3: 1, 5: 1}), ("OCA__balance", ",", 0, {2: 1}), ("debit_credit", ",", 0, {2: 1}),
    ("multi_currency", ",", 0, {3: 1}), ("original_currency", ",", 0, {3: 1}), ("sample_statement", ",", 0, {3: 1}),
    ("UTrade", ",", 0, {5: 1}), ("viseca", ",", 2, {4: -1}), ("EAC", ",", 0, {4: -1, 5: 1}), ("jbms__bank", ",", 0, {2: 1}),
    ("mint", ",", 0, {3: 1}), ("transactions", ",", 1, {7: 1}), ("HSBC", ",", 0, {3: 1}), ("PNC", ",", 0, {7: 1}),
    ("european", ";", 0, {2: 1}), ("garbled", ",", 0, {2: 1}), ("spanish", ";", 0, {2: 1}), ("split", ";", 0, {3: -1, 2: 1}),
    ("sberbank", ";", 2, {11: 1}), ("vtb", ";", 1, {5: 1}),
)  # fmt: skip
COMMA = ("sss", "european", "spanish", "split", "sberbank", "vtb")
UNTIED = {"BananaAccounting__csv_clerbank_example_format1_EUR_20241021.csv",
          "BananaAccounting__csv_tkb_example_format4_20240229.csv",
          "jbms__EAC_Checking_Transactions_20201223-160009.CSV"}  # fmt: skip


def count(path):
    """Lines and their sum by nothing but the table above."""
    name = path.name
    _, delimiter, day, amounts = next(x for x in LAYOUTS if x[0] in name)
    data = path.read_bytes()
    text = data.decode("cp1251") if "vtb" in name else data.decode("utf-8-sig")
    mark = "," if any(word in name for word in COMMA) else "."
    found = []
    for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
        if (
            len(row) <= max(amounts)
            or not re.search(r"\d[-/. ]\w+[-/. ]\d", row[day])
            or "Failed" in row
        ):
            continue
        cells = {
            n: re.sub(rf"[^\d\-{re.escape(mark)}]", "", row[n]).replace(mark, ".") for n in amounts
        }
        if not any(cells.values()) or ".." in "".join(cells.values()):
            continue
        amount = sum(sign * Decimal(cells[n]) for n, sign in amounts.items() if cells[n])
        for column in (3, 4, 8):
            word = row[column].lower() if column < len(row) else ""
            if name.startswith(("OCA__debit", "jbms__mint", "microsoft__PNC")) and word in (
                "d",
                "dr",
                "debit",
                "c",
                "cr",
                "credit",
            ):
                amount = -abs(amount) if word in ("d", "dr", "debit") else abs(amount)
        found.append(amount)
    return found


@pytest.mark.parametrize("path", files_of("bank-csv"))
def test_each_sample_against_a_count_of_its_own(path):
    told = Told("bank_csv", path, account="OWN", currency="ZZZ")
    show(path, told)
    if path.suffix == ".xlsx":
        assert (told.inspection.format, len(told.lines)) == ("xlsx", 0)
        return
    mine = count(path)
    assert (len(told.amounts), sum(told.amounts)) == (len(mine), sum(mine)) and mine
    assert told.faults == (["malformed-amount"] if "garbled" in path.name else [])
    assert (False in told.ties) is (path.name in UNTIED) is ("balance-mismatch" in told.holds)


TABLE = "Buchung;Valuta;Buchungstext;Belastung;Gutschrift;Saldo CHF;\n"
OLD = [
    "01.06.2026;02.06.2026;Eins;;5.00;5.00;",
    "02.06.2026;;Zwei;2.00;;;",
    "02.06.2026;;Drei;;1.00;4.00;",
]


def put(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def read(tmp_path, rows, head=TABLE, **constants):
    return Told(
        "bank_csv",
        put(tmp_path / "a.csv", head + "".join(f"{r}\n" for r in rows)),
        **{"account": "A", **constants},
    )


def test_a_table_and_its_chain_either_way(tmp_path):
    for rows in (OLD, OLD[::-1]):
        told = read(tmp_path, rows)
        values = told.statements[0].values
        assert (values["opening"], values["closing"], values["net"], values["ties"]) == (
            "0.00",
            "4.00",
            "4.00",
            True,
        )
        assert (values["from"], values["to"], values["currency"]) == (
            "2026-06-01",
            "2026-06-02",
            "CHF",
        )
    assert told.inspection.facts["profile"] == "akb"
    broken = read(tmp_path, [OLD[0], OLD[1], OLD[2].replace("1.00", "1.50")])
    assert broken.ties == [False] and broken.holds == ["balance-mismatch"]
    gone = read(
        tmp_path,
        [
            OLD[0],
            "02.06.2026;;Zwei;2.00;;3.00;",
            "03.06.2026;;Vier;;1.00;9.00;",
            "04.06.2026;;X;5.00;;4.00;",
        ],
    )
    assert gone.ties == [False] and gone.holds == ["balance-mismatch"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(-99, 99).filter(bool), st.booleans()), min_size=2, max_size=30),
       st.integers(-50, 50), st.booleans())  # fmt: skip
def test_chains_prove_opening_and_closing_in_both_orders(lines, opening, newest_first):
    rows, balance = [], Decimal(opening)
    for n, (amount, shown) in enumerate(lines):
        balance += amount
        rows.append((Decimal(amount), balance if shown or n == 0 else None, f"2026-01-{n + 1:02}"))
    chain = Chain()
    for number, (amount, shown, day) in enumerate(rows[::-1] if newest_first else rows, 1):
        chain.add(amount, shown, day, number)
    proof = chain.prove()
    assert (proof.breaks, proof.opening, proof.closing) == (0, opening, balance)


@pytest.mark.parametrize(("text", "decimal", "amount"), [
    ("1'234.50", ".", "1234.50"), ("1 234,50", ",", "1234.50"), ("1\u202f234,50 грн", ",", "1234.50"), ("5.00-", ".", "-5.00"),
    ("(5.00)", ".", "-5.00"), ("− 5,00", ",", "-5.00"), ("-,01", ",", "-0.01"), ("- $220.00", ".", "-220.00"),
    ("1,234.56", ".", "1234.56"), ("1.234,56", ",", "1234.56"), ("+5", ".", "5"), ("5,", ",", "5"), ("CHF 5.00", ".", "5.00"),
    ("1.234,56", ".", None), ("1,234.56", ",", None), ("1,23", ".", None), ("12..34", ".", None), ("NaN", ".", None),
    ("1e5", ".", None), ("0x1F", ".", None), ("٣", ".", None), ("", ".", None), ("-", ".", None), ("5 %", ".", None),
    ("(-5)", ".", None), ("1" * 21, ".", None), ("3.5-4", ".", None),
])  # fmt: skip
def test_money_is_read_by_the_mark_of_the_profile_alone(text, decimal, amount):
    assert parse_money(text, decimal) == (None if amount is None else Decimal(amount))


@settings(max_examples=200, deadline=None)
@given(
    st.decimals("-999999999", "999999999", places=2),
    st.sampled_from(".,"),
    st.sampled_from(["", "'", " ", "\u00a0"]),
)
def test_money_written_is_money_read(amount, decimal, group):
    text = f"{amount:,.2f}".replace(",", "G").replace(".", decimal).replace("G", group)
    assert parse_money(text, decimal) == amount


@pytest.mark.parametrize(("text", "form", "day"), [
    ("05.06.2026", "dd.mm.yyyy", "2026-06-05"), ("5.6.26", "dd.mm.yy", "2026-06-05"), ("06/05/2026", "mm/dd/yyyy", "2026-06-05"),
    ("15 Mar 2019", "dd mmm yyyy", "2019-03-15"), ("15 марта 2019", "dd mmm yyyy", "2019-03-15"),
    ("2026-06-05T10:11:12", "yyyy-mm-dd", "2026-06-05"), ("05.06.2026 10:11", "dd.mm.yyyy", "2026-06-05"),
    ("31.02.2026", "dd.mm.yyyy", None), ("05.13.2026", "dd.mm.yyyy", None), ("00.00.0000", "dd.mm.yyyy", ""),
    ("05.06.20269", "dd.mm.yyyy", None), ("x", "dd.mm.yyyy", None), ("٠٥.06.2026", "dd.mm.yyyy", None),
])  # fmt: skip
def test_dates(text, form, day):
    assert parse_date(text, (form,)) == day


def test_wrong_rows_cost_themselves(tmp_path):
    rows = [
        *OLD, "03.06.2026;;Wort;;fünf;;", "31.02.2026;;Tag;;1.00;;", "03.06.2026;;Zu;viele;;Felder;;hier;x",
        ";;ohne Tag;;1.00;;", "03.06.2026;;nichts;;;;", "Total;;;;9.00;;", ";;Detail;;;;",
    ]  # fmt: skip
    told = read(tmp_path, rows)
    assert [r.faults[0].code for r in told.lines if r.faults] == [
        "malformed-amount", "malformed-date", "malformed-amount", "missing-date",
    ]  # fmt: skip
    assert told.warnings == ["no-amount"] and told.summary.facts["notes"] == "2"
    assert [r.place.row for r in told.lines if r.faults] == [5, 6, 7, 8]


def test_many_ragged_rows_hold_the_table(tmp_path):
    told = read(tmp_path, [OLD[0], "02.06.2026;;a;;1.00;;;x;y"] * 3)
    assert "ragged" in told.holds and told.faults == ["ragged-row"] * 3
    fault = refusal(
        "bank_csv", put(tmp_path / "a.csv", TABLE + ";".join("x" * 5_000) + "\n"), account="A"
    )
    assert fault.code == "too-wide" and fault.place.row == 2


@pytest.mark.parametrize("change", [
    lambda t: t.replace("\n", "\r\n"), lambda t: t.replace("\n", "\r"), lambda t: t.rstrip("\n"),
    lambda t: "sep=;\n" + t, lambda t: t.replace(";", "\t"), lambda t: t.replace(";", ","), lambda t: t.replace(";", "|"),
    lambda t: "\ufeff" + t, lambda t: "\ufeff\ufeff" + t, lambda t: "Bank AG\n\nAuszug vom;01.06.2026\n\n" + t,
    lambda t: re.sub(r"[^;\n]+", r'"\g<0>"', t), lambda t: t.replace("5.00", '="5.00"'), lambda t: t.replace("\n", "\n\n"),
])  # fmt: skip
def test_what_is_tolerated(tmp_path, change):
    text = TABLE + "".join(f"{r}\n" for r in OLD)
    plain = Told("bank_csv", put(tmp_path / "a.csv", text), account="A")
    told = Told("bank_csv", put(tmp_path / "b.csv", change(text)), account="A")
    assert [r.values for r in told.lines] == [r.values for r in plain.lines] and told.ties == [True]


@pytest.mark.parametrize("encoding", ["cp1251", "utf-8", "utf-16", "koi8-u"])
def test_encodings(tmp_path, encoding):
    head = "Номер счета;Валюта;Дата операции;Референс проводки;Описание операции;Приход;Расход\n"
    rows = "40702810000000000001;RUR;05.06.26;CRD_1;Оплата товара в магазине;0,00;1 500,50\n"
    told = Told("bank_csv", put(tmp_path / "a.csv", head + rows, encoding))
    assert told.lines[0].values["purpose"] == "Оплата товара в магазине" and told.amounts == [
        Decimal("-1500.50")
    ]
    assert told.statements[0].values["currency"] == "RUB"


@pytest.mark.parametrize(("text", "code"), [
    ("", "not-this-format"), ("<html>login</html>", "not-this-format"), ("<?xml version='1.0'?>\n<a/>", "not-this-format"),
    ("a;b;c\n1;2;3\n", "unknown-layout"), (TABLE + '01.06.2026;;"offen;;5.00;;\n02.06.2026;;x;;1.00;;\n', "truncated"),
])  # fmt: skip
def test_what_is_refused(tmp_path, text, code):
    fault = refusal("bank_csv", put(tmp_path / "a.csv", text), account="A")
    assert fault.code == code and (code != "unknown-layout" or "a | b | c" in fault.found)


OWN = """
bank = "Own Bank"
header = ["Tag", "Betrag ({currency})", "Wofür"]
date = ["dd.mm.yy"]
decimal = ","
preamble = ["Konto {account}"]

[columns]
booked = "Tag"
amount = "Betrag *"
purpose = "Wofür"
"""


def test_a_bank_of_ones_own_in_a_few_lines(tmp_path):
    text = "Konto DE89 3704 0044 0532 0130 00\nTag;Betrag (EUR);Wofür\n05.06.26;-1.234,50;Miete\n"
    path = put(tmp_path / "a.csv", text)
    assert refusal("bank_csv", path).code == "unknown-layout"
    frames = CONNECTOR.open(path).read(Mapping(constants={"profile_toml": OWN}))
    line = next(r for f in frames if isinstance(f, Rows) for r in f.rows)
    assert (line.values["account"], line.values["amount"], line.values["currency"]) == (
        "DE89370400440532013000", "-1234.50", "EUR",
    )  # fmt: skip


@pytest.mark.parametrize(("change", "said"), [
    (("booked", "boked"), "no field boked"), (('decimal = ","', 'decimal = ";"'), "decimal"), (("dd.mm.yy", "dd.mm"), "date form"),
    (("header", "heder"), "heder"), (('amount = "Betrag *"\n', ""), "amount"), (("bank =", "bank"), ""),
])  # fmt: skip
def test_a_wrong_profile_says_what_is_wrong(change, said):
    with pytest.raises(Refused) as told:
        decode_profile(OWN.replace(*change).encode())
    assert told.value.fault.code == "bad-profile" and said in told.value.fault.found


def test_profiles_are_short_and_each_is_reached_by_its_own_header():
    profiles = read_profiles()
    assert len(profiles) >= 40
    for profile in profiles:
        assert len((FOLDER / f"{profile.key}.toml").read_text().splitlines()) < 50
        if profile.header:
            header = [re.sub(r"\{.*?\}", "CHF", n).replace("*", "x") for n in profile.header]
            assert find_layout(header, profiles).profile.key == profile.key


def test_guards_of_spreadsheets():
    assert [clean_cell(t) for t in ('="00123"', "'462235", "'=1+1", "'", " x ", "'text")] == [
        "00123", "462235", "=1+1", "'", "x", "text",
    ]  # fmt: skip


def test_looking_for_a_header_takes_no_time(tmp_path):
    path = put(tmp_path / "a.csv", (";".join("Datum" for _ in range(4_000)) + "\n") * 120)
    began = time.process_time()
    assert refusal("bank_csv", path).code == "unknown-layout"
    assert time.process_time() - began < 5
