"""From a price entry to a line's price: chosen, explained, kept, chosen anew."""

import pytest

from appliance.base.ids import uuid7
from tests.http.test_door import assert_problem
from tests.http.test_modules import owner_of
from tests.install.firm import make_firm

pytestmark = pytest.mark.anyio
API = "/api/v1"


class Shop:
    """A tenant that sells, through the public contract alone."""

    def __init__(self, client, firm):
        self.client, self.firm = client, firm

    async def make(self, kind, _status=201, **fields):
        answer = await self.client.post(f"{API}/records/{kind}", json={"fields": fields})
        assert answer.status_code == _status, answer.text
        return answer.json()

    async def new(self, kind, **fields):
        return (await self.make(kind, **fields))["id"]

    async def first(self, text):
        answer = await self.client.get(f"{API}/query", params={"q": text})
        assert answer.status_code == 200, answer.text
        return answer.json()["rows"][0]

    async def edit(self, record, **fields):
        path = f"{API}/records/{record['kind']}/{record['id']}"
        answer = await self.client.patch(
            path, json={"fields": fields}, headers={"If-Match": f'"{record["version"]}"'}
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def choose(self, **params):
        answer = await self.client.get(f"{API}/prices/choice", params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
async def shop(app, db, dsns):
    firm = await make_firm(db, dsns, "multi_branch_sales")
    return Shop(await owner_of(app, firm), firm)


async def goods(shop, **more):
    """A product at 120 retail with tax in it, 20 % tax; 100 wholesale."""
    tax = await shop.new("tax", name="VAT", rate="20.00")
    product = await shop.new("product", name="Oak chair", tax=tax, **more)
    retail = (await shop.first('price_type where key = "retail"'))["id"]
    wholesale = (await shop.first('price_type where key = "wholesale"'))["id"]
    for type_, price in ((retail, "120"), (wholesale, "100")):
        await shop.new("price", product=product, price_type=type_, price=price, currency="UAH")
    return product, retail, wholesale


async def test_a_line_gets_the_right_price_and_says_why(shop):
    product, _, wholesale = await goods(shop)
    customer = await shop.new("customer", name="Walk-in")
    deal = await shop.new("deal", title="Chairs", customer=customer)
    line = await shop.make("deal_line", deal=deal, product=product, quantity="3")
    fields = line["fields"]
    assert (fields["unit_price"], fields["tax_rate"]) == ("100.000000", "20.00")
    assert (fields["net"], fields["gross"], fields["text"]) == ("300.00", "360.00", "Oak chair")
    assert fields["price_trace"]["chosen"] == "price_type"
    assert fields["price_trace"]["price_type"] == "retail"
    assert (await shop.first(f'deal where id = "{deal}" select gross_total'))[
        "gross_total"
    ] == "360.00"

    dealer = await shop.new("customer", name="Dealer", price_type=wholesale)
    second = await shop.new("deal", title="Chairs", customer=dealer)
    cheaper = await shop.make("deal_line", deal=second, product=product)
    assert cheaper["fields"]["price_trace"]["price_type"] == "wholesale"


async def test_contract_before_customer_before_branch_before_type(shop):
    product, retail, _ = await goods(shop)
    unit = (await shop.client.get(f"{API}/me")).json()["unit"]
    customer = await shop.new("customer", name="Firm")
    contract = await shop.new("contract", title="2026", customer=customer)
    price = {"product": product, "price_type": retail, "currency": "UAH"}
    asked = {"product": product, "customer": customer, "contract": contract}
    seen = [(await shop.choose(**asked))["trace"]["chosen"]]
    await shop.make("price", **price, price="96", unit_scope=unit)
    seen.append((await shop.choose(**asked))["trace"]["chosen"])
    await shop.make("price", **price, price="90", customer=customer)
    seen.append((await shop.choose(**asked))["trace"]["chosen"])
    entry = await shop.new("price", **price, price="84", contract=contract)
    found = await shop.choose(**asked)
    seen.append(found["trace"]["chosen"])
    assert seen == ["price_type", "branch", "customer", "contract"]
    assert found["unit_price"] == "70.000000" and found["trace"]["entry"] == entry
    await shop.make("price", reverses=entry)
    assert (await shop.choose(**asked))["trace"]["chosen"] == "customer"


async def test_in_one_call_with_its_document_and_chosen_anew(shop):
    product, retail, _ = await goods(shop, measure="шт")
    await shop.new("price", product=product, price_type=retail, price="108", currency="UAH",
                   measure="шт", minimum_quantity="10")  # fmt: skip
    customer = await shop.new("customer", name="Firm")
    order = await shop.new("order", customer=customer)
    made = await shop.client.post(
        f"{API}/records/order_line",
        json=[{"fields": {"order": order, "product": product, "quantity": q}} for q in ("1", "10")],
    )
    assert made.status_code == 201, made.text
    rows = [await shop.first(f'order_line where id = "{o["id"]}"') for o in made.json()["outcomes"]]
    line = (await shop.client.get(f"{API}/records/order_line/{rows[0]['id']}")).json()
    assert line["fields"]["measure"] == "шт" and line["fields"]["unit_price"] == "100.000000"
    more = await shop.edit(line, quantity="12")
    assert more["fields"]["unit_price"] == "90.000000"
    assert more["fields"]["price_trace"]["from_quantity"] == "10"
    typed = await shop.edit(more, unit_price="85")
    assert typed["fields"]["price_trace"] == {"chosen": "manual"}
    kept = await shop.edit(typed, quantity="1")
    assert kept["fields"]["unit_price"] == "85.000000", "what a person typed stays"
    again = await shop.edit(kept, unit_price=None)
    assert again["fields"]["unit_price"] == "100.000000"
    changes = await shop.client.get(f"{API}/records/order_line/{line['id']}/history")
    last = changes.json()["entries"][0]["change_set"]
    undone = await shop.client.post(f"{API}/changes/{last}/undo")
    assert undone.status_code == 200, undone.text
    back = (await shop.client.get(f"{API}/records/order_line/{line['id']}")).json()
    assert back["fields"]["unit_price"] == "85.000000"
    assert back["fields"]["price_trace"] == {"chosen": "manual"}


async def test_a_deal_and_its_lines_in_one_change(shop):
    product, _, wholesale = await goods(shop)
    dealer = await shop.new("customer", name="Dealer", price_type=wholesale)
    deal = str(uuid7())
    steps = [
        {"kind": "deal", "id": deal, "fields": {"title": "Hall", "customer": dealer}},
        {"kind": "deal_line", "fields": {"deal": deal, "product": product, "quantity": "2"}},
        {"kind": "deal_line", "fields": {"deal": deal, "text": "Delivery", "unit_price": "50"}},
    ]
    made = await shop.client.post(f"{API}/changes", json=steps)
    assert made.status_code == 201, made.text
    line = await shop.client.get(f"{API}/records/deal_line/{made.json()['outcomes'][1]['id']}")
    assert line.json()["fields"]["price_trace"]["price_type"] == "wholesale"
    bad = [*steps[1:], {"kind": "deal_line", "op": "upsert", "fields": {}}]
    refused = await shop.client.post(f"{API}/changes", json=bad)
    assert_problem(refused, 422)
    assert refused.json()["errors"][0]["pointer"] == "/2/op"
    nobody = [{**steps[1], "fields": {**steps[1]["fields"], "deal": str(uuid7())}}]
    refused = await shop.client.post(
        f"{API}/changes", json=[{**steps[0], "id": str(uuid7())}, *nobody]
    )
    assert refused.json()["errors"][0]["pointer"] == "/1/fields/deal", "all or nothing"


async def test_no_price_is_said_and_never_zero(shop):
    product = await shop.new("product", name="New thing")
    customer = await shop.new("customer", name="Firm")
    deal = await shop.new("deal", title="New", customer=customer)
    path = f"{API}/records/deal_line"
    line = {"deal": deal, "product": product}
    refused = await shop.client.post(path, json={"fields": line})
    assert_problem(refused, 422)
    fault = refused.json()["errors"][0]
    assert (fault["pointer"], fault["code"]) == ("/fields/unit_price", "no_price")
    assert_problem(
        await shop.client.post(path, json={"fields": {"deal": deal, "text": "Work"}}), 422
    )
    assert_problem(
        await shop.client.post(
            path, json={"fields": {**line, "unit_price": "5", "price_trace": {"chosen": "contract"}}}
        ), 422,
    )  # fmt: skip
    typed = await shop.make("deal_line", **line, unit_price="5")
    assert typed["fields"]["price_trace"] == {"chosen": "manual"}
    found = await shop.choose(product=product)
    assert found["unit_price"] is None and "no price" in found["detail"]
    missing = await shop.client.get(f"{API}/prices/choice", params={"product": str(uuid7())})
    assert_problem(missing, 404)
    bad = {"product": product, "quantity": "many"}
    assert_problem(await shop.client.get(f"{API}/prices/choice", params=bad), 422)


async def test_as_of_a_date_in_another_currency(shop):
    product, retail, _ = await goods(shop)
    price = {"product": product, "price_type": retail, "currency": "UAH"}
    await shop.make("price", **price, price="240", valid_from="2030-01-01T00:00:00Z")
    assert (await shop.choose(product=product))["unit_price"] == "100.000000"
    later = await shop.choose(product=product, at="2030-02-01T00:00:00Z")
    assert later["unit_price"] == "200.000000"
    now = await shop.choose(product=product)
    assert now["trace"]["valid_to"].startswith("2030-01-01")
    assert "no rate" in (await shop.choose(product=product, currency="EUR"))["detail"]
    await shop.make("currency_rate", currency="EUR", day="2026-01-01", rate="50")
    euros = await shop.choose(product=product, currency="EUR")
    assert euros["unit_price"] == "2.000000" and euros["trace"]["rate"] == "0.020000"


async def test_a_list_leaves_as_offers(shop):
    product, retail, _ = await goods(shop, sku="OAK-1")
    export = f"{API}/price-lists/export"
    answer = await shop.client.get(
        export, params={"type": "retail"}, headers={"Accept": "application/xml"}
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/xml; charset=utf-8"
    assert 'filename="offers.xml"' in answer.headers["content-disposition"]
    for part in (product, retail, "OAK-1", "<ЦенаЗаЕдиницу>120.00</ЦенаЗаЕдиницу>"):
        assert part in answer.text
    browser = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
    assert (await shop.client.get(export, headers=browser)).content[:2] == b"PK"
    await shop.make("price_type", key="unused", name="Unused")
    empty = await shop.client.get(export, params={"type": "unused"}, headers={"Accept": "text/xml"})
    assert_problem(empty, 404, "price_list.empty")
