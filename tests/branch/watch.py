"""Looks at every node while it works: whether a transaction is ever seen in part, what it weighs."""

import asyncio
from collections import defaultdict

from tests.branch.stand import connect

EVERY_S = 1.0
# One statement, so one moment of the node.
_SIZES = (
    "SELECT c.stream, c.origin, c.tx, count(*) FROM change c JOIN stream s ON s.tenant_id = c.tenant_id "
    "AND s.id = c.stream WHERE c.seq > s.head - 250 GROUP BY 1, 2, 3 ORDER BY c.stream, min(c.seq)"
)


class Watch:
    """`run` until stopped; `torn` says which transactions were seen with fewer entries than they have."""

    def __init__(self, fleet, *, weighs=True):
        self.fleet, self.weighs = fleet, weighs
        self.seen = defaultdict(set)
        self.looks, self.most_mb = 0, defaultdict(float)

    async def run(self, stop):
        while not stop.is_set():
            for name, node in self.fleet.nodes.items():
                await asyncio.to_thread(self.look, name, node)
            await asyncio.sleep(EVERY_S)

    def look(self, name, node):
        try:
            with connect(node) as conn:
                first = None
                for stream, origin, tx, count in conn.execute(_SIZES):
                    # The window may cut the oldest transaction of a stream.
                    if stream == first:
                        self.seen[stream, origin, tx].add((name, count))
                    first = stream
        except Exception:
            # It is killed at this moment.
            return
        self.looks += 1
        if self.weighs:
            weight = sum(node.resident_mb().values())
            self.most_mb[name] = max(self.most_mb[name], weight)

    def torn(self):
        """I5: a transaction is seen whole or not at all."""
        whole = defaultdict(int)
        for node in self.fleet.nodes.values():
            with connect(node) as conn:
                text = "SELECT stream, origin, tx, count(*) FROM change GROUP BY 1, 2, 3"
                for stream, origin, tx, count in conn.execute(text):
                    whole[stream, origin, tx] = max(whole[stream, origin, tx], count)
        return [
            f"{name} was seen with {count} of {whole[key]} entries of transaction {key[1]}.{key[2]}"
            for key, found in self.seen.items() for name, count in found if count != whole[key]
        ]  # fmt: skip

    def sentence(self):
        parts = ", ".join(f"{name} {mb:.0f} MB" for name, mb in self.most_mb.items())
        return f"{self.looks} looks in between" + (f"; at most {parts}" if parts else "")
