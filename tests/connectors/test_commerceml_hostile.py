"""What CommerceML brings that is broken, hostile or altered: refused, held or told, never silent."""

import json
import re
import struct
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.sdk.contract import Mapping, Refused, Rows, Summary
from connectors.systems.commerceml import CONNECTOR
from tests.connectors import commerceml_files as made
from tests.connectors.test_commerceml import SETTINGS, offers_of, read, read_text, same, zipped


def told(path):
    """What one reading tells: the code of a refusal, or rows with the summary, comparable."""
    try:
        source = CONNECTOR.open(path)
        frames = list(source.read(SETTINGS))
    except Refused as refused:
        return refused.fault.code
    rows = [r for f in frames if isinstance(f, Rows) for r in f.rows]
    summary = frames[-1]
    assert isinstance(summary, Summary)
    return same(rows), summary


def whole(count=12, changes="false"):
    return made.document(
        made.classifier(), made.catalogue(range(count), changes),
        made.offers(range(count), made.prices, made.stock, changes=changes),
    )  # fmt: skip


SET = made.a_set(6)


@given(st.permutations(sorted(SET)), st.booleans())
@settings(max_examples=25)
def test_the_order_of_files_changes_nothing(tmp_path_factory, names, nested):
    folder = tmp_path_factory.mktemp("set")
    straight = told(zipped(folder / "straight.zip", SET))
    files = {name: SET[name] for name in names}
    path = zipped(folder / "turned.zip", files)
    if nested:
        path = zipped(folder / "outer.zip", {"v8_1A2B_3c.zip": path.read_bytes()})
    rows, summary = told(path)
    assert rows == straight[0] and summary.entities == straight[1].entities
    assert summary.facts == straight[1].facts and not summary.warnings


