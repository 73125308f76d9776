"""A silent difference between two nodes is found, told of and mended."""

import dataclasses
import json

import psycopg
import pytest

from appliance.sync.checking import ask_check, read_checks
from appliance.sync.nodes import run_control
from appliance.write import verify_log
from tests.sync.pair import records
from tests.sync.test_snapshot import KIND, add_deals, fill, tables
from tests.tenants import create, update

pytestmark = pytest.mark.anyio


async def compare(pair):
    """What a night's comparison finds."""
    await ask_check(pair.site.db, pair.site.id)
    talk = pair.talk()
    try:
        await talk.greet()
        await talk.catch_up()
        return await talk.checking.check_asked()
    finally:
        await talk.close()


async def spoil(pair, text, *params):
    """What no program would do: a row that is not what its entries say."""
    async with await psycopg.AsyncConnection.connect(pair.dsns.superuser, autocommit=True) as conn:
        await conn.execute(text, params)


async def test_what_is_alike_is_found_alike(pair):
    await add_deals(pair.hub)
    await fill(pair.hub)
    assert await compare(pair) == 0
    checks = await read_checks(pair.site.db, pair.site.id)
    assert {c.state for c in checks} == {"even"} and len(checks) == 5


async def test_a_difference_is_told_and_mended(pair):
    await add_deals(pair.hub)
    ids = await fill(pair.hub)
    await pair.sync()
    await spoil(
        pair, 'UPDATE record SET data = data || \'{"title": "rotten"}\' WHERE id = %s', ids[1]
    )
    await spoil(pair, "DELETE FROM record WHERE id = %s", ids[2])
    await spoil(pair, "DELETE FROM unique_claim WHERE record_id = %s", ids[2])
    await spoil(pair, "DELETE FROM record_link WHERE record_id = %s", ids[2])
    assert await compare(pair) == 1
    assert await tables(pair.site) == await tables(pair.hub)
    (found,) = [c for c in await read_checks(pair.site.db, pair.site.id) if c.state != "even"]
    assert (found.state, found.buckets, found.records) == ("mended", 2, 2)
    told = await pair.site.sql(
        "SELECT outcome FROM audit WHERE tenant_id = $1 AND action = 'sync.digest' ORDER BY id",
        pair.site.id,
    )
    assert told == [["differs"], ["mended"]]
    assert await compare(pair) == 0


async def test_nothing_is_compared_while_something_is_on_its_way(pair):
    await add_deals(pair.hub)
    ids = await fill(pair.hub)
    await pair.sync()
    await pair.site.apply(update(KIND, ids[1], title="not there yet"))
    await ask_check(pair.site.db, pair.site.id)
    talk = pair.talk()
    await talk.greet()
    assert await talk.checking.check_asked() == 0
    await talk.close()
    assert "asked" in {c.state for c in await read_checks(pair.site.db, pair.site.id)}


@pytest.mark.parametrize("states_after", [0, 20_000])
async def test_what_is_kept_from_a_site_makes_no_difference(pair, states_after):
    await add_deals(pair.hub)
    await fill(pair.hub)
    await run_control(
        pair.hub.db, "UPDATE node_scope SET masks = %s::jsonb, epoch = epoch + 1 "
        "WHERE tenant_id = %s", json.dumps({KIND: ["title", "tags"]}), pair.hub.id,
    )  # fmt: skip
    pair.parts = dataclasses.replace(pair.parts, states_after=states_after)
    assert await compare(pair) == 0
    assert {c.state for c in await read_checks(pair.site.db, pair.site.id)} == {"even"}
    held = str(await tables(pair.site))
    assert "deal 1" not in held and "red" not in str(await records(pair.site, KIND))
    await pair.hub.apply(create(KIND, title="hidden", note="seen"))
    assert await compare(pair) == 0
    assert "seen" in str(await records(pair.site, KIND))
    # Neither is what was kept from it a fork, or a hub that went back.
    assert (await verify_log(pair.site.db, pair.site.id)).faults == ()
    assert not [n for n in (await pair.sync()).notices if n.code != "clock.off"]
