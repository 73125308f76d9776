"""The corpus of bad input: a problem that names the place, never a 500, never a hint of what is hidden."""

import msgspec
import pytest

from appliance.base import limits
from appliance.base.ids import uuid7
from tests.http.test_door import assert_problem

pytestmark = pytest.mark.anyio
JSON = {"Content-Type": "application/json"}


def leaf(field="title", op="eq", value="x"):
    return {"field": field, "op": op, "value": value}


def nested(depth):
    found = leaf()
    for _ in range(depth):
        found = {"not": found}
    return found


async def test_two_hundred_levels_of_filter(client, firm, sign_in):
    owner = await sign_in(firm, "owner")
    answer = await owner.post("/api/v1/query", json={"from": "deal", "where": nested(200)})
    assert_problem(answer, 400, "json.too_deep")
    answer = await owner.post("/api/v1/query", json={"from": "deal", "where": nested(12)})
    assert assert_problem(answer, 422, "query.invalid")["errors"][0]["code"] == "too_deep"


async def test_a_thousand_nodes_of_filter(client, firm, sign_in):
    owner = await sign_in(firm, "owner")
    answer = await owner.post(
        "/api/v1/query", json={"from": "deal", "where": {"and": [leaf()] * 1000}}
    )
    assert assert_problem(answer, 422)["errors"][0]["code"] == "too_many"


async def test_ten_megabytes(client, firm, sign_in):
    owner = await sign_in(firm, "owner")
    body = msgspec.json.encode({"fields": {"title": "x" * 10_000_000}})
    for path in ("/api/v1/records/deal", "/api/v1/query", "/api/v1/kinds"):
        assert_problem(await owner.post(path, content=body, headers=JSON), 413)


async def test_too_many_records_in_one_call(client, firm, sign_in):
    owner = await sign_in(firm, "owner")
    body = msgspec.json.encode([{"fields": {}}] * (limits.BATCH_COMMANDS_MAX + 1))
    assert_problem(await owner.post("/api/v1/records/deal", content=body, headers=JSON), 413)


@pytest.mark.parametrize(("body", "pointer"), [
    ({"fields": {"titl": "x"}}, "/fields/titl"), ({"fields": {"title": 5}}, "/fields/title"),
    ({"fields": {"title": "a\0b"}}, "/fields/title"), ({"fields": {"amount": 1.5}}, "/fields/amount"),
    ({"fields": {"amount": "1e999999"}}, "/fields/amount"), ({"fields": {"amount": "NaN"}}, "/fields/amount"),
    ({"fields": {"amount": 10**40}}, "/fields/amount"), ({"fields": {"amount": "9" * 400}}, "/fields/amount"),
    ({"fields": {"amount": {}}}, "/fields/amount"), ({"fields": {"amount": []}}, "/fields/amount"),
    ({"fields": {"closes": "2026-02-30"}}, "/fields/closes"), ({"fields": {"closes": "0000-00-00"}}, "/fields/closes"),
    ({"fields": {"closes": 20260101}}, "/fields/closes"), ({"fields": {"stage": "unheard"}}, "/fields/stage"),
    ({"fields": {"customer": "x"}}, "/fields/customer"), ({"fields": {"customer": str(uuid7())}}, "/fields/customer"),
    ({"fields": {"title": "x" * 300}}, "/fields/title"), ({"fields": []}, "/fields"), ({}, ""),
    ({"fields": {}, "unit": "x"}, "/unit"), ({"fields": {}, "unit": str(uuid7())}, "/unit"),
    ({"fields": {}, "surprise": 1}, ""), ({"fields": {}, "id": "x"}, "/id"), ([{"fields": {"x~/y": 1}}], "/0/fields/x~0~1y"),
    ([], None), ("text", ""), (5, ""), (None, ""), (True, ""), ([[]], "/0"), ([None], "/0"),
    ({"fields": {"": 1}}, "/fields/"), ({"fields": {"\ufdd0": 1}}, "/fields/\ufdd0"),
])  # fmt: skip
async def test_records_name_the_place(client, firm, sign_in, body, pointer):
    owner = await sign_in(firm, "owner")
    answer = await owner.post(
        "/api/v1/records/deal", content=msgspec.json.encode(body), headers=JSON
    )
    assert answer.status_code < 500, answer.text
    if pointer is not None:
        problem = assert_problem(answer, answer.status_code)
        assert 400 <= answer.status_code < 500
        assert pointer in [e["pointer"] for e in problem["errors"]], problem


