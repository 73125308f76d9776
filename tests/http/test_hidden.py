"""No surface tells of a field that a profile hides: neither its value nor its name.

One record holds canaries in its hidden fields; a person who may not see them asks for it by every
means there is. The names may stand in an answer only where the question itself named them.
"""

import io
import json
import zipfile
from uuid import UUID

import httpx
import pytest

from appliance.base.ids import uuid7
from appliance.kernel.context import Door
from tests.http.conftest import _firm
from tests.http.test_live import edit, relay, stream, token_of
from tests.http.test_live import web as web  # noqa: PLC0414 - the fixture
from tests.tenants import update

pytestmark = pytest.mark.anyio

# Hidden from the salesperson: deal.margin (confidential), customer.secret (restricted).
NAMES = ("margin", "secret")
MARGIN, SECRET = "4815162342.77", "zyzzyvacanary"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
DEAL, QUERY = "/api/v1/records/deal", "/api/v1/query"


class Place:
    """A deal and its customer with canaries, and who asks for them."""

    def __init__(self, web, firm, redis):
        self.web, self.firm, self.redis = web, firm, redis
        self.deal = str(firm.records["north"]["deal"][0])
        self.customer = str(firm.records["north"]["customer"])

    async def call(self, who, method, path, **more):
        token = self.firm.tokens.get(who)
        if token is None:
            token = self.firm.tokens[who] = await token_of(self.web, self.firm, who)
        headers = {"Authorization": f"Bearer {token}", **more.pop("headers", {})}
        return await self.web.request(method, path, headers=headers, **more)

    async def owner(self, method, path, **more):
        answer = await self.call("owner", method, path, **more)
        assert answer.status_code < 300, answer.text
        return answer

    async def seller(self, method, path, *, status=200, **more):
        """What the seller is told, as text; `status` is what they must get."""
        answer = await self.call("seller", method, path, **more)
        assert answer.status_code == status, (method, path, answer.text)
        return legible(answer)


def legible(answer: httpx.Response):
    """Everything of an answer that can be read: headers, body, the inside of a workbook."""
    text = json.dumps(dict(answer.headers)) + answer.text
    if answer.content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(answer.content)) as book:
            text += "".join(book.read(n).decode("utf-8", "replace") for n in book.namelist())
    return text


def silent(text, where, names=NAMES):
    for canary in (*names, MARGIN, MARGIN[:9], SECRET):
        assert canary not in text, (where, canary, text[:2_000])


@pytest.fixture
async def firm(db, dsns, shared):
    """A firm whose salespeople may take lists away, so that exports are a surface of theirs."""
    is_new = "hidden" not in shared
    found = await _firm(db, dsns, shared, "hidden")
    if is_new:
        profile = found.profiles["salesperson"]
        rows = await found.tenant.sql(
            "SELECT id::text, data::text FROM record WHERE (kind = 'sys.grant' AND "
            "data->>'profile' = $1 AND data->>'kind' = ANY($2)) OR id = $1::uuid",
            str(profile), ["deal", "customer"],
        )  # fmt: skip
        for ident, text in rows:
            data = json.loads(text)
            change = (
                {"actions": {**data["actions"], "export": "unit"}}
                if "actions" in data
                else {"capabilities": [*data["capabilities"], "export.run"]}
            )
            kind = "sys.grant" if "actions" in data else "sys.profile"
            ctx = await found.tenant.ctx(door=Door.INSTALL)
            done = await found.tenant.apply(update(kind, UUID(ident), **change), ctx=ctx)
            assert done.committed, done
    return found


@pytest.fixture
async def place(web, firm, redis_sync):
    found = Place(web, firm, redis_sync)
    before = {"title": "unseen", "margin": "1.00", "stage": "won"}
    await found.owner(
        "PATCH",
        f"{DEAL}/{found.deal}",
        json={"fields": before, "owner": str(firm.tenant.people["seller"])},
    )
    both = {"title": f"seen {uuid7()}", "margin": MARGIN}
    answer = await found.owner("PATCH", f"{DEAL}/{found.deal}", json={"fields": both})
    found.set = answer.headers["x-change-set"]
    path = f"/api/v1/records/customer/{found.customer}"
    await found.owner("PATCH", path, json={"fields": {"secret": SECRET}})
    return found


async def test_reading(place):
    for path in (
        "/api/v1/me", "/api/v1/menu", "/api/v1/kinds", "/api/v1/kinds/deal", "/api/v1/kinds/customer",
        "/api/v1/openapi.json", "/schema/openapi.json", f"{DEAL}/{place.deal}", f"{DEAL}/{place.deal}/history",
        f"/api/v1/records/customer/{place.customer}", f"/api/v1/records/customer/{place.customer}/history",
        f"{QUERY}?q=deal limit 100", f"{QUERY}?q=customer",
    ):  # fmt: skip
        # Confirming a second factor takes a `secret` too.
        names = ("margin",) if "openapi" in path else NAMES
        silent(await place.seller("GET", path), path, names)


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson", "text/csv", XLSX])
async def test_lists_and_exports(place, accept):
    for query in (
        {"from": "deal", "display": True}, {"from": "customer"},
        {"from": "deal", "select": ["title", "customer.name", "amount"], "sort": ["-amount"]},
        {"from": "deal", "group": ["stage"], "select": ["stage", {"count": "*"}, {"sum": "amount"}]},
    ):  # fmt: skip
        if accept == "application/json" and "group" not in query:
            query = {**query, "total": True, "ruler": True}
        text = await place.seller("POST", QUERY, json=query, headers={"Accept": accept})
        silent(text, (accept, query))


