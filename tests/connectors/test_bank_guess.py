"""Tables of banks that no profile knows: whatever language, order and signs, the lines are the same."""

import csv
import io
from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.sdk.contract import Mapping, Rows, Summary
from connectors.systems.bank_csv import CONNECTOR
from connectors.systems.bank_csv.dates import FORMS, find_forms
from connectors.systems.bank_csv.guess import GUESSED, guess_profile
from connectors.systems.bank_csv.profile import decode_profile, encode_profile, read_profiles
from tests.connectors.statements import refusal

# booked, value date, text, amount, debit, credit, balance, currency, counterparty, number
NAMES = {
    "de": ("Buchungstag", "Wertstellung", "Verwendungszweck", "Betrag", "Soll", "Haben", "Saldo", "Währung", "Empfänger"),
    "fr": ("Date d'opération", "Date de valeur", "Libellé", "Montant", "Débit", "Crédit", "Solde", "Devise", "Bénéficiaire"),
    "it": ("Data contabile", "Data valuta", "Descrizione", "Importo", "Addebiti", "Accrediti", "Saldo", "Divisa", "Beneficiario"),
    "en": ("Posting Date", "Value Date", "Narrative", "Amount", "Withdrawals", "Deposits", "Running Balance", "Ccy", "Payee"),
    "es": ("Fecha contable", "Fecha valor", "Concepto", "Importe", "Cargo", "Abono", "Saldo", "Moneda", "Beneficiario"),
    "pl": ("Data księgowania", "Data waluty", "Tytuł", "Kwota", "Obciążenia", "Uznania", "Saldo po operacji", "Waluta", "Kontrahent"),
    "ru": ("Дата проводки", "Дата валютирования", "Назначение платежа", "Сумма", "Списание", "Зачисление", "Остаток", "Валюта", "Контрагент"),
    "uk": ("Дата операції", "Дата валютування", "Призначення платежу", "Сума", "Видаток", "Надходження", "Залишок", "Валюта", "Контрагент"),
}  # fmt: skip
WRITTEN = {
    "dd.mm.yyyy": "%d.%m.%Y", "yyyy-mm-dd": "%Y-%m-%d", "dd/mm/yyyy": "%d/%m/%Y", "dd.mm.yy": "%d.%m.%y",
    "yyyymmdd": "%Y%m%d", "dd-mm-yyyy": "%d-%m-%Y",
}  # fmt: skip

amounts = st.decimals(-99_999, 99_999, places=2, allow_nan=False).filter(lambda x: x)
tables = st.fixed_dictionaries({
    "names": st.sampled_from(sorted(NAMES)), "form": st.sampled_from(sorted(WRITTEN)),
    "mark": st.sampled_from(".,"), "group": st.sampled_from(["", " ", "'"]),
    "sides": st.sampled_from(["amount", "two", "two signed"]), "is_newest_first": st.booleans(),
    "order": st.permutations(range(7)), "delimiter": st.sampled_from(";\t|"),
    "above": st.integers(0, 4), "currency": st.sampled_from(["column", "name", "above"]),
    "lines": st.lists(amounts, min_size=4, max_size=12),
})  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(tables)
def test_the_lines_are_those_of_the_bank_however_it_lays_them_out(tmp_path_factory, table):
    path = tmp_path_factory.mktemp("guess") / "a.csv"
    path.write_text(lay_out(table), "utf-8")
    rows, summary, toml = read(path)
    lines = [r for r in rows if r.entity == "bank_line"]
    expected = table["lines"][::-1] if table["is_newest_first"] else table["lines"]
    assert [Decimal(r.values["amount"]) for r in lines] == expected
    assert {r.values["currency"] for r in lines} == {"CHF"}
    assert {r.values["account"] for r in lines} == {"CH9300762011623852957"}
    days = [r.values["booked"] for r in lines]
    assert days == sorted(days, reverse=table["is_newest_first"])
    assert days[-1 if table["is_newest_first"] else 0] == "2026-10-28"
    assert not summary.holds and not any(r.faults for r in rows)
    assert next(r for r in rows if r.entity == "statement").values["ties"] is True
    # What was read off is a profile that people may keep: it says the same of the next file.
    again, _, _ = read(path, Mapping(constants={"profile_toml": toml}))
    assert again == rows


