"""Worlds made and schedules run in them, in a process of its own: what went wrong, by seed."""

import asyncio
import contextlib
import traceback

import psycopg

from appliance.base.ids import uuid7
from tests import tenants
from tests.merge import schedules, store_checks, stores
from tests.merge.schedules import Schedule, World

# Schedules that one tenant serves before the next one is made.
PER_WORLD = 10
STEPS = 22
# Origin, what it holds, the prefix of its numbers.
SITES = {
    "whole": (
        (2, ("head", "north", "south"), "A"),
        (3, ("head", "north", "south"), "B"),
        (4, ("north",), "C"),
    ),
    "apart": ((2, ("north", "south"), "A"), (3, ("south",), "B"), (4, ("north",), "C")),
    "overlapping": (
        (2, ("north", "south"), "A"),
        (3, ("south", "head"), "B"),
        (4, ("north", "head"), "C"),
    ),
}


@contextlib.asynccontextmanager
async def databases(all_dsns):
    """A database for each node, the hub's first."""
    async with contextlib.AsyncExitStack() as stack:
        found = []
        for dsns in all_dsns:
            db = stores.FusedDatabase(dsns.control_dsn, dsns.pool_dsn)
            await db.start()
            stack.push_async_callback(db.stop)
            found.append(db)
        yield found


async def make_world(all_dsns, dbs, slug, layout="whole"):
    def control():
        return psycopg.AsyncConnection.connect(
            all_dsns[0].superuser.replace("nexus_pool", "nexus_control")
        )

    tenant = await tenants.make_tenant(dbs[0], control, slug)
    await tenant.add_kind("card", schedules.CARD)
    await tenant.add_kind("move", schedules.MOVE, ledger=schedules.LEDGER)
    hub = stores.Node(dbs[0], stores.HUB, tenant)
    sites = []
    for db, dsns, (origin, held, prefix) in zip(dbs[1:], all_dsns[1:], SITES[layout], strict=True):
        await stores.add_tenant(dsns, db, tenant.id)
        sites.append(await stores.make_site(db, origin, tenant, held, prefix))
    world = World(hub, sites)
    first = Schedule(world, 0)
    await first.run(0)
    return world


async def run_seeds(all_dsns, seeds, slug, *, is_first=False, sites="whole", **bugs):
    """Schedules of some seeds: (seed, what is wrong, its steps) of those that went wrong.

    `is_first`: one is enough; `sites`: what they hold. `bugs` are set in the world (schedules.World).
    """
    wrong = []
    async with databases(all_dsns) as dbs:
        left = list(seeds)
        while left:
            world = await make_world(all_dsns, dbs, f"{slug}-{left[0]}", sites)
            for name, value in bugs.items():
                setattr(world, name, value)
            wrong += await _run_in(world, left)
            if wrong and is_first:
                break
    return wrong


async def _run_in(world, left):
    """The next seeds of `left`, until one goes wrong: what it leaves would be found again."""
    wrong, owners, seeds = [], {}, []
    while left and len(seeds) < PER_WORLD and not wrong:
        seed = left.pop(0)
        seeds.append(seed)
        schedule = Schedule(world, seed)
        try:
            await schedule.run(STEPS)
            found = await store_checks.wrong(schedule)
        except Exception:  # noqa: BLE001 - the seed is what matters
            found = traceback.format_exc()
        owners.update(dict.fromkeys(schedule.ids, schedule))
        if found:
            wrong.append((seed, found, schedule.steps))
    # What is wrong already need not be proved by tables and log that may be in pieces.
    for record, found in [] if wrong else await store_checks.broken(world):
        schedule = owners.get(record)
        wrong.append((
            schedule.seed if schedule else seeds, found, schedule.steps if schedule else [],
        ))  # fmt: skip
    return wrong


async def find_first(all_dsns, seeds, slug, **bugs):
    """The first schedule that goes wrong, in worlds of their own so that it ends there."""
    for first in range(0, len(seeds), PER_WORLD):
        wrong = await run_seeds(
            all_dsns, seeds[first : first + PER_WORLD], f"{slug}-{first}", is_first=True, **bugs
        )
        if wrong:
            return wrong[0]
    return None


async def kill_everywhere(all_dsns):
    """How many boundaries there were: of an edit, of a frame at the hub, of one at a site."""
    kills = {}
    async with databases(all_dsns) as dbs:
        world = await make_world(all_dsns, dbs, "kills")
        schedule = Schedule(world, 1)
        await schedule.run(0)
        hub = world.hub
        ids = schedule.ids
        for title, act in (("edit", _edit), ("up", _up), ("down", _down)):
            left = 0
            while True:
                try:
                    await act(world, ids, left)
                except stores.Killed:
                    left += 1
                    continue
                break
            kills[title] = left
        await schedule._drain()
        found = await store_checks.wrong(schedule)
        assert found is None, found
        assert await store_checks.broken(world) == []
        rows = await hub.rows("SELECT id FROM record WHERE tenant_id = $1 AND kind = 'card'")
        assert len(rows) == len(ids) == 2, rows
    return kills


async def _edit(world, ids, left):
    site = world.sites[0]
    if not ids:
        ids.extend([uuid7(), uuid7()])
    commands = [tenants.create("card", i, unit=world.tenant.units["north"], name="a") for i in ids]
    with site.fused(left):
        result = await site.write(*commands, unit="north", command_id=ids[0])
    assert result.committed


async def _up(world, ids, left):
    site, hub = world.sites[0], world.hub
    offer = await stores.greet(site, hub)
    stream = world.tenant.units["north"]
    # Killed behind the commit, it has it all: then there is nothing left to send.
    for data in await stores.up_frames(site, stream, offer.pending.get(stream, 10**9), 10**6):
        with hub.fused(left):
            await hub.open_and_take(data, peer=site.origin)


async def _down(world, ids, left):
    other, hub = world.sites[1], world.hub
    offer = await stores.greet(other, hub)
    stream = world.tenant.units["north"]
    batch = await stores.down_batch(hub, other, stream, offer.cursors[stream], 10**6)
    for data in batch.frames:
        with other.fused(left):
            await other.open_and_take(data, peer=stores.HUB, cursor=batch.upto)


def run_block(job):
    """A block of seeds in this process."""
    all_dsns, seeds, slug, bugs = job
    return asyncio.run(run_seeds(all_dsns, seeds, slug, **bugs))
