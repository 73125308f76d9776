"""List, create, update over HTTP with session, profile and row security, against the bare server."""

import asyncio
import itertools
import json
import tempfile

import msgspec
import psycopg

from appliance.base.ids import uuid7
from appliance.access.shipped import grants_for
from appliance.kernel.query import decode_query
from appliance.meta import load_schema
from appliance.read import plan_query
from tests import cluster, tenants
from tests.access import world as worlds
from tests.bench import harness
from tests.bench.in_process import KIND, deal
from tests.tenants import create

ROWS = 100_000
ASKED = {
    "from": "deal", "sort": ["-amount"], "limit": 50,
    "select": ["number", "name", "amount", "stage", "city"],
    "where": {"and": [
        {"field": "stage", "op": "eq", "value": "won"}, {"field": "amount", "op": "gte", "value": "100"},
    ]},
}  # fmt: skip


async def firm(db, dsns, slug, rows):
    """A tenant with deals, and the token of its owner."""

    def control():
        dsn = dsns.superuser.replace("nexus_pool", "nexus_control")
        return psycopg.AsyncConnection.connect(dsn)

    made = await worlds.build(db, control, slug)
    await made.tenant.add_kind("deal", KIND)
    kind = (await load_schema(db, made.id)).kinds["deal"]
    (grant,) = grants_for("owner", [kind])
    await made.run(create("sys.grant", profile=str(made.profiles["owner"]), **grant))
    for start in range(0, rows, 10_000):
        await made.tenant.apply(*(deal(n) for n in range(start, min(rows, start + 10_000))))
    ctx, token = await made.enter("owner")
    return made, ctx, token


def floor_case(call):
    """A statement of ours as psycopg takes it."""
    statement, params = call
    text = statement.sql.decode().replace("%", "%%")
    for n in range(len(params), 0, -1):
        text = text.replace(f"${n}::", f"%(p{n})s::")
    values = {f"p{n}": v for n, v in enumerate(params, 1)}
    return [text, json.loads(msgspec.json.encode(values))]


NEW = ("tenant_id id kind stream unit_id owner_id number data stamps created_at created_by updated_at "
       "updated_by words t1 t2 t3 n1 d1").split()  # fmt: skip
INSERT = f"""INSERT INTO floor ({", ".join(NEW).replace("words", "search")}) VALUES (
  {", ".join("to_tsvector('nexus', %(words)s)" if c == "words" else f"%({c})s" for c in NEW)})
  RETURNING id::text"""
UPDATE = """UPDATE floor SET data = data || %(data)s, t3 = %(t3)s, updated_at = clock_timestamp()
  WHERE tenant_id = %(tenant_id)s AND id = %(id)s RETURNING id::text"""
SAMPLE = """SELECT to_jsonb(s) || jsonb_build_object('data', s.data::text, 'words', 'Deal word7 77 City 5')
  - 'search' FROM sample s"""


async def main():
    await harness.on_cluster(measure)


async def measure(db, dsns):
    made, ctx, token = await firm(db, dsns, "bench", ROWS)
    cases = {"/list": floor_case(plan_query(ctx, decode_query(ASKED)).call)}
    with psycopg.connect(dsns.superuser, autocommit=True) as conn:
        conn.execute("VACUUM ANALYZE record")
        conn.execute("CREATE TABLE floor (LIKE record INCLUDING ALL)")
        conn.execute("INSERT INTO floor SELECT * FROM record WHERE kind = 'deal'")
        conn.execute("CREATE TABLE sample AS SELECT * FROM record WHERE kind = 'deal' LIMIT 1")
        conn.execute("VACUUM ANALYZE floor, sample")
        (sample,) = conn.execute(SAMPLE).fetchone()
    cases |= {"/insert": [INSERT, None], "/update": [UPDATE, None]}
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/cases.json"
        with open(path, "w") as file:
            json.dump(cases, file)
        ours = harness.Server("appliance.assemble:asgi", harness.node_env(dsns, folder))
        bare = harness.Server(
            "tests.bench.floor:app", {"FLOOR_DSN": dsns.superuser, "FLOOR_CASES": path}
        )
        try:
            pids = harness.postmaster(dsns.superuser), (ours.pid, bare.pid)
            await compare_all(pids, await ours.client(), await bare.client(), token, sample)
        finally:
            ours.stop()
            bare.stop()


async def compare_all(pids, ours, bare, token, sample):
    """Each case against its floor."""
    asked = harness.request("POST", "/api/v1/query", token, ASKED)
    numbers = itertools.count(1_000_000)

    def bare_list():
        return bare.ask(harness.request("GET", "/list", ""))

    async def bare_insert():
        status, body = await bare.ask(
            harness.request("POST", "/insert", "", {**sample, "id": str(uuid7())})
        )
        assert status == 200, body

    async def bare_update():
        changed = {"id": sample["id"], "tenant_id": sample["tenant_id"],
                   "data": '{"city": "Elsewhere"}', "t3": "elsewhere"}  # fmt: skip
        status, body = await bare.ask(harness.request("POST", "/update", "", changed))
        assert status == 200, body

    async def list_50():
        status, body = await ours.ask(asked)
        assert status == 200, body

    def fields(n):
        found = {k: v for k, v in deal(n).fields.items() if v is not None}
        return {"fields": found}

    made = []

    async def create_one():
        status, body = await ours.ask(
            harness.request("POST", "/api/v1/records/deal", token, fields(next(numbers)))
        )
        assert status == 201, body
        made.append(json.loads(body)["id"])

    async def update_one():
        path = f"/api/v1/records/deal/{made[next(numbers) % len(made)]}"
        changed = {"fields": {"city": f"City {next(numbers)}"}}
        status, body = await ours.ask(harness.request("PATCH", path, token, changed))
        assert status == 200, body

    for name, call, floor_call, target in (
        ("list of 50 of 100 000 over HTTP", list_50, bare_list, "2"),
        ("create one over HTTP", create_one, bare_insert, "3"),
        ("update one field over HTTP", update_one, bare_update, "3"),
    ):
        found, floor = await harness.compare(pids, call, floor_call)
        harness.report(name, found, floor, target)


if __name__ == "__main__":
    asyncio.run(main())
