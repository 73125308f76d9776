"""A star of nodes that write while apart and exchange over a bad link; one seed is one schedule.

A hub, three sites, and a device that roams between them. Messages are lost, doubled and come late,
nodes crash before and after a commit, replies are lost, clocks are hours off, partitions last. The
correct model must come to what the oracle says; each known bug of research/sync 4 must not.
"""

import copy
import random
from uuid import UUID

import msgspec

from appliance.kernel.change import Body, Entry, EntryOp
from appliance.kernel.kind import Field, Kind, Policy
from appliance.kernel.registers import Registers, merge
from appliance.kernel.shown import show
from appliance.kernel.stamps import EXISTS
from tests.merge import oracle

STREAM = UUID(int=7)
SET = UUID(int=8)
RECORDS = tuple(UUID(int=100 + n) for n in range(3))
PEOPLE = tuple(UUID(int=200 + n) for n in range(5))
MUTANTS = ("lww", "nopend", "nodedupe", "ackfirst", "cursorfirst", "gaphead", "relayorigin")
HUB, SITES, DEVICE = 1, (2, 3, 4), 9


def _field(name, policy, group=None, type_="text"):
    return Field(fid=name, name=name, type=type_, policy=policy, group=group)


KIND = Kind(
    key="card",
    fields=(
        _field("name", Policy.ASK), _field("city", Policy.ASK, "address"),
        _field("street", Policy.ASK, "address"), _field("hint", Policy.NEWEST),
        _field("limit", Policy.MAX, type_="number"), _field("blocked", Policy.OR, type_="yes_no"),
        _field("tags", Policy.SET, type_="multi_choice"),
        _field("stock", Policy.COUNTER, type_="number"),
    ),
)  # fmt: skip


class Gap(Exception):
    """An entry before the one that is next."""


class Node:
    """What is on one node's disk, in one dictionary, so that a crash is a copy put back."""

    def __init__(self, origin, mutant):
        self.origin, self.mutant, self.clock = origin, mutant, 0
        self.is_hub, self.relays = origin == HUB, origin in (HUB, *SITES)
        self.disk = {"log": [], "got": {}, "records": {}, "ack": {}, "cursor": {}, "newest": {}}

    def take(self, disk, entry):
        """One entry; False when it was known. Raises Gap."""
        got = disk["got"].get(entry.origin, 0)
        if entry.oseq <= got and self.mutant != "nodedupe":
            return False
        if entry.oseq != got + 1 and self.mutant in (None, "lww", "nopend"):
            raise Gap(entry)
        disk["got"][entry.origin] = max(got, entry.oseq)
        record = disk["records"].setdefault(entry.record_id, Registers())
        if self.mutant == "lww":
            self._last_write_wins(disk, record, entry)
        else:
            merge(record, entry, lambda d: self.mutant == "nopend" or self.has(disk, d))
        disk["log"].append(entry)
        return True

    @staticmethod
    def has(disk, dot):
        origin, _, oseq = dot.partition("@")[0].partition(".")
        return disk["got"].get(int(origin), 0) >= int(oseq)

    @staticmethod
    def _last_write_wins(disk, record, entry):
        merge(record, entry, lambda _: True)
        for register, cell in record.cells.items():
            newest = max(cell, key=lambda d: (cell[d].hlc, d))
            record.cells[register] = {newest: cell[newest]}

    def write(self, rng):
        """One edit of somebody here, from what they see; the entry."""
        ident = rng.choice(RECORDS)
        record = self.disk["records"].get(ident)
        is_new = record is None or not record.born
        if is_new and not (ident.int % 5 + 1 == self.origin or self.is_hub and ident.int % 5 == 0):
            ident, record, is_new = self._known(rng)
            if record is None:
                return None
        body, op = (_creation(rng), EntryOp.NEW) if is_new else _edit(rng, record)
        oseq = self.disk["got"].get(self.origin, 0) + 1
        entry = Entry(
            stream=STREAM, origin=self.origin, oseq=oseq, tx=oseq, hlc=self.clock << 16,
            actor=rng.choice(PEOPLE), door="http", kind="card", record_id=ident, op=op,
            schema_rev=1, change_set=SET, body=body,
        )  # fmt: skip
        self.take(self.disk, entry)
        return entry

    def _known(self, rng):
        known = [(i, r) for i, r in self.disk["records"].items() if r.born]
        return (*rng.choice(known), False) if known else (None, None, False)


def _creation(rng):
    fields = {"name": rng.choice("abc"), "city": "x", "stock": "5"}
    return Body(fields=fields | ({"tags": ["t0", "t1"]} if rng.random() < 0.5 else {}))


def _edit(rng, record):
    """A body from what is live here: the base is what the form was opened with."""

    def base(*registers):
        return {r: sorted(record.cell(r)) for r in registers}

    what = rng.randrange(9)
    if what == 0:
        is_gone = show(record, KIND).is_deleted
        seen = sorted(record.live_dots())
        return Body(base=base(EXISTS), seen=seen), EntryOp.UNDEL if is_gone else EntryOp.DEL
    if what == 1:
        return Body(deltas={"stock": str(rng.choice([-2, 1, 3]))}), EntryOp.PUT
    if what == 2:
        add, drop = rng.sample(["t0", "t1", "t2", "t3"], 2)
        sets = {"tags": ([add], [drop])}
        return Body(sets=sets, base=base(f"tags/{add}", f"tags/{drop}")), EntryOp.PUT
    if what == 3:
        fields = {"city": rng.choice("xyz"), "street": rng.choice("12")}
        groups = {"address": ["city", "street"]}
        return Body(fields=fields, groups=groups, base=base("address")), EntryOp.PUT
    name = ("name", "hint", "limit", "blocked", "name")[what - 4]
    value = {"limit": str(rng.randrange(9)), "blocked": rng.random() < 0.5}.get(
        name, rng.choice("abcdefgh")
    )
    return Body(fields={name: value}, base=base(name)), EntryOp.PUT


