"""A company's first day, through the public contract alone: from nothing to a paid invoice."""

import json
import time
from importlib import resources

from appliance.base.ids import uuid7
from tests.system.conftest import PASSWORD, Person, sign_in

LIMIT_S = 300
LIST = resources.files("appliance.templates").joinpath("files", "price_list.xlsx").read_bytes()


def test_from_nothing_to_a_paid_invoice(node, new_tenant):
    began = time.monotonic()
    owner = new_tenant("firstday")
    owner.post("/templates/multi_branch_sales:install", {})
    north, south = (
        owner.rows(f'sys.unit where name = "{n} branch"')[0] for n in ("North", "South")
    )
    seller = invite(node, owner, "seller@example.org", "salesperson", north)
    keeper = invite(node, owner, "keeper@example.org", "storekeeper", north)
    other = invite(node, owner, "other@example.org", "salesperson", south)

    import_list(owner)
    bring_back(owner)
    tax = owner.rows('tax where rate = "20.00"')[0]
    product = owner.rows("product sort name limit 1")[0]
    product = owner.edit(owner.get(f"/records/product/{product['id']}"), tax=tax["id"])

    customer = seller.make("customer", name="Dovzhenko Interiors", city="Lviv")
    deal = won(seller, customer, product)
    warehouse = owner.make("warehouse", name="North store", branch=north["id"])
    shipped(owner, seller, keeper, deal, product, warehouse)
    paid(seller, owner, deal, product)
    asked_across(seller, other)
    assert deal["id"] not in {d["id"] for d in other.rows("deal")}, "another branch sees nothing"
    assert other.rows("invoice") == [] and seller.rows("invoice") != []
    assert time.monotonic() - began < LIMIT_S


def invite(node, owner, email, profile, unit):
    found = owner.rows(f'sys.profile where key = "{profile}"')[0]
    body = {"name": email.partition("@")[0].title(), "email": email,
            "memberships": [{"profile": found["id"], "units": [unit["id"]]}]}  # fmt: skip
    code = owner.post("/invitations", body, 201)["code"]
    Person(node.url).post("/invitations/accept", {"code": code, "password": PASSWORD}, 204)
    return sign_in(node, "firstday", email, PASSWORD)


def asked_across(seller, other):
    """Another branch hears that it is there and whom to ask, and nothing else."""
    lead = seller.make("lead", title="Hall", phone="+380 44 123 45 67", name="Somebody")
    same = {"fields": {"phone": "+380441234567", "title": "hall", "email": "not an address"}}
    (own,) = seller.post("/records/lead:duplicates", same)["found"]
    assert own["record"]["id"] == lead["id"] and sorted(own["fields"]) == ["phone", "title"]
    (there,) = other.post("/records/lead:duplicates", same)["found"]
    assert there == {"fields": own["fields"], "unit": "North branch", "owner": "Seller",
                     "record": None}  # fmt: skip
    itself = {**same, "id": lead["id"]}
    assert seller.post("/records/lead:duplicates", itself)["found"] == []


def bring(owner, content, name):
    """Through the content plane, as every file: the run waits for its verdict by itself."""
    return owner.call("POST", f"/files?name={name}", 202, content=content,
                      headers={"content-type": "application/octet-stream"})["id"]  # fmt: skip


def import_list(owner):
    """As finance does it: bring, look, approve; the same again says unchanged."""
    for expected in ("new", "unchanged"):
        file = bring(owner, LIST, "list.xlsx")
        body = {"connector": "price_list", "file": file, "name": "list.xlsx", "source": "Supplier"}
        run = owner.post("/intake/runs", body, 202)
        planned = wait(owner, run["id"], "planned")
        classes = {c: n for c, n in planned["counts"].items() if n and c in CLASSES}
        assert expected in classes and not classes.keys() - {expected, "faulty"}, planned
        owner.post(f"/intake/runs/{run['id']}/approve", {"accept_limits": True}, 202)
        wait(owner, run["id"], "applied")


