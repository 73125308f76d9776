"""People come, sign in, change their secrets, lend keys and go; each step over HTTP."""

import httpx
import pyotp
import pytest

from appliance.db.wire import Statement
from tests.http.test_door import assert_problem
from tests.http.world import PASSWORD

pytestmark = pytest.mark.anyio
FRESH = "a fresh sentence of five words"
WORD = f"{PASSWORD} again"


def bearer(client, token):
    found = httpx.AsyncClient(transport=client._transport, base_url="http://node")
    found.headers["Authorization"] = f"Bearer {token}"
    return found


async def open_session(client, firm, email, password, **more):
    return await client.post(
        "/api/v1/session", json={"tenant": firm.slug, "email": email, "password": password, **more}
    )


async def invited(client, firm, owner, name, profile="salesperson", unit="north"):
    """Somebody new, signed in."""
    body = {"name": name, "email": f"{name}@example.org",
            "memberships": [{"profile": str(firm.profiles[profile]), "units": [str(firm.tenant.units[unit])]}]}  # fmt: skip
    answer = await owner.post("/api/v1/invitations", json=body)
    assert answer.status_code == 201, answer.text
    person, code = answer.json()["person"], answer.json()["code"]
    assert_problem(await open_session(client, firm, body["email"], ""), 401)
    done = await client.post("/api/v1/invitations/accept", json={"code": code, "password": WORD})
    assert done.status_code == 204, done.text
    assert_problem(
        await client.post("/api/v1/invitations/accept", json={"code": code, "password": FRESH}), 404
    )
    answer = await open_session(client, firm, body["email"], WORD)
    assert answer.status_code == 201, answer.text
    return person, bearer(client, answer.json()["token"])


async def test_from_invitation_to_offboarding(client, firm, sign_in, node):
    owner = await sign_in(firm, "owner")
    person, anna = await invited(client, firm, owner, "anna")
    me = (await anna.get("/api/v1/me")).json()
    assert (me["person"]["state"], me["profile"]["key"]) == ("active", "salesperson")
    made = await anna.post("/api/v1/records/deal", json={"fields": {"title": "anna's"}})
    heir = str(firm.tenant.people["seller"])
    preview = (await owner.post(f"/api/v1/people/{person}/offboard", json={"preview": True})).json()
    assert (preview["is_preview"], preview["sessions"], preview["records"]) == (
        True,
        1,
        {"deal": 1},
    )
    assert (await anna.get("/api/v1/me")).status_code == 200
    left = await owner.post(f"/api/v1/people/{person}/offboard", json={"to": heir})
    assert left.json()["records"] == {"deal": 1}, left.text
    assert_problem(await anna.get("/api/v1/me"), 401)
    assert_problem(await open_session(client, firm, "anna@example.org", WORD), 401)
    assert_problem(await owner.post(f"/api/v1/people/{person}/reset"), 404)
    moved = (await owner.get(f"/api/v1/records/deal/{made.json()['id']}")).json()
    assert moved["owner"] == heir
    people = (await owner.get("/api/v1/people")).json()["people"]
    gone = next(p for p in people if p["id"] == person)
    assert (gone["state"], gone["sign_in"]) == ("gone", "suspended")
    audit = (await owner.get("/api/v1/audit?action=person.offboarded")).json()["events"]
    assert audit[0]["subject"] == person


async def test_nobody_shuts_themselves_or_the_last_manager_out(client, firm, sign_in):
    owner, admin = await sign_in(firm, "owner"), await sign_in(firm, "admin")
    me = firm.tenant.people["owner"]
    assert_problem(await owner.post(f"/api/v1/people/{me}/offboard", json={}), 409, "person.self")
    seller = await sign_in(firm, "seller")
    assert_problem(await seller.post(f"/api/v1/people/{me}/offboard", json={}), 403)
    assert_problem(
        await admin.post(f"/api/v1/people/{firm.tenant.id}/offboard", json={"preview": True}), 404
    )


