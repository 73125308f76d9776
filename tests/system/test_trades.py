"""The flow that each other template is for, in short, through the public contract alone."""

import json

from tests.system.staff import entries, invite, one


def test_real_estate_from_the_property_to_the_closing(node, new_tenant):
    owner = new_tenant("agency")
    owner.post("/templates/real_estate:install", {})
    office = one(owner, 'sys.unit where name = "Office Centre"')
    people = invite(node, owner, "agency", office, broker="broker", head="office_head")
    broker, head = people["broker"], people["head"]
    seller = broker.make("property_owner", name="Larysa Koval", phone="+380441110022")
    buyer = broker.make("customer", name="Andrii Bilyk")
    assert buyer["fields"]["type"] == "person", "buyers are people here"
    flat = broker.make(
        "property", title="Loft by the river", type="flat", purpose="sale", area="64.0", rooms=2,
        price="128000", owner_card=seller["id"], address="12 Naberezhna", state="offered",
    )  # fmt: skip
    assert flat["fields"]["price_per_m2"] == "2000.00" and flat["number"].startswith("OBJ-")
    head.edit(head.get(f"/records/property/{flat['id']}"), lowest_price="120000")
    viewing = broker.make("viewing", property=flat["id"], customer=buyer["id"],
                          starts_at="2027-02-01T15:00:00+02:00")  # fmt: skip
    broker.edit(viewing, state="done", liked="yes")
    offer = broker.make("offer", property=flat["id"], customer=buyer["id"], amount="125000")
    offer = broker.edit(broker.edit(offer, state="countered", amount="126500"), state="accepted")
    closing = head.make("closing", property=flat["id"], customer=buyer["id"], offer=offer["id"],
                        price="126500", rate="3.00")  # fmt: skip
    assert closing["fields"]["commission"] == "3795.00"
    for stage in ("papers", "notary", "done"):
        closing = head.edit(closing, stage=stage)
    flat = broker.get(f"/records/property/{flat['id']}")
    assert broker.edit(flat, state="sold")["fields"]["address"] == "12 Naberezhna"
    seen = json.dumps([broker.get(f"/records/closing/{closing['id']}"),
                       broker.get(f"/records/property/{flat['id']}"), broker.get("/kinds")])  # fmt: skip
    assert not [s for s in ("3795", "120000", "commission", "lowest_price") if s in seen]
    assert owner.get(f"/records/property/{flat['id']}")["fields"]["viewings"] == 1
    assert {"property", "viewing", "offer", "closing"} <= entries(broker)


def test_a_jeweller_sells_repairs_and_buys_back(node, new_tenant):
    owner = new_tenant("jeweller")
    owner.post("/templates/jewellery:install", {})
    salon = one(owner, 'sys.unit where name = "Salon"')
    people = invite(node, owner, "jeweller", salon, shop="salesperson", smith="goldsmith",
                    buyer="appraiser")  # fmt: skip
    shop, smith, buyer = people["shop"], people["smith"], people["buyer"]
    tax = one(owner, 'tax where rate = "20.00"')
    ring = owner.make("product", name="Ring with a sapphire", sku="R-750-09", metal="gold",
                      fineness=750, metal_weight="4.100", tax=tax["id"])  # fmt: skip
    owner.make("stone", product=ring["id"], type="sapphire", carats="0.450")
    retail = one(owner, 'price_type where key = "retail"')
    owner.make("price", product=ring["id"], price_type=retail["id"], price="36000", currency="UAH")
    client = shop.make("customer", name="Iryna Savchuk", phone="+380445556677")
    deal = shop.make("deal", title="Ring", customer=client["id"])
    shop.make("deal_line", deal=deal["id"], product=ring["id"], quantity="1")
    won = one(shop, 'stage where name contains "Won"')
    deal = shop.edit(shop.get(f"/records/deal/{deal['id']}"), stage=won["id"])
    assert deal["fields"]["gross_total"] == "36000.00" and deal["fields"]["probability"] == 100

    repair = shop.make("repair", customer=client["id"], product=ring["id"], article="Ring, to 18",
                       work="resize", weight_in="4.100", price="900")  # fmt: skip
    mine = smith.get(f"/records/repair/{repair['id']}")
    mine = smith.edit(smith.edit(mine, state="working"), state="ready", weight_out="4.080")
    assert mine["fields"]["weight_change"] == "-0.020"
    shop.edit(shop.get(f"/records/repair/{repair['id']}"), state="given")
    assert "0445556677" not in json.dumps(smith.get(f"/records/customer/{client['id']}"))
    assert not {"buy_back", "price", "deal", "metal_rate"} & entries(smith)
    assert "price" not in mine["fields"], "what a repair costs is for the shop to say"

    bought = buyer.make("buy_back", customer=client["id"], metal="gold", fineness=585,
                        weight="3.250", price_per_gram="2650", document="FA 123456")  # fmt: skip
    assert bought["fields"]["amount"] == "8612.50"
    assert buyer.edit(bought, state="paid")["fields"]["document"] == "FA 123456"
    assert "FA 123456" not in json.dumps(shop.get("/query", q="buy_back"))