async def test_lone_surrogates(client, firm, sign_in):
    owner = await sign_in(firm, "owner")
    for body in (
        b'{"fields": {"title": "\\ud800"}}',
        b'{"fields": {"\\udfff": "x"}}',
        b'{"fields": {"title": "\xed\xa0\x80"}}',
    ):
        assert_problem(await owner.post("/api/v1/records/deal", content=body, headers=JSON), 400)


@pytest.mark.parametrize("query", [
    None, [], "deal", 5, {}, {"from": 5}, {"from": "nothing"}, {"from": "deal", "select": "x"},
    {"from": "deal", "select": [5]}, {"from": "deal", "select": ["a.b.c.d.e"]}, {"from": "deal", "limit": 0},
    {"from": "deal", "limit": 10**30}, {"from": "deal", "limit": -1}, {"from": "deal", "limit": 1.5},
    {"from": "deal", "after": "x"}, {"from": "deal", "after": "A" * 5000}, {"from": "deal", "asof": "yesterday", "where": leaf("closes", "within", "today")},
    {"from": "deal", "where": leaf(value="a\0b")}, {"from": "deal", "where": leaf("amount", "eq", "x")},
    {"from": "deal", "where": leaf("amount", "eq", 10**60)}, {"from": "deal", "where": leaf("closes", "eq", "9999-99-99")},
    {"from": "deal", "where": leaf("title", "regex", ".*")}, {"from": "deal", "where": leaf("title; drop", "eq", "x")},
    {"from": "deal", "where": leaf("title", "in", [])}, {"from": "deal", "where": leaf("title", "in", ["x"] * 501)},
    {"from": "deal", "where": leaf("closes", "within", "last_99999_days")}, {"from": "deal", "sort": ["a", "b", "c", "d"]},
    {"from": "deal", "group": ["stage"], "select": ["title"]}, {"from": "deal", "select": [{"sum": "title"}]},
    {"from": "deal", "search": "\0"}, {"from": "deal", "surprise": True}, {"text": 5}, {"text": "deal where"},
    {"text": "x" * 20_000}, {"text": "deal", "limit": 5}, {"from": "deal", "where": {"any": "nothing"}},
])  # fmt: skip
async def test_queries_name_the_place(client, firm, sign_in, query):
    owner = await sign_in(firm, "owner")
    answer = await owner.post("/api/v1/query", content=msgspec.json.encode(query), headers=JSON)
    problem = assert_problem(answer, 422)
    assert problem.get("errors") or problem["code"] != "request.invalid", problem


HIDDEN = [
    {"select": ["margin"]}, {"where": leaf("margin", "gt", "1")}, {"sort": ["margin"]}, {"group": ["margin"]},
    {"select": [{"sum": "margin"}]}, {"select": [{"max": "margin", "as": "x"}]}, {"where": {"not": leaf("margin", "is_null", True)}},
    {"where": leaf("customer.secret", "starts_with", "canary")}, {"select": ["customer.secret"]},
    {"where": {"any": "customer", "where": leaf("secret", "eq", "x")}}, {"sort": ["-customer.secret"]},
    {"group": ["stage"], "select": ["stage", {"avg": "margin"}]},
]  # fmt: skip


