"""A log that was cut short merges as if it were whole, and says what it no longer knows."""

import random

import pytest

from appliance.base.errors import ApplianceError
from appliance.base.ids import uuid7
from appliance.db.wire import Statement
from appliance.sync.compaction import compact
from appliance.write import history, rebuild, undo, verify_log
from tests.sync.pair import records
from tests.sync.test_snapshot import KIND, add_deals, by_states, fill, tables
from tests.tenants import create, delete, update

pytestmark = pytest.mark.anyio


async def floors(tenant):
    return [
        int(row[0])
        for row in await tenant.sql("SELECT floor FROM stream WHERE tenant_id = $1", tenant.id)
    ]


async def test_the_log_is_cut_and_everything_goes_on(pair):
    await add_deals(pair.hub)
    ids = await fill(pair.hub)
    await pair.sync()
    await pair.sync()
    before = await tables(pair.hub)
    done = await compact(pair.hub.db, pair.hub.id, keep_days=0)
    assert done.entries > 50
    assert await tables(pair.hub) == before
    report = await verify_log(pair.hub.db, pair.hub.id)
    assert report.faults == () and report.entries < done.entries
    assert [d async for d in rebuild(pair.hub.db, await pair.hub.ctx())] == []
    # History says where it ends, and nothing is undone by guessing.
    await pair.hub.apply(update(KIND, ids[7], title="after the cut"))
    page = await history(pair.hub.db, await pair.hub.ctx(), KIND, ids[7])
    assert page.is_cut
    assert [(f.field, f.after) for e in page.entries for f in e.fields] == [
        ("title", "after the cut")
    ]
    with pytest.raises(ApplianceError) as refused:
        await undo(pair.hub.db, await pair.hub.ctx(), page.entries[0].change_set)
    assert refused.value.code == "change.below_floor"
    await pair.hub.apply(update(KIND, ids[1], title="of the hub"), update(KIND, ids[3], note="h"))
    await pair.site.apply(
        update(KIND, ids[1], title="of the branch"), update(KIND, ids[5], note="s")
    )
    await pair.sync()
    await pair.sync()
    assert await tables(pair.site) == await tables(pair.hub)
    ((rows,),) = await pair.hub.sql(
        "SELECT count(*) FROM conflict WHERE tenant_id = $1", pair.hub.id
    )
    assert rows == "1"
    assert (await verify_log(pair.hub.db, pair.hub.id)).faults == ()
    assert (await verify_log(pair.site.db, pair.site.id)).faults == ()


async def test_what_a_site_has_not_taken_stays(pair):
    await add_deals(pair.hub)
    await pair.sync()
    await pair.sync()
    await fill(pair.hub)
    ((before,),) = await pair.hub.sql(
        "SELECT sum(head) FROM stream WHERE tenant_id = $1", pair.hub.id
    )
    await compact(pair.hub.db, pair.hub.id, keep_days=0)
    unit = pair.hub.units["north"]
    assert await pair.hub.sql("SELECT floor FROM stream WHERE tenant_id = $1 AND id = $2",
                              pair.hub.id, unit) == [["0"]]  # fmt: skip
    await pair.sync()
    await pair.hub.apply(*[create(KIND, title=f"later {n}") for n in range(3)])
    # Nor does the database let go of it when it is asked directly.
    with pytest.raises(ApplianceError):
        async with pair.hub.db.transaction(pair.hub.id) as tx:
            await tx.run(
                (Statement("SELECT compact_log($1, 78, interval '0', 100)"), (unit,)), commit=True
            )
    assert int(before) > 0


async def test_ninety_days_away(pair):
    """A site behind the floor: its own work reaches the hub, states mend the rest, and what was
    deleted meanwhile stays deleted.
    """
    await add_deals(pair.hub)
    ids = await fill(pair.hub)
    await pair.sync()
    await pair.sync()
    fresh = uuid7()
    await pair.site.apply(
        update(KIND, ids[2], note="written while away"),
        create(KIND, fresh, title="made while away"),
    )
    await pair.site.apply(update(KIND, ids[4], title="edited while away"))
    for n in range(3):
        await pair.hub.apply(*[update(KIND, i, note=f"meanwhile {n} {i}") for i in ids[5:]])
    await pair.hub.apply(delete(KIND, ids[3]), delete(KIND, ids[4]))
    await pair.hub.sql(
        "UPDATE peer_stream SET seen_at = now() - interval '91 days' WHERE tenant_id = $1",
        pair.hub.id,
    )
    assert (await compact(pair.hub.db, pair.hub.id, keep_days=0)).entries
    assert all(floor > 0 for floor in await floors(pair.hub) if floor)
    talk = await pair.sync()
    assert "chunk" in pair.line.asked
    await pair.sync()
    await pair.sync()
    ours, theirs = await tables(pair.site), await tables(pair.hub)
    for name in ours:
        assert ours[name] == theirs[name], name
    found = await records(pair.hub, KIND)
    assert "written while away" in str(found) and str(fresh) in found
    assert str(ids[3]) not in found
    # Deleted without knowing of the edit: both stand until somebody decides.
    assert await pair.hub.sql(
        "SELECT sort FROM conflict WHERE tenant_id = $1 AND record_id = $2", pair.hub.id, ids[4]
    ) == [["edit_vs_delete"]]
    assert (await verify_log(pair.site.db, pair.site.id)).faults == ()
    assert talk is not None


@pytest.mark.parametrize("seed", range(3))
async def test_a_cut_anywhere_changes_nothing(pair, seed):
    """reduce(log) == reduce(what was kept of the prefix, and the rest), wherever it is cut."""
    chance = random.Random(seed)
    await add_deals(pair.hub)
    ids = await fill(pair.hub, 12, edits=2)
    by_states(pair)
    await pair.sync()
    for step in range(8):
        for tenant in (pair.hub, pair.site):
            for ident in chance.sample(ids[1:], 3):
                field = chance.choice(["title", "note"])
                await tenant.apply(update(KIND, ident, **{field: f"{step} {chance.random()}"}))
        if chance.random() < 0.6:
            await compact(pair.hub.db, pair.hub.id, keep_days=0, upto=chance.randrange(200))
        await pair.sync()
        await pair.sync()
        ours, theirs = await tables(pair.site), await tables(pair.hub)
        for name in ours:
            assert ours[name] == theirs[name], (step, name)
    assert any(await floors(pair.hub))
