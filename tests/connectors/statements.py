"""Reading a statement whole, and statements of any size made by code."""

from decimal import Decimal
from importlib import import_module
from pathlib import Path

import pytest

from connectors.sdk.contract import Mapping, Refused, Rows, Summary
from connectors.sdk.manifest import faults_of, read_vocabulary

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "samples"
VOCABULARY = read_vocabulary("bank")


class Told:
    """What a reading told: rows by entity, the summary, the inspection."""

    def __init__(self, system, path, **constants):
        source = import_module(f"connectors.systems.{system}").CONNECTOR.open(Path(path))
        found = source.inspect({})
        self.inspection = found.inspection
        mapping = Mapping(constants=found.proposal.constants | constants)
        frames = list(source.read(mapping))
        rows = [r for f in frames if isinstance(f, Rows) for r in f.rows]
        (self.summary,) = [f for f in frames if isinstance(f, Summary)]
        assert frames[-1] is self.summary
        self.rows = rows
        self.lines = [r for r in rows if r.entity == "bank_line"]
        self.statements = [r for r in rows if r.entity == "statement"]
        for row in rows:
            assert faults_of(row, VOCABULARY) == [], row
        # A line stands under a statement of the same file.
        keys = {s.key for s in self.statements}
        assert {r.values["statement"] for r in self.lines} - keys <= {""}
        assert len(keys) == len(self.statements)

    @property
    def sound(self):
        return [r for r in self.lines if not r.faults]

    @property
    def amounts(self):
        return [Decimal(r.values["amount"]) for r in self.lines if "amount" in r.values]

    @property
    def ties(self):
        return [s.values.get("ties") for s in self.statements]

    @property
    def holds(self):
        return [f.code for f in self.summary.holds]

    @property
    def warnings(self):
        return [f.code for f in self.summary.warnings]

    @property
    def faults(self):
        return [f.code for r in self.rows for f in r.faults]


def files_of(folder):
    found = sorted((SAMPLES / folder).glob("*")) if (SAMPLES / folder).is_dir() else []
    return [pytest.param(p, id=p.name) for p in found]


def refusal(system, path, **constants):
    """The fault that a whole input is refused with."""
    with pytest.raises(Refused) as told:
        Told(system, path, **constants)
    return told.value.fault


def show(path, told):
    """One line of the table that people read."""
    ties = "".join({True: "+", False: "!", None: "."}[t] for t in told.ties)[:20]
    print(
        f"{path.name[:44]:44} {told.inspection.version:18} {told.inspection.encoding:7}"
        f" statements {len(told.statements):3} [{ties}] lines {len(told.lines):4}"
        f" faults {len(told.faults):2} holds {','.join(sorted(set(told.holds))) or '-'}"
        f"  {' '.join(f'{k} {v}' for k, v in told.summary.totals.items() if k.startswith('net'))}"
    )  # fmt: skip


def swift(entries=(), opening="0,", closing=None, number="1/1", day="260101", account="NL1ABNA5"):
    """A statement of MT940; entries: what stands after :61: (and, after a line feed, more)."""
    closing = opening if closing is None else closing
    body = "".join(f":61:{e}\n" for e in entries)
    return (
        f":20:REF\n:25:{account}\n:28C:{number}\n:60F:C{day}EUR{opening}\n{body}"
        f":62F:C{day}EUR{closing}\n-\n"
    )


def exchange(documents, opening="0.00", closing="0.00", came="0.00", out="0.00", end="КонецФайла"):
    """A 1CClientBankExchange of one account."""
    head = (
        "1CClientBankExchange\nВерсияФормата=1.03\nКодировка=Windows\nРасчСчет=40702810000000000001\n"
        "СекцияРасчСчет\nДатаНачала=01.06.2026\nДатаКонца=30.06.2026\n"
        f"РасчСчет=40702810000000000001\nНачальныйОстаток={opening}\nВсегоПоступило={came}\n"
        f"ВсегоСписано={out}\nКонечныйОстаток={closing}\nКонецРасчСчет\n"
    )
    return head + "".join(documents) + end + "\n"


def document(number, amount, *, out=False, day="05.06.2026", **more):
    ours, theirs = "40702810000000000001", "40702810000000000888"
    payer, payee = (ours, theirs) if out else (theirs, ours)
    fields = {
        "Номер": number, "Дата": "05.06.2026", "Сумма": amount, "ПлательщикСчет": payer,
        "ДатаСписано" if out else "ДатаПоступило": day, "Плательщик1": "ООО Клиент",
        "ПолучательСчет": payee, "Получатель1": "ООО Ромашка",
        "НазначениеПлатежа": f"Оплата по счёту {number}", **more,
    }  # fmt: skip
    body = "".join(f"{k}={v}\n" for k, v in fields.items())
    return f"СекцияДокумент=Платежное поручение\n{body}КонецДокумента\n"


