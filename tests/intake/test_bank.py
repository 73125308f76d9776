"""Statements on a real tenant: once, proved by their balances, with every real payment kept."""

import pytest

from appliance.intake import runs
from connectors.sdk.contract import Fault, Place, Summary
from tests.intake.staged import Staged, bring, row, sorts, speaking
from tests.intake.test_intake import desk  # noqa: F401 - the fixture
from tests.tenants import create

pytestmark = pytest.mark.anyio
IBAN = "UA213223130000026007233566001"


@pytest.fixture
def bank(desk, tmp_path, monkeypatch):  # noqa: F811
    """Brings statements of one bank; the account is kept already."""
    speaking("bank", tmp_path, monkeypatch)

    async def bring_rows(rows, account=True, summary=None, constants=None, **more):
        known = await desk.firm.sql("SELECT id FROM record WHERE kind = 'bank_account'")
        if account and not known:
            kept = create("bank_account", account=IBAN, currency="UAH", name="Основний")
            assert (await desk.firm.apply(kept)).committed
        staged = Staged(rows, {}, constants, summary)
        return await bring(desk, monkeypatch, staged, source="Bank", **more)

    return bring_rows


def line(statement, amount, day="2026-11-02", key=None, currency="UAH", **more):
    return row(
        "bank_line", key or f"{day}{amount}{more.get('purpose', '')}", statement=statement,
        account="UA21 3223 1300 0002 6007 2335 6600 1", amount=amount, currency=currency, booked=day,
        **more,
    )  # fmt: skip


def statement(key, lines, opening="100.00", day="2026-11-02", **more):
    """Lines and the row that proves them behind them."""
    from decimal import Decimal

    net = sum((Decimal(r.values["amount"]) for r in lines), Decimal(0))
    values = {
        "account": IBAN, "currency": "UAH", "from": day, "to": day, "opening": opening,
        "closing": str(Decimal(opening) + net), "lines": str(len(lines)), "net": str(net),
        "ties": True, **more,
    }  # fmt: skip
    return [*lines, row("statement", key, **values)]


def coffees(key="s1", **more):
    return statement(
        key, [line(key, "-55.00"), line(key, "-55.00"), line(key, "1000.00", purpose="INV-000001")],
        **more,
    )  # fmt: skip


async def lines(desk, *fields):  # noqa: F811
    listed = ", ".join(f"data->>'{f}'" for f in fields)
    return await desk.firm.sql(
        f"SELECT {listed} FROM entry e WHERE kind = 'bank_line' AND reverses IS NULL AND NOT EXISTS "
        f"(SELECT 1 FROM entry v WHERE v.reverses = e.id) ORDER BY at, data->>'amount', data->>'ordinal'"
    )


async def test_twice_adds_nothing_and_equal_payments_stay_two(bank, desk):  # noqa: F811
    made = await bank(coffees())
    assert sorts(made) == {"new": 4} and made.held_by == []
    done = await desk.approve(made)
    assert done.counts["applied"] == 4 and done.counts["refused"] == 0
    assert await lines(desk, "amount", "ordinal") == [
        ["-55.00", "1"], ["-55.00", "2"], ["1000.00", "1"],
    ]  # fmt: skip
    again = await bank(coffees())
    assert sorts(again) == {"unchanged": 4} and again.held_by == []
    month = statement(
        "s2", [line("s2", "-55.00"), line("s2", "-55.00"), line("s2", "-55.00"),
               line("s2", "1000.00", purpose="INV-000001"), line("s2", "7.00", "2026-11-03")],
        to="2026-11-30",
    )  # fmt: skip
    more = await bank(month)
    assert sorts(more) == {"new": 3, "unchanged": 3}, "the third coffee and the new day"
    await desk.approve(more)
    assert [o for _, o in await lines(desk, "amount", "ordinal")] == ["1", "2", "3", "1", "1"]
    (balance,) = await desk.firm.sql("SELECT sum(n1)::text FROM turnover WHERE kind = 'bank_line'")
    assert balance == ["8420000"], "842.00 came in all"
    back = await desk.revert(await desk.look(more.id))
    assert (back.state, len(await lines(desk, "amount"))) == ("reverted", 3)


