"""What must be true of three nodes once the links have healed: I1 to I15 as far as one can see them
from outside. Each check answers with sentences; none should be said.
"""

import json
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from tests.branch.fleet import HUB, SLUG
from tests.branch.oracle import Oracle
from tests.branch.stand import read_stand, read_vectors

QUIET_S, DONE_S = 240.0, 120.0
COMMON = ("shared", "schema")
# Registers whose value is more than what one entry wrote.
MERGED = ("text3", "set", "counter")


def wait_quiet(fleet, seconds=QUIET_S):
    """Until every node has what it may have; how long it took (I12)."""
    began = time.monotonic()
    while unrest := find_unrest(fleet):
        if time.monotonic() - began > seconds:
            raise AssertionError(f"not quiet in {seconds:.0f} s: " + "; ".join(unrest[:10]))
        time.sleep(0.5)
    return time.monotonic() - began


def find_unrest(fleet):
    """What is still on its way."""
    try:
        found = {name: read_vectors(node) for name, node in fleet.nodes.items()}
    except Exception as failed:
        return [f"a node does not answer: {failed}"]
    hub, _ = found[HUB]
    unrest = []
    for site in fleet.sites:
        for stream in wanted_streams(fleet, site):
            ours, theirs = hub.get(stream, {}), found[site][0].get(stream, {})
            if ours != theirs:
                unrest.append(f"{stream} is {dict(ours)} at {HUB}, {dict(theirs)} at {site}")
    return unrest


def find_undone(fleet):
    """Work of the outbox that a node does not get done by itself once all is whole."""
    end = time.monotonic() + DONE_S
    while True:
        found = {name: read_vectors(node)[1] for name, node in fleet.nodes.items()}
        if not any(found.values()) or time.monotonic() > end:
            return [
                f"{name} does not get done {topics}" for name, topics in found.items() if topics
            ]
        time.sleep(0.5)


def wanted_streams(fleet, site):
    """The streams that a site must hold: the common ones and those of its units."""
    return fleet.streams[site]


def prove(fleet, journal):
    """Every promise; the sentences that should not have had to be said, and the counts."""
    undone = find_undone(fleet)
    stands = fleet.at_once(read_stand)
    hub = stands[HUB]
    lost = find_lost(fleet, stands, journal)
    doubled = find_doubled(fleet, hub, journal)
    diverged = find_diverged(fleet, stands) + find_gaps(stands)
    broken = find_outside_scope(fleet, stands) + find_false(hub) + find_broken_chains(fleet)
    broken += find_stuck(stands) + find_torn_sales(stands, journal) + undone
    return {"lost": lost, "doubled": doubled, "diverged": diverged, "broken": broken}


def find_lost(fleet, stands, journal):
    """I1: entries of an acked write are on its own node, at the hub, and wherever their stream is."""
    sets = stands_by_set(stands)
    bad = []
    for ack in journal.acked:
        entries = entries_of(ack, sets[ack["node"]], stands[ack["node"]])
        if entries is None:
            continue
        if not entries:
            bad.append(
                f"{ack['op']} of {ack['node']} at {ack['at']:.0f} is not in its own log: {ack}"
            )
        for row in entries:
            for name, stand in stands.items():
                if name != HUB and row.stream not in wanted_streams(fleet, name):
                    continue
                there = stand.log[row.stream].get((row.origin, row.oseq))
                if there is None:
                    bad.append(
                        f"{ack['op']} {row.kind} {row.record_id} of {ack['node']} is not at {name}"
                    )
                elif there.hash != row.hash:
                    bad.append(f"{row.origin}.{row.oseq} is another entry at {name}")
    return bad


def stands_by_set(stands):
    return {name: stand.by_change_set() for name, stand in stands.items()}


def entries_of(ack, by_set, stand):
    """The entries of one acked write; None when it wrote none (it stood so already)."""
    if ack["change_set"]:
        return by_set.get(ack["change_set"], [])
    if ack["op"] in ("delete", "restore"):
        op = "del" if ack["op"] == "delete" else "undel"
        return [r for r in stand.rows if r.op == op and str(r.record_id) == ack["ident"]]
    if ack["op"] == "attach":
        return [r for r in stand.rows if str(r.record_id) == ack["id"]]
    return None


