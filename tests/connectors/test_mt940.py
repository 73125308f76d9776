"""MT940 and MT942: signs, pages, dialects, and what a wrong line costs."""

import re
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.systems.mt940.fields import parse_account, parse_balance, parse_entry
from connectors.systems.mt940.narrative import read_narrative
from tests.connectors.statements import Told, files_of, refusal, show, swift

# Another reading of :61: and of balances than the reader's: only marks, digits and line starts.
LINE = re.compile(rb"^:61:\d{6}(?:\d{4})? ?(R?[CD])([A-Z]?)([\d.,]+) ?[A-Z/]", re.MULTILINE)
ANY_LINE = re.compile(rb"^:61:", re.MULTILINE)
BALANCE = re.compile(rb"^:6[02][FM]:([CD])\d{6}[A-Z]{3}([\d.,]+) *\r?$", re.MULTILINE)
# Cut by those who made them public, or wrong by intent: they do not tie, by hand as by the reader.
BROKEN = {"prowide__sample_JPchar.txt": 1, "railslove__mt940-headers.txt": 1}


def money(digits):
    return Decimal(digits.decode().replace(",", "."))


@pytest.mark.parametrize("path", files_of("mt940"))
def test_each_sample_against_a_count_of_its_own(path):
    told, data = Told("mt940", path), path.read_bytes()
    show(path, told)
    assert len(told.lines) == len(ANY_LINE.findall(data))
    assert len(told.lines) - len(told.sound) == BROKEN.get(path.name, 0)
    signs = {b"C": 1, b"D": -1, b"RC": -1, b"RD": 1}
    mine = [signs[m] * money(d) for m, _, d in LINE.findall(data)]
    assert sum(told.amounts) == sum(mine) or BROKEN.get(path.name)
    if len(told.statements) == 1 and len(found := BALANCE.findall(data)) == 2:
        opening, closing = ((1 if m == b"C" else -1) * money(d) for m, d in found)
        assert told.ties == [opening + sum(mine) == closing]


def test_reversals_are_signed_by_what_they_undo():
    path = files_of("mt940") and next(
        p.values[0] for p in files_of("mt940") if "WoLpH__sepa_mt9401" in p.id
    )
    if not path:
        pytest.skip("the samples are not part of the repository")
    told = Told("mt940", path)
    first = told.statements[0].values
    assert (first["opening"], first["net"], first["closing"]) == (
        "-1234718.36",
        "-2909.87",
        "-1237628.23",
    )
    assert told.ties == [True] * 20 and not told.holds
    undone = [r.values for r in told.lines if r.values.get("is_reversal")]
    assert undone and all(r["amount"] == "-204.88" for r in undone[:1])


@pytest.mark.parametrize(("text", "mark", "amount", "code", "reference"), [
    ("2601020102RCR1027,25N068NONREF", "RC", "-1027.25", "N068", ""),
    ("2601020102RDR1,N068ABC//XYZ", "RD", "1", "N068", "ABC"),
    ("2601020102CR300,NTRFTFNr 40005 MSGID//07", "C", "300", "NTRF", "TFNr 40005 MSGID"),
    ("260102CD2250,00NMSCNONREF", "C", "2250.00", "NMSC", ""),
    ("260102D20,NONREF", "D", "-20", "", ""),
    ("260102C,50NMSCX/Y", "C", "0.50", "NMSC", "X/Y"),
    ("260102C000000000300.00NMSC170059286", "C", "300.00", "NMSC", "170059286"),
    ("2601020102CN220000,00//19239782213", "C", "220000.00", "", ""),
    ("260102D10,00NIT NONREF", "D", "-10.00", "NIT", ""),
    ("260102ED5,00NTRFNONREF", "ED", "-5.00", "NTRF", ""),
    ("2601020102C50,00 NTRFNONREF//21", "C", "50.00", "NTRF", ""),
])  # fmt: skip
def test_lines_as_banks_write_them(text, mark, amount, code, reference):
    found = parse_entry(text)
    assert (found.mark, found.amount, found.code, found.reference) == (
        mark,
        Decimal(amount),
        code,
        reference,
    )


@pytest.mark.parametrize(("text", "value_date", "booked"), [
    ("2512311231D1,NMSCX", "2025-12-31", "2025-12-31"), ("2512310102D1,NMSCX", "2025-12-31", "2026-01-02"),
    ("2601021231D1,NMSCX", "2026-01-02", "2025-12-31"), ("260228D1,NMSCX", "2026-02-28", "2026-02-28"),
    ("260230D1,NMSCX", "2026-02-28", "2026-02-28"), ("991231D1,NMSCX", "1999-12-31", "1999-12-31"),
])  # fmt: skip
def test_years_are_the_nearest_and_days_past_the_month_are_its_last(text, value_date, booked):
    found = parse_entry(text)
    assert (found.value_date, found.booked) == (value_date, booked)


