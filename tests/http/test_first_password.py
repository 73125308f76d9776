"""Whoever was given a password can do nothing with it but replace it."""

import pytest

from appliance.access.passwords import hash_password
from appliance.base.ids import uuid7
from appliance.db.wire import Statement
from appliance.http.routes import all_routes
from appliance.http.routes.session import forget_first_password
from appliance.kernel.context import Door
from tests.http.test_accounts import bearer, open_session
from tests.http.test_door import assert_problem
from tests.tenants import create

pytestmark = pytest.mark.anyio
GIVEN, OWN = "four kettles on a raft", "nine lanterns over the quay"
_CREDENTIAL = Statement(
    "INSERT INTO credential (tenant_id, person_id, email, password_hash, must_change) "
    "VALUES ($1, $2, $3, $4, true)"
)


async def newcomer(client, firm, name):
    """An owner as the installer makes one, signed in with the printed password."""
    ident, tenant = uuid7(), firm.tenant
    done = await tenant.apply(
        create("sys.person", ident, name=name, email=f"{name}@example.org"),
        create("sys.membership", person=str(ident), profile=str(firm.profiles["owner"])),
        ctx=await tenant.ctx(door=Door.INSTALL),
    )
    assert done.committed, done
    async with tenant.db.transaction(tenant.id) as tx:
        stored = await hash_password(GIVEN)
        await tx.run((_CREDENTIAL, (tenant.id, ident, f"{name}@example.org", stored)))
    return await again(client, firm, name, GIVEN)


async def again(client, firm, name, password):
    answer = await open_session(client, firm, f"{name}@example.org", password)
    assert answer.status_code == 201, answer.text
    return bearer(client, answer.json()["token"]), answer.json()["must_change_password"]


async def test_nothing_works_until_the_password_is_ones_own(client, firm):
    fresh, must = await newcomer(client, firm, "nora")
    assert must
    assert (await fresh.get("/api/v1/me")).json()["must_change_password"]
    query = {"text": "deal limit 1"}
    record = {"fields": {"title": "x"}}
    person = str(firm.tenant.people["owner"])
    for answer in (
        await fresh.get("/api/v1/menu"),
        await fresh.get("/api/v1/people"),
        await fresh.get("/api/v1/live?query=deal"),
        await fresh.post("/api/v1/query", json=query),
        await fresh.post("/api/v1/records/deal", json=record),
        await fresh.post("/api/v1/keys", json={"label": "till", "profile": "viewer"}),
        await fresh.post("/api/v1/session/switch", json={"profile": "owner"}),
        await fresh.post("/api/v1/me/totp"),
        await fresh.post(f"/api/v1/people/{person}/reset"),
    ):
        assert_problem(answer, 403, "session.password_change_required")
    body = {"current_password": GIVEN, "password": OWN}
    assert (await fresh.post("/api/v1/me/password", json=body)).status_code == 204
    assert not (await fresh.get("/api/v1/me")).json()["must_change_password"]
    assert (await fresh.post("/api/v1/query", json=query)).status_code == 200
    assert (await fresh.post("/api/v1/records/deal", json={**record, "unit": str(firm.tenant.units["north"])})).status_code == 201  # fmt: skip
    _, must = await again(client, firm, "nora", OWN)
    assert not must
    assert_problem(await open_session(client, firm, "nora@example.org", GIVEN), 401)


async def test_signing_out_works_with_the_first_password(client, firm):
    fresh, _ = await newcomer(client, firm, "olga")
    assert (await fresh.delete("/api/v1/session")).status_code == 204
    assert_problem(await fresh.get("/api/v1/me"), 401)


def test_the_doors_that_stay_open_are_these():
    found = {(r.method, r.path) for r in all_routes() if r.with_first_password}
    assert found == {
        ("GET", "/api/v1/me"), ("DELETE", "/api/v1/session"), ("POST", "/api/v1/me/password"),
    }  # fmt: skip


def test_the_file_goes_with_the_password_it_holds(tmp_path):
    path = tmp_path / "initial-owner-password"
    path.write_text(f"{GIVEN}\n")
    forget_first_password(tmp_path, OWN)
    assert path.exists()
    forget_first_password(tmp_path, GIVEN)
    assert not path.exists()
    forget_first_password(tmp_path, GIVEN)