def _commit(node, change, rng, crash):
    """All or nothing: a crash before the commit undoes, one after it loses the reply alone."""
    luck = rng.random()
    if luck < crash:
        # Only what a transaction may touch has to be put back.
        kept = copy.deepcopy({k: v for k, v in node.disk.items() if k != "log"})
        length = len(node.disk["log"])
        change(node.disk)
        node.disk = {**kept, "log": node.disk["log"][:length]}
        return "crash"
    change(node.disk)
    return "lost" if luck < 2 * crash else "ok"


def exchange(low, up, rng, crash, lossy, late):
    """`low` dials out: pushes what `up` has not acknowledged, pulls what is behind its cursor."""
    if rng.random() < lossy:
        return
    _push(low, up, rng, crash, lossy, late)
    if rng.random() < lossy:
        return
    _pull(low, up, rng, crash)


def _push(low, up, rng, crash, lossy, late):
    log, known = low.disk["log"], low.disk["ack"].get(up.origin, 0)
    end, send = known, []
    most = rng.randrange(1, 6)
    while end < len(log) and len(send) < most:
        if log[end].origin == low.origin or low.relays:
            send.append(log[end])
        end += 1
    messages = [send, *([send] if rng.random() < 0.2 else [])]
    if late and rng.random() < 0.5:
        messages.append(late.pop(rng.randrange(len(late))))
    if rng.random() < 0.2:
        late.append(list(send))
    outcome = "lost"
    for message in messages:

        def apply(disk, message=message):
            for entry in message:
                try:
                    up.take(disk, _relayed(up, entry, disk))
                except Gap:
                    return  # the sender comes again with what is missing

        done = _commit(up, apply, rng, crash)
        if message is send and outcome != "ok":
            outcome = done
        if message is send and up.mutant == "ackfirst" and done == "crash":
            outcome = "ok"
    if outcome == "ok" and rng.random() >= lossy:
        low.disk["ack"][up.origin] = end


def _relayed(up, entry, disk):
    """The bug of relays that send on as their own what they were told."""
    if up.mutant != "relayorigin" or not up.is_hub or entry.origin == up.origin:
        return entry
    return msgspec.structs.replace(entry, origin=up.origin, oseq=disk["got"].get(up.origin, 0) + 1)


def _pull(low, up, rng, crash):
    at = low.disk["cursor"].get(up.origin, 0)
    batch = up.disk["log"][at : at + rng.randrange(1, 8)]
    end = at + len(batch)
    if low.mutant == "gaphead" and len(batch) > 1 and rng.random() < 0.1:
        batch = [*batch[:-2], batch[-1]]

    def apply(disk):
        for entry in batch:
            if low.mutant != "relayorigin" or entry.origin != low.origin:
                low.take(disk, entry)
        disk["cursor"][up.origin] = end

    if low.mutant == "cursorfirst":
        low.disk["cursor"][up.origin] = end
    _commit(low, apply, rng, crash)


def run(seed, mutant=None, steps=110):
    """None when every node came to what the oracle says; else what is wrong."""
    rng = random.Random(seed)
    hub, sites, device = Node(HUB, mutant), [Node(o, mutant) for o in SITES], Node(DEVICE, mutant)
    nodes = [*sites, device, hub]
    skew = {n.origin: rng.choice([0, 0, -7_200, 7_200, 86_400]) for n in nodes}
    crash, lossy = rng.choice([0, 0.02, 0.1]), rng.choice([0, 0.2, 0.6])
    apart, late, written = dict.fromkeys([n.origin for n in nodes], 0), [], []
    for node in nodes:
        node.clock = 1_000_000 + skew[node.origin]
    for _ in range(steps):
        for node in nodes:
            node.clock += rng.randrange(5)
        node, luck = rng.choice(nodes), rng.random()
        if luck < 0.45:
            entry = node.write(rng)
            if entry is not None:
                written.append(entry)
        elif luck < 0.5:
            apart[rng.choice(nodes[:-1]).origin] = rng.randrange(40)
        elif node is not hub:
            if apart[node.origin]:
                apart[node.origin] -= 1
                continue
            up = rng.choice(sites[:2]) if node is device and rng.random() < 0.5 else hub
            exchange(node, up, rng, crash, lossy, late)
    return _drained(nodes, hub, rng) or compare(nodes, written)


def _drained(nodes, hub, rng):
    for _ in range(300):
        for node in nodes:
            if node is not hub:
                exchange(node, hub, rng, 0, 0, [])
        if all(
            n is hub
            or (n.disk["cursor"].get(HUB, 0) >= len(hub.disk["log"])
                and n.disk["ack"].get(HUB, 0) >= len(n.disk["log"]))
            for n in nodes
        ):  # fmt: skip
            return None
    return "never drained"


def compare(nodes, written):
    """The first difference between a node and the oracle."""
    for ident in RECORDS:
        entries = [e for e in written if e.record_id == ident]
        registers, sums = oracle.live(entries)
        seen = set()
        for node in nodes:
            record = node.disk["records"].get(ident, Registers())
            if any(record.pending.values()):
                return f"node {node.origin} still waits for a dot"
            found = {r: sorted(record.cell(r)) for r in registers}
            if found != registers:
                return f"node {node.origin} has lost or kept a value"
            if {k: v for k, v in record.sums.items()} != sums:
                return f"node {node.origin} counts wrong"
            seen.add(repr(show(record, KIND)))
        if len(seen) > 1:
            return "nodes show different things"
    return None