@pytest.mark.parametrize("part", range(1, 16))
def test_a_cut_file_is_refused(tmp_path, part):
    data = whole().encode()
    path = tmp_path / "cut.xml"
    path.write_bytes(data[: len(data) * part // 16])
    with pytest.raises(Refused) as caught:
        list(CONNECTOR.open(path).read(SETTINGS))
    assert caught.value.fault.code == "truncated"
    assert caught.value.fault.place.offset == len(data) * part // 16


@pytest.mark.parametrize("part", range(1, 16))
def test_a_cut_zip_is_refused(tmp_path, part):
    data = zipped(tmp_path / "set.zip", SET).read_bytes()
    (tmp_path / "cut.zip").write_bytes(data[: len(data) * part // 16])
    assert told(tmp_path / "cut.zip") in ("truncated", "wrong-checksum")


@pytest.mark.parametrize(
    "dropped",
    ["Классификатор", "Каталог", "ПакетПредложений", "Группы", "Свойства", "ТипыЦен", "Склады", "Товары",
     "Предложения", "Товар", "Предложение", "Цена", "Склад ", "Группа"],
)  # fmt: skip
def test_a_dropped_block_shows(tmp_path, dropped):
    text = whole()
    path = tmp_path / "input.xml"
    path.write_text(text, encoding="utf-8")
    rows, summary = told(path)
    if dropped == "Склад ":
        cut = re.sub(r"<Склад [^>]*/>", "", text, count=1)
    else:
        cut = re.sub(rf"<{dropped}\b.*?</{dropped}>", "", text, count=1, flags=re.DOTALL)
    assert cut != text
    path.write_text(cut, encoding="utf-8")
    less = told(path)
    assert less == "truncated" or (less[0] != rows and (
        less[1].entities != summary.entities or less[1].warnings or less[1].holds
        or less[1].facts != summary.facts
    ))  # fmt: skip


def test_encodings_swapped_under_the_declaration(tmp_path):
    text = whole()
    path = tmp_path / "input.xml"
    path.write_text(text, encoding="utf-8")
    rows, _ = told(path)
    for declared, real in (
        ("UTF-8", "cp1251"),
        ("windows-1251", "utf-8"),
        ("UTF-8", "cp866"),
        ("KOI8-R", "cp1251"),
    ):
        path.write_bytes(text.replace('encoding="UTF-8"', f'encoding="{declared}"').encode(real))
        found, summary = told(path)
        assert found == rows and [w.code for w in summary.warnings] == ["encoding-mismatch"]


@pytest.mark.parametrize("record", ["Товар", "Предложение", "Группа", "Документ"])
def test_a_repeated_record(tmp_path, record):
    document = "<Документ><Ид>1</Ид><Сумма>2</Сумма></Документ>"
    text = whole().replace(made.TAIL, document + made.TAIL)
    found = re.search(rf"<{record}>.*?</{record}>", text, re.DOTALL)
    rows, summary = read_text(tmp_path, text)
    twice, same_told = read_text(tmp_path, text[: found.end()] + found[0] + text[found.end() :])
    assert same(twice) == same(rows)
    assert {w.code for w in same_told.warnings} == {"duplicate-collapsed"}
    changed = re.sub(r"(Светильник|<Наименование>|<Сумма>|НаСкладе=\")", r"\g<1>7", found[0])
    other, other_told = read_text(tmp_path, text[: found.end()] + changed + text[found.end() :])
    assert "duplicate-id" in {w.code for w in other_told.warnings}
    faulty = [f.code for r in other for f in r.faults]
    assert faulty and set(faulty) == {"duplicate-id"}


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "inf",
        "1e400",
        "1" * 40,
        "0x10",
        "١٢",
        "1..2",
        "1,2,3",
        "1.2.3",
        "",
        "--5",
        "12abc",
        "5-6",
    ],
)
def test_numbers_that_are_none(tmp_path, text):
    body = (
        f"<Предложение><Ид>a</Ид><Цены><Цена><ИдТипаЦены>t</ИдТипаЦены><ЦенаЗаЕдиницу>{text}</ЦенаЗаЕдиницу>"
        f"</Цена></Цены><Количество>{text}</Количество></Предложение>"
    )
    rows, _ = offers_of(tmp_path, body)
    assert rows and all(r.faults and "amount" not in r.values for r in rows)
    assert {f.code for r in rows for f in r.faults} == {"number-malformed" if text else "missing"}


@pytest.mark.parametrize(
    ("text", "value"),
    [("231.7400", "231.7400"), ("23 000", "23000"), ("1\N{NO-BREAK SPACE}234,5", "1234.5"), ("37,5", "37.5"),
     ("1,234.56", "1234.56"), ("1.234,56", "1234.56"), (".5", "0.5"), ("5.", "5"), ("+7", "7"), ("12 руб.", "12")],
)  # fmt: skip
def test_numbers_as_they_are_written(tmp_path, text, value):
    (row,), _ = offers_of(
        tmp_path, f"<Предложение><Ид>a</Ид><Количество>{text}</Количество></Предложение>"
    )
    assert row.values["quantity"] == value and not row.faults


def test_a_number_of_two_readings_waits(tmp_path):
    (row,), _ = offers_of(
        tmp_path, "<Предложение><Ид>a</Ид><Количество>1,234</Количество></Предложение>"
    )
    assert [f.code for f in row.faults] == ["ambiguous-number"]


def test_control_characters_stop_their_row_only(tmp_path):
    goods = "<Товар><Ид>a</Ид><Наименование>x\x01</Наименование></Товар><Товар><Ид>b</Ид></Товар>"
    rows, _ = read_text(tmp_path, made.document(f"<Каталог><Товары>{goods}</Товары></Каталог>"))
    assert [[f.code for f in r.faults] for r in rows] == [["control-character"], []]


def test_what_refers_to_nothing_is_told(tmp_path):
    text = (
        whole()
        .replace(made.TYPES[1], "unlisted", 3)
        .replace(f"<Ид>{made.group_id(1)}</Ид>", "<Ид>g</Ид>", 1)
    )
    text = text.replace(f"<Ид>{made.TYPES[1]}</Ид>", "<Ид>other</Ид>")
    _, summary = read_text(tmp_path, text)
    assert {w.code for w in summary.warnings} >= {"unknown-category"}


def test_an_unknown_version_and_groups_in_a_loop_are_read(tmp_path):
    text = whole().replace('ВерсияСхемы="2.10"', 'ВерсияСхемы="9.1"')
    loop = "<Группы><Группа><Ид>x</Ид><Наименование>X</Наименование><ИдРодителя>x</ИдРодителя></Группа>"
    _, summary = read_text(tmp_path, text.replace("<Группы>", loop, 1))
    assert [w.code for w in summary.warnings] == ["unknown-version", "group-loop"]


def test_records_without_an_id_wait(tmp_path):
    rows, _ = offers_of(tmp_path, "<Предложение><Количество>1</Количество></Предложение>")
    assert [f.code for r in rows for f in r.faults] == ["missing-id"]


def test_orders_that_do_not_tie_and_lines_below_zero(tmp_path):
    line = "<Товар><Ид>p</Ид><Количество>{}</Количество><Сумма>5</Сумма></Товар>"
    text = made.document(
        f"<Документ><Ид>1</Ид><Дата>2026-02-30</Дата><Сумма>7</Сумма><Товары>{line.format(-1)}</Товары>"
        "<ПодчиненныеДокументы><ПодчиненныйДокумент><Ид>2</Ид><ХозОперация>Выплата</ХозОперация>"
        "<Сумма>7</Сумма></ПодчиненныйДокумент></ПодчиненныеДокументы></Документ>"
    )
    rows, summary = read_text(tmp_path, text)
    assert [(r.entity, r.key, [f.code for f in r.faults]) for r in rows] == [
        ("order", "1", ["malformed-date"]), ("order_line", "1|p|1", ["negative-quantity"]), ("order", "2", []),
    ]  # fmt: skip
    assert rows[2].values["parent_id"] == "1" and [w.code for w in summary.warnings] == [
        "total-differs"
    ]


def test_names_in_a_zip_are_labels_only(tmp_path):
    path = tmp_path / "names.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("../../etc/import.xml", "/abs/offers.xml", "C:\\Temp\\v8_8789_c.xml"):
            archive.writestr(
                name, SET["webdata/rests___6.xml"] if "8789" in name else made.document()
            )
        link = zipfile.ZipInfo("import_files/link.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    rows, _ = read(path)
    assert {r.place.sheet for r in rows} == {"C:/Temp/v8_8789_c.xml"}
    assert [p.name for p in tmp_path.iterdir()] == ["names.zip"]


def test_names_in_cp866(tmp_path):
    path = zipped(tmp_path / "n.zip", {"XXXXX.xml": SET["webdata/rests___6.xml"]})
    path.write_bytes(path.read_bytes().replace(b"XXXXX.xml", "товар.xml".encode("cp866")))
    assert {r.place.sheet for r in read(path)[0]} == {"товар.xml"}


def test_hostile_zips(tmp_path):
    path = tmp_path / "z.zip"
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "w") as archive:
        archive.writestr("import.xml", whole())
        archive.writestr("import.xml", whole())
    assert told(path) == "archive-duplicate"
    zipped(path, {"import.xml": whole(), "bomb.jpg": b"\0" * (64 << 20)})
    assert told(path) == "archive-too-large"
    inner = zipped(tmp_path / "i.zip", {"import.xml": whole()}).read_bytes()
    middle = zipped(tmp_path / "m.zip", {"i.zip": inner}).read_bytes()
    assert told(zipped(path, {"m.zip": middle})) == "nested-archive"
    assert told(zipped(path, {"readme.txt": "nothing"})) == "not-this-format"
    assert told(zipped(path, {"import.xml": "<html>login</html>"})) == "not-this-format"
    assert (
        told(zipped(path, {"import.xml": whole(), "page.htm": "<html><br></html>"})) != "truncated"
    )


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("name", ["import.xml", "import_files/1.jpg"])
def test_a_wrong_sum_is_refused_before_a_row(tmp_path, method, name):
    path = tmp_path / "crc.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("import.xml", whole())
        archive.writestr("import_files/1.jpg", b"\xff\xd8" + b"picture" * 100)
        entry = archive.getinfo(name)
    data = bytearray(path.read_bytes())
    right = struct.pack("<I", entry.CRC)
    path.write_bytes(bytes(data).replace(right, struct.pack("<I", entry.CRC ^ 1)))
    with pytest.raises(Refused) as caught:
        CONNECTOR.open(path)
    assert caught.value.fault.code == "wrong-checksum" and caught.value.fault.place.sheet == name


def test_a_mapping_chooses_the_encoding(tmp_path):
    path = tmp_path / "input.xml"
    path.write_bytes(whole(2).encode("cp866"))
    rows, _ = read(path, Mapping(constants=SETTINGS.constants, encoding="cp866"))
    assert any("Светильник" in json.dumps(r.values, ensure_ascii=False) for r in rows)


def varied(count):
    """Products and offers of many shapes: parts that are there or not, entities, line ends."""
    text = made.document(
        made.classifier(),
        made.catalogue(range(count)),
        made.offers(range(count), made.prices, made.stock),
    )
    for n in range(count):
        name = f"накладной {n}</Наименование>"
        if n % 3 == 0:
            text = text.replace(name, f"накладной &quot;{n}&quot; &amp; Ко</Наименование>")
        if n % 5 == 0:
            text = text.replace(name, f"{name}<Штрихкод>46{n:06}</Штрихкод>", 1)
        if n % 7 == 0:
            text = text.replace(
                f"{n:08x}.jpg</Картинка>", f"{n:08x}.jpg</Картинка><Картинка>b{n}.jpg</Картинка>"
            )
    return text


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "cp1251"])
def test_records_of_known_shapes_read_as_by_the_parser(tmp_path, ends, encoding):
    text = varied(220).replace('encoding="UTF-8"', f'encoding="{encoding}"').replace("\n", ends)
    path = tmp_path / "input.xml"
    path.write_bytes(text.encode(encoding))
    rows, summary = read(path)
    # A comment in a record leaves it to the parser, and changes nothing else.
    path.write_bytes(text.replace("</Ид>", "</Ид><!-- -->").encode(encoding))
    parsed, other = read(path)
    assert len(rows) > 1_100 and rows == parsed and summary == other
    assert not summary.warnings and not [r for r in rows if r.faults]


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [("</Товар>", "</товар>", "malformed"), ("<Артикул>", "<Артикул", "malformed"),
     ("Светильник", "&mdash;", "undefined-entity"), ("Светильник", "<Светильник", "malformed"),
     ("<Ставка>", "<Ставка><Ставка>", "malformed"), ('Код="796 "', "Код=796", "malformed")],
)  # fmt: skip
def test_one_broken_record_among_thousands_is_refused(tmp_path, old, new, code):
    text = varied(220)
    at = text.index(old, len(text) // 3)
    path = tmp_path / "input.xml"
    path.write_text(text[:at] + new + text[at + len(old) :], encoding="utf-8")
    with pytest.raises(Refused) as caught:
        read(path)
    line = text.count("\n", 0, at) + 1
    assert caught.value.fault.code == code, caught.value
    assert abs(caught.value.fault.place.row - line) < 60