@pytest.mark.parametrize("text", [
    "261301D1,NMSCX", "26010D1,NMSCX", "260102X1,NMSCX", "260102D1.2.3NMSC", "260102D,NMSC", "260100C1,N",
    "260102DNMSCX", "", "2601021301C5,NMSCX",
])  # fmt: skip
def test_what_is_no_line(text):
    assert parse_entry(text) is None


def test_a_malformed_line_holds_its_statement_and_no_other(tmp_path):
    path = tmp_path / "a.sta"
    good = swift(["260102C5,00NTRFX//1"], "0,", "5,", number="1/1")
    bad = swift(["260102C5,00NTRFX//2", "26133C9,99NTRFTHE WRONG ONE"], "5,", "10,", number="2/1")
    last = swift(["260103D3,00NTRFX//3"], "10,", "7,", number="3/1", day="260103")
    path.write_text(good + bad + last)
    told = Told("mt940", path)
    assert (
        len(told.lines) == 4
        and told.faults == ["malformed-line"]
        and told.ties == [True, True, True]
    )
    (held,) = told.summary.holds
    assert (held.code, held.place.row, held.place.column) == (
        "malformed-line",
        13,
        told.statements[1].key,
    )
    assert "26133C9,99NTRFTHE WRONG ONE" in held.found


def test_a_statement_that_does_not_tie_is_held_with_its_sums(tmp_path):
    path = tmp_path / "a.sta"
    path.write_text(
        swift(["260102C5,00NTRFX"], "1,00", "7,00") + swift([], "7,", "7,", number="2/1")
    )
    told = Told("mt940", path)
    (held,) = told.summary.holds
    assert held.code == "balance-mismatch" and held.place.column == told.statements[0].key
    assert held.found == "opening 1.00, sum 5.00, closing 7.00, difference 1.00 EUR"
    assert told.ties == [False, True] and not told.warnings


def test_gaps_between_statements_are_told(tmp_path):
    path = tmp_path / "a.sta"
    path.write_text(swift([], "1,", "1,") + swift([], "3,", "3,", number="3/1", day="260105"))
    assert Told("mt940", path).warnings == ["balance-gap"]


def test_pages_are_one_statement(tmp_path):
    path = tmp_path / "a.sta"
    path.write_text(
        ":20:A\n:25:ACC\n:28C:7/1\n:60F:C260101EUR1,\n:61:260101C1,NTRFX\n:86:one\n:62M:C260101EUR2,\n-\n"
        ":20:B\n:25:ACC\n:28C:7/2\n:60M:C260101EUR2,\n:61:260101C2,NTRFX\n:62M:C260101EUR4,\n-\n"
        ":20:C\n:25:ACC\n:28C:7/3\n:61:260101C3,NTRFX\n:62F:C260101EUR7,\n-\n"  # no opening balance
        ":20:D\n:25:ACC\n:28C:7/1\n:60F:C270101EUR7,\n:62F:C270101EUR7,\n-\n"  # the number of a year ago
    )
    told = Told("mt940", path)
    first, second = told.statements
    assert (first.values["opening"], first.values["closing"], first.values["lines"]) == (
        "1",
        "7",
        "3",
    )
    assert told.ties == [True, True] and first.key != second.key and not told.holds


def test_the_same_statement_twice_in_a_file_is_held_once(tmp_path):
    path = tmp_path / "a.sta"
    path.write_text(swift(["260102C5,NTRFX"], "0,", "5,") * 2)
    told = Told("mt940", path)
    assert told.holds == ["duplicate-statement"] and told.lines[0].key == told.lines[1].key


def test_keys_do_not_depend_on_places(tmp_path):
    one, other = tmp_path / "a.sta", tmp_path / "b.sta"
    statement = swift(["260102C5,NTRFX//77", "260102C5,NTRFX//77"], "0,", "10,", number="5/1")
    one.write_text(statement)
    other.write_text("\r\n" + (swift([], "3,", "3,") + statement).replace("\n", "\r\n"))
    first, second = Told("mt940", one), Told("mt940", other)
    assert [r.key for r in first.lines] == [r.key for r in second.lines]
    assert first.lines[0].key == first.lines[1].key  # two coffees: whoever posts counts them
    assert first.statements[0].key == second.statements[1].key