def camt(entries, opening="0.00", closing="0.00", kind="BkToCstmrStmt", report="Stmt", head=""):
    """A camt of one statement; entries: the XML of each Ntry."""

    def balance(code, amount):
        return (
            f"<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp><Amt Ccy='EUR'>{amount}</Amt>"
            "<CdtDbtInd>CRDT</CdtDbtInd><Dt><Dt>2026-04-01</Dt></Dt></Bal>"
        )

    return (
        f"<?xml version='1.0' encoding='UTF-8'?>{head}"
        "<Document xmlns='urn:iso:std:iso:20022:tech:xsd:camt.053.001.08'>"
        f"<{kind}><GrpHdr><MsgId>M</MsgId><CreDtTm>2026-04-30T17:00:00Z</CreDtTm></GrpHdr>"
        f"<{report}><Id>S1</Id><ElctrncSeqNb>1</ElctrncSeqNb><CreDtTm>2026-04-30T17:00:00Z</CreDtTm>"
        "<Acct><Id><IBAN>DE89370400440532013000</IBAN></Id><Ccy>EUR</Ccy></Acct>"
        f"{balance('OPBD', opening)}{balance('CLBD', closing)}{''.join(entries)}"
        f"</{report}></{kind}></Document>"
    )


def entry(amount, sign="CRDT", more="", day="2026-04-02", status="<Sts><Cd>BOOK</Cd></Sts>"):
    return (
        f"<Ntry><Amt Ccy='EUR'>{amount}</Amt><CdtDbtInd>{sign}</CdtDbtInd>{status}"
        f"<BookgDt><Dt>{day}</Dt></BookgDt>{more}</Ntry>"
    )


def ofx(lines, closing="0.00", end="</BANKTRANLIST></STMTRS></STMTTRNRS></BANKMSGSRSV1></OFX>"):
    """An OFX 1 of one account; lines: what stands in each STMTTRN."""
    body = "".join(f"<STMTTRN>\n{line}\n</STMTTRN>\n" for line in lines)
    return (
        "OFXHEADER:100\nDATA:OFXSGML\nVERSION:102\nENCODING:USASCII\nCHARSET:1252\n\n<OFX>"
        "<BANKMSGSRSV1><STMTTRNRS><TRNUID>1<STMTRS><CURDEF>EUR\n<BANKACCTFROM><BANKID>B\n<ACCTID>4711\n"
        f"</BANKACCTFROM><BANKTRANLIST><DTSTART>20260101\n<DTEND>20260131\n{body}{end}\n"
    )


TRANSACTIONS = {
    "client_bank": lambda n: document(n, "5.00", ПлательщикИНН="7707083893", ПлательщикБИК="044525225",
                                      ПлательщикКПП="770701001", ПлательщикБанк1="ПАО Банк", ВидОплаты="01"),
    "mt940": lambda n: (
        f":61:2601020102CR5,00NTRFTFNr 4{n}//0724710{n}\n:86:166?00GUTSCHRIFT?100399?20EREF+TFNR {n:08}"
        f"?21SVWZ+Rechnung {n} vom 12.1?220.2026?30BYLADEMM\n?31DE99700500000000012345?32Finanzamt Muench"
        "en?34992\n"
    ),
    "camt": lambda n: entry(
        "5.00", more=f"<AcctSvcrRef>A{n}</AcctSvcrRef><BkTxCd><Domn><Cd>PMNT</Cd><Fmly><Cd>RCDT</Cd><SubFmlyCd>"
        "ESCT</SubFmlyCd></Fmly></Domn></BkTxCd><NtryDtls>" + (
            f"<TxDtls><Refs><EndToEndId>E{n}</EndToEndId></Refs><Amt Ccy='EUR'>5.00</Amt><CdtDbtInd>CRDT</CdtDbtInd>"
            "<RltdPties><Dbtr><Pty><Nm>Payer GmbH</Nm></Pty></Dbtr><DbtrAcct><Id><IBAN>DE99700500000000012345</IBAN>"
            "</Id></DbtrAcct></RltdPties><RltdAgts><DbtrAgt><FinInstnId><BICFI>BYLADEMM</BICFI></FinInstnId></DbtrAgt>"
            f"</RltdAgts><RmtInf><Ustrd>Rechnung {n} vom 12.10.2026</Ustrd></RmtInf></TxDtls></NtryDtls>\n")),
    "ofx": lambda n: (f"<STMTTRN>\n<TRNTYPE>CREDIT\n<DTPOSTED>20260105120000\n<TRNAMT>5.00\n<FITID>{n}\n<CHECKNUM>{n}\n"
                      f"<NAME>Coffee &amp; Cake\n<MEMO>Card payment {n}\n</STMTTRN>\n"),
    "bank_csv": lambda n: f"01.06.2026;02.06.2026;Zahlung Auftrag {n} an Muster AG;;5.00;{(n + 1) * 5}.00;\n",
}  # fmt: skip


def large(system, path, entries):
    """A statement of `entries` payments of five, streamed to a file; all but OFX tie."""
    total, mark = f"{entries * 5}.00", "@"
    whole = {
        "client_bank": lambda: exchange([mark], closing=total, came=total),
        "mt940": lambda: swift([], "0,", f"{entries * 5},").replace(":62F:", f"{mark}:62F:"),
        "camt": lambda: camt([mark], closing=total),
        "ofx": lambda: ofx([]).replace("</BANKTRANLIST>", f"{mark}</BANKTRANLIST>"),
        "bank_csv": lambda: f"Buchung;Valuta;Buchungstext;Belastung;Gutschrift;Saldo CHF;\n{mark}",
    }[system]()
    head, tail = whole.split(mark)
    with path.open("w", encoding="cp1251" if system == "client_bank" else "utf-8") as file:
        file.write(head)
        file.writelines(map(TRANSACTIONS[system], range(entries)))
        file.write(tail)
