"""Platform staff over HTTP: in only under a grant, out the moment it ends, all in the audit."""

import pyotp
import pytest

from appliance.access.staff import create_staff, suspend_staff
from appliance.base.settings import Login
from tests.http.test_accounts import bearer
from tests.http.test_door import assert_problem

pytestmark = pytest.mark.anyio
WORD = "eleven quiet harbours before dawn"
HERE = "/api/v1/platform"


async def signed_in(client, db, email, name="Help"):
    made = await create_staff(db, email, name, WORD, Login())
    body = {"email": email, "password": WORD, "totp": pyotp.TOTP(made.totp_secret).now()}
    wrong = await client.post(f"{HERE}/session", json={**body, "password": WORD + "x"})
    assert_problem(wrong, 401, "session.refused")
    answer = await client.post(f"{HERE}/session", json=body)
    assert answer.status_code == 201, answer.text
    again = await client.post(f"{HERE}/session", json=body)
    assert_problem(again, 401, "session.refused")  # a code is good once
    return made.id, bearer(client, answer.json()["token"])


async def test_request_grant_enter_and_the_end(client, firm, sign_in):
    owner, viewer = await sign_in(firm, "owner"), await sign_in(firm, "viewer")
    _, helper = await signed_in(client, firm.tenant.db, "anna.help@example.net")
    for path in ("/api/v1/me", "/api/v1/kinds", "/api/v1/menu"):
        assert_problem(await helper.get(path), 401)
    asked = {"tenant": firm.slug, "reason": "ticket 12", "hours": 2}
    answer = await helper.post(f"{HERE}/requests", json=asked)
    assert answer.status_code == 201, answer.text
    assert_problem(await viewer.get("/api/v1/staff-requests"), 403)
    waiting = (await owner.get("/api/v1/staff-requests")).json()["requests"]
    assert [(r["id"], r["reason"], r["hours"]) for r in waiting] == [
        (answer.json()["id"], "ticket 12", 2)
    ]
    entries = f"{HERE}/entries?tenant={firm.slug}"
    assert (await helper.get(entries)).json() == {"entries": []}
    path = f"/api/v1/staff-requests/{answer.json()['id']}/grant"
    granted = await owner.post(path, json={"profile": "viewer"})
    assert granted.status_code == 201, granted.text
    (entry,) = (await helper.get(entries)).json()["entries"]
    assert (entry["grant"], entry["profile"]) == (granted.json()["id"], "viewer")
    opened = await helper.post(f"{HERE}/enter", json={"tenant": firm.slug, "grant": entry["grant"]})
    assert opened.status_code == 201, opened.text
    inside = bearer(client, opened.json()["token"])
    me = (await inside.get("/api/v1/me")).json()
    assert (me["profile"]["key"], me["staff_grant"]) == ("viewer", entry["grant"])
    assert_problem(await inside.post("/api/v1/records/deal", json={"fields": {}}), 403)
    ended = await owner.delete(f"/api/v1/staff-grants/{entry['grant']}")
    assert ended.status_code == 204
    assert_problem(await inside.get("/api/v1/me"), 401, "session.ended")
    again = await helper.post(f"{HERE}/enter", json={"tenant": firm.slug, "grant": entry["grant"]})
    assert_problem(again, 404)
    rows = await firm.tenant.sql("SELECT action FROM audit WHERE action LIKE 'staff.%' ORDER BY id")
    assert {"staff.requested", "staff.granted", "staff.entered", "staff.revoked"} <= {
        action for (action,) in rows
    }


async def test_a_refused_request_opens_nothing_and_suspension_ends_all(client, firm, sign_in):
    owner = await sign_in(firm, "owner")
    ident, helper = await signed_in(client, firm.tenant.db, "ben.help@example.net", "Ben")
    asked = {"tenant": firm.slug, "reason": "ticket 13"}
    first = (await helper.post(f"{HERE}/requests", json=asked)).json()["id"]
    path = f"/api/v1/staff-requests/{first}"
    assert (await owner.post(f"{path}/refuse")).status_code == 204
    assert_problem(await owner.post(f"{path}/grant", json={"profile": "viewer"}), 404)
    given = {"staff_email": "ben.help@example.net", "profile": "viewer", "reason": "ticket 13"}
    grant = (await owner.post("/api/v1/staff-grants", json=given)).json()["id"]
    body = {"tenant": firm.slug, "grant": grant}
    inside = bearer(client, (await helper.post(f"{HERE}/enter", json=body)).json()["token"])
    assert (await inside.get("/api/v1/me")).status_code == 200
    assert await suspend_staff(firm.tenant.db, ident) == []
    assert_problem(await inside.get("/api/v1/me"), 401)
    assert_problem(await helper.post(f"{HERE}/enter", json=body), 401)


async def test_signing_out_of_the_platform(client, firm):
    _, helper = await signed_in(client, firm.tenant.db, "cora.help@example.net", "Cora")
    assert (await helper.delete(f"{HERE}/session")).status_code == 204
    assert_problem(await helper.get(f"{HERE}/entries?tenant={firm.slug}"), 401)
