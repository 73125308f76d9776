"""What must hold when nothing is on its way any more: the oracle's word, and every node's tables.

The oracle (tests/merge/oracle) knows nothing of records, frames or cursors: it is asked about all
entries that their authors ever committed.
"""

from collections import defaultdict
from decimal import Decimal
from uuid import UUID

import msgspec

from appliance.kernel.change import EntryOp
from appliance.kernel.registers import qualified
from appliance.kernel.stamps import EXISTS, NUMBER, OWNER, UNIT, Stamps
from appliance.write.reproject import rebuild
from appliance.write.trail import COLUMNS, NOT_PARKED, read_entry
from appliance.write.verify import verify_log
from tests.merge import oracle

_LOG = (
    f"SELECT {COLUMNS} FROM change WHERE tenant_id = $1 AND record_id = ANY($2::uuid[]) "
    f"AND {NOT_PARKED} ORDER BY stream, origin, oseq"
)
_RECORDS = (
    "SELECT id::text, stream::text, unit_id::text, owner_id::text, number, data::text, stamps, "
    "created_at, updated_at, updated_by, deleted_at::text, deleted_by, encode(open, 'hex') "
    "FROM record WHERE tenant_id = $1 AND id = ANY($2::uuid[]) ORDER BY id"
)
_CONFLICTS = (
    "SELECT record_id::text, sort, register, stream::text, sides::text, since FROM conflict "
    "WHERE tenant_id = $1 AND record_id = ANY($2::uuid[]) "
    "AND sort IN ('field', 'edit_vs_delete', 'proposal') ORDER BY 1, 2, 3"
)
_CLAIMS = (
    "SELECT record_id::text, rule, value FROM unique_claim WHERE tenant_id = $1 "
    "AND record_id = ANY($2::uuid[]) ORDER BY 1, 2, 3"
)
_UNIQUE = (
    "SELECT record_id::text, register, sides::text FROM conflict WHERE tenant_id = $1 "
    "AND record_id = ANY($2::uuid[]) AND sort = 'unique' ORDER BY 1, 2"
)
_ENTRIES = (
    "SELECT id::text, stream::text, data::text FROM entry WHERE tenant_id = $1 "
    "AND id = ANY($2::uuid[]) ORDER BY id"
)
_TIPS = (
    "SELECT stream::text, origin, got, hash::text FROM stream_vector WHERE tenant_id = $1 "
    "UNION ALL SELECT id::text, origin, oseq, hash::text FROM stream WHERE tenant_id = $1"
)
_MADE = (
    "SELECT DISTINCT change_set::text FROM change WHERE tenant_id = $1 AND origin = $2 "
    "AND change_set = ANY($3::uuid[])"
)
_NUMBERS = (
    "SELECT number, count(*) FROM record WHERE tenant_id = $1 AND number IS NOT NULL "
    "GROUP BY 1 HAVING count(*) > 1"
)
_EARLY = "SELECT record_id::text FROM early WHERE tenant_id = $1 AND record_id = ANY($2::uuid[])"
_SUMS = (
    "SELECT coalesce(sum({slot}), 0) FROM turnover WHERE tenant_id = $1 AND kind = 'move' "
    "AND {sku} = $2"
)
ASKED = {"name": ("name",), "address": ("city", "street")}


async def wrong(schedule):
    """The first thing that is not as it must be after a schedule; None."""
    for check in (_streams, _acked, _records, _ledger, _by_oracle, _numbers):
        found = await check(schedule)
        if found:
            return found
    return None


async def broken(world):
    """What log and tables of a whole world say of themselves: (record or None, what)."""
    found = []
    for node in world.nodes:
        report = await verify_log(node.db, node.tenant.id)
        found += [(None, f"node {node.origin}: {fault}") for fault in report.faults]
        async for difference in rebuild(node.db, await node.ctx()):
            found.append((difference.record_id, f"node {node.origin}: {difference}"))
    return found


