"""Archived choices that stay what they were, and amounts with the digits of their currency."""

from uuid import UUID

import msgspec
import pytest

from appliance.kernel.query import decode_query
from appliance.read import Cursors, run
from appliance.write import Applied, Rejected, Unchanged
from tests.tenants import create, update

pytestmark = pytest.mark.anyio

LIVE = [{"key": "new"}, {"key": "won"}, {"key": "old"}]
ARCHIVED = [{"key": "new"}, {"key": "won"}, {"key": "old", "archived": True}]


async def only(tenant, command):
    return (await tenant.apply(command)).outcomes[0]


def codes(outcome):
    assert isinstance(outcome, Rejected), outcome
    return {f.pointer: f.code for f in outcome.faults}


@pytest.fixture
async def deals(tenant):
    await tenant.add_kind("deal", [
        ("title", "text"), {"name": "stage", "type": "choice", "options": {"choices": LIVE}},
        {"name": "tags", "type": "multi_choice", "options": {"choices": LIVE}},
    ])  # fmt: skip
    made = await only(tenant, create("deal", title="A", stage="old", tags=["new", "old"]))
    plain = await only(tenant, create("deal", title="B", stage="new"))
    for name in ("stage", "tags"):
        (row,) = await tenant.sql(
            "SELECT id::text FROM record WHERE kind = 'sys.field' AND data->>'name' = $1", name
        )
        done = await only(tenant, update("sys.field", UUID(row[0]), options={"choices": ARCHIVED}))
        assert isinstance(done, Applied), done
    tenant.old, tenant.plain = made, plain
    return tenant


async def test_an_archived_choice_sent_back_unchanged_is_taken(deals):
    done = await only(
        deals, update("deal", deals.old.id, title="C", stage="old", tags=["old", "new"])
    )
    assert isinstance(done, Applied)
    assert isinstance(await only(deals, update("deal", deals.old.id, stage="old")), Unchanged)
    rows = await deals.sql("SELECT data->>'stage' FROM record WHERE id = $1", deals.old.id)
    assert rows == [["old"]]
    assert isinstance(await only(deals, update("deal", deals.old.id, tags=["old"])), Applied)


async def test_a_change_to_an_archived_choice_is_refused(deals):
    refused = {"/fields/stage": "choice_unknown", "/fields/tags": "choice_unknown"}
    assert codes(await only(deals, create("deal", stage="old", tags=["old"]))) == refused
    sent = update("deal", deals.plain.id, stage="old", tags=["old"])
    assert codes(await only(deals, sent)) == refused
    assert isinstance(await only(deals, update("deal", deals.old.id, stage="won")), Applied)
    assert codes(await only(deals, update("deal", deals.old.id, stage="old"))) == {
        "/fields/stage": "choice_unknown"
    }


@pytest.fixture
async def lines(tenant):
    await tenant.add_kind("line", [
        ("quantity", "number"), ("currency", "text"),
        {"name": "price", "type": "money", "options": {"currency_field": "currency"}},
        {"name": "total", "type": "money", "filterable": False,
         "options": {"currency_field": "currency", "formula": "quantity * price / 3"}},
        ("plain", "money"),
    ])  # fmt: skip
    return tenant


async def stored(tenant, ident):
    (row,) = await tenant.sql(
        "SELECT data->>'price', data->>'total', data->>'plain' FROM record WHERE id = $1", ident
    )
    return row


@pytest.mark.parametrize(
    ("currency", "price", "kept", "total"),
    [("JPY", "100", "100", "67"), ("KWD", "1.005", "1.005", "0.670"), ("uah", "1.5", "1.50", "1.00"),
     (None, "1.5", "1.50", "1.00")],
)  # fmt: skip
async def test_an_amount_has_the_digits_of_its_sibling(lines, currency, price, kept, total):
    made = await only(lines, create("line", quantity="2", currency=currency, price=price))
    assert isinstance(made, Applied), made
    assert (await stored(lines, made.id))[:2] == [kept, total]
    # What was read can be sent back.
    same = await only(lines, update("line", made.id, price=kept, currency=currency))
    assert isinstance(same, Unchanged)


@pytest.mark.parametrize(("currency", "price"), [("JPY", "1.5"), ("UAH", "1.005"), (None, "1.005")])
async def test_more_digits_than_the_currency_has_are_refused(lines, currency, price):
    made = await only(lines, create("line", currency=currency, price=price))
    assert codes(made) == {"/fields/price": "too_precise"}


async def test_another_currency_brings_the_amount_along_or_is_refused(lines):
    made = await only(lines, create("line", quantity="3", currency="UAH", price="10.00"))
    assert isinstance(await only(lines, update("line", made.id, currency="JPY")), Applied)
    assert (await stored(lines, made.id))[:2] == ["10", "10"]
    changed = await only(lines, update("line", made.id, currency="EUR", price="10.55"))
    assert isinstance(changed, Applied), changed
    refused = await only(lines, update("line", made.id, currency="JPY"))
    assert codes(refused) == {"/fields/currency": "currency_digits"}
    assert codes(await only(lines, update("line", made.id, currency="XYZ"))) == {
        "/fields/currency": "currency_unknown"
    }


async def test_sums_by_currency_keep_their_digits(lines):
    for currency, price in (("KWD", "1.005"), ("KWD", "1.001"), ("JPY", "7"), ("UAH", "1.50")):
        done = await only(lines, create("line", currency=currency, price=price))
        assert isinstance(done, Applied), done
    query = {"from": "line", "group": ["currency"], "select": [{"sum": "price", "as": "s"}]}
    page = await run(lines.db, await lines.ctx(), decode_query(query), Cursors(b"k" * 32))
    found = {r["currency"]: r["s"] for r in map(msgspec.json.decode, page.rows)}
    assert found == {"KWD": "2.006", "JPY": "7.00", "UAH": "1.50"}


@pytest.mark.parametrize(
    ("currency", "good", "bad"), [("JPY", "5", "5.5"), ("KWD", "5.005", "5.0005")]
)
async def test_an_amount_without_a_currency_is_in_the_tenants(lines, currency, good, bad):
    before = await only(lines, create("line", plain="5.50"))
    setting = create("sys.setting", key="tenant", value={"currency": currency})
    assert isinstance(await only(lines, setting), Applied)
    made = await only(lines, create("line", plain=good))
    assert isinstance(made, Applied), made
    assert (await stored(lines, made.id))[2] == good
    assert codes(await only(lines, create("line", plain=bad))) == {"/fields/plain": "too_precise"}
    # What was entered before is not touched by another edit of its record.
    assert isinstance(await only(lines, update("line", before.id, quantity="1")), Applied)
    assert (await stored(lines, before.id))[2] == "5.50"
