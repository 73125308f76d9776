"""OFX 1 and 2: leaves of every form, signs, several statements, and what a cut costs."""

import re
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.systems.ofx.reader import parse_moment
from tests.connectors.statements import Told, files_of, ofx, refusal, show

LINE = "<TRNTYPE>DEBIT\n<DTPOSTED>20260105\n<TRNAMT>{}\n<FITID>1\n<NAME>Shop\n<MEMO>Coffee"
# Answers of banks that hold no statement, and the skeletons of a library's crash tests.
EMPTY = {
    "annacruz__error.ofx", "jseutter__bank_small.ofx", "jseutter__error_message.ofx", "libofx__failing-ofx-file2.xml",
}  # fmt: skip
# Lines that no reader may take as they are: which faults, how often.
WRONG = {
    "OCA__test_ofx_wrong.ofx": {"missing-account", "malformed-amount", "missing-date", "missing-currency"},
    "annacruz__cef_malformed_decimal.ofx": {"malformed-amount"}, "jseutter__decimal_error.ofx": {"malformed-amount", "malformed-date"},
    "asgrim__ofxdata-emptyDateTime.ofx": {"missing-account"}, "jseutter__investment_medium.ofx": {"currency-mismatch"},
    "libofx__downcast.ofx": {"missing-account", "missing-currency"},
    "libofx__heap-buffer-overflow-1.ofx": {"missing-account", "missing-currency"},
}  # fmt: skip


