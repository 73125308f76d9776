"""The menu is built from the reader's rights: what they do not read has no entry and no count."""

import pytest

pytestmark = pytest.mark.anyio
MENU, KINDS, VIEWS = "/api/v1/menu", "/api/v1/kinds", "/api/v1/records/sys.view"


async def entries(person):
    answer = await person.get(MENU)
    assert answer.status_code == 200, answer.text
    items = answer.json()["items"]
    assert all(i.keys() <= {"sort", "key", "label", "kind"} for i in items), "no counts"
    return {(i["sort"], i["key"]) for i in items}


async def test_a_kind_that_is_not_read_has_no_entry_and_no_view(client, firm, sign_in):
    owner, seller = await sign_in(firm, "owner"), await sign_in(firm, "seller")
    for kind in ("deal", "customer"):
        view = {"key": f"all_{kind}", "kind": kind, "labels": {"en": f"All {kind}s"},
                "query": {"from": kind, "select": ["number"]}}  # fmt: skip
        assert (await owner.post(VIEWS, json={"fields": view})).status_code == 201
    every = {("kind", "deal"), ("kind", "customer"), ("view", "all_deal"), ("view", "all_customer")}
    assert every <= await entries(owner)
    assert every <= await entries(seller)
    assert ("settings", "profiles") in await entries(owner)
    assert ("settings", "profiles") not in await entries(seller)
    grant, version = await granted(owner, "salesperson", "customer")
    gone = await owner.delete(
        f"/api/v1/records/sys.grant/{grant}", headers={"If-Match": f'"{version}"'}
    )
    assert gone.status_code == 200, gone.text
    found = await entries(seller)
    assert not {("kind", "customer"), ("view", "all_customer")} & found
    assert {("kind", "deal"), ("view", "all_deal")} <= found
    assert "customer" not in (await seller.get(MENU)).text
    assert every <= await entries(owner)


async def granted(owner, profile, kind):
    """Id and version of what a profile is granted on a kind."""
    ask = {
        "from": "sys.profile",
        "select": ["id"],
        "where": {"field": "key", "op": "eq", "value": profile},
    }
    (found,) = (await owner.post("/api/v1/query", json=ask)).json()["rows"]
    both = [
        {"field": "profile", "op": "eq", "value": found["id"]},
        {"field": "kind", "op": "eq", "value": kind},
    ]
    ask = {"from": "sys.grant", "select": ["id", "version"], "where": {"and": both}}
    (row,) = (await owner.post("/api/v1/query", json=ask)).json()["rows"]
    return row["id"], row["version"]


async def test_what_one_profile_has_seen_is_not_said_to_be_the_same_for_another(
    client, rival, sign_in
):
    owner, seller = await sign_in(rival, "owner"), await sign_in(rival, "seller")
    known = {"If-None-Match": (await owner.get(KINDS)).headers["etag"]}
    assert (await owner.get(KINDS, headers=known)).status_code == 304
    answer = await seller.get(KINDS, headers=known)
    assert answer.status_code == 200 and answer.headers["etag"] != known["If-None-Match"]