def test_an_office_runs_a_project_and_decides(node, new_tenant):
    owner = new_tenant("office")
    owner.post("/templates/corporate:install", {})
    office = one(owner, 'sys.unit where name = "Office"')
    people = invite(node, owner, "office", office, lead="project_lead", member="member")
    lead, member = people["lead"], people["member"]
    boss = owner.make("employee", name="Lead", position="Project lead")
    clerk = owner.make("employee", name="Clerk", position="Analyst", head=boss["id"])
    project = lead.make("project", title="New site", lead_by=boss["id"], budget="90000")
    project = lead.edit(project, state="running")
    lead.make("milestone", project=project["id"], title="Draft", due="2027-02-20")
    task = member.make("task", title="Collect texts", project=project["id"])
    member.edit(task, done=True)
    member.make("work_log", project=project["id"], employee=clerk["id"], day="2027-02-02",
                hours="6.5", note="Texts")  # fmt: skip
    asked = member.make("approval", title="A camera", type="purchase", project=project["id"],
                        approver=boss["id"], amount="12000", reason="Pictures")  # fmt: skip
    assert asked["fields"]["amount"] == "12000.00" and asked["number"]
    seen = lead.get(f"/records/approval/{asked['id']}")
    decided = lead.edit(seen, state="approved", decided_at="2027-02-03T10:00:00+02:00")
    assert member.get(f"/records/approval/{asked['id']}")["fields"]["state"] == "approved"
    tag = {"If-Match": f'"{decided["version"]}"'}
    path = f"/records/project/{project['id']}"
    member.call("PATCH", path, 403, json={"fields": {"progress": 90}}, headers=tag)
    assert "90000" not in json.dumps(member.get(path))
    totals = lead.get(path)["fields"]
    assert (totals["hours"], totals["tasks"], totals["budget"]) == ("6.50", 1, "90000.00")
    section = one(member, 'article_section where order = "2"')
    article = member.make("article", title="How to take pictures", section=section["id"],
                          body="Light first.")  # fmt: skip
    member.edit(article, state="published")
    assert "articles_published" in entries(lead, "view")
    assert one(lead, 'article where title contains "pictures"')["id"] == article["id"]


def test_a_document_goes_to_another_branch_with_all_that_belongs_to_it(node, new_tenant):
    owner = new_tenant("branches")
    owner.post("/templates/multi_branch_sales:install", {})
    north, south = (one(owner, f'sys.unit where name = "{n} branch"') for n in ("North", "South"))
    here = invite(node, owner, "branches", north, nina="branch_manager")["nina"]
    there = invite(node, owner, "branches", south, sam="branch_manager")["sam"]
    customer = here.make("customer", name="Firm")["id"]
    invoice = here.make("invoice", customer=customer, issued="2027-01-10")
    here.make("invoice_line", invoice=invoice["id"], text="Work", unit_price="100", tax_rate="20")
    payment = owner.make("payment", customer=customer, amount="120")
    owner.make("allocation", invoice=invoice["id"], payment=payment["id"], amount="50")
    path = f"/records/invoice/{invoice['id']}"
    totals = ("gross_total", "paid")
    before = here.get(path)
    assert [before["fields"][n] for n in totals] == ["120.00", "50.00"]
    tag = {"If-Match": f'"{before["version"]}"'}
    beyond = {"json": {"unit": south["id"]}, "headers": tag}
    here.call("PATCH", path, 422, **beyond)
    answer = owner.http.patch(path, **beyond)
    assert answer.status_code == 200, answer.text
    here.call("GET", path, 404)
    assert here.rows("invoice_line") == [] and len(there.rows("invoice_line")) == 1
    assert [there.get(path)["fields"][n] for n in totals] == ["120.00", "50.00"]
    assert [owner.get(path)["fields"][n] for n in totals] == ["120.00", "50.00"]
    owner.post(f"/changes/{answer.headers['x-change-set']}/undo", {})
    there.call("GET", path, 404)
    assert [here.get(path)["fields"][n] for n in totals] == ["120.00", "50.00"]
    assert there.rows("invoice_line") == [] and len(here.rows("invoice_line")) == 1


def test_a_blank_tenant_builds_its_own(new_tenant):
    owner = new_tenant("own")
    assert entries(owner) == set()
    (profile,) = owner.rows('sys.profile where key = "owner"')
    owner.change(
        ("sys.kind", None, {"key": "boat", "labels": {"en": "Boats"}}),
        ("sys.field", None, {"kind": "boat", "name": "name", "type": "text", "required": True,
                             "filterable": True}),
        ("sys.grant", None, {"profile": profile["id"], "kind": "boat", "fields": {"name": "write"},
                             "actions": {"read": "all", "create": "all"}}),
    )  # fmt: skip
    boat = owner.make("boat", name="Chaika")
    assert one(owner, 'boat where name = "Chaika"')["id"] == boat["id"]
    assert entries(owner) == {"boat"}