def put(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("path", files_of("ofx"))
def test_each_sample_against_a_count_of_its_own(path):
    if path.name in EMPTY:
        assert refusal("ofx", path).code == "not-this-format"
        return
    told = Told("ofx", path)
    show(path, told)
    text = re.sub(r"<!--.*?-->", "", path.read_bytes().decode("latin-1"), flags=re.DOTALL)
    blocks = re.findall(r"<STMTTRN>(.*?)</STMTTRN>", text, re.DOTALL)
    assert len(told.lines) == len(blocks)
    assert len(told.statements) == len(re.findall(r"<(?:CC|INV)?STMTRS>", text))
    assert set(told.faults) <= WRONG.get(path.name, set())
    mine = []
    for block in blocks:
        amount = re.search(r"<TRNAMT>\s*([-+]?\d+[.,]?\d*)\s*(?:<|$|\n|\r)", block)
        mine += [Decimal(amount[1].replace(",", "."))] if amount else []
    assert sum(told.amounts) == sum(mine) and len(told.amounts) == len(mine)


FORMS = {
    "unclosed": "<TRNTYPE>DEBIT\n<DTPOSTED>20260105\n<TRNAMT>-5.00\n<FITID>1\n<NAME>A & B\n<MEMO>x &lt; y",
    "closed": "<TRNTYPE>DEBIT</TRNTYPE><DTPOSTED>20260105</DTPOSTED><TRNAMT>-5.00</TRNAMT><FITID>1</FITID>"
              "<NAME>A &amp; B</NAME><MEMO>x &lt; y</MEMO>",
    "one line": "<TRNTYPE>DEBIT<DTPOSTED>20260105120000.000[-5:EST]<TRNAMT>-5.00<FITID>1<NAME>A & B<MEMO>x &lt; y",
    "blanks": "  <TRNTYPE> DEBIT \n\t<DTPOSTED>20260105\n <TRNAMT> -5.00 \n<FITID>1\n<NAME>A & B \n<MEMO>x < y\n ",
    "empty": "<TRNTYPE>DEBIT<DTPOSTED>20260105<TRNAMT>-5.00<FITID>1<CHECKNUM/><REFNUM></REFNUM><NAME>A & B<MEMO>x &lt; y",
    "small": "<trntype>debit<dtposted>20260105<trnamt>-5.00<fitid>1<name>A & B<memo>x &lt; y",
    "comment": "<!-- <TRNAMT>77 --><TRNTYPE>DEBIT<DTPOSTED>20260105<TRNAMT>-5,00<FITID>1<NAME>A & B"
               "<MEMO><![CDATA[x < y]]>",
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_leaves_of_every_form(tmp_path, form):
    (line,) = Told("ofx", put(tmp_path / "a.ofx", ofx([FORMS[form]]))).lines
    assert {k: line.values[k] for k in ("kind", "booked", "amount", "counterparty", "purpose")} == {
        "kind": "DEBIT", "booked": "2026-01-05", "amount": "-5.00", "counterparty": "A & B", "purpose": "x < y",
    }  # fmt: skip


@pytest.mark.parametrize(("text", "amount", "fault"), [
    ("-5.00", "-5.00", ""), ("+5", "5", ""), ("-530,86", "-530.86", ""), ("1.234,56", "1234.56", ""),
    ("1,234.56", "1234.56", ""), ("- 5.00", "-5.00", ""), ("1,234", None, "ambiguous-number"),
    ("   .  ", None, "malformed-amount"), ("$120", None, "malformed-amount"), ("NaN", None, "malformed-amount"),
    ("1e400", None, "malformed-amount"), ("0x10", None, "malformed-amount"), ("٣", None, "malformed-amount"),
])  # fmt: skip
def test_the_sign_decides_and_doubt_costs_the_row(tmp_path, text, amount, fault):
    told = Told("ofx", put(tmp_path / "a.ofx", ofx([LINE.format(text)])))
    assert told.lines[0].values.get("amount") == amount and told.faults == [fault] * bool(fault)


@pytest.mark.parametrize(("text", "day"), [
    ("20260105", "2026-01-05"), ("20260105120000", "2026-01-05"), ("20260105235959.999[-5:EST]", "2026-01-05"),
    ("00000000000000", ""), ("", ""), ("20260230", None), ("2026010", None), ("20261301", None), ("05.01.2026", None),
])  # fmt: skip
def test_dates(text, day):
    assert parse_moment(text) == day


def test_several_statements_and_accounts(tmp_path):
    one = ofx([LINE.format("-5.00")])
    body = one[one.index("<STMTTRNRS>") : one.index("</BANKMSGSRSV1>")]
    card = (
        body.replace("STMTRS", "CCSTMTRS")
        .replace("BANKACCTFROM", "CCACCTFROM")
        .replace("4711", "0815")
    )
    balance = "<LEDGERBAL><BALAMT>-7.00<DTASOF>20260131</LEDGERBAL></CCSTMTRS>"
    text = one.replace(body, body + card.replace("</CCSTMTRS>", balance))
    first, second = Told("ofx", put(tmp_path / "a.ofx", text)).statements
    assert (first.values["account"], second.values["account"]) == ("4711", "0815")
    assert (
        "closing" not in first.values
        and second.values["closing"] == "-7.00"
        and "ties" not in second.values
    )


def test_a_fitid_is_kept_and_not_trusted(tmp_path):
    same = Told(
        "ofx", put(tmp_path / "a.ofx", ofx([LINE.format("-5.00")] * 2 + [LINE.format("-6.00")]))
    )
    other = Told(
        "ofx",
        put(tmp_path / "b.ofx", ofx([LINE.format("-5.00").replace("<FITID>1", "<FITID>999")])),
    )
    keys = [r.key for r in same.lines]
    assert keys[0] == keys[1] == other.lines[0].key != keys[2]
    assert [r.values["bank_reference"] for r in same.lines] == ["1"] * 3


@pytest.mark.parametrize("header", [
    "", "OFXHEADER:100DATA:OFXSGMLVERSION:102SECURITY:NONEENCODING:USASCIICHARSET:1252COMPRESSION:NONE",
    "OFXHEADER: 100\r\n\r\nDATA: OFXSGML\r\nVERSION: 160\r\n", "\ufeffOFXHEADER:100\nVERSION:103\n",
    '<?xml version="1.0" encoding="utf-16"?><?OFX OFXHEADER="200" VERSION="211" SECURITY="NONE"?>',
])  # fmt: skip
def test_headers_as_they_come(tmp_path, header):
    text = ofx([LINE.format("-5.00")])
    told = Told("ofx", put(tmp_path / "a.ofx", header + text[text.index("<OFX>") :]))
    assert told.amounts == [-5] and told.inspection.version in ("", "102", "103", "160", "211")
    assert [f.code for f in told.inspection.warnings] == ["missing-header"] * (not header)


def test_charsets_lie_and_the_bytes_decide(tmp_path):
    text = ofx([LINE.format("-5.00").replace("Coffee", "Café für Zoë")])
    path = tmp_path / "a.ofx"
    for encoding, warned in (
        ("cp1252", []),
        ("utf-8", ["encoding-mismatch"]),
        ("utf-8-sig", ["encoding-mismatch"]),
    ):
        told = Told("ofx", put(path, text, encoding))
        assert told.lines[0].values["purpose"] == "Café für Zoë" and told.warnings == warned
    russian = text.replace("Café für Zoë", "Оплата товара").replace("1252", "1251")
    assert Told("ofx", put(path, russian, "cp1251")).lines[0].values["purpose"] == "Оплата товара"
    assert Told("ofx", put(path, russian, "utf-16")).lines[0].values["purpose"] == "Оплата товара"


def test_cuts_are_refused(tmp_path):
    whole = ofx([LINE.format("-5.00"), LINE.format("-6.00")])
    path = tmp_path / "a.ofx"
    for cut in range(whole.index("<STMTRS>") + 9, whole.index("</STMTRS>") + 8):
        assert refusal("ofx", put(path, whole[:cut])).code == "truncated", cut
    told = Told("ofx", put(path, whole[: whole.index("</OFX>")]))
    assert told.amounts == [-5, -6] and told.holds == ["truncated"]


def test_pending_lines_and_other_currencies(tmp_path):
    text = ofx(
        [
            LINE.format("-5.00"),
            LINE.format("-6.00"),
            LINE.format("-7.00") + "\n<CURRENCY><CURSYM>USD</CURRENCY>",
        ]
    )
    at = text.rindex("<STMTTRN>", 0, text.index("-6.00"))
    end = text.index("</STMTTRN>", at)
    text = f"{text[:at]}<STMTTRNP>{text[at + 9 : end]}</STMTTRNP>{text[end + 10 :]}"
    told = Told("ofx", put(tmp_path / "a.ofx", text))
    assert [r.values.get("is_provisional") for r in told.lines] == [None, True, None]
    assert told.statements[0].values["net"] == "-5.00" and told.holds == ["currency-mismatch"]


@pytest.mark.parametrize(("text", "code"), [
    ("<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><OFX>&a;</OFX>", "entity-expansion"),
    ("<OFX><STMTRS><MEMO>" + "x" * 2_000_000, "too-large-node"), ("hello", "not-this-format"), ("", "not-this-format"),
    ("<html>login</html>", "not-this-format"), ("<OFX></OFX>", "not-this-format"),
])  # fmt: skip
def test_hostile_input_is_refused(tmp_path, text, code):
    assert refusal("ofx", put(tmp_path / "a.ofx", text)).code == code


def test_controls_cost_their_row(tmp_path):
    text = ofx([LINE.format("-5.00").replace("Coffee", "Cof\x00fee"), LINE.format("-6.00")])
    assert Told("ofx", put(tmp_path / "a.ofx", text)).faults == ["control-character"]


@settings(max_examples=60, deadline=None)
@given(st.text("<>/!-&;ab OFX\n[]", max_size=60))
def test_no_text_breaks_the_reader(tmp_path_factory, memo):
    path = tmp_path_factory.mktemp("ofx") / "a.ofx"
    text = ofx([LINE.format("-5.00") + memo, LINE.format("-6.00")])
    try:
        told = Told("ofx", put(path, text))
    except Exception as error:  # noqa: BLE001 only a refusal is one
        assert type(error).__name__ == "Refused", error
    else:
        assert told.amounts[:1] == [-5]