async def _streams(schedule):
    """Every origin's chain ends alike wherever its stream is held."""
    tips = []
    for node in schedule.world.nodes:
        ends = {}
        for stream, origin, got, digest in await node.rows(_TIPS):
            key = stream, int(origin)
            if int(got) and int(got) > ends.get(key, (0, ""))[0]:
                ends[key] = int(got), digest
        held = {s for (s,) in await node.rows("SELECT id::text FROM stream WHERE tenant_id = $1")}
        tips.append((node, held, ends))
    _, _, whole = tips[0]
    for node, held, ends in tips[1:]:
        expected = {k: v for k, v in whole.items() if k[0] in held}
        if ends != expected:
            bad = {k: (ends.get(k), expected.get(k)) for k in {*ends, *expected}
                   if ends.get(k) != expected.get(k)}  # fmt: skip
            return f"node {node.origin} and the hub end at different entries: {bad}"
    return None


async def _acked(schedule):
    """What somebody was told is written, is in their node's log."""
    for node in schedule.world.nodes:
        sets = [s for origin, s in schedule.acked if origin == node.origin]
        made = {row[0] for row in await node.rows(_MADE, node.origin, sets)}
        if {*sets} - made:
            return f"node {node.origin} has lost {len({*sets} - made)} acknowledged writes"
    return None


async def _records(schedule):
    """Equal rows, open states, conflicts and claims, on whoever holds the record's stream."""
    world = schedule.world
    for text, place in ((_RECORDS, 1), (_CONFLICTS, 3), (_CLAIMS, None), (_UNIQUE, None)):
        whole = await world.hub.rows(text, schedule.ids)
        for site in world.sites:
            if place is None and len(site.held) < 3:
                continue
            held = {str(world.tenant.units[u]) for u in site.held}
            expected = [r for r in whole if place is None or r[place] in held]
            found = await site.rows(text, schedule.ids)
            if found != expected:
                pairs = [(a, b) for a, b in zip(found, expected, strict=False) if a != b]
                what = text.split("FROM ")[1].split()[0]
                detail = pairs[:1] or (len(found), len(expected))
                return f"{what} of node {site.origin} is not that of the hub: {detail}"
    for node in world.nodes:
        # What was edited after it had left is of no interest where it was.
        if len(node.held) == 3 and (waiting := await node.rows(_EARLY, schedule.ids)):
            return f"node {node.origin} still waits for the creation of {waiting}"
    return None


async def _ledger(schedule):
    world = schedule.world
    whole = await world.hub.rows(_ENTRIES, schedule.ids)
    for node in world.nodes:
        held = {str(world.tenant.units[u]) for u in node.held}
        expected = [r for r in whole if r[1] in held]
        if await node.rows(_ENTRIES, schedule.ids) != expected:
            return f"entries of node {node.origin} are not those of the hub"
        total = sum(int(msgspec.json.decode(r[2])["quantity"]) for r in expected)
        kind = (await node.schema()).kind("move")
        slots = {"slot": kind.by_name["quantity"].slot, "sku": kind.by_name["sku"].slot}
        ((found,),) = await node.rows(_SUMS.format(**slots), f"s{schedule.seed}")
        if Decimal(found) != total:
            return f"node {node.origin} counts {found}, its entries say {total}"
    return None


async def _numbers(schedule):
    if twice := await schedule.world.hub.rows(_NUMBERS):
        return f"numbers that were given twice: {twice}"
    return None


async def committed(schedule):
    """Every entry of the schedule's records, out of its author's own log; what is parked is not."""
    world = schedule.world
    at_hub = [read_entry(r) for r in await world.hub.rows_raw(_LOG, schedule.ids)]
    found = [e for e in at_hub if e.origin not in {s.origin for s in world.sites}]
    for site in world.sites:
        own = [read_entry(r) for r in await site.rows_raw(_LOG, schedule.ids)]
        found += [e for e in own if e.origin == site.origin]
    trails = defaultdict(list)
    for entry in found:
        trails[entry.record_id].append(entry)
    return trails


async def _by_oracle(schedule):
    """What is live at the hub, what it shows of it, and which conflicts it knows."""
    world = schedule.world
    rows = {UUID(r[0]): r for r in await world.hub.rows(_RECORDS, schedule.ids)}
    noted = {(UUID(r[0]), r[1], r[2]) for r in await world.hub.rows(_CONFLICTS, schedule.ids)}
    for ident, trail in (await committed(schedule)).items():
        if trail[0].kind != "card" or not any(e.op is EntryOp.NEW for e in trail):
            continue
        row = rows.get(ident)
        if row is None:
            return f"the hub has no record {ident}"
        found = _live(row, trail) or _shown(row, trail) or _clashes(ident, trail, noted)
        if found:
            return f"{ident}: {found}"
        if schedule.is_sequential and not schedule.strange:
            if row[12] is not None or any(key[0] == ident for key in noted):
                return f"{ident}: a conflict in a history of one after another"
    return None


