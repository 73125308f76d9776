"""Queries over HTTP: pages, text, forms of export, and who may take them away."""

import io

import openpyxl
import pytest

from tests.http.test_door import assert_problem

pytestmark = pytest.mark.anyio
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
FORMS = {
    "application/x-ndjson": "application/x-ndjson",
    "text/csv": "text/csv; charset=utf-8",
    XLSX: XLSX,
}
PATH = "/api/v1/query"


async def test_pages_follow_each_other(client, firm, sign_in):
    viewer = await sign_in(firm, "viewer")
    query = {
        "from": "deal",
        "select": ["title"],
        "sort": ["-amount", "title"],
        "limit": 3,
        "total": True,
        "ruler": True,
    }
    seen, after = [], None
    while True:
        answer = await viewer.post(PATH, json={**query, "after": after} if after else query)
        page = answer.json()
        assert {"rows", "next", "cost", "total", "ruler"} <= page.keys()
        seen += [r["id"] for r in page["rows"]]
        after = page["next"]
        if after is None:
            break
    assert len(seen) == len(set(seen)) == page["total"]


async def test_the_text_form_is_the_same_query(client, firm, sign_in):
    owner = await sign_in(firm, "owner")
    text = 'deal where stage = "new" and amount >= 2 select title, amount sort -amount limit 4'
    tree = {"from": "deal", "select": ["title", "amount"], "sort": ["-amount"], "limit": 4, "where": {"and": [
        {"field": "stage", "op": "eq", "value": "new"}, {"field": "amount", "op": "gte", "value": "2"}]}}  # fmt: skip
    one = await owner.post(PATH, json={"text": text})
    two = await owner.get(PATH, params={"q": text})
    three = await owner.post(PATH, json=tree)
    assert one.status_code == 200, one.text
    assert one.json()["rows"] == two.json()["rows"] == three.json()["rows"]
    assert len(one.json()["rows"]) == 4
    more = await owner.post(PATH, json={"text": text, "after": one.json()["next"]})
    assert more.status_code == 200
    problem = assert_problem(await owner.post(PATH, json={"text": "deal where where"}), 422)
    assert problem["errors"][0]["pointer"] == "/text"


@pytest.mark.parametrize("accept", FORMS)
async def test_exports_stream_in_their_form(client, firm, sign_in, accept):
    owner = await sign_in(firm, "owner")
    query = {
        "from": "deal",
        "select": ["title", "amount"],
        "sort": ["amount"],
        "where": {"field": "stage", "op": "eq", "value": "new"},
    }
    rows = (await owner.post(PATH, json=query)).json()["rows"]
    answer = await owner.post(PATH, json=query, headers={"Accept": accept})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == FORMS[accept]
    assert "attachment" in answer.headers["content-disposition"]
    if accept == XLSX:
        sheet = openpyxl.load_workbook(io.BytesIO(answer.content)).active
        assert sheet.max_row == len(rows) + 1
    else:
        head = 1 if accept == "text/csv" else 0
        assert len(answer.text.strip().splitlines()) == len(rows) + head
    audit = (await owner.get("/api/v1/audit?action=records.exported&limit=1")).json()["events"]
    assert audit[0]["subject"] == "deal"


async def test_reading_is_not_exporting(client, firm, sign_in):
    seller, manager = await sign_in(firm, "seller"), await sign_in(firm, "manager")
    csv = {"Accept": "text/csv"}
    assert_problem(await seller.post(PATH, json={"from": "deal"}, headers=csv), 403)
    assert_problem(await manager.post(PATH, json={"from": "sys.unit"}, headers=csv), 403)
    answer = await manager.post(PATH, json={"from": "deal"}, headers=csv)
    assert answer.status_code == 200
    assert f"{firm.slug} south" not in answer.text
    assert_problem(
        await manager.post(PATH, json={"from": "deal", "select": ["nothing"]}, headers=csv), 422
    )


@pytest.mark.parametrize(("accept", "status"), [
    ("*/*", 200), ("application/*", 200), ("text/html, application/json;q=0.9", 200), ("text/html", 406),
    ("image/png, text/plain", 406), ("application/json;q=0, text/csv", 200), (";;;,", 406), ("text/csv;q=x", 200),
])  # fmt: skip
async def test_accept_is_weighed(client, firm, sign_in, accept, status):
    owner = await sign_in(firm, "owner")
    answer = await owner.post(PATH, json={"from": "deal", "limit": 1}, headers={"Accept": accept})
    assert answer.status_code == status, answer.text


async def test_a_warm_query_is_one_round_trip(client, firm, sign_in, node, monkeypatch):
    from appliance.db.wire import Wire

    owner = await sign_in(firm, "owner")
    await owner.post(PATH, json={"from": "deal"})
    trips = []
    real = Wire.run

    async def counted(self, calls):
        trips.append(len(calls))
        return await real(self, calls)

    monkeypatch.setattr(Wire, "run", counted)
    assert (await owner.post(PATH, json={"from": "deal"})).status_code == 200
    assert trips == [3], "the tenant, the session's check and the query, together"
