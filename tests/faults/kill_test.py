"""kill -9 of every part in turn under a write load: nothing acknowledged is lost or doubled.

As a test it runs a short form; `python -m tests.faults.kill_test --minutes N` runs a long one
and prints its figures. The session that the writers use is opened once, before the first kill.
"""

import argparse
import asyncio
import itertools
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import pytest

from tests.faults.load import Load
from tests.faults.node import Node, why_not
from tests.faults.proof import find_lost_or_doubled, find_torn, find_unannounced, wait_drained

ROLES = ("api", "worker", "valkey", "postgres")
HEAL_S = 60.0
BETWEEN_S = 3.0


def run_kills(node, seconds, writers=8):
    """Load and kills for a time; the load and per role the milliseconds to recovery."""
    load = Load(node.url, node.login(), writers)
    healed = {role: [] for role in ROLES}

    async def body():
        stop = asyncio.Event()
        task = asyncio.create_task(load.run(stop))
        end = time.monotonic() + seconds
        try:
            for role in itertools.cycle(ROLES):
                await asyncio.sleep(BETWEEN_S)
                if time.monotonic() > end and all(healed.values()):
                    break
                healed[role].append(await kill_and_wait(node, load, role))
        finally:
            stop.set()
            await task

    asyncio.run(body())
    return load, healed


async def kill_and_wait(node, load, role):
    """Kill a role; milliseconds until it runs anew and a later write was acknowledged."""
    hit = node.kill(role)
    assert hit, f"there is no process of the role {role}"
    at = time.monotonic()
    while time.monotonic() - at < HEAL_S:
        await asyncio.sleep(0.02)
        anew = [p for p in node.pids(role) if p not in hit]
        if anew and load.acks and load.acks[-1] > at:
            ready = await asyncio.to_thread(_is_ready, node)
            if ready:
                return (time.monotonic() - at) * 1000
    raise AssertionError(f"{role} did not come back in {HEAL_S} s without a person")


def _is_ready(node):
    try:
        node.wait_ready(0.5)
    except AssertionError:
        if node.up.poll() is not None:
            raise
        return False
    return True


def prove(node, load):
    """Every promise about what is stored; raises AssertionError with all that is broken."""
    assert not load.refusals, load.refusals[:5]
    drained = wait_drained(node)
    last = Load(node.url, load.token, writers=1, pause_s=0.0, prefix="z")

    async def some_more():
        stop = asyncio.Event()
        task = asyncio.create_task(last.run(stop))
        while len(last.records) < 20 and not task.done():
            await asyncio.sleep(0.05)
        stop.set()
        await task

    asyncio.run(some_more())
    wait_drained(node)
    bad = find_torn(node) + find_lost_or_doubled(node, load)
    bad += [
        f"{i} was not announced"
        for i in find_unannounced(node, [r.id for r in last.records.values()])
    ]
    assert not bad, f"{len(bad)} faults: " + "; ".join(bad[:20])
    return drained


def figures(load, healed, drained):
    """The run in a few lines."""
    updates = sum(r.updates for r in load.records.values())
    kills = sum(len(v) for v in healed.values())
    total = (
        f"acknowledged {len(load.records)} creations and {updates} updates, {load.retries} retries"
    )
    proved = f"lost 0, doubled 0, torn 0; outbox empty {drained:.1f} s after the end"
    lines = [f"{total}, {kills} kills; {proved}"]
    for role, took in healed.items():
        if took:
            lines.append(
                f"{role:9} {len(took):3} kills, recovery ms: median {statistics.median(took):.0f}, worst {max(took):.0f}"
            )
    return "\n".join(lines)


def main(minutes, writers):
    home = Path(tempfile.mkdtemp(prefix="nexus-kill-"))
    home.chmod(0o755)
    node = Node(home / "data")
    try:
        node.start()
        node.init()
        load, healed = run_kills(node, minutes * 60, writers)
        drained = prove(node, load)
        print(figures(load, healed, drained))
    finally:
        node.stop()
        shutil.rmtree(home, ignore_errors=True)


@pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")
def test_no_acknowledged_write_is_lost_when_parts_are_killed():
    main(0.7, 6)


if __name__ == "__main__":
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--minutes", type=float, default=10.0)
    given.add_argument("--writers", type=int, default=8)
    options = given.parse_args()
    main(options.minutes, options.writers)
