"""Bank lines and invoices on a real tenant: proposed, confirmed by a person, taken back."""

import asyncio
from uuid import UUID

import pytest

from appliance.banking import Part, confirm, decline, propose, propose_matches, unmatch
from appliance.base.errors import Clash, Invalid, Refused
from appliance.base.ids import uuid7
from tests.install.test_template import install
from tests.tenants import create, only

pytestmark = pytest.mark.anyio


class Books:
    """A firm with an account, customers, invoices and lines."""

    def __init__(self, firm):
        self.firm, self.db = firm, firm.db

    async def ctx(self):
        return await self.firm.ctx(unit="head")

    async def make(self, kind, **fields):
        ident = uuid7()
        done = await self.firm.apply(create(kind, ident, **fields), ctx=await self.ctx())
        assert done.committed, done.outcomes
        return ident

    async def invoice(self, customer, amount):
        ident = await self.make(
            "invoice", customer=str(customer), issued="2026-11-01", state="sent"
        )
        await self.make(
            "invoice_line", invoice=str(ident), text="x", quantity="1", unit_price=amount
        )
        ((number,),) = await self.firm.sql("SELECT number FROM record WHERE id = $1", ident)
        return ident, number

    async def line(self, account, amount, **more):
        fields = {
            "account": str(account),
            "booked": "2026-11-05",
            "amount": amount,
            "currency": "UAH",
        }
        return await self.make("bank_line", **{**fields, **more})

    async def matches(self, state="proposed"):
        found = await self.firm.sql(
            "SELECT id::text, data->>'line', data->>'invoice', data->>'amount' FROM record "
            "WHERE kind = 'bank_match' AND data->>'state' = $1 ORDER BY id", state,
        )  # fmt: skip
        return [(UUID(i), UUID(line), UUID(inv), amount) for i, line, inv, amount in found]

    async def paid(self, *invoices):
        rows = await self.firm.sql(
            "SELECT data->>'invoice', sum((data->>'amount')::numeric)::text FROM entry "
            "WHERE kind = 'allocation' GROUP BY 1"
        )
        known = {UUID(i): float(n) for i, n in rows}
        return [known.get(i, 0.0) for i in invoices]

    async def state(self, invoice):
        ((state,),) = await self.firm.sql(
            "SELECT data->>'state' FROM record WHERE id = $1", invoice
        )
        return state


@pytest.fixture
async def books(db, dsns):
    return Books(await install(db, dsns, "multi_branch_sales"))


@pytest.fixture
async def account(books):
    return await books.make("bank_account", account="UA1", currency="UAH", name="Main")


@pytest.fixture
async def customer(books):
    return await books.make("customer", name="ТОВ Ромашка", tax_id="30000055")


async def test_one_payment_over_three_invoices_and_back(books, account, customer):
    made = [await books.invoice(customer, amount) for amount in ("10.00", "20.00", "30.00")]
    text = "Оплата за " + ", ".join(number for _, number in made)
    await books.line(account, "60.00", purpose=text)
    done = await propose_matches(books.db, await books.ctx())
    assert (done.lines, done.invoices, done.proposed) == (1, 3, 3)
    again = await propose_matches(books.db, await books.ctx())
    assert (again.proposed, len(await books.matches())) == (3, 3), "proposals stay what they are"
    settled = await confirm(
        books.db, await books.ctx(), matches=[m for m, *_ in await books.matches()]
    )
    assert len(settled.payments) == 1 and len(await books.matches("confirmed")) == 3
    ids = [i for i, _ in made]
    assert await books.paid(*ids) == [10, 20, 30]
    assert [await books.state(i) for i in ids] == ["paid"] * 3
    payments = await books.firm.sql(
        "SELECT data->>'amount', data->>'customer', data->>'paid_at' FROM record WHERE kind = 'payment'"
    )
    assert payments == [["60.00", str(customer), "2026-11-05"]]
    assert (await propose_matches(books.db, await books.ctx())).lines == 0
    first = (await books.matches("confirmed"))[0][0]
    await unmatch(books.db, await books.ctx(), [first])
    assert await books.paid(*ids) == [0, 20, 30] and await books.state(ids[0]) == "sent"
    assert [m for m, *_ in await books.matches("undone")] == [first], "its history is kept"
    with pytest.raises(Clash, match="undone"):
        await unmatch(books.db, await books.ctx(), [first])
    back = await propose_matches(books.db, await books.ctx())
    assert (back.lines, back.invoices, back.proposed) == (1, 1, 1)
    await confirm(books.db, await books.ctx(), matches=[(await books.matches())[0][0]])
    assert await books.paid(*ids) == [10, 20, 30]
    count = await books.firm.sql("SELECT count(*)::text FROM record WHERE kind = 'payment'")
    assert count == [["1"]], "the money came once"