async def test_a_taken_address_and_a_faulty_invitation(client, firm, sign_in):
    owner = await sign_in(firm, "owner")
    body = {"name": "x", "email": "SELLER@example.org"}
    assert_problem(await owner.post("/api/v1/invitations", json=body), 409)
    body = {"name": "x", "email": "no address", "memberships": []}
    problem = assert_problem(await owner.post("/api/v1/invitations", json=body), 422)
    assert problem["errors"][0]["pointer"] == "/email"
    body = {
        "name": "x",
        "email": "fine@example.org",
        "memberships": [{"profile": str(firm.tenant.id)}],
    }
    problem = assert_problem(await owner.post("/api/v1/invitations", json=body), 422)
    assert problem["errors"][0]["pointer"] == "/memberships/0/profile"


async def test_password_change_ends_other_sessions(client, firm, sign_in):
    owner = await sign_in(firm, "owner")
    _, boris = await invited(client, firm, owner, "boris")
    other = bearer(
        client, (await open_session(client, firm, "boris@example.org", WORD)).json()["token"]
    )
    path, right = "/api/v1/me/password", WORD
    for body, pointer in (
        ({"current_password": "wrong", "password": FRESH}, "/current_password"),
        ({"current_password": right, "password": "short"}, "/password"),
        ({"current_password": right, "password": right}, "/password"),
    ):
        problem = assert_problem(await boris.post(path, json=body), 422)
        assert problem["errors"][0]["pointer"] == pointer
    assert (
        await boris.post(path, json={"current_password": right, "password": FRESH})
    ).status_code == 204
    assert (await boris.get("/api/v1/me")).status_code == 200
    assert_problem(await other.get("/api/v1/me"), 401)
    assert (await open_session(client, firm, "boris@example.org", FRESH)).status_code == 201


async def test_sessions_are_seen_and_ended(client, firm, sign_in):
    owner = await sign_in(firm, "owner")
    _, clara = await invited(client, firm, owner, "clara")
    second = bearer(
        client, (await open_session(client, firm, "clara@example.org", WORD)).json()["token"]
    )
    rows = (await clara.get("/api/v1/sessions")).json()["sessions"]
    assert len(rows) == 2
    assert_problem(await clara.get("/api/v1/sessions?all=true"), 403)
    own = (await clara.get("/api/v1/me")).json()["session"]
    other = next(r["id"] for r in rows if r["id"] != own)
    assert (await clara.delete(f"/api/v1/sessions/{other}")).status_code == 204
    assert_problem(await second.get("/api/v1/me"), 401)
    owners = (await owner.get("/api/v1/me")).json()["session"]
    assert_problem(await clara.delete(f"/api/v1/sessions/{owners}"), 404)
    assert own in [
        r["id"] for r in (await owner.get("/api/v1/sessions?all=true")).json()["sessions"]
    ]
    assert (await clara.delete("/api/v1/session")).status_code == 204
    assert_problem(await clara.get("/api/v1/me"), 401)


async def test_a_second_factor(client, firm, sign_in):
    owner = await sign_in(firm, "owner")
    _, dora = await invited(client, firm, owner, "dora")
    email, password = "dora@example.org", WORD
    begun = (await dora.post("/api/v1/me/totp")).json()
    assert begun["uri"].startswith("otpauth://totp/")
    proof = {"current_password": password, "secret": begun["secret"], "code": "000000"}
    assert_problem(await dora.post("/api/v1/me/totp/confirm", json=proof), 422)
    code = pyotp.TOTP(begun["secret"]).now()
    done = await dora.post("/api/v1/me/totp/confirm", json={**proof, "code": code})
    recovery = done.json()["recovery_codes"]
    assert len(recovery) == 10
    assert_problem(await open_session(client, firm, email, password), 401, "session.totp_required")
    assert_problem(await open_session(client, firm, email, password, totp=code), 401)
    assert (await open_session(client, firm, email, password, totp=recovery[0])).status_code == 201
    assert_problem(await open_session(client, firm, email, password, totp=recovery[0]), 401)
    assert (await dora.get("/api/v1/me")).json()["has_totp"] is True