def find_doubled(fleet, hub, journal):
    """I3, I10: stock is what was booked, each sale is there once, no number twice."""
    bad = []
    numbers = Counter()
    for records in hub.records.values():
        for kind, _, _, number, *_ in records.values():
            if number:
                numbers[kind, number] += 1
    bad += [f"{kind} {number} is there {n} times" for (kind, number), n in numbers.items() if n > 1]
    moves = defaultdict(list)
    for records in hub.records.values():
        for kind, _, _, _, data, *_ in records.values():
            if kind == "stock_move":
                moves[json.loads(data)["product"]].append(Decimal(json.loads(data)["quantity"]))
    booked = sum(ack["delta"] for ack in journal.of("sell", "stock"))
    there = sum((sum(found) for found in moves.values()), Decimal(0))
    slack = [ack["delta"] for ack in journal.doubt if "delta" in ack]
    if not any(there == booked + some for some in sums_of(slack)):
        bad.append(f"stock is {there}, acknowledged were {booked} (in doubt {slack})")
    person = fleet.person(HUB, seconds=30)
    # A branch whose clock is ahead has booked at moments that are still to come.
    late = (datetime.now(UTC) + timedelta(days=30)).isoformat()
    for product, amounts in moves.items():
        rows = person.get("/stock", product=product, at=late)["rows"]
        balance = sum(Decimal(row["balance"]) for row in rows)
        if balance != sum(amounts):
            bad.append(f"the balance of {product} says {balance}, the entries {sum(amounts)}")
    return bad


def sums_of(values):
    """What some of the values may add up to; they are few."""
    found = {0}
    for value in values[:16]:
        found |= {one + value for one in found}
    return found


def find_torn_sales(stands, journal):
    """I5: of a sale that was one change, all parts are there or none."""
    bad = []
    for name, stand in stands.items():
        parts = stand.by_change_set()
        for ack in journal.of("sell"):
            here = len(parts.get(ack["change_set"], ()))
            if here not in (0, ack["parts"]):
                bad.append(
                    f"{here} of {ack['parts']} parts of a sale of {ack['node']} are at {name}"
                )
    return bad


def find_diverged(fleet, stands):
    """I2: the same entries, records and conflicts in every stream that two nodes share."""
    hub, bad = stands[HUB], []
    for site in fleet.sites:
        mine = stands[site]
        for stream in wanted_streams(fleet, site):
            what = f"{hub.streams[stream][0] if stream in hub.streams else stream} at {site}"
            ours, theirs = hub.log[stream], mine.log[stream]
            for dot in ours.keys() ^ theirs.keys():
                bad.append(f"{what}: entry {dot} only at {HUB if dot in ours else site}")
            for dot in ours.keys() & theirs.keys():
                if ours[dot].hash != theirs[dot].hash:
                    bad.append(f"{what}: entry {dot} has another hash")
                elif ours[dot].ehlc != theirs[dot].ehlc:
                    bad.append(f"{what}: entry {dot} has another clock that counts")
            bad += differences(what, hub.records[stream], mine.records[stream])
            for one in hub.conflicts[stream] ^ mine.conflicts[stream]:
                side = HUB if one in hub.conflicts[stream] else site
                bad.append(f"{what}: conflict {one[:4]} only at {side}")
    return bad


def differences(what, ours, theirs):
    names = ("kind", "unit", "owner", "number", "data", "stamps", "open", "deleted")
    for ident in ours.keys() | theirs.keys():
        one, other = ours.get(ident), theirs.get(ident)
        if one is None or other is None:
            side = HUB if one else "the site"
            yield f"{what}: record {ident} ({(one or other)[0]}) is there at {side} only"
        elif one != other:
            found = [f"{n}: {a} / {b}" for n, a, b in zip(names, one, other, strict=True) if a != b]
            yield f"{what}: {one[0]} {ident} differs in {'; '.join(found)[:400]}"


def find_gaps(stands):
    """I4: each origin's entries without a gap, and the node's own order dense."""
    bad = []
    for name, stand in stands.items():
        for stream, log in stand.log.items():
            label, head, floor = stand.streams.get(stream, (stream, None, 0))
            last, count = Counter(), Counter()
            for origin, oseq in log:
                last[origin], count[origin] = max(last[origin], oseq), count[origin] + 1
            seqs = [row.seq for row in log.values()]
            if not floor:
                bad += [f"{label} at {name}: origin {o} has {count[o]} entries up to {n}"
                        for o, n in last.items() if count[o] != n]  # fmt: skip
                if seqs and (max(seqs) != head or len(set(seqs)) != head):
                    bad.append(
                        f"{label} at {name}: head {head}, entries {len(seqs)} up to {max(seqs)}"
                    )
    return bad


