"""A site is revoked while it is at work: out at once, nothing lost, nothing kept."""

import msgspec
import psycopg
import pytest

from appliance.base.ids import uuid7
from appliance.kernel.context import Door
from appliance.sync import agent as agents
from appliance.sync.deciding import What, decide
from appliance.sync.nodes import find_peer, revoke, run_control
from appliance.sync.parked import list_parked
from appliance.write.verify import verify_log
from tests.sync.pair import joined, records, until
from tests.sync.test_agent import has, running
from tests.tenants import create, update

pytestmark = pytest.mark.anyio
KIND = "deal"
SESSION = (
    "INSERT INTO session (tenant_id, secret_hash, id, person_id, profile_id, epoch, expires_at) "
    "VALUES (%s, %s, %s, %s, %s, 1, now() + interval '1 day')"
)


@pytest.fixture
async def pair(tenant, there, valkey_url, tmp_path, monkeypatch):
    monkeypatch.setattr(agents, "LOOK_S", 0.1)
    monkeypatch.setattr("appliance.sync.waits.RECHECK_S", 0.3)
    monkeypatch.setattr("appliance.sync.waits.LOOK_S", 0.3)
    async with joined(tenant, there, valkey_url, tmp_path) as found:
        await found.hub.add_kind(KIND, [("title", "text"), ("note", "text")])
        yield found


def sessions(pair):
    with psycopg.connect(pair.dsns.superuser) as conn:
        rows = "SELECT count(*) FROM session WHERE tenant_id = %s AND ended_at IS NULL"
        return conn.execute(rows, (pair.site.id,)).fetchone()[0]


async def test_it_is_out_at_once_and_what_it_still_sent_is_let_in_by_a_person(pair, tmp_path):
    hub, me, deal = pair.hub, pair.parts.me, uuid7()
    agent = pair.agent(tmp_path / "site", poll_seconds=0.3)
    async with running(agent):
        await pair.site.db.routes.refresh()
        assert (await hub.apply(create(KIND, deal, title="of the hub"))).committed
        await until(has(pair.site, "of the hub"), 20)
        with psycopg.connect(pair.dsns.superuser) as conn:
            conn.execute(SESSION, (hub.id, b"s" * 32, uuid7(), hub.people["owner"], uuid7()))
        assert sessions(pair) == 1
        # The line is gone, somebody goes on working, and the branch is closed meanwhile.
        pair.line.is_down = True
        made, below = create(KIND, title="made meanwhile"), uuid7()
        assert (await pair.site.apply(made)).committed
        assert (await pair.site.apply(create(KIND, below, title="second"))).committed
        assert (await pair.site.apply(update(KIND, below, note="third"))).committed
        assert (await pair.site.apply(update(KIND, deal, note="noted meanwhile"))).committed
        await revoke(hub.db, me.id, "closed")
        nonces = await run_control(
            hub.db, "SELECT count(*) FROM node_session WHERE node_id = %s", me.id
        )
        assert nonces == [(0,)]
        pair.line.is_down = False

        async def is_forgotten():
            await pair.site.db.routes.refresh()
            return not pair.site.db.routes.all()

        await until(is_forgotten, 60)
    assert sessions(pair) == 0, "nobody is signed in there any more"
    with psycopg.connect(pair.dsns.superuser) as conn:
        for table in ("record", "change", "credential", "stream"):
            left = conn.execute(f"SELECT count(*) FROM {table} WHERE tenant_id = %s", (hub.id,))
            assert left.fetchone() == (0,), table
    peer = await find_peer(hub.db, me.id, hub.id)
    assert (peer.state, peer.scope_state) == ("revoked", "purged")
    ((proof,),) = await run_control(
        hub.db, "SELECT proof FROM node_scope WHERE node_id = %s", me.id
    )
    assert set(map(tuple, proof[4].values())) == {(0, 0)}

    ctx = await hub.ctx()
    waiting = await list_parked(hub.db, ctx)
    assert {(w.reason, w.is_held) for w in waiting} == {("late_write_after_revoke", True)}
    assert len(waiting) == 4 and "meanwhile" not in str(await records(hub, KIND))
    for one in sorted(waiting, key=lambda w: w.oseq):
        person = msgspec.structs.replace(await hub.ctx(door=Door.HTTP), request_id=uuid7())
        told = await decide(hub.db, person, one.id, What.RELEASE)
        assert told.parked.state == "released", told.parked
    found = str(await records(hub, KIND))
    for text in ("made meanwhile", "second", "third", "noted meanwhile"):
        assert text in found, text
    assert (await verify_log(hub.db, hub.id)).faults == ()
    assert await list_parked(hub.db, ctx) == []
