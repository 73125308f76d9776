"""A transaction that always runs into the time limit is tried, parked, and released by hand."""

from uuid import UUID

import psycopg
import pytest

from appliance.base import limits
from appliance.base.errors import Limited
from appliance.kernel.context import Door
from appliance.meta import load_schema
from appliance.sync.deciding import What, decide
from appliance.write import piecemeal
from appliance.write.receive import read_tips
from tests.sync.test_receive import made
from tests.tenants import everything, opened

pytestmark = pytest.mark.anyio


async def test_what_always_takes_too_long_is_parked_and_the_rest_goes_on(
    hub, north, dsns, monkeypatch
):
    """Twice it may have been the machine."""
    monkeypatch.setattr(limits, "STATEMENT_TIMEOUT_MS", 300)
    monkeypatch.setattr(piecemeal, "_ALONE_MS", 600)
    titles = [f"T{n}" for n in range(20)]
    titles[11] = "slow"
    for title in titles:
        await made(north, title=title)
    stream = hub.tenant.units["north"]
    entries = [e for _, e in await north.log(stream)]
    with psycopg.connect(dsns.superuser, autocommit=True) as conn:
        conn.execute(
            "CREATE OR REPLACE FUNCTION crawl() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF new.data->>'title' = 'slow' THEN PERFORM pg_sleep(2); END IF; RETURN new; END $$; "
            "CREATE TRIGGER crawl BEFORE INSERT ON record FOR EACH ROW EXECUTE FUNCTION crawl()"
        )
        try:
            async with opened(dsns) as db:
                hub.db, before = db, hub.db
                for _ in range(2):
                    with pytest.raises(Limited):
                        await hub.take(stream, entries, peer=2)
                    assert (await read_tips(db, hub.tenant.id, stream))[2].oseq == 11
                found = await hub.take(stream, entries, peer=2)
                hub.db = before
        finally:
            conn.execute("DROP TRIGGER crawl ON record; DROP FUNCTION crawl()")
    assert [p.reason.partition(":")[0] for p in found.parked] == ["slow"]
    assert (found.got[2], found.applied) == (20, 8)
    rows = await hub.tenant_rows("SELECT id::text, reason, state FROM parked WHERE tenant_id = $1")
    assert [r[1:] for r in rows] == [["slow", "waiting"]]
    # A person releases it by hand, once the cause is gone.
    ctx = await hub.ctx(Door.HTTP, profile=everything(await load_schema(hub.db, hub.tenant.id)))
    told = await decide(hub.db, ctx, UUID(rows[0][0]), What.RELEASE)
    assert told.parked.state == "released"
    ((count,),) = await hub.tenant_rows(
        "SELECT count(*) FROM record WHERE tenant_id = $1 AND kind = 'deal'"
    )
    assert count == "20"