def bring_back(owner):
    """The list as it is now, out and in again: nothing is changed by that."""
    content = owner.http.get("/price-lists/export", headers={"Accept": "text/csv"}).content
    file = bring(owner, content, "back.csv")
    body = {"connector": "price_list", "file": file, "name": "back.csv", "source": "Finance"}
    run = owner.post("/intake/runs", body, 202)
    counts = wait(owner, run["id"], "planned")["counts"]
    assert {c for c, n in counts.items() if n and c in CLASSES} == {"unchanged"}, counts


CLASSES = {"new", "changed", "unchanged", "gone", "suspicious", "faulty"}


def wait(owner, run, state):
    """Watch it as a browser does; the last frame before the end is what there is."""
    seen = []
    with owner.http.stream("GET", f"/intake/runs/{run}/progress") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data: "):
                seen.append(json.loads(line[6:]))
    *steps, end = seen
    assert end == {"reason": state}, seen
    assert steps[-1]["state"] == state and steps[-1]["done"] >= 0
    return owner.get(f"/intake/runs/{run}")


def won(seller, customer, product):
    """A deal with its lines in one change, at the price of the list, and its way to won."""
    ident = str(uuid7())
    seller.change(
        ("deal", ident, {"title": "Fit-out", "customer": customer["id"]}),
        ("deal_line", None, {"deal": ident, "product": product["id"], "quantity": "4"}),
        ("deal_line", None, {"deal": ident, "text": "Delivery", "unit_price": "250"}),
    )
    line = seller.rows(f'deal_line where deal = "{ident}" and product = "{product["id"]}"')[0]
    listed = seller.rows(f'price where product = "{product["id"]}" in_force')[0]
    line = seller.get(f"/records/deal_line/{line['id']}")["fields"]
    assert line["price_trace"]["entry"] == listed["id"], "the price is that of the list"
    assert line["tax_rate"] == "20.00" and line["price_trace"]["tax_included"] is True
    deal = seller.get(f"/records/deal/{ident}")
    for name in ("Offer", "Won"):
        stage = seller.rows(f'stage where name contains "{name}"')[0]
        deal = seller.edit(deal, stage=stage["id"], amount=deal["fields"]["gross_total"])
    assert deal["fields"]["probability"] == 100
    assert deal["number"].startswith("DEAL-")
    return deal


def shipped(owner, seller, keeper, deal, product, warehouse):
    """Received, reserved for the deal, shipped with the reservation released in one change."""
    place = {"product": product["id"], "warehouse": warehouse["id"]}
    keeper.make("stock_move", **place, quantity="10", reason="receipt")
    order = seller.make("order", customer=deal["fields"]["customer"], deal=deal["id"],
                        warehouse=warehouse["id"])  # fmt: skip
    reserved = seller.make("reservation", **place, deal=deal["id"], order=order["id"], quantity="4")
    assert stock(seller, product) == ("10.000", "4.000", "6.000")
    keeper.change(
        (
            "stock_move",
            None,
            {**place, "quantity": "-4", "reason": "shipment", "order": order["id"]},
        ),
        ("reservation", None, {"reverses": reserved["id"]}),
    )
    assert stock(seller, product) == ("6.000", "0.000", "6.000")
    refused = {"fields": {**place, "quantity": "-7", "reason": "shipment"}}
    keeper.post("/records/stock_move", refused, 409)
    seller.edit(order, state="shipped")


def stock(person, product):
    (row,) = person.get("/stock", product=product["id"])["rows"]
    return row["balance"], row["reserved"], row["available"]


def paid(seller, owner, deal, product):
    ident = str(uuid7())
    seller.change(
        ("invoice", ident, {"customer": deal["fields"]["customer"], "issued": "2026-11-20"}),
        ("invoice_line", None, {"invoice": ident, "product": product["id"], "quantity": "4"}),
    )
    invoice = seller.get(f"/records/invoice/{ident}")
    total = invoice["fields"]["gross_total"]
    assert invoice["number"].startswith("INV-") and total != "0.00"
    payment = owner.make("payment", customer=deal["fields"]["customer"], amount=total)
    owner.make("allocation", invoice=ident, payment=payment["id"], amount=total)
    assert seller.get(f"/records/invoice/{ident}")["fields"]["paid"] == total
