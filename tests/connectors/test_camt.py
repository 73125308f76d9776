"""camt.052, 053 and 054: entries once, batches proved, versions by their elements."""

import re
import time
import zipfile
from decimal import Decimal

import pytest
from lxml import etree

from tests.connectors.statements import Told, camt, entry, files_of, refusal, show

NOT_CAMT = {"viafintech__invalid_namespace.xml", "viafintech__valid_namespace.xml"}
DETAIL = (
    "<TxDtls><Refs><EndToEndId>{0}</EndToEndId></Refs><Amt Ccy='EUR'>{1}</Amt><CdtDbtInd>{2}</CdtDbtInd>"
    "<RltdPties><Dbtr><Pty><Nm>Payer {0}</Nm></Pty></Dbtr><DbtrAcct><Id><IBAN>DE{0}</IBAN></Id></DbtrAcct>"
    "</RltdPties><RmtInf><Ustrd>Text {0}</Ustrd></RmtInf></TxDtls>"
)


def put(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def batch(*details):
    return f"<NtryDtls>{''.join(DETAIL.format(*d) for d in details)}</NtryDtls>"


def xpath(tree, query):
    return tree.xpath(re.sub(r"(?<![\w.@'=-])([A-Z]\w+)", r"*[local-name()='\1']", query))


@pytest.mark.parametrize("path", files_of("camt"))
def test_each_sample_against_xpath(path):
    if path.name in NOT_CAMT:
        assert refusal("camt", path).code == "not-this-format"
        return
    told, tree = Told("camt", path), etree.parse(str(path))
    show(path, told)
    entries = xpath(tree, "//Ntry")
    reports = xpath(tree, "//Stmt | //Rpt | //Ntfctn")
    assert len(told.statements) == len(reports)
    # Each entry is one line, or as many as it has transactions.
    lines = iter(told.lines)
    for found in entries:
        details = len(xpath(found, ".//TxDtls"))
        parts = [next(lines)]
        while "batch" in parts[0].values and len(parts) < details:
            parts.append(next(lines))
        text = xpath(found, "Amt")[0].text
        if re.fullmatch(r"[\d.]+", text or ""):
            sign = -1 if xpath(found, "string(CdtDbtInd)") == "DBIT" else 1
            assert sum(Decimal(p.values["amount"]) for p in parts) == sign * Decimal(text)
    assert not list(lines)
    for report, statement in zip(reports, told.statements, strict=True):
        _check_balances(report, statement)


def _check_balances(report, statement):
    """Opening + booked = closing by XPath, where one currency has both balances."""
    amounts = {}
    for code in ("OPBD", "PRCD", "CLBD"):
        for balance in xpath(report, f"Bal[Tp/CdOrPrtry/Cd='{code}' or Tp/Cd='{code}']"):
            sign = -1 if xpath(balance, "string(CdtDbtInd)") == "DBIT" else 1
            currency = xpath(balance, "string(Amt/@Ccy)")
            amounts.setdefault((code, currency), sign * Decimal(xpath(balance, "string(Amt)")))
    currency = statement.values.get("currency", "")
    opening = amounts.get(("OPBD", currency), amounts.get(("PRCD", currency)))
    closing = amounts.get(("CLBD", currency))
    if opening is None or closing is None:
        assert "ties" not in statement.values
        return
    net = Decimal(0)
    for found in xpath(report, "Ntry"):
        booked = xpath(found, "string(Sts)").strip() in ("BOOK", "")
        if booked and xpath(found, "string(Amt/@Ccy)") == currency:
            sign = -1 if xpath(found, "string(CdtDbtInd)") == "DBIT" else 1
            net += sign * Decimal(xpath(found, "string(Amt)"))
    assert Decimal(statement.values["net"]) == net
    assert statement.values["ties"] is (opening + net == closing)


def test_a_reversal_flag_never_flips_the_sign(tmp_path):
    entries = [
        entry("10.00", "CRDT", batch(("1", "10.00", "CRDT"))),
        entry("10.00", "DBIT", "<RvslInd>true</RvslInd>" + batch(("2", "10.00", "DBIT"))),
    ]
    told = Told("camt", put(tmp_path / "a.xml", camt(entries)))
    assert told.amounts == [10, -10] and told.ties == [True]
    first, second = (r.values for r in told.lines)
    assert second["is_reversal"] and "is_reversal" not in first
    # The other side of what is taken back is the one who paid it.
    assert (first["counterparty"], second["counterparty"]) == ("Payer 1", "Payer 2")


def test_a_batch_is_its_transactions_only_where_they_sum_to_it(tmp_path):
    whole = entry(
        "30.00",
        "CRDT",
        batch(("1", "10.00", "CRDT"), ("2", "25.00", "CRDT"), ("3", "5.00", "DBIT")),
    )
    repeated = entry("8.00", "DBIT", batch(("4", "8.00", "DBIT"), ("5", "8.00", "DBIT")))
    told = Told("camt", put(tmp_path / "a.xml", camt([whole, repeated], closing="22.00")))
    assert (
        told.amounts == [10, 25, -5, -8]
        and told.ties == [True]
        and told.warnings == ["batch-mismatch"]
    )
    assert (
        len({r.values.get("batch") for r in told.lines[:3]}) == 1
        and "batch" not in told.lines[3].values
    )
    assert (
        told.lines[1].values["end_to_end"] == "2"
        and told.lines[1].values["counterparty_account"] == "DE2"
    )
    assert (
        "Text 4" in told.lines[3].values["purpose"] and "Text 5" in told.lines[3].values["purpose"]
    )
    told = Told(
        "camt",
        put(tmp_path / "a.xml", camt([whole, repeated], closing="22.00")),
        split_batches="no",
    )
    assert told.amounts == [30, -8] and told.ties == [True]


def test_what_is_not_booked_moves_no_balance(tmp_path):
    entries = [
        entry("5.00"), entry("7.00", status="<Sts>PDNG</Sts>"), entry("1.00", status="<Sts><Cd>INFO</Cd></Sts>"),
        entry("2.00", "DBIT", status="<Sts>BOOK</Sts>"),
    ]  # fmt: skip
    told = Told("camt", put(tmp_path / "a.xml", camt(entries, closing="3.00")))
    assert told.ties == [True] and told.statements[0].values["lines"] == "2"
    assert [r.values.get("is_provisional") for r in told.lines] == [None, True, True, None]


def test_references_and_amounts_of_a_transaction(tmp_path):
    more = (
        "<AcctSvcrRef>NONREF</AcctSvcrRef><AddtlNtryInf>Entry text</AddtlNtryInf><NtryDtls><TxDtls><Refs>"
        "<EndToEndId>NOTPROVIDED</EndToEndId><InstrId>I7</InstrId><MndtId>MN</MndtId><TxId>T9</TxId></Refs>"
        "<AmtDtls><InstdAmt><Amt Ccy='USD'>11.00</Amt></InstdAmt></AmtDtls>"
        "<Chrgs><TtlChrgsAndTaxAmt Ccy='EUR'>0.50</TtlChrgsAndTaxAmt></Chrgs>"
        "<RltdPties><Cdtr><Nm>Seller</Nm><Id><OrgId><Othr><Id>14360570</Id><SchmeNm><Cd>TXID</Cd></SchmeNm></Othr>"
        "</OrgId></Id></Cdtr><CdtrAcct><Id><Othr><Id>4711</Id></Othr></Id></CdtrAcct></RltdPties>"
        "<RltdAgts><CdtrAgt><FinInstnId><BIC>COBADEFF</BIC></FinInstnId></CdtrAgt></RltdAgts><RmtInf>"
        "<Ustrd>one</Ustrd><Ustrd>two</Ustrd><Strd><CdtrRefInf><Ref>RF18539007547034</Ref></CdtrRefInf></Strd>"
        "</RmtInf></TxDtls></NtryDtls>"
    )
    text = camt([entry("10.00", "DBIT", more)], opening="10.00")
    (line,) = Told("camt", put(tmp_path / "a.xml", text)).lines
    assert {k: v for k, v in line.values.items() if k not in ("statement", "account", "booked")} == {
        "currency": "EUR", "amount": "-10.00", "end_to_end": "I7", "mandate": "MN", "bank_reference": "T9",
        "original_amount": "11.00", "original_currency": "USD", "charges": "0.50", "counterparty": "Seller",
        "counterparty_account": "4711", "counterparty_bank": "COBADEFF", "counterparty_tax_id": "14360570",
        "purpose": "one two", "reference": "RF18539007547034",
    }  # fmt: skip


def test_a_statement_that_does_not_tie_is_held_and_the_next_is_not(tmp_path):
    one = camt([entry("5.00")], closing="6.00")
    report = re.search(r"<Stmt>.*</Stmt>", one)[0]
    good = report.replace("6.00", "5.00").replace("<ElctrncSeqNb>1", "<ElctrncSeqNb>2")
    told = Told("camt", put(tmp_path / "a.xml", one.replace(report, report + good)))
    (held,) = told.summary.holds
    assert held.code == "balance-mismatch" and held.place.column == told.statements[0].key
    assert held.found == "opening 0.00, sum 5.00, closing 6.00, difference 1.00 EUR"
    assert told.ties == [False, True] and told.warnings == ["balance-gap"]


def test_another_currency_is_held(tmp_path):
    foreign = entry("5.00").replace("EUR", "USD")
    told = Told("camt", put(tmp_path / "a.xml", camt([foreign, entry("1.00")], closing="1.00")))
    assert (
        told.holds == ["currency-mismatch"]
        and told.faults == ["currency-mismatch"]
        and told.ties == [True]
    )


@pytest.mark.parametrize(("bad", "code"), [
    (entry("5.00", day="2026-02-30"), "malformed-date"), (entry("5.00", day="30.04.2026"), "malformed-date"),
    (entry("NaN"), "malformed-amount"), (entry("-5.00"), "malformed-amount"), (entry("1e3"), "malformed-amount"),
    (entry("٣"), "malformed-amount"), (entry("5.00", "C"), "missing-sign"), (entry("9" * 40), "malformed-amount"),
])  # fmt: skip
def test_a_malformed_entry_costs_its_row(tmp_path, bad, code):
    told = Told("camt", put(tmp_path / "a.xml", camt([bad, entry("1.00")], closing="1.00")))
    assert told.faults == [code] and told.ties == [True] and len(told.sound) == 1


@pytest.mark.parametrize("version", ["01", "02", "04", "06", "08", "13", "14"])
@pytest.mark.parametrize(("kind", "report", "code"), [
    ("BkToCstmrAcctRpt", "Rpt", "052"), ("BkToCstmrStmt", "Stmt", "053"), ("BkToCstmrDbtCdtNtfctn", "Ntfctn", "054"),
])  # fmt: skip
def test_kinds_and_versions(tmp_path, version, kind, report, code):
    text = camt([entry("5.00")], closing="5.00", kind=kind, report=report)
    text = text.replace("camt.053.001.08", f"camt.{code}.001.{version}")
    told = Told("camt", put(tmp_path / "a.xml", text))
    assert (
        told.inspection.version == f"camt.{code}.001.{version}"
        and told.ties == [True]
        and not told.warnings
    )
    told = Told(
        "camt", put(tmp_path / "a.xml", text.replace("<Bal>", "<Old>").replace("</Bal>", "</Old>"))
    )
    assert told.holds == (["balance-missing"] if code == "053" else [])
    assert told.statements[0].values.get("is_provisional", False) is (code != "053")


@pytest.mark.parametrize("change", [
    lambda t: t.replace("xmlns='urn:iso:std:iso:20022:tech:xsd:camt.053.001.08'", ""),
    lambda t: t.replace("camt.053.001.08", "camt.053.001.99"),
    lambda t: t.replace("camt.053", "camt.052"),
    lambda t: re.sub(r"<(/?)(?=[A-Z])", r"<\1c:", t).replace("xmlns=", "xmlns:c="),
    lambda t: t.replace("<Document", "<s:Envelope xmlns:s='x'><s:Body><Document") + "</s:Body></s:Envelope>",
])  # fmt: skip
def test_wrappers_and_namespaces(tmp_path, change):
    text = change(camt([entry("5.00")], closing="5.00"))
    told = Told("camt", put(tmp_path / "a.xml", text))
    assert told.ties == [True] and told.amounts == [5] and set(told.warnings) <= {"unknown-version"}


def test_encodings(tmp_path):
    text = camt([entry("5.00", more=batch(("Ж", "5.00", "CRDT")))], closing="5.00")
    path = tmp_path / "a.xml"
    plain = Told("camt", put(path, text))
    assert plain.lines[0].values["purpose"] == "Text Ж"
    for encoding in ("utf-8-sig", "utf-16"):
        assert (
            Told("camt", put(path, text.replace("encoding='UTF-8'", ""), encoding)).rows
            == plain.rows
        )
    russian = text.replace("Text Ж", "Оплата по договору за товары")
    told = Told("camt", put(path, russian, "cp1251"))
    assert told.lines[0].values["purpose"] == "Оплата по договору за товары"
    assert told.warnings == ["encoding-mismatch"]


def test_a_zip_of_documents(tmp_path):
    one = camt([entry("5.00")], closing="5.00")
    other = camt([entry("2.00", "DBIT")], opening="5.00", closing="3.00").replace(
        "<ElctrncSeqNb>1", "<ElctrncSeqNb>2"
    )
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("letter.pdf", b"%PDF-1.7")
        archive.writestr("day/1.xml", one)
        archive.writestr("day/2.xml", other)
    told = Told("camt", path)
    assert (
        told.ties == [True, True]
        and told.amounts == [5, -2]
        and told.warnings == ["not-this-format"]
    )
    assert [r.place.sheet for r in told.lines] == ["day/1.xml", "day/2.xml"]
    assert [r.key for r in told.lines][:1] == [
        r.key for r in Told("camt", put(tmp_path / "b.xml", one)).lines
    ]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("1.xml", one)
        archive.writestr("2.xml", other[:-40])
    fault = refusal("camt", path)
    assert (fault.code, fault.place.sheet) == ("truncated", "2.xml")


ENTITY = "<!DOCTYPE d [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>"
LAUGHS = "<!DOCTYPE d [<!ENTITY a 'ha'><!ENTITY b '&a;&a;'>]>"


def test_hostile_documents_are_refused_at_once(tmp_path):
    path, good = tmp_path / "a.xml", camt([entry("5.00")], closing="5.00")
    began = time.monotonic()
    for text, codes in (
        (camt([], head=ENTITY), {"external-entity"}), (camt([], head=LAUGHS), {"entity-expansion"}),
        (good.replace("M</MsgId>", "&mdash;</MsgId>"), {"undefined-entity"}),
        (good.replace("M</MsgId>", "x" * 11_000_000 + "</MsgId>"), {"too-large-node"}),
        (good.replace("<Stmt>", "<x>" * 1_000), {"too-deep", "malformed"}),
        ("<html><body>Please log in</body></html>", {"not-this-format"}), ("", {"not-this-format"}),
        ("<?xml version='1.0'?><Catalog/>", {"not-this-format"}),
    ):  # fmt: skip
        assert refusal("camt", put(path, text)).code in codes, text[:80]
    assert time.monotonic() - began < 10


def test_every_cut_is_refused(tmp_path):
    whole = camt(
        [entry("5.00", more=batch(("1", "5.00", "CRDT"))), entry("1.00")], closing="6.00"
    ).encode()
    path = tmp_path / "a.xml"
    for cut in range(1, 16):
        path.write_bytes(whole[: len(whole) * cut // 16])
        assert refusal("camt", path).code in ("truncated", "not-this-format", "malformed"), cut