def lay_out(table):
    names = NAMES[table["names"]]
    when = WRITTEN[table["form"]]
    balance, body = Decimal("1000.00"), []
    for n, amount in enumerate(table["lines"]):
        balance += amount
        day = date(2026, 10, 28) + timedelta(days=n)
        two = table["sides"] != "amount"
        out = "" if amount > 0 else show(amount if "signed" in table["sides"] else -amount, table)
        sums = [out, show(amount, table) if amount > 0 else ""] if two else [show(amount, table)]
        cells = [day.strftime(when), (day + timedelta(days=1)).strftime(when), f"Text Nr. {n} / x", sums,
                 show(balance, table), "CHF", f"Firma {n}"]  # fmt: skip
        body.append(cells)
    if table["is_newest_first"]:
        body.reverse()
    suffix = " CHF" if table["currency"] == "name" else ""
    sums = (
        [names[4] + suffix, names[5] + suffix]
        if table["sides"] != "amount"
        else [names[3] + suffix]
    )
    header = [names[0], names[1], names[2], sums, names[6] + suffix, names[7], names[8]]
    order = [n for n in table["order"] if n != 5 or table["currency"] == "column"]
    out = io.StringIO()
    writer = csv.writer(out, delimiter=table["delimiter"])
    for n in range(table["above"]):
        writer.writerow([f"Zeile {n}", "etwas"])
    writer.writerow(["IBAN:", "CH93 0076 2011 6238 5295 7"])
    if table["currency"] == "above":
        writer.writerow(["Currency:", "CHF"])
    for cells in (header, *body):
        flat = []
        for n in order:
            flat += cells[n] if isinstance(cells[n], list) else [cells[n]]
        writer.writerow(flat)
    writer.writerow(["Disclaimer:"])
    return out.getvalue()


def show(amount, table):
    whole, _, part = f"{abs(amount):,.2f}".partition(".")
    sign = "-" if amount < 0 else ""
    return f"{sign}{whole.replace(',', table['group'])}{table['mark']}{part}"


def read(path, mapping=None):
    source = CONNECTOR.open(path)
    found = source.inspect({})
    assert found.inspection.facts["profile"] == GUESSED
    assert found.inspection.warnings[-1].code == "layout-guessed"
    rows, summary = [], None
    for frame in source.read(mapping or found.proposal):
        if isinstance(frame, Rows):
            rows += frame.rows
        elif isinstance(frame, Summary):
            summary = frame
    return rows, summary, found.proposal.constants["profile_toml"]


def test_a_word_for_the_side_and_a_word_that_means_two_things(tmp_path):
    # `Valuta` is a currency in this bank's Italian; the column of details is no amount.
    path = tmp_path / "a.csv"
    path.write_text(
        "Data;Descrizione;Carta;Valuta;Importo;Importo singolo;Addebito/Accredito;Stato\n"
        "16/11/2026;Ristorante;**6174;EUR;42.74;;Addebito;Contabilizzato\n"
        "15/11/2026;Rimborso;**6174;EUR;0.03;1.00;Accredito;Contabilizzato\n"
        "14/11/2026;Albergo;**6174;EUR;100;;Addebito;In sospeso\n"
        "14/11/2026;Bar;**6174;EUR;5;;Addebito;Annullato\n", "utf-8",
    )  # fmt: skip
    rows, _, _ = read(path)
    lines = [r.values for r in rows if r.entity == "bank_line"]
    assert [x["amount"] for x in lines] == ["-42.74", "0.03", "-100"]
    assert [x.get("is_provisional") for x in lines] == [None, None, True]
    assert {(x["account"], x["currency"]) for x in lines} == {("**6174", "EUR")}