def test_an_intraday_report_is_provisional(tmp_path):
    path = tmp_path / "a.942"
    head = ":20:A\n:25:ACC\n:28C:1/1\n:34F:EUR0,\n:13D:2601011200+0100\n"
    lines = ":61:260101C5,NTRFX\n:86:one\n:61:260101D2,NTRFX\n:61:260101EC9,NTRFEXPECTED\n"
    path.write_text(head + lines + ":90D:1EUR2,\n:90C:1EUR5,\n-}")
    told = Told("mt940", path)
    assert told.inspection.version == "942" and not told.holds
    (statement,) = told.statements
    assert statement.values["is_provisional"] and "ties" not in statement.values
    assert (statement.values["net"], statement.values["lines"]) == ("3", "2")
    assert all(r.values["is_provisional"] for r in told.lines)
    path.write_text(head + lines + ":90D:2EUR4,\n:90C:1EUR5,\n-}")
    assert Told("mt940", path).holds == ["totals-mismatch"]


@pytest.mark.parametrize(("lines", "expected"), [
    (["166?00SEPA GUTSCHRIFT?109310?20EREF+R-1?21MREF+M7?22SVWZ+Rechn", "ung 7?23 und mehr?30BYLADEMM?31DE99?32Anna",
      "?33 Muster?34051"],
     {"kind": "166 SEPA GUTSCHRIFT", "end_to_end": "R-1", "mandate": "M7", "purpose": "Rechnung 7 und mehr",
      "counterparty_bank": "BYLADEMM", "counterparty_account": "DE99", "counterparty": "Anna Muster"}),
    (["020^00WPLATA^20Faktura^21VAT 7^32FIRMA^38PL61109010140000071219812874"],
     {"kind": "020 WPLATA", "purpose": "Faktura VAT 7", "counterparty": "FIRMA",
      "counterparty_account": "PL61109010140000071219812874"}),
    (["/TRTP/SEPA OVERBOEKING/IBAN/NL91ABNA0417164300/BIC/ABNANL2A/NAME/J. de Vr", "ies/REM", "I/a/b 12/EREF/NOTPROVIDED"],
     {"kind": "SEPA OVERBOEKING", "counterparty_account": "NL91ABNA0417164300", "counterparty_bank": "ABNANL2A",
      "counterparty": "J. de Vries", "purpose": "a/b 12"}),
    (["/CNTP/NL91ABNA0417164300/ABNANL2A/Bert///REMI/USTD//22-08 Fiets/"],
     {"counterparty_account": "NL91ABNA0417164300", "counterparty_bank": "ABNANL2A", "counterparty": "Bert",
      "purpose": "22-08 Fiets"}),
    (["/EREF/1/BENM//NAME/Belastingdienst/REMI//CDTRREFTP//CD/SCOR/ISSR/CUR/CDTRREF/123456/ISDT/2013-12-27"],
     {"end_to_end": "1", "counterparty": "Belastingdienst", "reference": "123456"}),
    (["SEPA IDEAL                       IBAN: NL70ABNA0888888888", "BIC: ABNANL2A   NAAM: NS GROEP", "KENMERK: 1"],
     {"counterparty_account": "NL70ABNA0888888888", "counterparty_bank": "ABNANL2A", "counterparty": "NS GROEP"}),
    (["Payment of invoice RF18539007547034"], {"reference": "RF18539007547034"}),
])  # fmt: skip
def test_narratives_of_the_dialects(lines, expected):
    found = read_narrative(lines)
    assert {k: found.get(k) for k in expected} == expected


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text("?/^~>-:+019AZ az\xe4\u0436"), min_size=1, max_size=8))
def test_no_narrative_breaks_the_reader(lines):
    assert all(v and isinstance(v, str) for v in read_narrative(lines).values())


def test_accounts_and_balances():
    assert parse_account("NL92 KNAB 0123 4567 89") == ("", "NL92KNAB0123456789", "")
    assert parse_account("50880050/0194774600888") == ("50880050", "0194774600888", "")
    assert parse_account("NL62INGB0001231231EUR") == ("", "NL62INGB0001231231", "EUR")
    assert parse_account("1017.490.554EUR") == ("", "1017.490.554", "EUR")
    assert parse_balance("D260101JPY1234,").amount == -1234
    assert parse_balance("C020315105000,00").currency == ""
    assert parse_entry("2611200514d1,01N946NONREF").amount == Decimal("-1.01")
    for text in ("C141387INR1,", "C260101INR11 27421,94", "X260101EUR1,", ""):
        assert parse_balance(text) is None


