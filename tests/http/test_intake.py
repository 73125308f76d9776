"""Imports over HTTP: the file streams in, the plan is looked at, rights and states hold."""

import pytest

from appliance.base.ids import uuid7
from appliance.intake import files, steps
from tests.http.test_door import assert_problem

pytestmark = pytest.mark.anyio
PATH = "/api/v1/intake"
LIST = b"Article;Name;Price\nA1;Bolt M6 zinc plated;12.50\nA2;Nut M6 zinc plated;3.10\n"
OCTETS = {"content-type": "application/octet-stream"}


async def bring(client, content=LIST):
    return await client.post("/api/v1/files?name=list.csv", content=content, headers=OCTETS)


async def test_from_file_to_plan_and_who_may(client, firm, sign_in):
    owner, seller = await sign_in(firm, "owner"), await sign_in(firm, "seller")
    assert_problem(await bring(client), 401)
    assert_problem(await owner.post("/api/v1/files?name=list.csv", content=LIST), 415)
    others = (await bring(seller)).json()["id"]
    brought = await bring(owner)
    assert brought.status_code == 202, brought.text
    body = {
        "connector": "price_list",
        "file": brought.json()["id"],
        "name": "list.csv",
        "source": "Supplier",
    }
    assert_problem(await owner.post(f"{PATH}/runs", json={**body, "file": str(uuid7())}), 404)
    assert_problem(await owner.post(f"{PATH}/runs", json={**body, "file": "f" * 64}), 422)
    assert_problem(await seller.post(f"{PATH}/runs", json={**body, "file": others}), 403)
    assert_problem(await owner.post(f"{PATH}/runs", json={**body, "connector": "magic"}), 422)
    assert_problem(await owner.post(f"{PATH}/runs", json={**body, "name": "  "}), 422)
    assert_problem(await owner.post(f"{PATH}/runs", json={**body, "mapping": "Ours"}), 404)
    started = await owner.post(f"{PATH}/runs", json=body)
    assert started.status_code == 202, started.text
    ident = started.json()["id"]
    # This plane has no scanner: the file is held, and the run waits for it.
    assert started.json()["state"] == "received" and started.json()["job"] is None
    assert_problem(await seller.get(f"{PATH}/runs/{ident}"), 403)
    assert_problem(await owner.post(f"{PATH}/runs/{ident}/approve", json={}), 409, "intake.state")
    listed = (await owner.get(f"{PATH}/runs?limit=1")).json()
    assert [r["id"] for r in listed["runs"]] == [ident]
    assert_problem(await owner.get(f"{PATH}/runs?limit=0"), 422)
    assert_problem(await owner.get(f"{PATH}/runs/{ident}/plan?sort=odd"), 400)
    assert (await owner.get(f"{PATH}/runs/{ident}/plan")).json() == {"rows": [], "next": None}
    stopped = await owner.post(f"{PATH}/runs/{ident}/cancel")
    assert stopped.json()["state"] == "cancelled"
    followed = await owner.get(f"{PATH}/runs/{ident}/progress")
    assert followed.text.count("event: ") == 2 and "event: end" in followed.text
    assert '"state":"cancelled"' in followed.text and '"reason":"cancelled"' in followed.text
    assert_problem(await seller.get(f"{PATH}/runs/{ident}/progress"), 403)
    assert_problem(await owner.get(f"{PATH}/runs/{uuid7()}/progress"), 404)
    assert_problem(await owner.post(f"{PATH}/runs/{ident}/cancel"), 409)
    assert_problem(await owner.post(f"{PATH}/runs/{ident}/revert"), 409)


async def test_a_tenant_without_the_modules_is_told_so(client, firm, sign_in, tmp_path):
    owner = await sign_in(firm, "owner")
    file = (await bring(owner)).json()["id"]
    body = {"connector": "price_list", "file": file, "name": "list.csv", "source": "Supplier"}
    ident = (await owner.post(f"{PATH}/runs", json=body)).json()["id"]
    from uuid import UUID

    async def quiet(_done, _total):
        pass

    async def pieces():
        yield LIST

    # As the content plane would give it, had it released it.
    await files.receive(tmp_path, firm.tenant.id, pieces())
    await steps.prepare(firm.tenant.db, firm.tenant.id, UUID(ident), tmp_path, 1, quiet)
    run = (await owner.get(f"{PATH}/runs/{ident}")).json()
    assert run["state"] == "failed" and run["detail"]
    report = await owner.get(f"{PATH}/runs/{ident}/faults")
    assert report.status_code == 200 and report.content[:2] == b"PK"