async def test_search_does_not_find_by_what_is_hidden(place):
    found = await place.owner("POST", QUERY, json={"from": "customer", "search": SECRET})
    assert len(found.json()["rows"]) == 1
    answer = await place.call("seller", "POST", QUERY, json={"from": "customer", "search": SECRET})
    assert answer.json()["rows"] == []


async def test_every_clause_reads_as_for_a_field_that_never_was(place):
    def leaf(field):
        return {"field": field, "op": "is_null", "value": False}

    clauses = [
        lambda f: {"select": [f]}, lambda f: {"where": leaf(f)}, lambda f: {"where": {"not": leaf(f)}},
        lambda f: {"sort": [f]}, lambda f: {"sort": ["-" + f]}, lambda f: {"group": [f], "select": [f]},
        lambda f: {"select": [{"sum": f}]}, lambda f: {"select": [{"count_distinct": f, "as": "n"}]},
        lambda f: {"where": {"and": [leaf("title"), {"or": [leaf(f)]}]}},
        lambda f: {"where": leaf(f"customer.{f}")}, lambda f: {"select": [f"customer.{f}"]},
        lambda f: {"where": {"any": "customer", "where": leaf(f)}}, lambda f: {"sort": [f"customer.{f}"]},
        lambda f: {"group": [f"customer.{f}"], "select": [{"count": "*"}]},
    ]  # fmt: skip
    for clause in clauses:
        for name in NAMES:
            hidden, never = [
                await place.seller("POST", QUERY, json={"from": "deal", **clause(n)}, status=422)
                for n in (name, "never_was")
            ]
            assert told(hidden, name) == told(never, "never_was"), clause(name)
            silent(hidden.replace(name, ""), clause(name), ())
    for text in ("deal where {} > 1", "deal sort {}", "deal select {}"):
        hidden, never = [
            await place.seller("POST", QUERY, json={"text": text.format(n)}, status=422)
            for n in ("margin", "marrow")
        ]
        assert told(hidden, "margin") == told(never, "marrow"), text


def told(text, name):
    """A problem without what differs between any two requests."""
    problem = json.loads(text[text.index("}{") + 1 :])
    problem.pop("request_id")
    return json.dumps(problem).replace(name, "?")


async def test_writing(place):
    path = f"{DEAL}/{place.deal}"
    edited = {"json": {"fields": {"title": "mine"}}}
    silent(await place.seller("PATCH", path, **edited), "edit")
    minimal = {"Prefer": "return=minimal"}
    for title in ("one", "one"):
        body = {"fields": {"title": title}}
        silent(await place.seller("PATCH", path, json=body, headers=minimal), "outcome")
    draft = {"op": "update", "id": place.deal, "fields": {"title": "checked"}}
    silent(await place.seller("POST", f"{DEAL}:check", json=draft), "check")
    # A conflict: somebody changed the title and a hidden field since the seller looked.
    seen = (await place.call("seller", "GET", path)).json()["version"]
    assert "margin" not in seen
    both = {"title": "theirs", "margin": "1.11"}
    await place.owner("PATCH", path, json={"fields": both})
    answer = await place.seller(
        "PATCH", path, **edited, status=409, headers={"If-Match": f'"{seen}"'}
    )
    assert "theirs" in answer
    silent(answer, "conflict")
    # A version without the hidden register is a good base all the same.
    again = (await place.call("seller", "GET", path)).json()["version"]
    silent(
        await place.seller("PATCH", path, **edited, headers={"If-Match": f'"{again}"'}), "from base"
    )


async def test_undo_names_nothing(place):
    silent(await place.seller("POST", f"/api/v1/changes/{place.set}/undo", status=403), "undo")
    kept = await place.owner("GET", f"{DEAL}/{place.deal}")
    assert kept.json()["fields"]["margin"] == MARGIN


async def test_the_live_stream(place, rival):
    """Of what was changed only what the reader may read, and nothing of rows and kinds beyond."""
    firm, web, redis = place.firm, place.web, place.redis
    owner, seller = await token_of(web, firm, "owner"), await token_of(web, firm, "seller")
    async with stream(web, seller, "deal") as frames:
        # Beyond the reader: another branch, another kind, another tenant, an unknown id.
        south = firm.records["south"]["deal"][0]
        await edit(web, owner, redis, firm, south, fields={"title": "far", "margin": MARGIN})
        relay(redis, firm, place.set, "customer", [place.customer])
        relay(redis, rival, place.set, "deal", [rival.records["north"]["deal"][0]])
        relay(redis, firm, place.set, "deal", [rival.records["north"]["deal"][0], firm.tenant.id])
        # Within: an edit of both sorts of fields, and one of a hidden field alone.
        both = {"title": "near", "margin": MARGIN}
        await edit(web, owner, redis, firm, place.deal, fields=both)
        first = await frames.next()
        assert (first["event"], first["id"]) == ("change", place.deal)
        assert first["record"]["fields"]["title"] == "near"
        # Of that one not even that there was a change.
        await edit(web, owner, redis, firm, place.deal, fields={"margin": "2.22"})
        await edit(web, owner, redis, firm, place.deal, unit=str(firm.tenant.units["south"]))
        second = await frames.next()
        assert (second["event"], second["id"]) == ("leave", place.deal)
        await edit(web, owner, redis, firm, place.deal, unit=str(firm.tenant.units["north"]))
        third = await frames.next()
        for frame in (first, second, third):
            silent(json.dumps(frame), frame["event"])
            assert "2.22" not in json.dumps(frame)
        await frames.silent()
    for query in ("deal where margin > 1", "deal sort margin", "deal where customer.secret = 1"):
        text = await place.seller("GET", "/api/v1/live", params={"query": query}, status=422)
        assert "unknown_field" in text, query
        silent(text.replace("margin", "").replace("secret", ""), query, ())
