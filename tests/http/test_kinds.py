"""Kinds as data over HTTP: each reader's view, and a new kind that works at once."""

import pytest

from tests.http.test_door import assert_problem

pytestmark = pytest.mark.anyio
PATH = "/api/v1/kinds"
FIELDS = [
    {"name": "title", "type": "text", "required": True, "filterable": True, "labels": {"en": "Title", "uk": "Назва"}},
    {"name": "cost", "type": "money", "filterable": True}, {"name": "secret", "type": "text", "sensitivity": "restricted"},
    {"name": "open", "type": "yes_no", "default": True, "filterable": True}, {"name": "note", "type": "long_text"},
]  # fmt: skip


async def test_a_kind_is_seen_through_its_reader(client, firm, sign_in):
    owner, seller = await sign_in(firm, "owner"), await sign_in(firm, "seller")
    full = (await owner.get(f"{PATH}/deal")).json()
    assert {f["name"]: f["mode"] for f in full["fields"]}["margin"] == "write"
    answer = await seller.get(f"{PATH}/deal")
    assert "margin" not in answer.text
    assert "secret" not in (await seller.get(f"{PATH}/customer")).text
    assert "purge" not in answer.json()["actions"]
    assert_problem(await seller.get(f"{PATH}/sys.grant"), 404)
    assert_problem(await seller.get(f"{PATH}/nothing"), 404)
    keys = [k["key"] for k in (await seller.get(PATH)).json()["kinds"]]
    assert "deal" in keys
    assert "sys.profile" not in keys


async def test_the_tag_moves_with_the_schema(client, firm, sign_in):
    owner = await sign_in(firm, "owner")
    tag = (await owner.get(PATH)).headers["etag"]
    assert (await owner.get(PATH, headers={"If-None-Match": tag})).status_code == 304
    await owner.post(PATH, json={"key": "tagged", "fields": [{"name": "a", "type": "text"}]})
    assert (await owner.get(PATH, headers={"If-None-Match": tag})).status_code == 200


async def test_a_new_kind_works_at_once(client, firm, sign_in):
    owner, seller, viewer = [await sign_in(firm, w) for w in ("owner", "seller", "viewer")]
    body = {
        "key": "visit",
        "labels": {"en": "Visits"},
        "display": "title",
        "fields": FIELDS,
        "grant_to": ["salesperson"],
    }
    answer = await owner.post(PATH, json=body)
    assert answer.status_code == 201, answer.text
    assert {"topic": "granted.salesperson", "count": 1} in answer.json()["effects"]
    made = await seller.post(
        "/api/v1/records/visit", json={"fields": {"title": "First", "cost": "5"}}
    )
    assert made.status_code == 201, made.text
    assert made.json()["fields"]["open"] is True
    assert "secret" not in made.text
    assert_problem(await viewer.get(f"{PATH}/visit"), 404)
    records = [{"fields": {"title": f"V{n}", "cost": f"{n}.00"}} for n in range(1000)]
    assert (await owner.post("/api/v1/records/visit", json=records)).status_code == 201
    query = {"from": "visit", "group": ["open"], "select": ["open", {"sum": "cost", "as": "total"}]}
    (row,) = [r for r in (await owner.post("/api/v1/query", json=query)).json()["rows"]]
    assert row["total"] == "499505.00"


async def test_a_new_field_is_closed_until_granted(client, firm, sign_in):
    owner, seller = await sign_in(firm, "owner"), await sign_in(firm, "seller")
    await owner.post(
        PATH, json={"key": "visit2", "fields": FIELDS[:1], "grant_to": ["salesperson"]}
    )
    made = (await seller.post("/api/v1/records/visit2", json={"fields": {"title": "x"}})).json()[
        "id"
    ]
    answer = await owner.post(f"{PATH}/visit2/fields", json={"name": "later", "type": "integer"})
    assert answer.status_code == 201, answer.text
    edit = await owner.patch(f"/api/v1/records/visit2/{made}", json={"fields": {"later": 7}})
    assert edit.json()["fields"]["later"] == 7
    assert "later" not in (await seller.get(f"/api/v1/records/visit2/{made}")).text
    answer = await owner.post(
        f"{PATH}/visit2/fields",
        json={"name": "shown", "type": "integer", "grant_to": ["salesperson"]},
    )
    assert answer.status_code == 201, answer.text
    assert "shown" in (await seller.get(f"/api/v1/records/visit2/{made}")).text
    assert (
        await owner.patch(f"{PATH}/visit2/fields/later", json={"labels": {"en": "Later"}})
    ).status_code == 200
    assert (await owner.delete(f"{PATH}/visit2/fields/later")).status_code == 200
    assert_problem(await owner.delete(f"{PATH}/visit2/fields/later"), 404)
    again = await owner.post(f"{PATH}/visit2/fields", json={"name": "later", "type": "text"})
    assert again.status_code == 201, again.text
    edit = await owner.patch(f"/api/v1/records/visit2/{made}", json={"fields": {"later": "text"}})
    assert edit.json()["fields"]["later"] == "text"


@pytest.mark.parametrize(("body", "pointer"), [
    ({"key": "Bad Key"}, "/key"), ({"key": "deal"}, "/key"), ({"key": "k1", "home": "moon"}, "/home"),
    ({"key": "k2", "fields": [{"name": "id", "type": "text"}]}, "/fields/0/name"),
    ({"key": "k3", "fields": [{"name": "a", "type": "text"}, {"name": "b", "type": "wishful"}]}, "/fields/1/type"),
    ({"key": "k4", "fields": [{"name": "a", "type": "text"}, {"name": "a", "type": "text"}]}, "/fields/1/name"),
    ({"key": "k5", "grant_to": ["nobody"]}, "/grant_to/0"), ({"key": "k6", "fields": [{"name": "a"}]}, "/fields/0"),
])  # fmt: skip
async def test_what_is_wrong_with_a_kind_is_named(client, firm, sign_in, body, pointer):
    owner = await sign_in(firm, "owner")
    problem = assert_problem(await owner.post(PATH, json=body), 422)
    assert pointer in [e["pointer"] for e in problem["errors"]], problem


async def test_who_may_design(client, firm, sign_in):
    seller, owner = await sign_in(firm, "seller"), await sign_in(firm, "owner")
    assert_problem(await seller.post(PATH, json={"key": "mine"}), 403)
    assert_problem(await owner.patch(f"{PATH}/sys.person", json={"labels": {}}), 403, "kind.system")
    answer = await owner.patch(
        f"{PATH}/deal", json={"labels": {"en": "Deals"}, "layout": {"rows": ["title", "margin"]}}
    )
    assert answer.status_code == 200, answer.text
    assert (await owner.get(f"{PATH}/deal")).json()["layout"] == {"rows": ["title", "margin"]}
    assert (await seller.get(f"{PATH}/deal")).json()["layout"] == {"rows": ["title"]}


async def test_the_description_has_the_readers_own_kinds(client, firm, sign_in):
    seller, owner = await sign_in(firm, "seller"), await sign_in(firm, "owner")
    described = (await seller.get("/api/v1/openapi.json")).json()
    fields = described["components"]["schemas"]["kind_deal_fields"]["properties"]
    assert "title" in fields
    assert "margin" not in fields
    assert "/api/v1/records/deal/{id}" in described["paths"]
    assert "margin" in (await owner.get("/api/v1/openapi.json")).text
