"""The long fault run: `python -m tests.branch.run --minutes 10 [--seed 7]`, or `make branch-long`.

Three real nodes, people at work at each, and a seeded sequence of misfortunes. In rounds: work
under faults, heal, wait until all is quiet, prove. It prints what was done and what was found.
"""

import argparse
import asyncio
import contextlib
import sys
import time
from dataclasses import dataclass, field
from functools import partial

from tests.branch.explain import explain
from tests.branch.fleet import Fleet
from tests.branch.journal import Journal
from tests.branch.load import make_world, work
from tests.branch.proof import prove, wait_quiet
from tests.branch.schedule import Schedule, Told
from tests.branch.watch import Watch

ROUND_S, IDLE_AFTER_S = 40.0, 5.0
DISK_MB = 900


@dataclass
class Findings:
    """What a run has come to."""

    told: Told
    journal: Journal
    rounds: int = 0
    quiet_s: list[float] = field(default_factory=list)
    found: dict[str, list[str]] = field(default_factory=dict)
    watch: Watch | None = None

    def add(self, found):
        for what, lines in found.items():
            self.found.setdefault(what, []).extend(lines)

    @property
    def is_good(self):
        return not any(self.found.values()) and not self.journal.strange

    def summary(self, fleet, seed):
        told, journal = self.told.counts, self.journal
        writes = ", ".join(f"{n} at {name}" for name, n in by_node(journal).items())
        names = ("lost", "doubled", "diverged", "broken")
        return "\n".join([
            f"seed {seed}, {fleet.link.kind}",
            f"{self.rounds} schedules: " + ", ".join(f"{n} {what}" for what, n in sorted(told.items())),
            f"{len(journal.acked)} acknowledged writes ({writes}), {journal.retries} retries, "
            f"{len(journal.doubt)} without an answer, {sum(journal.refused.values())} refused",
            f"everything everywhere {max(self.quiet_s, default=0):.1f} s after healing at worst; "
            f"{self.watch.sentence() if self.watch else ''}",
            ", ".join(f"{what} {len(self.found.get(what, []))}" for what in names),
        ])  # fmt: skip


def by_node(journal):
    found = {}
    for entry in journal.acked:
        found[entry["node"]] = found.get(entry["node"], 0) + 1
    return found


async def work_and_break(fleet, world, findings, schedule, seconds, people):
    """One round; everybody has had an answer to their last write when it is over."""
    stop = asyncio.Event()
    working = asyncio.create_task(work(fleet, world, findings.journal, stop, people=people))
    watching = asyncio.create_task(findings.watch.run(stop))
    try:
        await schedule.run(seconds)
    finally:
        stop.set()
        await working
        await watching


def run(fleet, seed, seconds, *, round_s=ROUND_S, people=2, report=partial(print, flush=True)):
    """Rounds of faults until the time is over; the fleet is started and nobody has joined yet."""
    fleet.found()
    fleet.join_all()
    world = make_world(fleet, fleet.units_of)
    told, journal = Told(), Journal()
    findings = Findings(told, journal, watch=Watch(fleet))
    end = time.monotonic() + seconds
    while findings.rounds == 0 or time.monotonic() < end:
        findings.rounds += 1
        schedule = Schedule(fleet, f"{seed}.{findings.rounds}", told)
        length = min(round_s, max(10.0, end - time.monotonic()))
        asyncio.run(work_and_break(fleet, world, findings, schedule, length, people))
        findings.quiet_s.append(wait_quiet(fleet))
        findings.add(prove(fleet, journal))
        findings.add({"broken": findings.watch.torn()})
        report(
            f"round {findings.rounds}: {len(journal.acked)} writes, quiet in {findings.quiet_s[-1]:.1f} s"
        )
        if not findings.is_good:
            break
    return findings


def idle_bytes(fleet):
    """What an idle branch's link carries in a minute; -1 where it is not counted."""
    if not hasattr(fleet.link, "carried"):
        return dict.fromkeys(fleet.sites, -1)
    time.sleep(IDLE_AFTER_S)
    before = {site: fleet.link.carried(site) for site in fleet.sites}
    time.sleep(60)
    return {site: fleet.link.carried(site) - before[site] for site in fleet.sites}


def main(minutes, seed, people):
    # A small disk can only be mounted by root, who also makes the namespaces.
    with Fleet(seed=seed, disk_mb={"south": DISK_MB}) as fleet:
        findings = run(fleet, seed, minutes * 60, people=people)
        print(findings.summary(fleet, seed))
        for what, lines in findings.found.items():
            for line in lines[:30]:
                print(f"  {what}: {line}")
        for line in findings.journal.strange[:20]:
            print(f"  answer: {line}")
        if not findings.is_good:
            print("\n".join(findings.told.lines[-40:]))
            bad = [line for lines in findings.found.values() for line in lines]
            print("\n".join(explain(fleet, bad)))
        else:
            print(f"bytes in an idle minute, all headers included: {idle_bytes(fleet)}")
        return 0 if findings.is_good else 1


if __name__ == "__main__":
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--minutes", type=float, default=10.0)
    given.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    given.add_argument("--people", type=int, default=2)
    options = given.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main(options.minutes, options.seed, options.people))
