"""What a site holds changes while it is at work: more comes, what goes is handed in and proved."""

import pytest

from appliance.kernel.context import Door
from appliance.sync import agent as agents
from appliance.sync.nodes import find_peer, revoke, run_control
from appliance.sync.withdrawal import change_scope, withdraw_node
from tests.sync.pair import joined, records, until
from tests.sync.test_agent import has, running
from tests.tenants import create

pytestmark = pytest.mark.anyio
KIND = "deal"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(agents, "LOOK_S", 0.1)
    # A change of scope is looked for this often; a site hears of it with its next answer.
    monkeypatch.setattr("appliance.sync.waits.RECHECK_S", 0.3)
    monkeypatch.setattr("appliance.sync.waits.LOOK_S", 0.3)


@pytest.fixture
async def north(tenant, there, valkey_url, tmp_path):
    units = [tenant.units["north"]]
    async with joined(tenant, there, valkey_url, tmp_path, units=units) as found:
        await found.hub.add_kind(KIND, [("title", "text")])
        await found.hub.apply(create(KIND, title="of the north"))
        south = await found.hub.ctx(unit="south")
        await found.hub.apply(create(KIND, title="of the south"), ctx=south)
        yield found


async def test_a_unit_that_is_added_to_the_scope_comes_with_its_past(north, tmp_path):
    agent = north.agent(tmp_path / "site", poll_seconds=0.3)
    async with running(agent):
        await until(has(north.site, "of the north"))
        assert "of the south" not in str(await records(north.site, KIND))
        units = frozenset({north.hub.units["north"], north.hub.units["south"]})
        await change_scope(north.hub.db, north.parts.me.id, north.hub.id, units=units)
        await until(has(north.site, "of the south"), 20)


async def test_a_new_unit_below_a_held_one_comes_by_itself(north, tmp_path):
    agent = north.agent(tmp_path / "site", poll_seconds=0.3)
    async with running(agent):
        await until(has(north.site, "of the north"))
        ctx = await north.hub.ctx(door=Door.INSTALL)
        new = create("sys.unit", name="shop", parent=str(north.hub.units["north"]))
        done = await north.hub.apply(new, ctx=ctx)
        shop = done.outcomes[0].id
        north.hub.units["shop"] = shop
        await north.hub.apply(create(KIND, title="of the shop"),
                              ctx=await north.hub.ctx(unit="shop"))  # fmt: skip
        await until(has(north.site, "of the shop"), 20)


async def test_what_is_withdrawn_is_handed_in_then_purged_then_proved(north, tmp_path):
    hub, me = north.hub, north.parts.me.id
    await north.sync()
    await north.site.apply(create(KIND, title="written before it knew"))
    units = frozenset({hub.units["south"]})
    await change_scope(hub.db, me, hub.id, units=units)
    async with running(north.agent(tmp_path / "site", poll_seconds=0.3)):
        await until(has(hub, "written before it knew"), 20)
        await until(has(north.site, "of the south"), 20)

        async def is_gone():
            return "of the north" not in str(await records(north.site, KIND))

        await until(is_gone, 30)

        async def is_proved():
            rows = await run_control(
                hub.db, "SELECT purged_at FROM stream_withdrawal WHERE node_id = %s", me
            )
            return rows and all(row[0] is not None for row in rows)

        await until(is_proved, 30)
    assert "written before it knew" in str(await records(hub, KIND))


async def test_a_site_that_loses_the_tenant_keeps_nothing_of_it(north, tmp_path):
    hub, me = north.hub, north.parts.me.id
    await north.sync()
    await withdraw_node(hub.db, me, hub.id)
    async with running(north.agent(tmp_path / "site", poll_seconds=0.3)):

        async def is_proved():
            peer = await find_peer(hub.db, me, hub.id)
            return peer.scope_state == "purged"

        await until(is_proved, 40)

        async def is_forgotten():
            await north.site.db.routes.refresh()
            return not north.site.db.routes.all()

        await until(is_forgotten, 20)


async def test_a_revoked_node_hands_in_what_it_made_and_then_keeps_nothing(north, tmp_path):
    hub, me = north.hub, north.parts.me.id
    await north.sync()
    await north.site.apply(create(KIND, title="written before it knew"))
    await revoke(hub.db, me, "stolen")
    async with running(north.agent(tmp_path / "site", poll_seconds=0.3)):

        async def is_forgotten():
            await north.site.db.routes.refresh()
            return not north.site.db.routes.all()

        await until(is_forgotten, 40)
    assert (await find_peer(hub.db, me, hub.id)).scope_state == "purged"
    # It waits for a person, and is in nobody's list until then.
    assert "written before it knew" not in str(await records(hub, KIND))
    (row,) = await hub.sql("SELECT reason, is_logged FROM parked WHERE tenant_id = $1", hub.id)
    assert row == ["late_write_after_revoke", "f"]
