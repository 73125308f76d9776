"""Entries of peers in real tables: three nodes come to the same rows, once, in any order."""

import msgspec
import pytest

from appliance.kernel.change import Body, Entry, EntryOp, Logged
from appliance.kernel.beside import unpack
from appliance.write.incoming import Forked
from appliance.write.refold import refold
from appliance.write.reproject import rebuild
from appliance.write.verify import verify_log
from tests.pair import exchange
from tests.tenants import create, delete, restore, update

pytestmark = pytest.mark.anyio
ROW = (
    "SELECT data::text, stamps, unit_id::text, deleted_at::text, open IS NULL FROM record "
    "WHERE tenant_id = $1 AND id = $2"
)
CONFLICTS = (
    "SELECT sort, register, sides::text FROM conflict WHERE tenant_id = $1 AND record_id = $2 "
    "ORDER BY 1, 2"
)


async def same(ident, *nodes):
    rows = [await n.tenant_rows(ROW, ident) for n in nodes]
    assert all(r == rows[0] for r in rows[1:]), rows
    waiting = [await n.tenant_rows(CONFLICTS, ident) for n in nodes]
    assert all(w == waiting[0] for w in waiting[1:]), waiting
    return rows[0][0], waiting[0]


async def made(node, **fields):
    result = await node.write(create("deal", **fields))
    assert result.committed, result
    return result.outcomes[0].id


async def opened(node, ident):
    """What a rebuild makes of a record beside what is stored, for people who look for why."""
    async with node.db.transaction(node.tenant.id) as tx:
        (draft,) = await refold(tx, await node.ctx(), [ident])
    found = [unpack(s.open) if s.open else None for s in (draft.before, draft.after)]
    return "\n".join(map(repr, found))


async def sound(*nodes):
    for node in nodes:
        assert (await verify_log(node.db, node.tenant.id)).faults == ()
        differences = [d async for d in rebuild(node.db, await node.ctx())]
        assert differences == [], await opened(node, differences[0].record_id)


async def test_what_the_hub_has_comes_to_a_site_and_back(hub, north, south):
    first = await made(hub, title="From the hub", tags=["red"])
    await exchange(north, hub)
    assert (await north.tenant_rows(ROW, first))[0][0] == (await hub.tenant_rows(ROW, first))[0][0]
    second = await made(north, title="From the north")
    await exchange(north, hub)
    await exchange(south, hub)
    for ident in (first, second):
        await same(ident, hub, north, south)
    await sound(hub, north, south)


async def test_other_fields_merge_and_the_same_field_asks(hub, north, south):
    ident = await made(hub, title="A", city="x", street="1")
    await exchange(north, hub)
    await exchange(south, hub)
    assert (await north.write(update("deal", ident, title="North", tags=["red"]))).committed
    assert (await south.write(update("deal", ident, title="South", amount="5"))).committed
    assert (await hub.write(update("deal", ident, city="y"))).committed
    for node in (north, south, north, south):
        await exchange(node, hub)
    (data, stamps, _, _, is_closed), (conflict,) = await same(ident, hub, north, south)
    found = msgspec.json.decode(data)
    assert (found["amount"], found["city"], found["street"], found["tags"]) == (
        "5.00", "y", "1", ["red"]
    )  # fmt: skip
    assert conflict[:2] == ["field", "title"] and is_closed == "f"
    assert {s["values"]["title"] for s in msgspec.json.decode(conflict[2])} == {"North", "South"}
    await sound(hub, north, south)
    # Whoever saw both decides, for everyone.
    assert (await north.write(update("deal", ident, stamps, title="Both"))).committed
    await exchange(north, hub)
    await exchange(south, hub)
    (data, _, _, _, is_closed), conflicts = await same(ident, hub, north, south)
    assert (msgspec.json.decode(data)["title"], conflicts, is_closed) == ("Both", [], "t")
    await sound(hub, north, south)


async def test_a_redelivery_changes_nothing(hub, north):
    ident = await made(hub, title="A")
    await exchange(north, hub)
    stream = hub.tenant.units["north"]
    entries = [e for _, e in await hub.log(stream)]
    again = await north.take(stream, entries, peer=1)
    assert (again.applied, again.known) == (0, len(entries))
    assert (await same(ident, hub, north))[1] == []


async def test_a_gap_is_asked_for_and_a_fork_stops(hub, north):
    await made(hub, title="A")
    for title in "BCD":
        await made(hub, title=title)
    stream = hub.tenant.units["north"]
    entries = [e for _, e in await hub.log(stream)]
    found = await north.take(stream, [entries[0], entries[2]], peer=1)
    assert found.gap and found.applied == 1
    forged = msgspec.structs.replace(
        entries[1],
        entry=msgspec.structs.replace(entries[1].entry, body=Body(fields={"title": "Z"})),
    )
    with pytest.raises(Forked):
        await north.take(stream, [forged], peer=1)
    assert (await north.take(stream, entries, peer=1)).applied == len(entries) - 1


async def test_deleted_here_edited_there_waits_for_a_person(hub, north, south):
    ident = await made(hub, title="A")
    for node in (north, south):
        await exchange(node, hub)
    assert (await north.write(delete("deal", ident))).committed
    assert (await south.write(update("deal", ident, title="B"))).committed
    for node in (north, south, north):
        await exchange(node, hub)
    row, (conflict,) = await same(ident, hub, north, south)
    assert row[3] is not None and conflict[0] == "edit_vs_delete"
    assert (await hub.write(restore("deal", ident))).committed
    for node in (north, south):
        await exchange(node, hub)
    row, conflicts = await same(ident, hub, north, south)
    assert (row[3], conflicts) == (None, [])
    await sound(hub, north, south)


