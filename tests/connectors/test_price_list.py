"""A price list of any layout is found, proposed as a person would, and read exactly."""

import asyncio
import csv
import io
import zipfile
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.formats.open import open_book
from connectors.sdk import parent
from connectors.sdk.contract import Done, Mapping, Refused, Rows
from connectors.systems.price_list import CONNECTOR
from connectors.systems.price_list.numbers import find_mark, read_number
from connectors.systems.price_list.propose import is_barcode
from tests.connectors.files import supplier_list, workbook

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "samples"


def items(path, mapping=None):
    source = CONNECTOR.open(path)
    mapping = mapping or source.inspect({}).proposal
    return [r for f in source.read(mapping) if isinstance(f, Rows) for r in f.rows]


def test_a_supplier_list_with_merges_groups_and_formats(tmp_path):
    path = supplier_list(tmp_path / "list.xlsx")
    (table,) = CONNECTOR.open(path).inspect({}).inspection.tables
    assert (table.header_rows, table.first_row) == ((3, 4), 5)
    targets = {c.letters: (c.target, c.options.get("price_type")) for c in table.columns}
    assert targets == {
        "A": ("sku", None), "B": ("name", None), "C": ("unit", None), "D": ("price", "retail"),
        "E": ("price", "wholesale"), "F": ("stock", None),
    }  # fmt: skip
    first, second, third = items(path)
    assert first.values == {
        "sku": "00100", "name": "Болт М6", "unit": "pcs", "price:retail": "12.5", "currency:retail": "UAH",
        "price:wholesale": "11", "stock": "10", "stock_note": ">10", "category": "Болти",
    }  # fmt: skip
    assert (first.key, second.values["price:retail"]) == ("sku:00100", "14.75")
    assert third.values["category"] == "Гайки" and third.values["price:retail"] is None
    (fault,) = third.faults
    assert (fault.code, fault.place.row, fault.place.column) == ("price-not-positive", 9, "E")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1251", "cp866", "koi8-u", "utf-16"])
@pytest.mark.parametrize("delimiter", [";", ",", "\t", "|"])
def test_text_in_any_encoding_and_delimiter(tmp_path, encoding, delimiter):
    rows = [["Код", "Наименование товара", "Цена, руб."]]
    rows += [[f"A{n:03}", f"Кабель силовой медный {n}", f"1 {n:03},50"] for n in range(40)]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\r\n").writerows(rows)
    path = tmp_path / "list.csv"
    path.write_bytes(text.getvalue().encode(encoding))
    found = items(path)
    assert len(found) == 40
    assert found[7].values == {
        "sku": "A007", "name": "Кабель силовой медный 7", "price:retail": "1007.5", "currency:retail": "RUB",
    }  # fmt: skip


