"""Records over HTTP: one, many, edits from a version, idempotence, undo, checks."""

import pytest

from appliance.http.routes import all_routes
from tests.http.test_door import assert_problem

pytestmark = pytest.mark.anyio
DEAL = "/api/v1/records/deal"


async def made(owner, **fields):
    answer = await owner.post(DEAL, json={"fields": fields})
    assert answer.status_code == 201, answer.text
    return answer


async def test_one_record_there_and_back(client, firm, sign_in):
    owner = await sign_in(firm, "owner")
    answer = await made(owner, title="Round", amount="10.50")
    record = answer.json()
    assert set(record) >= {
        "id",
        "kind",
        "number",
        "version",
        "unit",
        "owner",
        "created_at",
        "updated_at",
        "fields",
    }
    assert answer.headers["etag"] == f'"{record["version"]}"'
    again = await owner.get(f"{DEAL}/{record['id']}")
    assert again.json()["fields"]["amount"] == "10.50"
    edited = await owner.patch(
        f"{DEAL}/{record['id']}",
        json={"fields": {"title": "Trip"}},
        headers={"If-Match": again.headers["etag"]},
    )
    assert edited.json()["fields"]["title"] == "Trip"
    assert edited.headers["etag"] != again.headers["etag"]
    gone = await owner.delete(f"{DEAL}/{record['id']}")
    assert gone.json()["outcomes"][0]["status"] == "applied"
    assert_problem(await owner.get(f"{DEAL}/{record['id']}"), 404)
    back = await owner.post(f"{DEAL}/{record['id']}/restore")
    assert back.json()["fields"]["title"] == "Trip"
    history = (await owner.get(f"{DEAL}/{record['id']}/history")).json()["entries"]
    assert [e["op"] for e in history] == ["undel", "del", "put", "new"]
    assert history[2]["fields"] == [{"field": "title", "from": "Round", "to": "Trip"}]


async def test_history_hides_what_is_hidden(client, firm, sign_in):
    owner, seller = await sign_in(firm, "owner"), await sign_in(firm, "seller")
    ident = firm.records["north"]["deal"][0]
    await owner.patch(f"{DEAL}/{ident}", json={"fields": {"margin": "4733.19"}})
    assert "4733.19" in (await owner.get(f"{DEAL}/{ident}/history")).text
    answer = await seller.get(f"{DEAL}/{ident}/history")
    assert answer.status_code == 200
    assert "margin" not in answer.text
    assert "4733.19" not in answer.text
    assert "margin" not in (await seller.get(f"{DEAL}/{ident}")).text


async def test_a_stale_edit_is_a_conflict_with_both_values(client, firm, sign_in):
    owner = await sign_in(firm, "owner")
    record = (await made(owner, title="base", amount="1.00")).json()
    base, path = {"If-Match": f'"{record["version"]}"'}, f"{DEAL}/{record['id']}"
    await owner.patch(path, json={"fields": {"title": "theirs"}}, headers=base)
    answer = await owner.patch(
        path, json={"fields": {"title": "mine", "amount": "2.00"}}, headers=base
    )
    problem = assert_problem(answer, 409, "record.conflict")
    (clash,) = problem["conflicts"]
    assert (clash["field"], clash["mine"], clash["theirs"], clash["base"]) == (
        "title",
        "mine",
        "theirs",
        "base",
    )
    assert {"who", "at", "version"} <= clash.keys()
    merged = await owner.patch(path, json={"fields": {"amount": "2.00"}}, headers=base)
    assert merged.json()["fields"]["title"] == "theirs"


async def test_a_list_is_all_or_nothing_unless_asked(client, firm, sign_in):
    owner = await sign_in(firm, "owner")
    batch = [{"fields": {"title": "good"}}, {"fields": {"amount": "bad"}}]
    problem = assert_problem(await owner.post(DEAL, json=batch), 422)
    assert problem["errors"][0]["pointer"] == "/1/fields/amount"
    answer = await owner.post(f"{DEAL}?atomic=false", json=batch)
    assert answer.status_code == 200
    one, two = answer.json()["outcomes"]
    assert (one["status"], two["status"]) == ("applied", "rejected")
    assert two["errors"][0]["pointer"] == "/1/fields/amount"
    answer = await owner.post(DEAL, json=[{"fields": {"title": str(n)}} for n in range(1000)])
    body = answer.json()
    assert answer.status_code == 201
    assert len(body["outcomes"]) == 1000
    assert body["effects"][0] == {"topic": "changes", "count": 1000}
    undone = await owner.post(f"/api/v1/changes/{body['change_set']}/undo")
    assert len(undone.json()["outcomes"]) == 1000
    assert_problem(await owner.get(f"{DEAL}/{body['outcomes'][0]['id']}"), 404)