def _created(trail):
    return sorted(oracle.dot(e) for e in trail if e.op is EntryOp.NEW)


def _live(row, trail):
    registers, _ = oracle.live(trail)
    stamps, home = Stamps.parse(row[6]), UUID(row[1])
    registers = {**dict.fromkeys(stamps.live, _created(trail)), **registers}
    for register, dots in registers.items():
        found = sorted(qualified(d, home) for d in stamps.of(register))
        if found != dots:
            return f"live in {register} is {found}, and should be {dots}"
    return None


def _values(trail):
    """The value of each entry in each register, by dot: as the oracle reads them."""
    found = defaultdict(dict)
    for entry in trail:
        written = oracle.writes(entry)
        dot = oracle.dot(entry)
        for register, values in (written or {"": entry.body.fields}).items():
            found[dot][register] = values
    return found


def _of(values, dot, register, fields):
    """Values of a register by one entry; a creation has them all."""
    held = values[dot].get(register, values[dot].get("", {}))
    return {f: held.get(f) for f in fields}


def _shown(row, trail):
    """One live value is the one that is shown; lattices and sets come to their join."""
    registers, _ = oracle.live(trail)
    values, data, born = _values(trail), msgspec.json.decode(row[5]), _created(trail)
    system = {UNIT: row[2], OWNER: row[3], NUMBER: row[4]}
    fields = {"name", "hint", "code", "note", "price", "least", UNIT, OWNER, NUMBER}
    for fid in sorted(fields):
        dots = registers.get(fid, born)
        if len(dots) == 1:
            shown = system[fid] if fid in system else data.get(fid)
            if (expected := _of(values, dots[0], fid, [fid])[fid]) != shown:
                return f"{fid} shows {shown!r}, and should {expected!r}"
    found = [_of(values, d, "credit", ["credit"])["credit"] for d in registers.get("credit", born)]
    found = [Decimal(str(v)) for v in found if v is not None]
    if (max(found) if found else None) != (data["credit"] and Decimal(data["credit"])
                                             if "credit" in data else None):  # fmt: skip
        return f"credit shows {data.get('limit')}, and should the largest of {found}"
    for tag in ("t0", "t1", "t2"):
        dots = registers.get(f"tags/{tag}", born)
        is_in = any(
            values[d].get(f"tags/{tag}", {}).get(f"tags/{tag}") is True
            or f"tags/{tag}" not in values[d]
            and tag in (values[d].get("", {}).get("tags") or ())
            for d in dots
        )
        if is_in != (tag in (data.get("tags") or ())):
            return f"the tag {tag} should be {'in' if is_in else 'out'}"
    return None


def _clashes(ident, trail, noted):
    """Concurrent edits are seen until somebody decides, and only those."""
    registers, _ = oracle.live(trail)
    values, born = _values(trail), _created(trail)
    for register, fields in ASKED.items():
        dots = registers.get(register, born)
        differ = len({repr(_of(values, d, register, fields)) for d in dots}) > 1
        if differ != ((ident, "field", register) in noted):
            return f"{register}: conflict {not differ}, and should be {differ}"
    for register in ("note", "price"):
        if len(registers.get(register, born)) < 2 and any(
            k[0] == ident and k[2] == register for k in noted
        ):
            return f"{register}: a conflict of one value"
    by_dot = {oracle.dot(e): e for e in trail}
    ends = registers.get(EXISTS, born)
    gone = {d for d in ends if by_dot[d].op is EntryOp.DEL}
    seen = {oracle.full(by_dot[d], s) for d in gone for s in by_dot[d].body.seen}
    live = {*born, *(d for dots in registers.values() for d in dots)}
    unseen = gone and ((live - seen - gone) | (set(ends) - gone))
    if bool(unseen) != ((ident, "edit_vs_delete", EXISTS) in noted):
        return f"deleted and edited: {bool(unseen)}, and it is not noted so"
    return None