@pytest.mark.parametrize("clause", HIDDEN, ids=lambda c: msgspec.json.encode(c).decode()[:60])
async def test_a_hidden_field_reads_as_one_that_never_was(client, firm, sign_in, clause):
    seller = await sign_in(firm, "seller")
    answer = await seller.post("/api/v1/query", json={"from": "deal", **clause})
    hidden = assert_problem(answer, 422)
    body = (
        msgspec.json.encode({"from": "deal", **clause})
        .replace(b"margin", b"nomarg")
        .replace(b"secret", b"nosecr")
    )
    never = assert_problem(await seller.post("/api/v1/query", content=body, headers=JSON), 422)
    strip = lambda p: msgspec.json.encode([(e["code"], e["pointer"]) for e in p["errors"]])  # noqa: E731
    assert strip(hidden) == strip(never)
    assert hidden["detail"] == never["detail"]


async def test_a_hidden_field_is_unknown_in_writing(client, firm, sign_in):
    seller = await sign_in(firm, "seller")
    answer = await seller.post("/api/v1/records/deal", json={"fields": {"margin": "1"}})
    hidden = assert_problem(answer, 422)["errors"][0]
    answer = await seller.post("/api/v1/records/deal", json={"fields": {"nomarg": "1"}})
    never = assert_problem(answer, 422)["errors"][0]
    assert (hidden["code"], hidden["detail"]) == (never["code"], never["detail"])


@pytest.mark.parametrize("path", [
    "/api/v1/records/deal/%00", "/api/v1/records/deal/not-an-id", "/api/v1/records/%F0%9F%98%80/x",
    "/api/v1/records/deal/00000000-0000-0000-0000-000000000000", "/api/v1/records/x'--/x", "/api/v1/kinds/%00",
    "/api/v1/kinds/..", "/api/v1/records/deal/x/history", "/api/v1/jobs/x", "/api/v1/nothing",
])  # fmt: skip
async def test_paths_that_lead_nowhere(client, firm, sign_in, path):
    owner = await sign_in(firm, "owner")
    assert_problem(await owner.get(path), 404)


@pytest.mark.parametrize(("path", "status"), [
    ("/api/v1/query", 422), ("/api/v1/query?q=%00", 422), ("/api/v1/query?q=deal&q=deal", 400),
    ("/api/v1/query?q=%ff", 400), ("/api/v1/query?q=deal&surprise=1", 422), ("/api/v1/audit?limit=0", 422),
    ("/api/v1/audit?limit=x", 422), ("/api/v1/audit?actor=x", 422), ("/api/v1/jobs?state=odd", 422),
    ("/api/v1/audit?before=1", 422), ("/api/v1/live?query=", 422), ("/api/v1/live?query=nothing", 422), ("/api/v1/live", 422),
    ("/api/v1/jobs?limit=999999999999999999999", 422), ("/api/v1/query?" + "&".join(f"a{n}=1" for n in range(50)), 400),
])  # fmt: skip
async def test_parameters(client, firm, sign_in, path, status):
    owner = await sign_in(firm, "owner")
    assert_problem(await owner.get(path), status)


@pytest.mark.parametrize(
    "token", ["", "x", "nxs_", "nxs_" + "0" * 32 + "_" + "A" * 43, "Bearer", "\x7f", "a" * 9000]
)
async def test_tokens_that_are_none(client, firm, token):
    answer = await client.get("/api/v1/me", headers={"Authorization": f"Bearer {token}"})
    problem = assert_problem(answer, 401)
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert problem["code"] in ("session.missing", "session.ended")


async def test_headers_that_cannot_be_read(client, firm, sign_in):
    owner = await sign_in(firm, "owner")
    path = f"/api/v1/records/deal/{firm.records['north']['deal'][0]}"
    for version in ('"a", "b"', 'W/"x"', '"', "\u00e9"):
        answer = await owner.patch(
            path, json={"fields": {}}, headers={"If-Match": version.encode("latin-1")}
        )
        assert answer.status_code in (400, 422), answer.text
    for key in ("x" * 300, "\x7f", ""):
        answer = await owner.patch(path, json={"fields": {}}, headers={"Idempotency-Key": key})
        assert_problem(answer, 400)
    answer = await owner.post(
        "/api/v1/query", json={"from": "deal"}, headers={"Accept": "image/png"}
    )
    assert_problem(answer, 406)
