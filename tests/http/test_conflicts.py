"""The inbox over HTTP: capabilities, branches, conflicts decided, many at once."""

import pytest

from appliance.base.ids import uuid7
from appliance.audit import seal
from appliance.sync.parked import hold
from appliance.sync.resolving import AT_ONCE
from appliance.work.actors.conflicts import resolve_conflicts
from appliance.work.inbox import tend_inbox
from appliance.work.node import WorkNode
from appliance.work.run import claim
from tests.sync.held import sale
from tests.sync.open import noted, opened_field, stranger
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


class TestAtWork:
    async def test_a_job_goes_on_under_the_rights_of_who_asked(
        self, firm, as_owner, sign_in, db, valkey_url
    ):
        tenant = firm.tenant
        seller = tenant.people["seller"]
        ctx = await tenant.ctx()
        names = [
            create("deal", owner=seller, title="Many", stage="new") for _ in range(AT_ONCE + 5)
        ]
        made = (await tenant.apply(*names, ctx=ctx)).outcomes
        south, _ = await conflicting(firm, as_owner, "south")
        await as_owner(
            tenant.id,
            "UPDATE record SET stamps = stamps || ';stage=' || stamps || '+2.9' WHERE id = ANY(%s)",
            [o.id for o in made],
        )
        await as_owner(
            tenant.id,
            "INSERT INTO conflict SELECT tenant_id, id, 'field', 'stage', kind, stream, "
            "jsonb_build_array(jsonb_build_object('dot', '1.1', 'at', '2026-11-20', 'values', "
            """'{"stage": "new"}'::jsonb), jsonb_build_object('dot', '2.9', 'at', '2026-11-21', """
            """'values', '{"stage": "won"}'::jsonb)), now() FROM record WHERE id = ANY(%s)""",
            [o.id for o in made],
        )
        client = await sign_in(firm, "seller")
        answer = (await client.post(f"{PATH}/resolve", json={"rule": "newest"})).json()
        assert len(answer["decided"]) == AT_ONCE and answer["job"]
        (row,) = await tenant.sql(
            "SELECT outbox_id FROM job WHERE tenant_id = $1 AND id = $2", tenant.id, answer["job"]
        )
        run = await claim(db, tenant.id, int(row[0]))
        node = WorkNode(db=db, redis_url=valkey_url, name="w", origin=1, seal=seal)
        await resolve_conflicts(node, tenant.id, run.payload, run)
        (job,) = await tenant.sql("SELECT progress, detail FROM job WHERE id = $1", answer["job"])
        assert job == ["5", "5 resolved, 0 left open."]
        won = await tenant.sql(
            "SELECT count(*) FROM record WHERE tenant_id = $1 AND data->>'stage' = 'won' "
            "AND data->>'title' = 'Many'",
            tenant.id,
        )
        assert int(won[0][0]) == AT_ONCE + 5
        open_ = await tenant.sql("SELECT data->>'stage' FROM record WHERE id = $1", south)
        assert open_ == [["new"]], "another branch is out of reach of the job too"

    async def test_what_waits_is_counted_and_what_is_over_is_forgotten(
        self, firm, as_owner, client, db, valkey_url
    ):
        tenant = firm.tenant
        ident, _ = await conflicting(firm, as_owner)
        await noted(tenant, ident, "unique", "title", "deal", [{"record": str(ident)}])
        node = WorkNode(db=db, redis_url=valkey_url, name="w", origin=1, seal=seal)
        # Other tenants of the run may have something to forget as well.
        assert await tend_inbox(node) >= 1
        left = await tenant.sql(
            "SELECT DISTINCT sort FROM conflict WHERE tenant_id = $1", tenant.id
        )
        assert left == [["field"]]
        text = (await client.get("/metrics")).text
        assert 'nexus_conflicts_open{sort="field"}' in text and "nexus_parked_waiting" in text


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
