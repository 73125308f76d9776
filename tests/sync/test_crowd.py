"""Frames in parts where others write to the same stream, and two that bring the same at once."""

import asyncio

import pytest

from appliance.base.errors import Clash
from appliance.kernel.change import Logged
from appliance.write import crowd
from appliance.write.receive import receive
from appliance.write.verify import verify_log
from tests.pair import exchange
from tests.tenants import create

pytestmark = pytest.mark.anyio
COUNT = "SELECT count(*)::text FROM record WHERE tenant_id = $1 AND kind = 'deal'"


async def written(node, transactions=5, each=100):
    """The entries of some transactions of deals, as they go out."""
    stream = node.tenant.units["north"]
    begun = len(await node.log(stream))
    for part in range(transactions):
        done = await node.write(*(create("deal", title=f"{part}.{n}") for n in range(each)))
        assert done.committed, done
    return stream, [logged for _, logged in await node.log(stream)][begun:]


async def test_parts_are_whole_transactions_that_chain_on(hub, north):
    await exchange(north, hub)
    _, entries = await written(north, 3, 4)
    before = {north.origin: b"before"}
    parts = crowd.parts_of(entries, before, most=9)
    assert [len(part.entries) for part in parts] == [8, 4]
    assert [part.proved for part in parts] == [before, {north.origin: entries[7].hash}]
    bare = [Logged(entry=e.entry, hash=b"", ehlc=e.ehlc) for e in entries]
    assert crowd.parts_of(bare, before, most=5)[1].proved == {}
    assert crowd.parts_of([], before) == []


async def test_where_others_write_a_frame_comes_in_parts(hub, north):
    await exchange(north, hub)
    stream, entries = await written(north)
    crowd.note_other(hub.tenant.id, stream)
    taken = await receive(
        hub.db, await hub.ctx(), stream, entries, peer=north.origin, cursor=7, from_hub=False
    )
    assert (taken.applied, taken.known, taken.gap) == (500, 0, False)
    assert taken.got[north.origin] == entries[-1].entry.oseq
    assert await hub.tenant_rows(COUNT) == [["500"]]
    again = await receive(
        hub.db, await hub.ctx(), stream, entries, peer=north.origin, cursor=7, from_hub=False
    )
    assert (again.applied, again.known, again.head) == (0, 500, taken.head)
    assert (await verify_log(hub.db, hub.tenant.id)).faults == ()


async def test_others_write_while_parts_are_taken(hub, north):
    await exchange(north, hub)
    stream, entries = await written(north, 3)
    other = asyncio.create_task(written(hub, 8, 1))
    for n in range(0, len(entries), 100):
        await receive(
            hub.db, await hub.ctx(), stream, entries[n : n + 100], peer=north.origin,
            from_hub=False,
        )  # fmt: skip
    await other
    assert (await verify_log(hub.db, hub.tenant.id)).faults == ()
    assert await hub.tenant_rows(COUNT) == [["308"]]


async def test_two_that_bring_the_same_at_once_leave_it_once(hub, north):
    await exchange(north, hub)
    stream, entries = await written(north, 2)

    async def bring():
        return await receive(
            hub.db, await hub.ctx(), stream, entries, peer=north.origin, from_hub=False
        )

    done = await asyncio.gather(bring(), bring(), return_exceptions=True)
    refused = [d for d in done if isinstance(d, Clash)]
    taken = [d for d in done if d not in refused]
    assert all(r.code == "record.busy" for r in refused)
    assert sum(t.applied for t in taken) == 200, done
    assert (await verify_log(hub.db, hub.tenant.id)).faults == ()
    assert (await bring()).known == 200
