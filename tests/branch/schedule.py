"""What goes wrong, and when: drawn from a seed, so that a run can be had again.

An event has a beginning and an end; what it breaks is whole again afterwards. Kills need no end:
the supervisor brings the part back, a node that lost its power is started again.
"""

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.branch.link import FAR

PARTS = ("api", "worker", "postgres", "valkey")
SKEWS = ("+5h", "-36h", "+36h", "-20m", "+0")
WORSE = ({"loss": 0.08}, {"delay": 0.6}, {"rate": 16_000}, {"dup": 0.2, "reorder": 0.2}, {"loss": 0.3})  # fmt: skip
UP_S = 120.0


@dataclass
class Told:
    """What was done to the nodes, for the summary."""

    counts: Counter = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def note(self, what, line):
        self.counts[what] += 1
        self.lines.append(f"{time.monotonic() - self.began:6.1f} s  {line}")


class Schedule:
    """Misfortune for a time; `heal` makes everything whole."""

    def __init__(self, fleet, seed, told=None):
        self.fleet, self.random = fleet, random.Random(f"faults {seed}")
        self.told = told or Told()
        self.down = set()
        self.tasks = []
        self.events = {
            self.outage: 24, self.kill: 40, self.power_cut: 6, self.weather: 14, self.clock: 8,
            self.full_disk: 4,
        }  # fmt: skip

    async def run(self, seconds, between=(0.7, 3.0)):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            (event,) = self.random.choices(list(self.events), list(self.events.values()))
            await event()
            await asyncio.sleep(self.random.uniform(*between))
        await self.heal()

    def after(self, seconds, call):
        """Do it later, and in any case before `heal` is over."""

        async def later():
            await asyncio.sleep(seconds)
            await asyncio.to_thread(call)

        self.tasks.append(asyncio.create_task(later()))

    async def outage(self):
        site = self.random.choice(self.fleet.sites)
        seconds = self.random.uniform(1, 12)
        self.told.note("outages", f"{site} cut off for {seconds:.1f} s")
        self.fleet.cut(site)
        self.after(seconds, lambda: self.fleet.link.heal(site))

    async def kill(self):
        name, part = self.random.choice(list(self.fleet.nodes)), self.random.choice(PARTS)
        if name not in self.down and self.fleet.nodes[name].kill(part):
            self.told.note("kills", f"kill -9 {part} of {name}")

    async def power_cut(self):
        name = self.random.choice(list(self.fleet.nodes))
        if name in self.down:
            return
        self.down.add(name)
        self.told.note("power cuts", f"the power of {name} goes")
        await asyncio.to_thread(self.fleet.nodes[name].kill_whole)

        def back():
            self.fleet.nodes[name].start(UP_S)
            self.down.discard(name)

        self.after(self.random.uniform(0.5, 4), back)

    async def weather(self):
        site, worse = self.random.choice(self.fleet.sites), self.random.choice(WORSE)
        seconds = self.random.uniform(2, 15)
        self.told.note("bad weather", f"{site}: {worse} for {seconds:.1f} s")
        self.fleet.link.set(site, **worse)
        self.after(seconds, lambda: self.fleet.link.set(site, **{k: FAR[k] for k in worse}))

    async def clock(self):
        name, skew = self.random.choice(list(self.fleet.nodes)), self.random.choice(SKEWS)
        if self.fleet.nodes[name].has_clock:
            self.told.note("clock jumps", f"the clock of {name} shows {skew}")
            self.fleet.nodes[name].set_clock(skew)

    async def full_disk(self):
        small = [n for n in self.fleet.nodes.values() if n.disk_mb and n.name not in self.down]
        if small:
            node = self.random.choice(small)
            self.told.note("full disks", f"the disk of {node.name} is full")
            await asyncio.to_thread(node.fill)
            self.after(self.random.uniform(2, 6), node.empty)

    async def heal(self):
        """Links up and fair, every node running, clocks right, disks empty."""
        await asyncio.gather(*self.tasks)
        self.tasks.clear()
        self.fleet.heal_all()
        for site in self.fleet.sites:
            self.fleet.link.set(site, **FAR)
        for node in self.fleet.nodes.values():
            if node.disk_mb:
                node.empty()
            if node.has_clock:
                node.set_clock("+0")
        await asyncio.to_thread(self.fleet.at_once, lambda node: node.wait_ready(UP_S))