async def test_the_same_key_does_it_once(client, firm, sign_in):
    owner = await sign_in(firm, "owner")
    key = {"Idempotency-Key": "order-77"}
    one = await owner.post(DEAL, json={"fields": {"title": "once"}}, headers=key)
    two = await owner.post(DEAL, json={"fields": {"title": "once"}}, headers=key)
    assert one.status_code == two.status_code == 201
    assert one.json()["id"] == two.json()["id"]
    assert_problem(
        await owner.post(DEAL, json={"fields": {"title": "other"}}, headers=key),
        409,
        "command.reused",
    )


async def test_an_undo_under_one_key_is_done_once(client, firm, sign_in):
    owner = await sign_in(firm, "owner")
    record = (await made(owner, title="before")).json()
    path = f"{DEAL}/{record['id']}"
    sets = []
    for title in ("first", "second"):
        answer = await owner.patch(path, json={"fields": {"title": title}})
        sets.append(answer.headers["x-change-set"])
    key = {"Idempotency-Key": "undo-1"}
    one = await owner.post(f"/api/v1/changes/{sets[1]}/undo", headers=key)
    assert (one.status_code, (await owner.get(path)).json()["fields"]["title"]) == (200, "first")
    await owner.patch(path, json={"fields": {"title": "third"}})
    two = await owner.post(f"/api/v1/changes/{sets[1]}/undo", headers=key)
    assert (two.status_code, two.json()) == (200, one.json())
    assert (await owner.get(path)).json()["fields"]["title"] == "third"
    other = await owner.post(f"/api/v1/changes/{sets[0]}/undo", headers=key)
    assert_problem(other, 409, "command.reused")


async def test_every_write_of_records_and_schema_takes_a_key():
    keyed = {(r.method, r.path) for r in all_routes() if "Idempotency-Key" in r.headers}
    assert keyed == {
        (r.method, r.path) for r in all_routes()
        # What is merged or converted is so once: a repeat is refused and changes nothing.
        if r.method != "GET"
        and not r.path.endswith((":check", ":duplicates", "/merge", "/convert"))
        and (r.path.startswith(("/api/v1/records", "/api/v1/kinds", "/api/v1/changes"))
             or r.path.endswith("{register}/resolve"))
    }  # fmt: skip


async def test_a_check_saves_nothing(client, firm, sign_in):
    owner = await sign_in(firm, "owner")
    before = await firm.tenant.sql("SELECT count(*) FROM change")
    answer = await owner.post(
        f"{DEAL}:check", json=[{"fields": {"title": "ok"}}, {"fields": {"stage": "odd"}}]
    )
    one, two = answer.json()["outcomes"]
    assert (one["status"], two["errors"][0]["pointer"]) == ("applied", "/1/fields/stage")
    assert await firm.tenant.sql("SELECT count(*) FROM change") == before
    assert_problem(await owner.post("/api/v1/records/deal:undo", json={}), 404)


async def test_minimal_answers(client, firm, sign_in):
    owner = await sign_in(firm, "owner")
    answer = await owner.post(
        DEAL, json={"fields": {"title": "x"}}, headers={"Prefer": "return=minimal"}
    )
    assert answer.status_code == 201
    assert set(answer.json()) == {"status", "id", "number", "version"}


async def test_who_may_not_write_is_told_so(client, firm, sign_in):
    viewer = await sign_in(firm, "viewer")
    assert_problem(await viewer.post(DEAL, json={"fields": {"title": "x"}}), 403)
    path = f"{DEAL}/{firm.records['north']['deal'][0]}"
    assert_problem(await viewer.delete(path), 403)
    assert_problem(await viewer.post("/api/v1/records/nothing", json={"fields": {}}), 404)


async def test_a_revoked_right_fails_on_the_next_request(client, firm, sign_in):
    owner, seller = await sign_in(firm, "owner"), await sign_in(firm, "south")
    assert (await seller.post("/api/v1/query", json={"from": "deal"})).status_code == 200
    grants = (await owner.post("/api/v1/query", json={"from": "sys.grant", "select": ["kind", "actions", "version"],
              "where": {"field": "profile", "op": "eq", "value": str(firm.profiles["salesperson"])}})).json()["rows"]  # fmt: skip
    grant = next(g for g in grants if g["kind"] == "deal")
    path = f"/api/v1/records/sys.grant/{grant['id']}"
    done = await owner.patch(path, json={"fields": {"actions": {}}})
    assert done.status_code == 200, done.text
    assert_problem(await seller.post("/api/v1/query", json={"from": "deal"}), 422)
    assert (
        await owner.patch(path, json={"fields": {"actions": grant["actions"]}})
    ).status_code == 200
    assert (await seller.post("/api/v1/query", json={"from": "deal"})).status_code == 200
