"""Schedules of the real store: four nodes on PostgreSQL, killed between statements, over a bad link.

The same questions as of the pure core (test_simulator), asked of `write.apply`, frames as bytes and
`write.receive`: no acknowledged write is lost, all nodes hold the same rows, the log proves itself,
a rebuild finds nothing, known bugs are found.
"""

import asyncio
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests import pair
from tests.merge import store_bugs, store_runs

SCHEDULES, PARTLY, LONG = 300, 24, 6_000
WORKERS = 2
# The rarest, an acknowledgement before the commit, shows in one schedule of about twenty.
BUG_SEEDS = 120


@pytest.fixture(scope="module")
def nodes(dsns):
    """The databases of the hub and of three sites."""
    return [dsns, *(pair.make_databases(dsns, number) for number in (12, 13, 14))]


def report(wrong):
    return "\n".join(
        f"seed {seed}: {what}\n  " + "\n  ".join(steps) for seed, what, steps in wrong[:2]
    )


def run_all(nodes, count, capsys, sites="whole"):
    blocks = [
        (nodes, range(first, count, WORKERS), f"{sites}-{first}-{count}", {"sites": sites})
        for first in range(WORKERS)
    ]
    began = time.perf_counter()
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as pool:
        wrong = [w for found in pool.map(store_runs.run_block, blocks) for w in found]
    took = time.perf_counter() - began
    with capsys.disabled():
        print(
            f"\nreal store, {sites}: seeds 0–{count - 1}, {len(wrong)} wrong, {count / took:.1f} schedules/s"
        )
    assert not wrong, report(wrong)


def test_no_schedule_loses_a_write_or_parts_the_nodes(nodes, capsys):
    run_all(nodes, SCHEDULES, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("sites", ["apart", "overlapping"])
def test_nor_do_they_where_no_site_holds_everything(nodes, sites, capsys):
    """Records move through units of which each site holds only some."""
    run_all(nodes, PARTLY, capsys, sites)


@pytest.mark.slow
def test_thousands_of_schedules(nodes, capsys):
    run_all(nodes, LONG, capsys)


# Those that show within a few seeds; the others need the long form.
SOON = ("ack_first", "cursor_first", "nodedupe")


@pytest.mark.parametrize(
    "bug", [b if b in SOON else pytest.param(b, marks=pytest.mark.slow) for b in store_bugs.BUGS]
)
def test_each_known_bug_is_found(nodes, bug, capsys):
    with store_bugs.put_in(bug) as told:
        found = asyncio.run(
            store_runs.find_first(
                nodes, range(BUG_SEEDS), f"bug-{store_bugs.BUGS.index(bug)}", **told
            )
        )
    assert found is not None, f"{bug} passed {BUG_SEEDS} schedules"
    with capsys.disabled():
        print(f"\n{bug}: seed {found[0]}")


def test_a_kill_at_every_statement_is_a_retry(nodes):
    """Each boundary of a local edit and of a frame, by number: nothing, or all of it."""
    kills = asyncio.run(store_runs.kill_everywhere(nodes))
    assert min(kills.values()) > 5, kills


def test_a_move_carries_the_clocks_of_its_values(nodes):
    """A site that holds only the new home shows `created_at` as the mover's clock had it, before
    the hub cut it, and ranks what it did not see made behind everything else, where moves do not.
    """
    assert not asyncio.run(store_runs.run_seeds(nodes, [21], "clocks"))
