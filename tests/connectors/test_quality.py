"""The printed table of issue 6: every sample of every format, against counts made by others.

The counts stand in the manifest of the samples, computed by a script that knows no reader of ours;
where it says nothing of a format, the counts of that format's own test are asked.
"""

import asyncio
import csv
import json
import re
from collections import Counter
from decimal import Decimal

import msgspec
import pytest

from connectors.sdk.commands.quality import HEADER, look, quality
from connectors.sdk.contract import Done, Rows, Summary
from connectors.sdk.manifest import read_manifest
from connectors.sdk.reading import Read
from connectors.sdk.recognise import load_connector
from tests.connectors.statements import SAMPLES
from tests.connectors.test_bank_csv import count
from tests.connectors.test_mt940 import ANY_LINE, BROKEN
from tests.connectors.test_ofx import EMPTY, WRONG

pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the samples are not part of the repository")  # fmt: skip
SYSTEMS = {
    "1c-client-bank": "client_bank", "bank-csv": "bank_csv", "camt": "camt", "commerceml": "commerceml",
    "mt940": "mt940", "ofx": "ofx", "yml-feeds": "yml", "pain001": "pain001",
}  # fmt: skip
# Files that are no statement, or broken by intent: how they are refused.
REFUSED = {name: "not-this-format" for name in EMPTY} | {
    "viafintech__invalid_namespace.xml": "not-this-format",
    "viafintech__valid_namespace.xml": "not-this-format", "sirian__no_shop.xml": "missing-shop",
}  # fmt: skip
# A header without rows is an empty price list to the one connector that claims workbooks.
OTHERS = {"OCA__empty_statement_en.xlsx": "price_list"}
# Faults of rows, where a file is broken by intent or has no account: never others than these.
UNTOLD = {"missing-account", "missing-currency"}
FAULTS = WRONG | {
    "sebastienrousseau__csv_garbled_amount.csv": {"malformed-amount"},
    "sebastienrousseau__statement.xml": {
        "malformed-amount",
        "missing-sign",
        "malformed-date",
        "currency-mismatch",
    },
    "genkgo__camt052.v6.Amt-zero.xml": {"currency-mismatch"},
    "genkgo__camt052.v6.xml": {"currency-mismatch"},
    "viafintech__valid_example_v8.xml": {"currency-mismatch"},
    "prowide__sample_JPchar.txt": {"malformed-line"},
    "railslove__mt940-headers.txt": {"malformed-line"},
}
# The header of each of these files says another count or sum than it holds.
CONTRADICTED = {"count-mismatch", "totals-mismatch"}


async def here(system, path, take):
    """As read_whole, in this process: these bytes are known."""
    source = load_connector(system).open(path)
    found = source.inspect({})
    settings = {**read_manifest(system).settings, **found.proposal.constants}
    summary, faults = Summary(), Counter()
    for frame in source.read(msgspec.structs.replace(found.proposal, constants=settings)):
        if isinstance(frame, Rows):
            take(frame)
            faults.update(f.code for row in frame.rows for f in row.faults)
        elif isinstance(frame, Summary):
            summary = frame
    return Read(found, Done(0, 0, "", dict(faults), summary))


def manifest():
    with (SAMPLES / "manifest.tsv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            if row["format"] in SYSTEMS:
                facts = row["facts_json"].replace('\\"', '"')
                yield row["format"], SAMPLES / row["file"], facts


def total(line, entity):
    return sum((v for k, v in line.totals.items() if k.split(" ")[0] == entity), Decimal(0))


def agrees(sort, path, line, facts):
    """The counts and totals of a line, and those that somebody else has made: pairs."""
    said = {k: v for k, v in facts.items() if v is not None}
    lines, amount = line.counts.get("bank_line", 0), total(line, "bank_line")
    if sort == "mt940":
        yield lines, len(ANY_LINE.findall(path.read_bytes()))
        if not BROKEN.get(path.name) and said["tag61"] == said["tag61_parsed"]:
            yield amount, Decimal(said["net"])
    elif sort == "ofx":
        yield lines, said.get("stmttrn", 0)
        if not said.get("amounts_unparsable") and "malformed-amount" not in line.faults:
            yield amount, Decimal(said.get("sum", 0))
    elif sort == "camt":
        yield line.counts.get("statement", 0), said.get("statements", 0)
        if len(said.get("currencies", ())) <= 1 and "malformed-amount" not in line.faults:
            yield amount, Decimal(said.get("net", 0))
    elif sort == "1c-client-bank" and said["account_sections"]:
        yield lines, said["documents"]
        of = said["account_sections"]
        yield amount, sum(Decimal(a["inn"]) - Decimal(a["out"]) for a in of)
    elif sort == "bank-csv" and path.suffix == ".csv":
        mine = count(path)
        yield lines, len(mine) + line.faults.get("malformed-amount", 0)
        yield amount, sum(mine)
    elif sort == "pain001":
        yield line.counts["transfer"], said["transactions"]
        yield total(line, "transfer"), Decimal(said["sum"])
    elif sort == "yml-feeds":
        yield line.counts.get("product", 0), said.get("ids_distinct", 0)
        yield line.counts.get("category", 0), said.get("categories", 0)
    elif sort == "commerceml":
        for entity, name in (
            ("order", "documents"),
            ("order_line", "doc_lines"),
            ("price", "prices"),
        ):
            yield line.counts.get(entity, 0), said.get(name, 0)
        if "products" in said:
            yield line.counts["product"], said["product_ids_distinct"]
        stock = said.get("stock_sum_nested") or said.get("stock_sum_attr")
        for entity, amount in (("order", said.get("doc_sum")), ("price", said.get("price_sum")),
                               ("stock", stock)):  # fmt: skip
            if amount is not None:
                yield total(line, entity), Decimal(amount)


def test_every_sample_is_read_and_agrees_with_counts_of_others():
    seen, wrong = Counter(), []
    for sort, path, facts in manifest():
        line = asyncio.run(look(path, read=here))
        seen[sort] += 1
        wanted = OTHERS.get(path.name, SYSTEMS[sort])
        if line.connector != wanted or line.refused != REFUSED.get(path.name, ""):
            wrong.append((path.name, line.connector, line.refused))
        if line.refused or path.name in OTHERS:
            continue
        assert line.format and (line.encoding or sort == "pain001"), path.name
        allowed = CONTRADICTED if sort == "pain001" else FAULTS.get(path.name, set()) | UNTOLD
        if not set(line.faults) <= allowed:
            wrong.append((path.name, line.faults))
        for ours, theirs in agrees(sort, path, line, json.loads(facts)):
            if ours != theirs:
                wrong.append((path.name, str(ours), str(theirs)))
    assert not wrong
    there = {sort: sum(1 for p in (SAMPLES / sort).iterdir() if p.is_file()) for sort in SYSTEMS}
    assert dict(seen) == there, "every file is there"


def test_the_table_is_printed(tmp_path):
    """One command over folders, each file in a child of its own."""
    said = []
    assert quality([SAMPLES / "pain001", SAMPLES / "1c-client-bank"], "", said.append) == 0
    assert re.split(r"\s{2,}", said[0]) == HEADER and len(said) == 12
    one = next(text for text in said if text.startswith("bx-shef__vypiska-1c.txt"))
    assert re.split(r"\s{2,}", one)[1:] == [
        "client_bank", "1CClientBankExchange", "1.02", "cp1251", "3 bank_line, 1 statement",
        "bank_line RUB 30000.00", "none",
    ]  # fmt: skip
