"""Office files: everything that acts is seen, nothing everyday is, whatever the bytes."""

import time
import zipfile

import pytest

from quarantine.contract import Policy
from quarantine.documents.targets import judge_relation, leads_away
from quarantine.engines.base import Unscannable
from tests.quarantine import benign_documents, corpus_documents
from tests.quarantine.compound_file import write_compound
from tests.quarantine.examining import (
    assert_clean,
    assert_held,
    assert_survives,
    examine,
    leaf_of,
    peak_growth,
    samples,
)
from tests.quarantine.office_files import package, vba_bin

HOSTILE = [c for c in corpus_documents.CASES if c.engine == "office"]
BENIGN = benign_documents.BENIGN
SPREADSHEETS = samples(".xls", ".xlsx", ".xlsb", ".ods", ".doc", ".csv", ".txt", ".xml")


@pytest.mark.parametrize("case", HOSTILE, ids=lambda c: c.name)
def test_hostile_is_held(case, tmp_path):
    assert_held(case, tmp_path)


@pytest.mark.parametrize("benign", BENIGN, ids=lambda b: b.name)
def test_everyday_is_clean(benign, tmp_path):
    assert_clean(benign, tmp_path, "office")


@pytest.mark.skipif(not SPREADSHEETS, reason="no samples beside the project")
def test_samples_are_clean():
    found = {p.name: f for p in SPREADSHEETS if (f := examine("office", leaf_of(p)))}
    assert found == {}


def test_the_sample_with_macros_is_held():
    for path in samples(".xlsm"):
        assert {f.code for f in examine("office", leaf_of(path))} == {"office.vba"}


def test_a_finding_names_its_part_and_stands_once_for_it(tmp_path):
    path = tmp_path / "a.docx"
    package("docx", parts={"word/media/image1.png": vba_bin()})(path)
    leaf = leaf_of(path)
    (found,) = examine("office", leaf)
    assert (found.code, found.place) == ("office.vba", "a.docx/word/media/image1.png")


def test_streams_in_circles_take_no_time(tmp_path):
    """A chain of sectors that leads back to itself, under a size of two gigabytes."""
    path = tmp_path / "a.doc"
    data = bytearray(write_compound({"WordDocument": bytes(5_000)}))
    at = data.find("WordDocument".encode("utf-16-le")) + 0x78
    data[at : at + 4] = (0x7FFFFFFF).to_bytes(4, "little")
    data[at - 4 : at] = bytes(4)
    fat = data.rfind((0xFFFFFFFD).to_bytes(4, "little")) // 512 * 512
    data[fat : fat + 4] = bytes(4)
    path.write_bytes(data)
    started = time.monotonic()
    assert [f.code for f in examine("office", leaf_of(path))] == ["office.broken"]
    assert time.monotonic() - started < 1


ALL = ("office", "pdf", "images", "markup", "rules", "denied")


def test_parts_of_everyday_packages_are_clean_for_every_engine(tmp_path):
    """The pipeline shows each part on its own as well."""
    packages = [b for b in BENIGN if b.file.endswith(("x", "s", "t"))]
    paths = []
    for number, benign in enumerate(packages):
        paths.append(tmp_path / f"{number}-{benign.file}")
        benign.make(paths[-1])
    held, seen = {}, 0
    part = tmp_path / "part"
    for path in filter(zipfile.is_zipfile, paths + samples(".xlsx", ".ods", ".xlsb")):
        with zipfile.ZipFile(path) as archive:
            for entry in archive.namelist():
                part.write_bytes(archive.read(entry))
                for name in ALL:
                    seen += 1
                    if found := examine(name, leaf_of(part, entry.rpartition("/")[2])):
                        held[f"{path.name}/{entry}"] = found
    assert held == {}
    assert seen > 1_000


def test_a_text_of_a_hundred_thousand_words_takes_a_second(tmp_path):
    """Letters in Russian are one escape for each character; the library alone takes minutes."""
    path = tmp_path / "a.rtf"
    path.write_bytes(b"{\\rtf1 " + rb"{\b \'cf\'f0\'e8 \i \'e2\'e5\'f2\par }" * 60_000 + b"}")
    started = time.monotonic()
    assert examine("office", leaf_of(path)) == []
    assert time.monotonic() - started < 8


def test_damaged_files_never_break_the_engine(tmp_path):
    cases = HOSTILE + [b for b in BENIGN if b in benign_documents.OFFICE]
    assert_survives("office", cases, tmp_path, count=600)


def test_nothing_is_printed_or_logged(tmp_path, capfd, caplog):
    for number, case in enumerate(HOSTILE):
        path = tmp_path / f"{number}-{case.file}"
        case.make(path)
        path.write_bytes(path.read_bytes()[:-30])
        examine("office", leaf_of(path, case.file))
    said = capfd.readouterr()
    assert (said.out, said.err, caplog.text) == ("", "", "")


def test_budgets_are_counted_on_real_bytes(tmp_path):
    path = tmp_path / "a.xlsx"
    package("xlsx", "<workbook/>", parts={"xl/sharedStrings.xml": b"<a>" + bytes(3_000_000)})(path)
    with pytest.raises(Unscannable, match="larger than the policy"):
        examine("office", leaf_of(path), Policy(entry_bytes_max=1_000_000))
    with pytest.raises(Unscannable, match="larger than the policy"):
        examine("office", leaf_of(path), Policy(unpacked_bytes_max=1_000_000))
    with pytest.raises(Unscannable, match="more parts"):
        examine("office", leaf_of(path), Policy(entries_max=3))
    with pytest.raises(Unscannable, match="took longer"):
        examine("office", leaf_of(path), Policy(seconds_max=0))


def test_a_large_price_list_takes_little_time_and_memory(tmp_path):
    """40 MB of rows, which the readers of oletools would walk for minutes."""
    row = b'<row><c t="s"><v>123</v></c><c><v>45.5</v></c><c><f>A1*B1</f><v>7</v></c></row>' * 1000
    for name, count in (("small.xlsx", 1), ("large.xlsx", 500)):
        package("xlsx", "<workbook/>")(tmp_path / name)
        with zipfile.ZipFile(tmp_path / name, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as book:
            with book.open("xl/worksheets/sheet1.xml", "w") as sheet:
                sheet.write(b"<worksheet><sheetData>")
                for _ in range(count):
                    sheet.write(row)
                sheet.write(b"</sheetData></worksheet>")
    started = time.monotonic()
    assert examine("office", leaf_of(tmp_path / "large.xlsx")) == []
    assert time.monotonic() - started < 5
    grown, codes = peak_growth("office", tmp_path / "large.xlsx", "")
    assert codes == "[]"
    assert grown < 60


@pytest.mark.parametrize(
    ("target", "away"),
    [
        ("https://host/a", True), ("file://host/a", True), ("file:///\\\\host\\a", True),
        ("\\\\host\\a", True), ("//host/a", True), ("mhtml:http://host", True), ("file:////host/a", True),
        ("file:%2f%2fhost/a", True), ("file:///C:/a", False), ("C:\\a", False), ("a.docx", False),
        ("../a", False), ("file:///home/a", False), ("file:///c|/a", False), ("", False),
    ],
)  # fmt: skip
def test_where_a_link_leads(target, away):
    assert leads_away(target) is away
    assert (judge_relation("attachedTemplate", target) != "") is away
