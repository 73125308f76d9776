"""Statements of 1C and tables of banks through the bank target: each line once, balances proved."""

from decimal import Decimal

import pytest

from connectors.sdk.contract import Mapping
from tests.connectors.statements import SAMPLES
from tests.intake.staged import sorts
from tests.intake.test_intake import desk  # noqa: F401 - the fixture

AKB = "bank-csv/BananaAccounting__csv_akb_example_format1_20151026.csv"
CLER = "bank-csv/BananaAccounting__csv_clerbank_example_format1_EUR_20241021.csv"
# Connector, file, account (and currency where it says none), lines, their sum, closing balance.
FILES = [
    ("client_bank", "1c-client-bank/bx-shef__vypiska-1c.txt", ["40702810000000000001"], 3, "30000.00", "130000.00"),
    ("client_bank", "1c-client-bank/kilylabs__one_day.txt", ["40702810200000000001"], 13, "-1184.00", "44145.91"),
    ("bank_csv", AKB, ["AKB", "CHF"], 178, "422.60", "799.32"),
    ("bank_csv", "bank-csv/BananaAccounting__csv_bancastato_example_format3_20180531.csv",
     ["STATO", "CHF"], 65, "12798.44", "50218.09"),
    ("bank_csv", "bank-csv/OCA__balance.csv", ["OCA", "EUR"], 2, "1500.00", "1510.00"),
    ("bank_csv", "bank-csv/senz__sberbank.csv", ["*6833"], 11, "7338.83", None),
]  # fmt: skip

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not SAMPLES.exists(), reason="the samples are not part of the repository"),
]


async def bring(desk, connector, name, account, currency=None):  # noqa: F811
    """A file, mapped: its account is one that is made when it comes."""
    said = {"account": account, "currency": currency} if currency else {}
    mapping = Mapping(constants={**said, f"account:{account}": "create"})
    content = (SAMPLES / name).read_bytes()
    return await desk.bring(content, source=name, connector=connector, mapping=mapping)


async def posted(desk):  # noqa: F811
    rows = await desk.firm.sql(
        "SELECT count(*)::text, coalesce(sum((data->>'amount')::numeric), 0)::text FROM entry "
        "WHERE kind = 'bank_line' AND reverses IS NULL"
    )
    return int(rows[0][0]), Decimal(rows[0][1])


async def test_statements_are_posted_once_and_to_the_balance_that_they_tell(desk):  # noqa: F811
    before = (0, Decimal(0))
    for connector, name, said, count, amount, closing in FILES:
        made = await bring(desk, connector, name, *said)
        assert not made.held_by and sorts(made)["new"] >= count, (name, made.held_by)
        done = await desk.approve(made)
        assert done.counts["refused"] == 0, [r.faults for r in await desk.rows(done, "faulty")][:3]
        after = await posted(desk)
        assert (after[0] - before[0], after[1] - before[1]) == (count, Decimal(amount)), name
        kept = await desk.firm.sql(
            "SELECT data->>'closing' FROM record WHERE kind = 'bank_statement' ORDER BY id DESC LIMIT 1"
        )
        assert closing is None or Decimal(kept[0][0]) == Decimal(closing), name
        again = await bring(desk, connector, name, *said)
        assert set(sorts(again)) == {"unchanged"} and not again.held_by, name
        nothing = await desk.approve(again)
        assert nothing.counts["applied"] == 0 and await posted(desk) == after
        before = after
    # One that does not tie is held whole, and nothing of it is posted.
    held = await bring(desk, "bank_csv", CLER, "CLER", "EUR")
    assert any(h.startswith("balance-mismatch") for h in held.held_by)
    assert set(sorts(held)) == {"suspicious"} and await posted(desk) == before