async def test_three_payments_for_one_invoice(books, account, customer):
    ident, number = await books.invoice(customer, "30.00")
    for n in range(3):
        await books.line(account, "10.00", purpose=f"частина {n} за {number}", ordinal=n + 1)
    await propose_matches(books.db, await books.ctx())
    proposed = [m for m, *_ in await books.matches()]
    assert len(proposed) == 3
    await confirm(books.db, await books.ctx(), matches=proposed[:2])
    assert await books.paid(ident) == [20] and await books.state(ident) == "sent"
    await confirm(books.db, await books.ctx(), matches=proposed[2:])
    assert await books.paid(ident) == [30] and await books.state(ident) == "paid"


async def test_lines_come_in_pages_and_whoever_names_an_invoice_comes_first(
    books, account, customer, monkeypatch
):
    """The only line of the last page names what all before could take by their tax id."""
    ident, number = await books.invoice(customer, "30.00")
    others = [(await books.invoice(customer, "12.00"))[0] for _ in range(2)]
    payer = {"counterparty_tax_id": "30000055"}
    lines = [await books.line(account, amount, document=str(n), **payer)
             for n, amount in enumerate(("30.00", "12.00", "12.00", "1.00"))]  # fmt: skip
    named = await books.line(account, "30.00", purpose=number)
    monkeypatch.setattr(propose, "PAGE", 2)
    done = await propose_matches(books.db, await books.ctx())
    found = {(line, invoice): float(a) for _, line, invoice, a in await books.matches()}
    assert found.pop((named, ident)) == 30 and (done.lines, done.invoices) == (5, 3)
    assert all(invoice in others for _, invoice in found) and sum(found.values()) == 24
    assert {line for line, _ in found} <= set(lines)
    again = await propose_matches(books.db, await books.ctx())
    assert (again.proposed, again.outdated) == (done.proposed, 0)


async def test_no_side_gives_more_than_it_has(books, account, customer):
    ident, _ = await books.invoice(customer, "30.00")
    line = await books.line(account, "20.00")
    other = await books.line(account, "20.00", document="2")
    ctx = await books.ctx()
    with pytest.raises(Clash, match="20.00 left"):
        await confirm(books.db, ctx, parts=[Part(line, ident, "25.00")])
    results = await asyncio.gather(
        confirm(books.db, await books.ctx(), parts=[Part(line, ident, "20.00")]),
        confirm(books.db, await books.ctx(), parts=[Part(other, ident, "20.00")]),
        return_exceptions=True,
    )
    assert sum(isinstance(r, Clash) for r in results) == 1, results
    assert await books.paid(ident) == [20]
    for wrong in ("0", "-1", "NaN", "x"):
        with pytest.raises(Invalid):
            await confirm(books.db, ctx, parts=[Part(other, ident, wrong)])


async def test_what_is_declined_or_no_longer_holds(books, account, customer):
    ident, number = await books.invoice(customer, "30.00")
    await books.line(account, "30.00", purpose=number)
    await propose_matches(books.db, await books.ctx())
    ((match, *_),) = await books.matches()
    await decline(books.db, await books.ctx(), [match])
    assert (await propose_matches(books.db, await books.ctx())).proposed == 0
    second, name = await books.invoice(customer, "5.00")
    taken = await books.line(account, "5.00", purpose=name)
    await propose_matches(books.db, await books.ctx())
    assert len(await books.matches()) == 1
    await books.make("bank_line", reverses=str(taken))
    done = await propose_matches(books.db, await books.ctx())
    assert (done.lines, done.outdated) == (1, 1) and await books.matches() == []
    assert await books.paid(ident, second) == [0, 0]


async def test_a_profile_without_the_books_sees_nothing_of_them(books, account, customer):
    ident, _ = await books.invoice(customer, "30.00")
    line = await books.line(account, "30.00")
    schema = (await books.ctx()).schema
    seller = only(schema, "customer", {"read": "all"}, {"name": "read"})
    ctx = await books.firm.ctx(seller, unit="head")
    for call in (
        propose_matches(books.db, ctx), confirm(books.db, ctx, parts=[Part(line, ident, "1")]),
    ):  # fmt: skip
        with pytest.raises(Invalid):
            await call
    with pytest.raises(Refused):
        await confirm(books.db, await books.ctx(), matches=[uuid7()])
