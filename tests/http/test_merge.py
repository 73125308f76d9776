"""Two customers that are one, a lead that becomes a customer and a deal: nothing lost, undone."""

import pytest

from tests.http.test_door import assert_problem
from tests.http.test_modules import owner_of
from tests.http.test_prices import API, Shop
from tests.install.firm import make_firm

pytestmark = pytest.mark.anyio


@pytest.fixture
async def shop(app, db, dsns):
    firm = await make_firm(db, dsns, "multi_branch_sales")
    return Shop(await owner_of(app, firm), firm)


async def post(shop, path, body, status=200):
    answer = await shop.client.post(f"{API}/{path}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


async def read(shop, kind, ident):
    return (await shop.client.get(f"{API}/records/{kind}/{ident}")).json()


async def twins(shop):
    keep = await shop.make("customer", name="Lark", phone="+380501112233", segment=["retail"])
    gone = await shop.make("customer", name="Lark Ltd", tax_id="12345678", email="lark@example.org",
                           city="Lviv", address="Main 1", segment=["wholesale"])  # fmt: skip
    return keep, gone


async def test_merge_loses_nothing_and_is_undone(shop):
    keep, gone = await twins(shop)
    deal = await shop.make("deal", title="Chairs", customer=gone["id"])
    contact = await shop.new("contact", name="Ada")
    role = await shop.make("contact_role", contact=contact, customer=gone["id"], role="buyer")
    path = f"records/customer/{keep['id']}/merge"
    gone = await read(shop, "customer", gone["id"])
    body = {"from": [gone["id"]], "fields": {"name": gone["id"]}}
    looked = await post(shop, path, {**body, "preview": True})
    assert looked["moved"] == {"deal": 1, "contact_role": 1} and looked["change_set"] is None
    sides = {s["field"]: s for s in looked["fields"]}
    assert sides["name"]["values"] == {keep["id"]: "Lark", gone["id"]: "Lark Ltd"}
    assert sides["name"]["result"] == "Lark Ltd" and sides["phone"]["result"] == "+380501112233"
    assert (await read(shop, "customer", gone["id"]))["fields"]["name"] == "Lark Ltd"

    done = await post(shop, path, body)
    merged = (await read(shop, "customer", keep["id"]))["fields"]
    assert (merged["name"], merged["tax_id"], merged["city"]) == ("Lark Ltd", "12345678", "Lviv")
    assert merged["segment"] == ["retail", "wholesale"] and merged["phone"] == "+380501112233"
    for record in (deal, role):
        found = await read(shop, record["kind"], record["id"])
        assert found["fields"]["customer"] == keep["id"]
    assert_problem(await shop.client.get(f"{API}/records/customer/{gone['id']}"), 404)
    trail = await shop.client.get(f"{API}/records/customer/{gone['id']}/history")
    assert trail.json()["entries"][0]["into"] == keep["id"]
    assert_problem(await shop.client.post(f"{API}/{path}", json=body), 404)

    await post(shop, f"changes/{done['change_set']}/undo", None)
    assert (await read(shop, "customer", keep["id"]))["fields"] == keep["fields"]
    assert (await read(shop, "customer", gone["id"]))["fields"] == gone["fields"]
    for record in (deal, role):
        found = await read(shop, record["kind"], record["id"])
        assert found["fields"]["customer"] == gone["id"]


async def test_merge_says_what_is_in_the_way(shop):
    keep, gone = await twins(shop)
    path = f"{API}/records/customer/{keep['id']}/merge"
    for body, pointer in (
        ({"from": []}, "/from"),
        ({"from": [keep["id"]]}, "/from"),
        ({"from": [gone["id"]], "fields": {"nothing": gone["id"]}}, "/fields"),
    ):
        answer = await shop.client.post(path, json=body)
        assert_problem(answer, 422)
        assert answer.json()["errors"][0]["pointer"] == pointer
    product = await shop.new("product", name="Oak chair")
    retail = (await shop.first('price_type where key = "retail"'))["id"]
    await shop.new("price", product=product, price_type=retail, price="1", currency="UAH",
                   customer=gone["id"])  # fmt: skip
    refused = await shop.client.post(path, json={"from": [gone["id"]]})
    assert_problem(refused, 409)
    assert refused.json()["code"] == "merge.named"
    other = f"{API}/records/customer/{gone['id']}/merge"
    assert (await shop.client.post(other, json={"from": [keep["id"]]})).status_code == 200


async def test_a_stale_merge_shows_both_values(shop):
    keep, gone = await twins(shop)
    await shop.edit(keep, name="Lark and sons")
    answer = await shop.client.post(
        f"{API}/records/customer/{keep['id']}/merge",
        json={"from": [gone["id"]], "fields": {"name": gone["id"]}},
        headers={"If-Match": f'"{keep["version"]}"'},
    )
    assert_problem(answer, 409)
    assert answer.json()["conflicts"][0]["theirs"] == "Lark and sons"
    assert (await read(shop, "customer", gone["id"]))["fields"] == gone["fields"]


async def test_a_lead_converts_without_loss(shop):
    lead = await shop.make("lead", title="Chairs for a hall", name="Ada", phone="+380501112233",
                           email="ada@example.org", notes="Calls on Mondays", source="fair")  # fmt: skip
    path = f"records/lead/{lead['id']}/convert"
    wrong = await shop.client.post(f"{API}/{path}", json={"into": {"house": {}}})
    assert_problem(wrong, 422)
    faulty = await shop.client.post(
        f"{API}/{path}", json={"into": {"customer": {"fields": {"tax_id": "x"}}}}
    )
    assert_problem(faulty, 422)
    assert faulty.json()["errors"][0]["pointer"] == "/into/customer/fields/tax_id"
    done = await post(shop, path, {"into": {"deal": {"fields": {"amount": "900.00"}}}}, 201)
    customer = await read(shop, "customer", done["made"]["customer"]["id"])
    deal = await read(shop, "deal", done["made"]["deal"]["id"])
    assert (customer["fields"]["name"], customer["fields"]["email"]) == ("Ada", "ada@example.org")
    assert deal["fields"]["customer"] == customer["id"] and deal["fields"]["lead"] == lead["id"]
    assert deal["fields"]["title"] == "Chairs for a hall" and deal["fields"]["amount"] == "900.00"
    assert deal["fields"]["notes"] == "Calls on Mondays" and deal["number"]
    after = await read(shop, "lead", lead["id"])
    assert after["fields"]["state"] == "converted" and after["fields"]["source"] == "fair"
    assert after["fields"]["deal"] == deal["id"] and after["fields"]["customer"] == customer["id"]
    again = await shop.client.post(f"{API}/{path}", json={})
    assert_problem(again, 409)
    assert again.json()["code"] == "convert.done"
    await post(shop, f"changes/{done['change_set']}/undo", None)
    assert (await read(shop, "lead", lead["id"]))["fields"] == lead["fields"]
    assert_problem(await shop.client.get(f"{API}/records/deal/{deal['id']}"), 404)


async def test_a_lead_goes_to_a_customer_that_is_there(shop):
    known = await shop.new("customer", name="Lark")
    lead = await shop.make("lead", title="More chairs", name="Ada")
    into = {"customer": {"id": known}, "deal": {"skip": True}}
    done = await post(shop, f"records/lead/{lead['id']}/convert", {"into": into}, 201)
    assert done["made"] == {}
    after = (await read(shop, "lead", lead["id"]))["fields"]
    assert after["customer"] == known and after["deal"] is None and after["state"] == "converted"