async def test_keys_are_never_wider_than_their_maker(client, firm, sign_in):
    owner, admin = await sign_in(firm, "owner"), await sign_in(firm, "admin")
    answer = await owner.post(
        "/api/v1/keys", json={"label": "Shop", "profile": "viewer", "days": 30}
    )
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["token"].startswith("nxk_")
    shop = bearer(client, made["token"])
    assert (await shop.get("/api/v1/me")).json()["profile"]["key"] == "viewer"
    assert_problem(await shop.post("/api/v1/records/deal", json={"fields": {}}), 403)
    assert_problem(await admin.post("/api/v1/keys", json={"label": "x", "profile": "owner"}), 403)
    assert_problem(await admin.post("/api/v1/keys", json={"label": "x", "profile": "nobody"}), 404)
    for bad in (
        {"days": 0},
        {"days": 5000},
        {"networks": ["10.0.0.1/8"]},
        {"units": [str(firm.tenant.id)]},
        {"label": ""},
    ):
        assert_problem(
            await owner.post("/api/v1/keys", json={"label": "x", "profile": "viewer", **bad}), 422
        )
    assert made["id"] in [k["id"] for k in (await owner.get("/api/v1/keys")).json()["keys"]]
    narrow = {"label": "Net", "profile": "viewer", "networks": ["192.0.2.0/24"]}
    token = (await owner.post("/api/v1/keys", json=narrow)).json()["token"]
    assert (await bearer(client, token).get("/api/v1/me")).status_code == 404
    assert (await owner.delete(f"/api/v1/keys/{made['id']}")).status_code == 204
    assert_problem(await shop.get("/api/v1/me"), 401)


async def test_rights_as_another_sees_them(client, firm, sign_in):
    owner, seller = await sign_in(firm, "owner"), await sign_in(firm, "seller")
    person = firm.tenant.people["seller"]
    view = (await owner.get(f"/api/v1/rights?person={person}")).json()
    (member,) = view["memberships"]
    assert member["profile"] == "salesperson"
    assert member["kinds"]["deal"]["fields"]["margin"] == "hidden"
    assert member["kinds"]["deal"]["actions"]["update"] == "own"
    assert (await seller.get("/api/v1/rights")).json()["person"] == str(person)
    assert_problem(await seller.get(f"/api/v1/rights?person={firm.tenant.people['owner']}"), 404)


async def test_staff_are_let_in_for_hours(client, firm, sign_in, dsns):
    import psycopg

    owner, admin = await sign_in(firm, "owner"), await sign_in(firm, "admin")
    dsn = dsns.superuser.replace("nexus_pool", "nexus_control")
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        await conn.execute(
            "INSERT INTO staff (id, email, name, password_hash) VALUES (gen_random_uuid(), 'help@example.net', 'Help', '-') ON CONFLICT DO NOTHING"
        )
    body = {
        "staff_email": "help@example.net",
        "profile": "viewer",
        "reason": "ticket 7",
        "hours": 2,
    }
    assert_problem(await admin.post("/api/v1/staff-grants", json=body), 403)
    assert_problem(await owner.post("/api/v1/staff-grants", json={**body, "hours": 1000}), 422)
    assert_problem(
        await owner.post("/api/v1/staff-grants", json={**body, "staff_email": "no@example.net"}),
        404,
    )
    answer = await owner.post("/api/v1/staff-grants", json=body)
    assert answer.status_code == 201, answer.text
    ident = answer.json()["id"]
    grant = (await owner.get("/api/v1/staff-grants")).json()["grants"][0]
    assert (grant["id"], grant["staff_name"], grant["revoked_at"]) == (ident, "Help", None)
    assert (await owner.delete(f"/api/v1/staff-grants/{ident}")).status_code == 204
    assert_problem(await owner.delete(f"/api/v1/staff-grants/{ident}"), 404)


async def test_an_idle_session_ends(client, firm, sign_in):
    owner = await sign_in(firm, "owner")
    _, emma = await invited(client, firm, owner, "emma")
    own = (await emma.get("/api/v1/me")).json()["session"]
    async with firm.tenant.db.transaction(firm.tenant.id) as tx:
        await tx.run(
            (
                Statement(
                    "UPDATE session SET seen_at = now() - interval '2 hours' WHERE tenant_id = $1 AND id = $2"
                ),
                (firm.tenant.id, own),
            )
        )
    assert_problem(await emma.get("/api/v1/me"), 401, "session.ended")
