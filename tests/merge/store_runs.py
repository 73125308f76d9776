"""Worlds made and schedules run in them, in a process of its own: what went wrong, by seed."""

import asyncio
import contextlib
import traceback

import psycopg

from appliance.kernel.context import Door
from appliance.write import apply
from tests import tenants
from tests.merge import schedules, store_checks, stores
from tests.merge.schedules import Schedule, World

# Schedules that one tenant serves before the next one is made.
PER_WORLD = 10
STEPS = 22
# Origin, what it holds, the prefix of its numbers.
SITES = (
    (2, ("head", "north", "south"), "A"),
    (3, ("head", "north", "south"), "B"),
    (4, ("north",), "C"),
)


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


async def make_world(all_dsns, dbs, slug):
    def control():
        return psycopg.AsyncConnection.connect(
            all_dsns[0].superuser.replace("nexus_pool", "nexus_control")
        )

    tenant = await tenants.make_tenant(dbs[0], control, slug)
    await tenant.add_kind("card", schedules.CARD)
    await tenant.add_kind("move", schedules.MOVE, ledger=schedules.LEDGER)
    hub = stores.Node(dbs[0], stores.HUB, tenant)
    sites = []
    for db, dsns, (origin, held, prefix) in zip(dbs[1:], all_dsns[1:], SITES, strict=True):
        await stores.add_tenant(dsns, db, tenant.id)
        sites.append(await stores.make_site(db, origin, tenant, held, prefix))
    world = World(hub, sites)
    first = Schedule(world, 0)
    await first.run(0)
    return world


async def run_seeds(all_dsns, seeds, slug, *, steps=STEPS, **bugs):
    """Schedules of some seeds: (seed, what is wrong, its steps) of those that went wrong."""
    wrong = []
    async with databases(all_dsns) as dbs:
        left = list(seeds)
        while left:
            world = await make_world(all_dsns, dbs, f"{slug}-{left[0]}")
            for name, value in bugs.items():
                setattr(world, name, value)
            wrong += await _run_in(world, left, steps)
    return wrong


async def _run_in(world, left, steps):
    """The next seeds of `left`, until one goes wrong: what it leaves would be found again."""
    wrong, owners, seeds = [], {}, []
    while left and len(seeds) < PER_WORLD and not wrong:
        seed = left.pop(0)
        seeds.append(seed)
        schedule = Schedule(world, seed)
        try:
            await schedule.run(steps)
            found = await store_checks.wrong(schedule)
        except Exception:  # noqa: BLE001 - the seed is what matters
            found = traceback.format_exc()
        owners.update(dict.fromkeys(schedule.ids, schedule))
        if found:
            wrong.append((seed, found, schedule.steps))
    for record, found in await store_checks.broken(world):
        schedule = owners.get(record)
        wrong.append((
            schedule.seed if schedule else seeds, found, schedule.steps if schedule else [],
        ))  # fmt: skip
    return wrong


def run_block(job):
    """A block of seeds in this process."""
    all_dsns, seeds, slug, bugs = job
    return asyncio.run(run_seeds(all_dsns, seeds, slug, **bugs))


__all__ = ["Door", "apply", "run_block"]
