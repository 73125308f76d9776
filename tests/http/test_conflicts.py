"""The inbox over HTTP: capabilities, branches, conflicts decided, many at once."""

import pytest

from appliance.base.ids import uuid7
from appliance.sync.parked import hold
from tests.sync.held import sale
from tests.sync.open import opened_field, stranger
from tests.tenants import create

pytestmark = pytest.mark.anyio
PATH = "/api/v1/conflicts"


async def conflicting(firm, as_owner, unit="north", **values):
    """A new deal of a branch whose stage somebody else has changed at another node."""
    tenant = firm.tenant
    ctx = await tenant.ctx(unit=unit)
    fields = {
        "title": f"Clash {unit}",
        "amount": "1.00",
        "stage": "new",
        "margin": "5.00",
        **values,
    }
    owner = tenant.people["seller" if unit == "north" else "south"]
    (outcome,) = (await tenant.apply(create("deal", owner=owner, **fields), ctx=ctx)).outcomes
    dots = await opened_field(
        tenant, as_owner, "deal", outcome.id, "stage", ({"stage": "won"}, stranger())
    )
    return outcome.id, dots


@pytest.fixture(autouse=True)
async def empty(firm, as_owner):
    yield
    await as_owner(firm.tenant.id, "DELETE FROM conflict")
    await as_owner(firm.tenant.id, "DELETE FROM parked")


class TestInbox:
    async def test_each_branch_has_its_own(self, firm, as_owner, sign_in):
        north, _ = await conflicting(firm, as_owner)
        south, _ = await conflicting(firm, as_owner, "south")
        for who, own, other in (("seller", north, south), ("south", south, north)):
            client = await sign_in(firm, who)
            answer = (await client.get(PATH, params={"total": "true"})).json()
            assert [c["record"] for c in answer["conflicts"]] == [str(own)]
            assert answer["counts"] == {"field": 1}
            gone = await client.get(f"{PATH}/{other}/field/stage")
            assert gone.status_code == 404 and gone.json()["code"] == "conflict.unknown"
            chosen = {"values": {"stage": "lost"}}
            refused = await client.post(f"{PATH}/{other}/field/stage/resolve", json=chosen)
            assert refused.status_code == 404
        client = await sign_in(firm, "owner")
        found = (await client.get(PATH)).json()["conflicts"]
        assert {c["record"] for c in found} == {str(north), str(south)}

    async def test_a_conflict_is_shown_and_decided_once(self, firm, as_owner, sign_in):
        ident, dots = await conflicting(firm, as_owner)
        client = await sign_in(firm, "seller")
        address = f"{PATH}/{ident}/field/stage"
        answer = await client.get(address)
        shown = answer.json()
        assert [s["values"]["stage"] for s in shown["sides"]] == ["new", "won"]
        (field,) = shown["conflicts"]
        assert set(field) == {"field", "mine", "theirs", "base", "who", "at"}
        headers = {"If-Match": answer.headers["etag"]}
        done = await client.post(f"{address}/resolve", json={"choose": dots[1]}, headers=headers)
        assert done.status_code == 200, done.text
        assert done.json()["outcomes"][0]["status"] == "applied"
        late = await client.post(f"{address}/resolve", json={"choose": dots[0]}, headers=headers)
        assert late.status_code in (404, 409), late.text
        record = (await client.get(f"/api/v1/records/deal/{ident}")).json()
        assert record["fields"]["stage"] == "won"
        change = done.headers["x-change-set"]
        assert (await client.post(f"/api/v1/changes/{change}/undo")).status_code == 200

    async def test_the_same_key_decides_once(self, firm, as_owner, sign_in):
        ident, _ = await conflicting(firm, as_owner)
        client = await sign_in(firm, "seller")
        address = f"{PATH}/{ident}/field/stage/resolve"
        for choice, status in (({}, 422), ({"keep": "deleted"}, 422), ({"values": {"x": 1}}, 422),
                               ({"unknown": 1}, 422), ({"choose": "9.9"}, 409)):  # fmt: skip
            assert (await client.post(address, json=choice)).status_code == status, choice

    async def test_reading_is_for_all_deciding_for_those_who_write(self, firm, as_owner, sign_in):
        ident, dots = await conflicting(firm, as_owner)
        for who in ("viewer", "auditor"):
            client = await sign_in(firm, who)
            assert (await client.get(f"{PATH}/{ident}/field/stage")).status_code == 200
            address = f"{PATH}/{ident}/field/stage/resolve"
            answer = await client.post(address, json={"choose": dots[0]})
            assert answer.status_code == 403, who

    async def test_hidden_fields_do_not_exist(self, firm, as_owner, sign_in):
        tenant = firm.tenant
        ident, _ = await conflicting(firm, as_owner)
        theirs = ({"margin": "987.65"}, stranger())
        await opened_field(tenant, as_owner, "deal", ident, "margin", theirs)
        client = await sign_in(firm, "seller")
        answer = await client.get(PATH)
        assert "margin" not in answer.text and "987.65" not in answer.text
        assert (await client.get(f"{PATH}/{ident}/field/margin")).status_code == 404
        owner = await sign_in(firm, "owner")
        assert "987.65" in (await owner.get(PATH)).text

    async def test_pages(self, firm, as_owner, sign_in):
        made = [(await conflicting(firm, as_owner))[0] for _ in range(5)]
        client = await sign_in(firm, "seller")
        found, after = [], None
        while True:
            params = {"limit": 2, **({"after": after} if after else {})}
            answer = (await client.get(PATH, params=params)).json()
            found += [c["record"] for c in answer["conflicts"]]
            after = answer["next"]
            if after is None:
                break
        assert found == [str(i) for i in reversed(made)]
        other = await client.get(PATH, params={"after": "x" * 40})
        assert other.status_code == 422
        for params in ({"limit": 0}, {"sort": "none"}, {"unit": "x"}, {"what": "x"}):
            assert (await client.get(PATH, params=params)).status_code == 422, params

    async def test_many_by_a_rule(self, firm, as_owner, sign_in):
        made = [(await conflicting(firm, as_owner))[0] for _ in range(3)]
        south, _ = await conflicting(firm, as_owner, "south")
        client = await sign_in(firm, "seller")
        answer = await client.post(f"{PATH}/resolve", json={"rule": "newest"})
        body = answer.json()
        assert answer.status_code == 200 and body["job"] is None
        assert {d["record"]: d["status"] for d in body["decided"]} == dict.fromkeys(
            map(str, made), "resolved"
        )
        assert str(south) not in answer.text
        refused = await client.post(f"{PATH}/resolve", json={"rule": "coin"})
        assert refused.status_code == 422