async def test_numbers_that_wrap_drop_nothing(bank, desk):  # noqa: F811
    old = statement("s25", [line("s25", "10.00", "2025-11-02")], number="001", day="2025-11-02")
    await desk.approve(await bank(old))
    new = statement(
        "s26", [line("s26", "10.00", "2026-11-02")], number="001", opening="110.00"
    )  # fmt: skip
    made = await bank(new)
    assert sorts(made) == {"new": 2} and made.held_by == []


async def test_an_unknown_account_posts_nothing_and_is_offered(bank, desk):  # noqa: F811
    made = await bank(coffees(), account=False)
    assert sorts(made) == {"faulty": 4} and made.held_by[0].startswith("unknown-account")
    (offered,) = made.told.unmapped
    assert (offered.what, offered.value, offered.rows) == ("account", IBAN, 4)
    settings = {f"account:{IBAN}": "create"}
    told = await bank(coffees(), account=False, constants=settings)
    assert sorts(told) == {"new": 4} and told.held_by == []
    done = await desk.approve(told)
    assert done.counts["refused"] == 0 and len(await lines(desk, "amount")) == 3
    assert sorts(await bank(coffees(), account=False)) == {"unchanged": 4}


async def test_another_currency_waits(bank, desk):  # noqa: F811
    dollars = [
        line("s1", "5.00", currency="USD"),
        row("statement", "s1", account=IBAN, currency="USD"),
    ]
    made = await bank(dollars)
    assert sorts(made) == {"faulty": 2}
    assert made.held_by[0] == f"currency-differs: {IBAN} is kept in UAH, 2 rows are in USD"


async def test_what_does_not_tie_is_held_whole_and_the_others_go_on(bank, desk):  # noqa: F811
    bad = coffees("s1", closing="0.00", ties=False)
    hold = Fault(
        "balance-mismatch", "opening + sum = closing", "difference 890", Place(column="s1")
    )
    good = statement("s2", [line("s2", "1.00", "2026-11-05")], day="2026-11-05", opening="0.00")
    made = await bank([*bad, *good], summary=Summary(holds=(hold,)))
    assert sorts(made) == {"suspicious": 4, "new": 2}
    assert made.held_by == [
        "balance-mismatch: expected opening + sum = closing, found difference 890"
    ]
    await desk.approve(made)
    assert await lines(desk, "amount") == [["1.00"]]


async def test_provisional_lines_give_way_to_the_days_own(bank, desk):  # noqa: F811
    intraday = [
        line("i", "5.00", key="x", is_provisional=True), line("i", "6.00", key="y", is_provisional=True),
        row("statement", "i", account=IBAN, currency="UAH", is_provisional=True),
    ]  # fmt: skip
    await desk.approve(await bank(intraday))
    assert sorts(await bank(intraday)) == {"unchanged": 3}
    booked = await bank(statement("d", [line("d", "5.00", purpose="now with its text")]))
    assert sorts(booked) == {"new": 2, "gone": 2}
    await desk.approve(booked)
    assert await lines(desk, "amount", "provisional") == [["5.00", "false"]]
    (balance,) = await desk.firm.sql("SELECT sum(n1)::text FROM turnover WHERE kind = 'bank_line'")
    assert balance == ["50000"]
    late = [line("j", "6.00", key="z", is_provisional=True)]
    assert sorts(await bank(late)) == {"unchanged": 1}, "the day is booked already"


async def test_a_gap_is_held_or_told(bank, desk):  # noqa: F811
    await desk.approve(await bank(coffees()))
    gap = statement("s3", [line("s3", "1.00", "2026-11-05")], day="2026-11-05", opening="500.00")
    made = await bank(gap)
    assert made.held_by[0].startswith("balance-gap") and sorts(made) == {"new": 2}
    warned = await bank(gap, options=runs.Options(balance_gap="warn"))
    assert warned.held_by == [] and warned.told.warnings[0].code == "balance-gap"
    follows = statement(
        "s4", [line("s4", "1.00", "2026-11-05")], day="2026-11-05", opening="990.00"
    )
    assert (await bank(follows)).held_by == []


async def test_an_equal_line_of_the_next_statement_of_the_day_is_not_dropped(bank, desk):  # noqa: F811
    await desk.approve(await bank(statement("p1", [line("p1", "-55.00")])))
    second = statement("p2", [line("p2", "-55.00")], opening="45.00")
    made = await bank(second)
    assert sorts(made) == {"new": 1, "suspicious": 1}
    assert made.held_by[0].startswith("equal-lines: 1 lines")
    await desk.approve(made, suspicious=True)
    assert len(await lines(desk, "amount")) == 2
