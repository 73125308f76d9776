"""The form of the fault run that every test run has: one day of three real nodes, in about a minute.

Both branches are cut off and all go on working, one with its clock a day and a half ahead; parts
are killed, the links come back, and everything must be as `prove` says. Nothing here is measured
by the clock: each step waits until the nodes have come to it, for as long as a busy machine takes.
The step by step account and the long form are in `test_branch` and `run`.
"""

import asyncio
import time

from tests.branch.conftest import SEED
from tests.branch.fleet import HUB
from tests.branch.load import work
from tests.branch.nodes import wait_until
from tests.branch.proof import prove, wait_quiet
from tests.branch.run import Findings
from tests.branch.schedule import Told
from tests.branch.watch import Watch

PATIENCE_S = 300.0
AHEAD = "+36h"
PAUSE_S = 0.4


async def written(journal, fleet, count):
    """Until people at every node have had that many more answers."""
    names = list(fleet.nodes)
    before = {n: sum(a["node"] == n for a in journal.acked) for n in names}
    end = time.monotonic() + PATIENCE_S
    while any(sum(a["node"] == n for a in journal.acked) < before[n] + count for n in names):
        assert time.monotonic() < end, f"nobody writes any more: {journal.counts()}"
        await asyncio.sleep(0.1)


async def day_apart(fleet, journal, told, clash):
    """What happens to the nodes while people work at them."""
    await written(journal, fleet, 2)
    for site in fleet.sites:
        fleet.cut(site)
    told.note("outages", "both branches are cut off")
    await asyncio.to_thread(clash)
    for name, part in (("north", "api"), ("south", "worker"), (HUB, "postgres")):
        assert fleet.nodes[name].kill(part), f"{name} has no {part} to kill"
        told.note("kills", f"kill -9 {part} of {name}")
        await written(journal, fleet, 2)
    for site, name, part in (("south", "south", "valkey"), ("north", "north", "postgres")):
        fleet.link.heal(site)
        assert fleet.nodes[name].kill(part), f"{name} has no {part} to kill"
        told.note("kills", f"kill -9 {part} of {name} while it catches up")
        await written(journal, fleet, 2)


async def live_through(fleet, world, findings, clash):
    stop = asyncio.Event()
    working = asyncio.create_task(
        work(fleet, world, findings.journal, stop, people=1, pause_s=PAUSE_S)
    )
    watching = asyncio.create_task(findings.watch.run(stop))
    try:
        await day_apart(fleet, findings.journal, findings.told, clash)
    finally:
        stop.set()
        await working
        await watching


def conflicts(person, ident):
    return person.get("/conflicts", record=ident)["conflicts"]


def test_branches_that_were_apart_and_killed_lose_and_double_nothing(fleet, world, journal):
    people = {name: fleet.person(name, seconds=PATIENCE_S) for name in fleet.nodes}
    owner = people[HUB]
    torn = owner.make("customer", name="Edited twice")["id"]
    gone = owner.make("customer", name="Deleted and sold to")["id"]
    fleet.nodes["south"].set_clock(AHEAD)
    wait_quiet(fleet, PATIENCE_S)
    sold = {}

    def clash():
        # By the clock of the south it is the day after tomorrow: everybody there signs in anew.
        south = fleet.person("south", seconds=PATIENCE_S)
        for person, limit in ((people["north"], "1000.00"), (south, "2000.00")):
            person.edit(person.get(f"/records/customer/{torn}"), credit_limit=limit)
        owner.call("DELETE", f"/records/customer/{gone}", 200)
        deal = {"unit": fleet.units["Fair stand"], "fields": {"title": "Late", "customer": gone}}
        sold["deal"] = south.post("/records/deal", deal, 201)["id"]

    told = Told()
    findings = Findings(told, journal, rounds=1, watch=Watch(fleet, weighs=False))
    asyncio.run(live_through(fleet, world, findings, clash))
    fleet.heal_all()
    fleet.nodes["south"].set_clock("+0")
    fleet.at_once(lambda node: node.wait_ready(PATIENCE_S))
    findings.quiet_s.append(wait_quiet(fleet, PATIENCE_S))
    findings.add(prove(fleet, journal))
    findings.add({"broken": findings.watch.torn()})
    print(findings.summary(fleet, SEED))
    assert not journal.strange, journal.strange[:5]
    bad = [f"{what}: {line}" for what, lines in findings.found.items() for line in lines[:12]]
    assert not bad, "faults:\n" + "\n".join(bad + told.lines)
    people = {name: fleet.person(name, seconds=PATIENCE_S) for name in fleet.nodes}
    for name, person in people.items():
        for ident, sort in ((torn, "field"), (sold["deal"], "dangling_ref")):
            wait_until(
                lambda p=person, i=ident: conflicts(p, i), PATIENCE_S, f"the conflict is at {name}"
            )
            (one,) = conflicts(person, ident)
            assert one["sort"] == sort, f"at {name}: {one}"
    shown = {p.get(f"/records/customer/{torn}")["fields"]["credit_limit"] for p in people.values()}
    assert len(shown) == 1, f"every node shows the same one for now: {shown}"