class TestParked:
    async def held(self, firm):
        ctx = await firm.tenant.ctx()
        entries = sale(firm.tenant, ctx)
        async with firm.tenant.db.transaction(firm.tenant.id) as tx:
            await hold(tx, ctx, firm.tenant.units["north"], 9, entries)
        return entries

    async def test_it_is_for_those_who_manage_replication(self, firm, sign_in):
        await self.held(firm)
        client = await sign_in(firm, "seller")
        assert (await client.get("/api/v1/sync/parked")).status_code == 403
        owner = await sign_in(firm, "owner")
        (parked,) = (await owner.get("/api/v1/sync/parked")).json()["parked"]
        assert (parked["reason"], parked["is_held"]) == ("late_write_after_revoke", True)
        told = (await owner.get(f"/api/v1/sync/parked/{parked['id']}")).json()
        assert told["changes"][0]["fields"]["title"] == "Late"
        assert (await owner.get(f"/api/v1/sync/parked/{uuid7()}")).status_code == 404

    async def test_it_is_skipped_with_a_reason_and_once(self, firm, sign_in):
        await self.held(firm)
        owner = await sign_in(firm, "owner")
        (parked,) = (await owner.get("/api/v1/sync/parked")).json()["parked"]
        address = f"/api/v1/sync/parked/{parked['id']}/skip"
        assert (await owner.post(address, json={"reason": " "})).status_code == 422
        done = await owner.post(address, json={"reason": "Known and entered by hand."})
        assert done.status_code == 200, done.text
        (step,) = done.json()["steps"]
        assert step["op"] == "create" and step["fields"]["title"] == "Late"
        made = await owner.post("/api/v1/changes", json=[step])
        assert made.status_code == 201, made.text
        assert (await owner.post(address, json={"reason": "Again."})).status_code == 409