def test_a_card_tells_what_was_spent_as_positive(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        "Date,Description,Card,Currency,Amount\n02/11/2026,Shop,**2618,EUR,49.90\n"
        "13/11/2026,Shop,**2618,EUR,10.00\n14/11/2026,Payment,**2618,EUR,-59.90\n", "utf-8",
    )  # fmt: skip
    rows, _, _ = read(path)
    assert [r.values["amount"] for r in rows if r.entity == "bank_line"] == [
        "-49.90",
        "-10.00",
        "59.90",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "SKU;Name;Price;Stock\n1;Chair;10.00;5\n2;Desk;20.00;6\n",
        "Date;Name;Comment\n01.02.2026;Chair;good\n",
        "Symbol,Description,Quantity,Price\nABC,Fund,10,$33.89\n",
        "Open Date,Quantity,Holding Period\n08/24/2026,1,Short\n",
        "Blg,Tag,Kto,Netto,Text\n1,1.1.2024,3450,39.85,a\n1,1.1.2024,1100,39.85,b\n2,2.1.2024,9,1.00,c\n",
        "01.02.2026;a;1.00;5.00\n02.02.2026;b;1.00;9.00\n03.02.2026;c;2.00;1.00\n",
    ],
)
def test_other_tables_are_not_taken_for_a_banks(tmp_path, text):
    path = tmp_path / "a.csv"
    path.write_text(text, "utf-8")
    assert refusal("bank_csv", path).code == "unknown-layout"


@pytest.mark.parametrize("is_newest_first", [True, False])
@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (3, 2, 0, 4, 1), (1, 4, 3, 2, 0)])
def test_without_a_header_the_balances_say_which_sum_is_which(tmp_path, order, is_newest_first):
    # day, text, out, in, balance; some lines without a balance
    lines = [("01.09.2026", "Miete", "15.00", "", "85.00"), ("02.09.2026", "Lohn 9", "", "400.00", "485.00"),
             ("02.09.2026", "Bar", "74.90", "", ""), ("03.09.2026", "Bar 2", "19.60", "", "390.50"),
             ("05.09.2026", "Strom", "1'000.00", "", "-609.50"), ("06.09.2026", "Lohn", "", "1'000.00", "390.50")]  # fmt: skip
    lines = lines[::-1] if is_newest_first else lines
    path = tmp_path / "a.csv"
    path.write_text(
        "Auszug;;\n" + "".join(";".join(x[n] for n in order) + "\n" for x in lines), "utf-8"
    )
    rows, summary, _ = read(path)
    told = [r.values["amount"] for r in rows if r.entity == "bank_line"]
    mine = ["-15.00", "400.00", "-74.90", "-19.60", "-1000.00", "1000.00"]
    assert told == (mine[::-1] if is_newest_first else mine) and not summary.holds
    assert next(r for r in rows if r.entity == "statement").values["ties"] is True


def test_days_that_could_be_months_are_read_in_the_order_of_the_file():
    assert find_forms(["03/04/2026", "04/04/2026", "05/04/2026"], 0.6) == ("dd/mm/yyyy",)
    assert find_forms(["03/30/2026", "04/01/2026", "04/02/2026"], 0.6) == ("mm/dd/yyyy",)
    assert find_forms(["03/04/2026", "03/05/2026", "03/06/2026", "04/01/2026"], 0.6) == (
        "mm/dd/yyyy",
    )
    assert find_forms(["Anna", "Otto"], 0.6) == ()
    for form in FORMS:
        assert find_forms([], 0.6) == () and form


def test_every_profile_that_is_here_survives_being_written():
    for profile in read_profiles():
        assert decode_profile(encode_profile(profile).encode(), profile.key) == profile


def test_what_is_no_table_costs_little_and_gives_none():
    assert guess_profile([(n, ["Datum", "Betrag", "Text"] * 30) for n in range(300)]) is None
