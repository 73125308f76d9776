"""Modules and templates through the public contract: who may, what is answered, what is refused."""

import pytest

from tests.http.conftest import client_of
from tests.install.firm import ONE, PASSWORD, TWO, make_firm

pytestmark = pytest.mark.anyio
API = "/api/v1"


async def owner_of(app, firm):
    client = client_of(app)
    body = {"tenant": firm.slug, "email": "owner@example.org", "password": PASSWORD}
    answer = await client.post(f"{API}/session", json=body)
    assert answer.status_code == 201, answer.text
    client.headers["Authorization"] = f"Bearer {answer.json()['token']}"
    return client


async def test_a_member_is_told_who_can_pick(firm, sign_in):
    seller, owner = await sign_in(firm, "seller"), await sign_in(firm, "owner")
    told = (await seller.get(f"{API}/templates")).json()
    assert told["may_pick"] is False and "Owner" in told["managers"]
    assert {t["name"] for t in told["templates"]} >= {"hospital", "jewellery", "blank"}
    refused = await seller.post(f"{API}/templates/hospital:install", json={})
    assert refused.status_code == 403
    assert (await owner.get(f"{API}/templates")).json()["may_pick"] is True
    seen = await seller.get(f"{API}/templates/hospital/preview")
    assert seen.json()["counts"]["kind"] > 10 and seen.json()["would"] is None
    assert (await seller.get(f"{API}/templates/nowhere/preview")).status_code == 404
    assert (await seller.post(f"{API}/modules/sales:disable")).status_code == 403


async def test_pick_look_upgrade_and_take_back(app, db, dsns):
    tenant = await make_firm(db, dsns, "blank")
    client = await owner_of(app, tenant)
    looked = (await client.get(f"{API}/templates/real_estate/preview")).json()
    assert looked["would"]["counts"]["kind"]["create"] == looked["counts"]["kind"]
    done = await client.post(f"{API}/templates/real_estate:install", json={})
    assert done.status_code == 200 and done.json()["change_set"], done.text
    kinds = (await client.get(f"{API}/kinds")).json()["kinds"]
    assert "property" in {k["key"] for k in kinds}
    made = await client.post(f"{API}/records/property_owner", json={"fields": {"name": "Real"}})
    assert made.status_code == 201, made.text
    locked = await client.post(f"{API}/templates/hospital:install", json={})
    assert (locked.status_code, locked.json()["code"]) == (409, "template.locked")
    assert locked.json()["errors"] == [
        {"pointer": "/property_owner", "code": "has_records", "detail": "1"}
    ]
    standing = (await client.get(f"{API}/templates")).json()["installed"]
    assert (standing["name"], standing["locked"], standing["samples"] > 5) == (
        "real_estate",
        True,
        True,
    )
    gone = (await client.post(f"{API}/templates/real_estate:remove-samples", json={})).json()
    assert len(gone["removed"]) == standing["samples"] and gone["kept"] == []
    other = await client.post(f"{API}/templates/hospital:upgrade", json={})
    assert (other.status_code, other.json()["code"]) == (409, "template.other")
    kept = await client.post(f"{API}/templates/real_estate:rollback")
    assert (kept.status_code, kept.json()["code"]) == (409, "template.has_records")
    owner = f"{API}/records/property_owner/{made.json()['id']}"
    assert (await client.delete(owner)).status_code in (200, 204)
    # Samples went since, so undoing is refused; but a tenant without data may be switched.
    changed = await client.post(f"{API}/templates/real_estate:rollback")
    assert (changed.status_code, changed.json()["code"]) == (409, "template.changed_since")
    back = await client.post(f"{API}/templates/blank:install", json={})
    assert (back.status_code, back.json()["was"]) == (200, "real_estate@1.0"), back.text
    left = {k["key"] for k in (await client.get(f"{API}/kinds")).json()["kinds"]}
    assert "property" not in left


async def test_a_file_of_ones_own(app, db, dsns):
    tenant = await make_firm(db, dsns, "blank")
    client = await owner_of(app, tenant)
    bad = await client.post(f"{API}/templates/club:install", json={"file": "name = "})
    assert (bad.status_code, bad.json()["code"]) == (422, "template.unreadable")
    other = await client.post(f"{API}/templates/guild:install", json={"file": ONE})
    assert other.status_code == 422
    assert (
        await client.post(f"{API}/templates/club:install", json={"file": ONE})
    ).status_code == 200
    ids = (await client.get(f"{API}/kinds/member")).json()
    assert [f["name"] for f in ids["fields"]] == ["name", "level", "city"]
    mine = {"labels": {"en": "Place"}}
    assert (await client.patch(f"{API}/kinds/member/fields/city", json=mine)).status_code == 200
    shown = (await client.post(f"{API}/templates/club:preview", json={"file": TWO})).json()
    assert [c["at"] for c in shown["would"]["conflicts"]] == ["field/member.city#labels.en"]
    taken = {"file": TWO, "choices": {"field/member.city#labels.en": "take"}}
    done = (await client.post(f"{API}/templates/club:upgrade", json=taken)).json()
    assert (done["was"], done["version"]) == ("club@1.0", "1.1")
    field = (await client.get(f"{API}/kinds/member")).json()["fields"][2]
    assert field["label"] == "Town"
    back = (await client.post(f"{API}/templates/club:rollback")).json()
    assert (back["template"], back["version"]) == ("club", "1.0")
    field = (await client.get(f"{API}/kinds/member")).json()["fields"][2]
    assert field["label"] == "Place"
    text = await client.post(f"{API}/templates/publish", json={"name": "mine", "version": "1"})
    assert text.headers["content-type"] == "application/toml" and 'name = "mine"' in text.text


async def test_switch_a_module(app, db, dsns):
    tenant = await make_firm(db, dsns, "corporate")
    client = await owner_of(app, tenant)
    listed = {m["key"]: m["state"] for m in (await client.get(f"{API}/modules")).json()["modules"]}
    assert (listed["projects"], listed["sales"]) == ("on", "available")
    impact = (await client.get(f"{API}/modules/projects/impact")).json()
    assert {"key": "project", "records": 1} in [
        {n: k[n] for n in ("key", "records")} for k in impact["kinds"]
    ]
    assert (await client.get(f"{API}/modules/nothing/impact")).status_code == 404
    assert (await client.post(f"{API}/modules/projects:disable")).json()["state"] == "off"
    assert (await client.get(f"{API}/kinds/project")).status_code == 404
    made = await client.post(f"{API}/records/project", json={"fields": {"title": "x"}})
    assert made.status_code == 404
    asked = await client.post(f"{API}/query", json={"from": "project"})
    assert asked.status_code == 422
    assert (await client.post(f"{API}/modules/projects:enable")).json()["state"] == "on"
    assert len((await client.post(f"{API}/query", json={"from": "project"})).json()["rows"]) == 1