def find_outside_scope(fleet, stands):
    """I8: a site has nothing of streams that it was not given."""
    bad = []
    for site in fleet.sites:
        given = set(wanted_streams(fleet, site))
        for stream, log in stands[site].log.items():
            if stream not in given and log:
                bad.append(f"{site} holds {len(log)} entries of {stream}, which it was not given")
        for stream, records in stands[site].records.items():
            if stream not in given and records:
                bad.append(
                    f"{site} holds {len(records)} records of {stream}, which it was not given"
                )
    return bad


def find_false(hub):
    """I1, I6, I7: what is live is what nobody who came later had seen; conflicts are exactly that."""
    oracle, bad = Oracle(), []
    parked = {(s, o, q) for s, o, q, *_ in hub.parked if s}
    for row in hub.rows:
        if (row.stream, row.origin, row.oseq) not in parked:
            oracle.take(row)
    bad += [f"an entry had seen {dot}, which is not here" for dot in oracle.without_their_base()]
    told = {(record, register): json.loads(sides) for found in hub.conflicts.values()
            for record, sort, register, _, sides in found if sort == "field"}  # fmt: skip
    for (record, register), sides in told.items():
        live = oracle.live(record, register)
        if len({json.dumps(v, sort_keys=True) for v in live.values()}) < 2:
            bad.append(
                f"false conflict: {record} {register} has {len(live)} live values, told {sides}"
            )
    for records in hub.records.values():
        for record, (kind, _, _, _, data, stamps, *_) in records.items():
            bad += wrong_stamps(oracle, record, kind, stamps)
            bad += wrong_values(oracle, record, json.loads(data), told)
    return bad


def wrong_stamps(oracle, record, kind, stamps):
    from appliance.kernel.stamps import Stamps

    found = Stamps.parse(stamps)
    for register in oracle.registers(record):
        if "/" in register:
            continue
        wanted = {d.split("@")[0] for d in oracle.live(record, register)}
        told = {d.split("@")[0] for d in found.live.get(register, found.born)}
        if wanted != told:
            yield f"{kind} {record} {register}: live {sorted(told)}, must be {sorted(wanted)}"


def wrong_values(oracle, record, data, told):
    """A shown value is one that is live; two different live ones of a typed field are in the inbox."""
    for register in oracle.registers(record):
        if "/" in register or register.startswith(("@", "!")):
            continue
        live = oracle.live(record, register)
        for fid in {f for values in live.values() for f in values}:
            values = [v.get(fid) for v in live.values()]
            if data.get(fid) not in values and len(live) == 1:
                yield f"{record} {fid} shows {data.get(fid)!r}, live is {values}"
        is_typed = register in ("credit_limit", "name", "legal_name", "address", "payment_days")
        different = {json.dumps(v, sort_keys=True) for v in live.values()}
        if is_typed and len(different) > 1 and (record, register) not in told:
            yield f"silent loser: {record} {register} has {len(live)} values and no conflict"


def find_broken_chains(fleet):
    """I9: every chain verifies, and the tables are what the log says, on each node."""

    def ask(node):
        said = node.nexus("audit", "verify", "--tenant", SLUG, code=None)
        again = node.nexus("audit", "rebuild", "--tenant", SLUG, code=None)
        bad = [] if "Nothing was changed." in said else [f"{node.name}: {said.strip()[-600:]}"]
        if "The tables are what the log says." not in again:
            bad.append(f"{node.name}: {again.strip()[-600:]}")
        return bad

    return [line for found in fleet.at_once(ask).values() for line in found]


def find_stuck(stands):
    """I11: nothing waits for a person in a run in which nobody made something bad; no dead letters."""
    bad = []
    for name, stand in stands.items():
        bad += [
            f"parked at {name}: {p[1]}.{p[2]} {p[3]} {p[6]}"
            for p in stand.parked
            if p[4] == "waiting"
        ]
        bad += [f"dead letter at {name}: {topic} {why}" for topic, why in stand.dead]
    return bad
