"""Matching through the public contract: proposed by a job, confirmed and taken back by a person."""

import json

import pytest

from appliance.work.actors.banking import match
from tests.http.test_door import assert_problem
from tests.http.test_prices import API, shop  # noqa: F401 - the fixture

pytestmark = pytest.mark.anyio


class Node:
    """What a job knows of its node."""

    def __init__(self, db):
        self.db, self.origin = db, 1


class Run:
    """A run that nobody watches."""

    async def report(self, done, total):
        assert done == total


async def test_a_payment_is_proposed_confirmed_and_taken_back(shop, db):  # noqa: F811
    account = await shop.new("bank_account", account="UA1", currency="UAH", name="Main")
    customer = await shop.new("customer", name="ТОВ Ромашка", tax_id="30000055")
    invoice = await shop.make("invoice", customer=customer, issued="2026-11-01", state="sent")
    await shop.make(
        "invoice_line", invoice=invoice["id"], text="x", quantity="1", unit_price="12.00"
    )
    line = await shop.new(
        "bank_line", account=account, booked="2026-11-05", amount="12.00", currency="UAH",
        purpose=f"Оплата {invoice['number']}",
    )  # fmt: skip
    started = await shop.client.post(f"{API}/banking/match", json={})
    assert started.status_code == 202, started.text
    rows = await shop.firm.sql(
        "SELECT payload FROM outbox WHERE topic = 'job.banking.match' ORDER BY id DESC LIMIT 1"
    )
    payload = json.loads(rows[0][0])
    await match(Node(db), shop.firm.id, payload.get("payload", payload), Run())
    found = await shop.first('bank_match where state = "proposed" limit 1')
    assert (found["fields"]["amount"], found["fields"]["score"]) == ("12.00", 95)
    assert found["fields"]["line"] == line
    done = await shop.client.post(f"{API}/banking/confirm", json={"matches": [found["id"]]})
    assert done.status_code == 200 and len(done.json()["payments"]) == 1, done.text
    again = await shop.client.post(f"{API}/banking/confirm", json={"matches": [found["id"]]})
    assert_problem(again, 409, "banking.state")
    parts = [{"line": line, "invoice": invoice["id"], "amount": "1.00"}]
    more = await shop.client.post(f"{API}/banking/confirm", json={"parts": parts})
    assert_problem(more, 409, "banking.too_much")
    back = await shop.client.post(f"{API}/banking/unmatch", json={"matches": [found["id"]]})
    assert back.status_code == 200, back.text
    by_hand = await shop.client.post(f"{API}/banking/confirm", json={"parts": parts})
    assert by_hand.status_code == 200, by_hand.text
    wrong = await shop.client.post(f"{API}/banking/decline", json={"matches": [found["id"]]})
    assert_problem(wrong, 409, "banking.state")
    nobody = await shop.client.post(f"{API}/banking/unmatch", json={"matches": [line]})
    assert_problem(nobody, 404, "record.unknown")
