"""Two walls: a walk over the whole description with ids of another tenant, and of another branch.

Whatever the route and the method, the answer is a refusal that says nothing, nothing of the
other side is in any answer, and nothing of it has changed afterwards.
"""

import msgspec
import pytest

from appliance.http.openapi import document
from appliance.http.routes import all_routes
from appliance.http.routes.description import describe

pytestmark = pytest.mark.anyio
# These end or begin sessions: walked last would be too late, and they take no ids of others.
LEFT_OUT = {"open_session", "close_session", "follow_live", "change_password", "read_metrics"}
BODIES = {
    "create_records": {"fields": {"title": "stolen"}},
    "check_records": {"fields": {"title": "stolen"}, "op": "update"},
    "edit_record": {"fields": {"title": "stolen"}},
}


def operations():
    routes = all_routes()
    common = document(routes, "0")
    return [
        (method.upper(), path, operation)
        for path, found in document([*routes, *describe(common)], "0")["paths"].items()
        for method, operation in found.items()
        if operation["operationId"] not in LEFT_OUT
    ]


def foreign_ids(world, units):
    """Ids of every sort of thing on the other side."""
    records = [i for u in units for i in (world.records[u]["customer"], *world.records[u]["deal"])]
    return [str(i) for i in records]


def markers(world, units):
    """Texts that must not be seen from this side."""
    return [
        *foreign_ids(world, units),
        *(f"{world.slug} {u} deal" for u in units),
        *(f"canary-{world.slug}-{u}" for u in units),
    ]


async def snapshot(world):
    rows = await world.tenant.sql(
        "SELECT id::text, data::text, stamps, deleted_at::text FROM record ORDER BY id"
    )
    sessions = await world.tenant.sql(
        "SELECT id::text FROM session WHERE ended_at IS NULL ORDER BY id"
    )
    return rows, sessions


def requests_of(method, path, operation, ident):
    names = [p.partition("}")[0] for p in path.split("{")[1:]]
    kinds = ("deal", "customer", "sys.person", "sys.session") if "kind" in names else ("",)
    for kind in kinds:
        filled = path
        for name in names:
            filled = filled.replace(
                f"{{{name}}}", kind if name == "kind" else "title" if name == "field" else ident
            )
        body = {**BODIES.get(operation["operationId"], {})}
        if operation["operationId"] == "check_records":
            body["id"] = ident
        yield (
            filled,
            (body if "requestBody" in operation else None),
            [n for n in names if n not in ("kind", "field")],
        )


async def walk(client, idents, forbidden):
    refused = 0
    for method, path, operation in operations():
        for ident in idents[:3]:
            for filled, body, has_id in requests_of(method, path, operation, ident):
                answer = (
                    await client.request(method, filled, json=body)
                    if body is not None
                    else await client.request(method, filled)
                )
                assert answer.status_code < 500, (method, filled, answer.text)
                # The id of the question itself may be repeated in its refusal, nothing else.
                seen = [m for m in forbidden if m in answer.text.replace(ident, "")]
                assert not seen, (method, filled, answer.status_code, seen, answer.text[:500])
                if has_id:
                    # A field or a kind of one's own may well be there; a thing by id never is.
                    assert answer.status_code in (400, 401, 403, 404, 422), (
                        method,
                        filled,
                        answer.status_code,
                        answer.text,
                    )
                    refused += 1
    return refused


async def probe(client, forbidden, idents):
    """Queries that ask for the other side by every means the language has."""
    for query in (
        {"from": "deal", "limit": 1000},
        {"from": "customer", "limit": 1000},
        {"from": "sys.person"},
        {"from": "sys.unit"},
        {"from": "deal", "where": {"field": "id", "op": "in", "value": idents}},
        {"from": "deal", "where": {"field": "customer", "op": "in", "value": idents}},
        {"from": "deal", "select": ["title", "customer.name"], "limit": 1000},
        {"from": "deal", "deleted": True},
        {"from": "deal", "display": True, "limit": 1000, "total": True, "ruler": True},
        {"from": "deal", "search": "deal", "limit": 1000},
        {"from": "deal", "group": ["title"], "select": ["title", {"count": "*"}]},
    ):
        answer = await client.post("/api/v1/query", json=query)
        assert answer.status_code in (200, 422), answer.text
        assert not [m for m in forbidden if m in answer.text], (query, answer.text[:500])


async def test_another_tenant(client, firm, rival, sign_in):
    owner = await sign_in(firm, "owner")
    await sign_in(rival, "owner")
    before = await snapshot(rival)
    idents = foreign_ids(rival, ("north", "south"))
    refused = await walk(owner, idents, markers(rival, ("north", "south")))
    await probe(owner, markers(rival, ("north", "south")), idents)
    assert refused > 20
    assert await snapshot(rival) == before


async def test_people_and_units_of_another_tenant(client, firm, rival, sign_in):
    owner = await sign_in(firm, "owner")
    people, units = map(str, rival.tenant.people.values()), map(str, rival.tenant.units.values())
    before = await snapshot(rival)
    for ident in [*list(people)[:2], *list(units)[:1]]:
        await walk(owner, [ident], [f"canary-{rival.slug}"])
        answer = await owner.post("/api/v1/records/deal", json={"fields": {}, "unit": ident})
        assert answer.status_code == 422
    assert await snapshot(rival) == before


async def test_another_branch(client, firm, sign_in):
    seller = await sign_in(firm, "seller")
    south = firm.records["south"]
    rows = await firm.tenant.sql(
        "SELECT id::text, data::text, stamps FROM record WHERE unit_id = $1 ORDER BY id",
        firm.tenant.units["south"],
    )
    idents = [str(south["deal"][0]), str(south["customer"])]
    await walk(seller, idents, markers(firm, ("south",)))
    await probe(seller, markers(firm, ("south",)), idents)
    answer = await seller.post(
        "/api/v1/records/deal", json={"fields": {"customer": str(south["customer"])}}
    )
    assert answer.status_code == 422
    assert msgspec.json.decode(answer.content)["errors"][0]["code"] == "reference_unknown"
    after = await firm.tenant.sql(
        "SELECT id::text, data::text, stamps FROM record WHERE unit_id = $1 ORDER BY id",
        firm.tenant.units["south"],
    )
    assert after == rows


async def test_a_token_of_one_tenant_opens_no_other(client, firm, rival, sign_in):
    await sign_in(firm, "owner")
    prefix, _, secret = firm.tokens["owner"].split("_", 2)
    forged = f"{prefix}_{rival.tenant.id.hex}_{secret}"
    answer = await client.get("/api/v1/me", headers={"Authorization": f"Bearer {forged}"})
    assert answer.status_code == 401


async def test_a_cursor_of_one_person_is_none_for_another(client, firm, sign_in):
    owner, admin = await sign_in(firm, "owner"), await sign_in(firm, "admin")
    query = {"from": "deal", "sort": ["-amount"], "limit": 2}
    after = (await owner.post("/api/v1/query", json=query)).json()["next"]
    assert (await owner.post("/api/v1/query", json={**query, "after": after})).status_code == 200
    answer = await admin.post("/api/v1/query", json={**query, "after": after})
    assert answer.json()["code"] == "query.bad_cursor"