def test_a_learned_header_outranks_the_words(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("Zeichen,Ding,Preis\nA1,Schraube lang,1.50\nB2,Mutter kurz,2.25\n", "utf-8")
    (table,) = CONNECTOR.open(path).inspect({"zeichen": "barcode"}).inspection.tables
    assert table.columns[0].target == "barcode"


def test_a_currency_that_only_its_shop_knows_is_asked_about_and_variants_are_named(tmp_path):
    path = tmp_path / "shop.csv"
    path.write_text(
        "Product,Variant,Price,Currency ID\nChair,red,10.50,980\nChair,blue,11.50,usd\n"
        "Lamp,In stock,12.50,4\nRed lamp,red,13.50,\n", "utf-8",
    )  # fmt: skip
    said = [
        (r.values["name"], r.values.get("currency:retail"), [f.code for f in r.faults])
        for r in items(path)
    ]
    assert said == [
        ("Chair, red", "UAH", []), ("Chair, blue", "USD", []),
        ("Lamp", None, ["currency-unknown"]), ("Red lamp", None, []),
    ]  # fmt: skip
    mapping = CONNECTOR.open(path).inspect({}).proposal
    (table,) = mapping.tables
    columns = [
        msgspec.structs.replace(c, options={"4": "EUR"}) if c.target == "currency" else c
        for c in table.columns
    ]
    tables = (msgspec.structs.replace(table, columns=tuple(columns)),)
    third = items(path, msgspec.structs.replace(mapping, tables=tables))[2]
    assert (third.values["currency:retail"], third.faults) == ("EUR", ())


def test_rows_that_lost_a_quote_are_not_taken_for_prices(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("service,price\nRoom,$1,980\nBed,$200\nChair,$300\nTable,$400\n", "utf-8")
    first, *rest = items(path)
    assert [f.code for f in first.faults] == ["ragged-row"]
    assert [r.values["price:retail"] for r in rest] == ["200", "300", "400"]


@pytest.mark.parametrize(
    ("text", "mark", "expected"),
    [
        ("12,50", ",", "12.50"), ("1 234,5", ",", "1234.5"), ("1'234.50", ".", "1234.50"),
        ("557.50р.", ".", "557.50"), ("6,31руб", ",", "6.31"), ("$1,359,769", ".", "1359769"),
        ("(15.00)", ".", "-15.00"), ("15.00-", ".", "-15.00"), ("1.234,56", ",", "1234.56"),
        ("по запросу", ".", None), ("", ".", None), ("NaN", ".", "no-numeric-price"),
        ("1e400", ".", "no-numeric-price"), ("0x10", ".", "no-numeric-price"), ("10%", ".", "percent-in-price"),
        ("$289.54 - $361.92", ".", "range-in-price"), ("1,234", "", "ambiguous-number"),
        ("1,234.56", ",", "ambiguous-number"), ("1" * 20, ".", "out-of-range"), ("٣٤", ".", "no-numeric-price"),
    ],
)  # fmt: skip
def test_numbers_as_suppliers_type_them(text, mark, expected):
    found = read_number(text or None, mark)
    if found is None or isinstance(found, Decimal):
        assert (None if found is None else str(found)) == expected
    else:
        assert found.code == expected


def test_the_column_settles_the_mark():
    assert find_mark(["1,234", "12,5", "100"]) == ","
    assert find_mark(["1,234.50", "1,234"]) == "."
    assert find_mark(["1,234", "2,345"]) == ""
    assert is_barcode("4006381333931") and not is_barcode("4006381333932")


MONEY = st.decimals("0.01", "99999.99", places=2)
NAMES = (
    st.text("абвгдежзик ABCDEFGH", min_size=6, max_size=30)
    .map(str.strip)
    .filter(lambda t: len(t) > 5)
)


@given(
    st.lists(st.tuples(NAMES, MONEY, MONEY), min_size=3, max_size=15, unique_by=lambda t: t[0]),
    st.integers(0, 4), st.booleans(), st.sampled_from([",", "."]),
)  # fmt: skip
@settings(max_examples=40)
def test_what_was_written_is_read_back(tmp_path_factory, rows, preamble, as_workbook, mark):
    path = tmp_path_factory.mktemp("lists") / "list"
    header = ["Артикул", "Наименование", "Цена розница", "Цена опт"]
    table = [[f"K-{n:05}", name, a, b] for n, (name, a, b) in enumerate(rows)]
    if as_workbook:

        def write(_, sheet):
            for n in range(preamble):
                sheet.write(n, 0, "ООО Поставщик, телефон 123-45-67")
            sheet.write_row(preamble, 0, header)
            for n, (code, name, a, b) in enumerate(table, preamble + 1):
                sheet.write_row(n, 0, [code, name, float(a), float(b)])

        workbook(path, write)
    else:
        lines = [["ООО Поставщик", "", "", ""]] * preamble + [header]
        lines += [
            [c, n, str(a).replace(".", mark), str(b).replace(".", mark)] for c, n, a, b in table
        ]
        text = io.StringIO()
        csv.writer(text, delimiter=";").writerows(lines)
        path.write_text(text.getvalue(), "utf-8")
    found = items(path)
    assert [
        (r.values["sku"], r.values["name"], Decimal(r.values["price:retail"]), Decimal(r.values["price:wholesale"]))
        for r in found
    ] == [(c, " ".join(n.split()), a, b) for c, n, a, b in table]  # fmt: skip
    assert not any(r.faults for r in found)


def test_errors_formulas_dates_and_damaged_codes_are_faults_with_their_cells(tmp_path):
    def write(book, sheet):
        sheet.write_row(0, 0, ["Code", "Name", "Price"])
        sheet.write_row(1, 0, ["A1", "Good", 5])
        sheet.write_row(2, 0, ["1.23E+12", "Damaged code", 6])
        sheet.write_row(3, 0, ["A3", "Uncomputed"])
        sheet.write_formula(3, 2, "=1/0", None, "#DIV/0!")
        sheet.write_row(4, 0, ["A4", "Date for a price"])
        sheet.write_datetime(
            4,
            2,
            __import__("datetime").datetime(2026, 1, 2),
            book.add_format({"num_format": "dd.mm.yyyy"}),
        )

    path = workbook(tmp_path / "bad.xlsx", write)
    found = [[(f.code, f.place.column, f.place.row) for f in r.faults] for r in items(path)]
    assert found == [
        [], [("code-damaged", "A", 3)], [("error-value", "C", 4)], [("date-in-price", "C", 5)],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty"), (b"%PDF-1.6\n...", "not-a-table"), (b"PK\x03\x04broken", "truncated"),
        (b"<html><body>Sign in</body></html>", "not-a-table"), (b"<?xml version='1.0'?><a/>", "not-a-table"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "unreadable-workbook"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_refused_by_name(tmp_path, content, code):
    path = tmp_path / "list.xlsx"
    path.write_bytes(content)
    with pytest.raises(Refused) as caught:
        open_book(path)
    assert caught.value.fault.code == code


def test_bombs_are_refused_before_they_are_opened(tmp_path):
    path = tmp_path / "bomb.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("xl/worksheets/sheet1.xml", b"0" * (300 << 20))
    with pytest.raises(Refused) as caught:
        open_book(path)
    assert caught.value.fault.code == "workbook-too-large"


async def _frames(path, mapping=None):
    """The frames of a child under the mapping, or under the one it proposes."""
    async with parent.open_input("price_list", path) as reading:
        found = None if mapping else await reading.inspect({})
        return [found, *[f async for f in reading.read(mapping or found.proposal)]]


def test_the_child_speaks_the_same_rows(tmp_path):
    path = supplier_list(tmp_path / "list.xlsx")
    frames = asyncio.run(_frames(path))
    assert frames[0].proposal == CONNECTOR.open(path).inspect({}).proposal
    assert [r for f in frames if isinstance(f, Rows) for r in f.rows] == items(path)
    done = frames[-1]
    assert isinstance(done, Done) and (done.rows, done.faulty) == (3, 1)


def test_a_child_that_dies_is_a_named_refusal(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("name,price\n" + "x" * 2_000_000 + ",1\n", "utf-8")
    for mapping in (
        Mapping(),
        CONNECTOR.open(supplier_list(tmp_path / "a.xlsx")).inspect({}).proposal,
    ):
        try:
            asyncio.run(_frames(path, mapping))
        except Refused as refused:
            assert refused.fault.code in ("malformed-row", "sheet-missing", "reader-died")


@pytest.mark.skipif(not SAMPLES.exists(), reason="the samples are not part of the repository")
def test_real_lists_are_read_without_a_crash():
    read = 0
    for folder in ("pricelists", "spreadsheet-traps", "dbf"):
        for path in sorted((SAMPLES / folder).iterdir()):
            try:
                read += len(items(path))
            except Refused as refused:
                assert refused.fault.code and refused.fault.expected
    assert read > 35_000