async def test_poison_is_parked_and_the_rest_goes_on(hub, north):
    first = await made(north, title="A")
    bad = await made(north, title="B")
    last = await made(north, title="C")
    stream = hub.tenant.units["north"]
    entries = [e for _, e in await north.log(stream)]
    # A newer program wrote something this one cannot read into a number.
    await north.write(update("deal", bad, amount="1"))
    tail = [e for _, e in await north.log(stream)]
    place = next(n for n, e in enumerate(tail) if e.entry.record_id == bad and n >= len(entries))
    poisoned = rechain(tail[place:], amount={"strange": True})
    found = await hub.take(stream, [*tail[:place], *poisoned], peer=2)
    assert [p.reason.partition(":")[0] for p in found.parked] == ["malformed"]
    assert found.got[2] == len(tail)
    rows = await hub.tenant_rows("SELECT oseq, entries, state FROM parked WHERE tenant_id = $1")
    assert rows == [[str(tail[place].entry.oseq), "1", "waiting"]]
    for ident in (first, bad, last):
        assert await hub.tenant_rows(ROW, ident)
    assert (await verify_log(hub.db, hub.tenant.id)).faults == ()
    assert [d async for d in rebuild(hub.db, await hub.ctx())] == []


def rechain(tail, **fields):
    """The same entries with another value in the first one, as its author would have sent it."""
    first = tail[0].entry
    body = Body(fields=fields, base=first.body.base)
    changed = msgspec.structs.replace(first, body=body)
    return [Logged(entry=e, hash=b"", ehlc=e.hlc) for e in (changed, *(t.entry for t in tail[1:]))]


async def test_an_operation_of_a_newer_program_is_kept_and_parked(hub, north):
    ident = await made(north, title="A")
    stream = hub.tenant.units["north"]
    ((_, last),) = (await north.log(stream))[-1:]
    unknown = Entry(
        **(msgspec.structs.asdict(last.entry) | {
            "oseq": last.entry.oseq + 1, "tx": last.entry.oseq + 1, "op": "fly",
            "body": Body(fields={"title": "?"}),
        })
    )  # fmt: skip
    entries = [e for _, e in await north.log(stream)]
    found = await hub.take(
        stream, [*entries, Logged(entry=unknown, hash=b"", ehlc=unknown.hlc)], peer=2
    )
    assert len(found.parked) == 1
    row = (await hub.tenant_rows(ROW, ident))[0]
    assert msgspec.json.decode(row[0])["title"] == "A"


async def test_an_entry_before_its_creation_waits_in_the_log(hub, north):
    ident = await made(north, title="A")
    await north.write(update("deal", ident, title="B"))
    stream = hub.tenant.units["north"]
    new, put = [e for _, e in await north.log(stream)][-2:]
    # Two origins of one stream: the edit came with a device of another branch.
    foreign = msgspec.structs.replace(put.entry, origin=9, oseq=1, tx=1)
    found = await hub.take(stream, [Logged(entry=foreign, hash=b"", ehlc=put.ehlc)], peer=9)
    assert found.applied == 1 and not await hub.tenant_rows(ROW, ident)
    await hub.take(stream, [e for _, e in await north.log(stream)][:-1], peer=2)
    row = (await hub.tenant_rows(ROW, ident))[0]
    assert msgspec.json.decode(row[0])["title"] == "B"
    assert not await hub.tenant_rows("SELECT 1 FROM early WHERE tenant_id = $1")
    assert new.entry.op == EntryOp.NEW


async def test_a_record_that_moves_leaves_one_branch_and_comes_to_the_other(hub, north, south):
    ident = await made(hub, title="A")
    for node in (north, south):
        await exchange(node, hub)
    # North writes while the head office moves the record away.
    assert (await north.write(update("deal", ident, title="late"))).committed
    assert (
        await hub.write(update("deal", ident, unit=hub.tenant.units["south"], amount="7"))
    ).committed
    for node in (north, south, north, south):
        await exchange(node, hub)
    (data, _, unit, _, _), conflicts = await same(ident, hub, south)
    found = msgspec.json.decode(data)
    assert (found["title"], found["amount"]) == ("late", "7.00") and conflicts == []
    assert unit == str(hub.tenant.units["south"])
    assert await north.tenant_rows(ROW, ident) == []
    await sound(hub, south)


async def test_a_clock_that_is_hours_ahead_is_cut(hub, north):
    ident = await made(north, title="A")
    stream = hub.tenant.units["north"]
    entries = [
        Logged(entry=msgspec.structs.replace(e.entry, hlc=e.entry.hlc + (36_000_000 << 16)),
               hash=b"", ehlc=0)
        for _, e in await north.log(stream)
    ]  # fmt: skip
    found = await hub.take(stream, entries, peer=2)
    assert len(found.cuts) == len(entries)
    ((ahead,),) = await hub.tenant_rows(
        "SELECT (updated_at < now() + interval '2 minutes')::text FROM record WHERE tenant_id = $1 "
        "AND id = $2", ident,
    )  # fmt: skip
    assert ahead == "true"
