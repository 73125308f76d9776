"""Two walls around a tenant, each tested with the other one off."""

from uuid import UUID

import msgspec
import psycopg
import pytest

from appliance.kernel.query import decode_query
from appliance.read import plan as plan_module
from appliance.read import plan_query, sql

QUERY = {"from": "deal", "select": ["title"], "limit": 1000}


def deals_of(dsns, tenant=None):
    where = f"AND tenant_id = '{tenant}'" if tenant else ""
    with psycopg.connect(dsns.superuser) as conn:
        rows = conn.execute(
            f"SELECT id::text FROM record WHERE kind = 'deal' AND deleted_at IS NULL {where}"
        )
        return {r[0] for r in rows}


def shown(rows):
    return {msgspec.json.decode(r)["id"] for r in rows}


def test_row_level_security_holds_when_the_guard_forgets_the_tenant(readers, dsns, monkeypatch):
    reader = readers.everything()
    whole = plan_query(reader.ctx, decode_query(QUERY))
    text = whole.text.replace("a.tenant_id = $1::uuid", "$1::uuid IS NOT NULL")
    assert text != whole.text
    call = (sql.Statement(text), whole.params)
    (answer,) = readers.go(readers.db.read(reader.ctx.tenant, call))
    mine = deals_of(dsns, reader.ctx.tenant)
    assert shown(answer.column()) == mine
    assert mine < deals_of(dsns)


def test_the_guard_holds_when_row_level_security_does_not(readers, dsns):
    """The same statement as a superuser, whom no policy binds."""
    reader = readers.everything()
    whole = plan_query(reader.ctx, decode_query(QUERY))
    text, params = whole.text, [None if p is None else _plain(p) for p in whole.params]
    for n in range(len(params), 0, -1):
        text = text.replace(f"${n}::", f"%(p{n})s::")
    with psycopg.connect(dsns.superuser) as conn:
        assert (
            conn.execute(
                "SELECT count(DISTINCT tenant_id) FROM record WHERE kind = 'deal'"
            ).fetchone()[0]
            > 1
        )
        rows = conn.execute(
            text.replace("'%'", "'%%'"), {f"p{n}": v for n, v in enumerate(params, 1)}
        )
        found = {msgspec.json.decode(r[0])["id"] for r in rows}
    assert found == deals_of(dsns, reader.ctx.tenant)


def _plain(value):
    return (
        [str(v) for v in value]
        if isinstance(value, (list, tuple))
        else str(value)
        if isinstance(value, UUID)
        else value
    )


def test_no_tenant_no_rows(readers, dsns):
    with psycopg.connect(dsns.pool_dsn) as conn:
        assert conn.execute("SELECT count(*) FROM record").fetchone()[0] == 0


def test_a_plan_serves_only_the_rights_it_was_made_for(readers):
    """Same person, same query, same names and revisions of the profile, other rights."""
    query = decode_query(QUERY)
    wide = readers.everything()
    narrow = readers.reader({"deal": {"scope": "own", "fields": {"title": "read"}}})
    blind = readers.reader({"deal": {"scope": "all", "fields": {"amount": "read"}}})
    assert plan_query(wide.ctx, query) is plan_query(wide.ctx, query)
    assert plan_query(narrow.ctx, query).text != plan_query(wide.ctx, query).text
    with pytest.raises(Exception, match="cannot be run"):
        plan_query(blind.ctx, query)


def test_and_is_not_or_in_the_cache(readers):
    reader, tests = (
        readers.everything(),
        [
            {"field": "amount", "op": "gt", "value": 0},
            {"field": "stage", "op": "eq", "value": "won"},
        ],
    )
    both, either = (decode_query({**QUERY, "where": {word: tests}}) for word in ("and", "or"))
    assert plan_query(reader.ctx, both).text != plan_query(reader.ctx, either).text
    assert plan_module.fingerprint(reader.ctx, both) != plan_module.fingerprint(reader.ctx, either)


def test_a_changed_unit_tree_is_seen_at_once(readers):
    reader = readers.everything()
    head, south = readers.world.tenant.units["head"], readers.world.tenant.units["south"]
    query = decode_query({**QUERY, "where": {"field": "unit", "op": "under", "value": str(head)}})
    before = plan_query(reader.ctx, query)
    tree = {k: v for k, v in reader.ctx.unit_tree.items() if k != south}
    after = plan_query(msgspec.structs.replace(reader.ctx, unit_tree=tree), query)
    assert south in before.params[-1]
    assert south not in after.params[-1]