def test_encodings_are_decided_by_the_bytes(tmp_path):
    path = tmp_path / "a.sta"
    # An umlaut after 400 KB of ASCII; and Hungarian of a DOS page.
    text = swift(["260102C1,NTRFX\n:86:" + "ascii " * 9] * 5_000, "0,", "5000,")
    text += swift(["260102C1,NTRFX\n:86:Gebühr für Müller"], "5000,", "5001,", number="2/1")
    path.write_bytes(text.encode("cp1252"))
    told = Told("mt940", path)
    assert (
        told.inspection.encoding == "cp1252"
        and told.lines[-1].values["purpose"] == "Gebühr für Müller"
    )
    path.write_bytes(swift(["260102C1,NTRFX\n:86:utalás jóváírása"], "0,", "1,").encode("cp852"))
    assert Told("mt940", path).lines[0].values["purpose"] == "utalás jóváírása"
    path.write_bytes(swift(["260102C1,NTRFX\n:86:Оплата счёта"], "0,", "1,").encode("utf-8"))
    assert Told("mt940", path).lines[0].values["purpose"] == "Оплата счёта"
    good = swift(["260102C1,NTRFX\n:86:Оплата счёта по договору"], "0,", "1,").encode("utf-8")
    at = good.index("счёта".encode()) + 4
    path.write_bytes(good[:at] + b"\xff" + good[at:])
    fault = refusal("mt940", path)
    assert fault.code == "bad-encoding" and str(at) in fault.found


def test_marks_line_ends_and_controls(tmp_path):
    path = tmp_path / "a.sta"
    text = swift(["260102C5,NTRFX\n:86:one\ntwo"], "0,", "5,")
    plain = Told("mt940", _write(path, text.encode()))
    for end in ("\r", "\r\n"):
        assert Told("mt940", _write(path, text.replace("\n", end).encode())).rows == plain.rows
    for mark in (b"\xef\xbb\xbf", b"\xef\xbb\xbf\xef\xbb\xbf"):
        assert Told("mt940", _write(path, mark + text.encode())).rows == plain.rows
    joined = text.encode() + b"\xef\xbb\xbf" + swift([], "5,", "5,", number="2/1").encode()
    told = Told("mt940", _write(path, joined))
    assert told.ties == [True, True] and told.warnings == ["byte-order-mark"]
    told = Told("mt940", _write(path, text.replace("two", "t\x07wo").encode()))
    assert told.faults == ["control-character"] and told.holds == ["balance-mismatch"]


@pytest.mark.parametrize(("data", "looks"), [
    (b"", "an empty file"), (b"<!DOCTYPE html><html>login", "a page of a web site"), (b"%PDF-1.7", "a PDF"),
    (b"PK\x03\x04....", "an archive"), (b"hello\nworld\n", "hello"),
])  # fmt: skip
def test_what_is_no_statement_is_told(tmp_path, data, looks):
    fault = refusal("mt940", _write(tmp_path / "a.sta", data))
    assert fault.code == "not-this-format" and looks in fault.found


def test_truncation_never_passes_in_silence(tmp_path):
    whole = swift(["260102C5,00NTRFX//1\n:86:one", "260103D2,00NTRFX//2\n:86:two"], "1,00", "4,00")
    path = tmp_path / "a.sta"
    for cut in range(6, len(whole) - 3):
        _write(path, whole[:cut].encode())
        if cut <= whole.index(":60F:") + 4:
            assert refusal("mt940", path).code == "truncated", cut
            continue
        told = Told("mt940", path)
        assert told.holds or told.faults or told.amounts == [5, -2], cut


def test_one_endless_line_is_refused(tmp_path):
    path = _write(tmp_path / "a.sta", b":20:A\n:25:ACC\n:86:" + b"x" * (3 << 20))
    assert refusal("mt940", path).code == "too-large-node"


@pytest.mark.parametrize(
    "tail", [b":86:x\n" * 3_000, b":86:" + b"x\n" * 3_000, b":86:" + b"x" * 9_999 + b"\n" * 2_500]
)
def test_a_line_without_end_is_refused(tmp_path, tail):
    head = swift(["260102C5,NTRFX"], "0,", "5,").split(":62F:")[0].encode()
    fault = refusal("mt940", _write(tmp_path / "a.sta", head + tail))
    assert fault.code == "too-large-node" and fault.place.row in (5, 6)


def _write(path, data):
    path.write_bytes(data)
    return path
