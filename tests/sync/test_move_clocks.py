"""A move carries what decides between values: three nodes that hold different homes agree."""

import contextlib
import itertools
import json
from datetime import UTC, datetime

import msgspec
import pytest

from appliance.kernel.arrival import KNEW, MARKS
from appliance.kernel.change import EntryOp
from appliance.write import receive as receiving
from appliance.write.incoming import AHEAD_MS, STRIPPED
from appliance.write.log import CLOCK
from tests import pair as replicas
from tests.pair import exchange
from tests.sync.test_receive import sound
from tests.tenants import create, update

pytestmark = pytest.mark.anyio
KIND = "parcel"
FIELDS = [
    {"name": "title", "type": "text"},
    {"name": "hint", "type": "text", "policy": "newest"},
    {"name": "weight", "type": "integer", "policy": "max"},
    {"name": "note", "type": "long_text", "policy": "text3"},
    {"name": "price", "type": "number", "policy": "owner"},
]  # fmt: skip
LINES = "1\n2\n3\n4\n"
WHOLE = (
    "SELECT stream::text, unit_id::text, owner_id::text, number, data::text, stamps, created_at, "
    "created_by, updated_at, updated_by, deleted_at, encode(open, 'hex') FROM record "
    "WHERE tenant_id = $1 AND id = $2"
)
CONFLICTS = (
    "SELECT sort, register, sides::text FROM conflict WHERE tenant_id = $1 AND record_id = $2 "
    "ORDER BY 1, 2"
)
DAY = 1_790_000_000_000


@contextlib.contextmanager
def clock(seconds):
    """A node's clock, whatever the others' say."""
    old = CLOCK._wall, CLOCK._last, receiving.now
    CLOCK._wall, CLOCK._last = (lambda: DAY + seconds * 1000), 0
    receiving.now = lambda: datetime.fromtimestamp(DAY / 1000 + seconds, UTC)
    try:
        yield
    finally:
        CLOCK._wall, CLOCK._last, receiving.now = old


@pytest.fixture
async def parties(site_dsns, tenant, hub):
    """The hub, a site that holds the north alone, one that holds the south alone."""
    await tenant.add_kind(KIND, FIELDS)
    async with (
        replicas.opened(site_dsns[0], 2, tenant, ["north"]) as north,
        replicas.opened(site_dsns[1], 3, tenant, ["south"]) as south,
    ):
        for site in (north, south):
            await exchange(site, hub)
        yield hub, north, south


async def moved(node, ident, unit, **fields):
    done = await node.write(update(KIND, ident, unit=node.tenant.units[unit], **fields))
    assert done.committed, done


async def agree(ident, hub, *sites):
    """Whoever holds the record's home has it as the hub does, byte for byte."""
    (whole,) = await hub.tenant_rows(WHOLE, ident)
    open_there = await hub.tenant_rows(CONFLICTS, ident)
    for site in sites:
        held = whole[0] in [str(s) for s in await site.streams()]
        assert await site.tenant_rows(WHOLE, ident) == ([whole] if held else []), site.origin
        assert await site.tenant_rows(CONFLICTS, ident) == (open_there if held else []), site.origin
    return json.loads(whole[4]), open_there


class Story:
    """Two records that go north, south, north; both sites write, each first on one of the two."""

    def __init__(self, hub, north, south):
        self.hub, self.north, self.south = hub, north, south
        self.ids, self.wrote = [], set()

    async def begin(self):
        with clock(0):
            for _ in range(2):
                done = await self.hub.write(
                    create(KIND, title="t", hint="h", weight=1, note=LINES, price="1")
                )
                self.ids.append(done.outcomes[0].id)
            await exchange(self.north, self.hub)
            for ident in self.ids:
                await moved(self.hub, ident, "south", title="moved")
            await exchange(self.south, self.hub)

    async def _write(self, site, unit, number, **fields):
        for place, ident in enumerate(self.ids):
            with clock(100 if place == number else 200):
                done = await site.write(update(KIND, ident, **fields), unit=unit)
            if done.committed:
                self.wrote.add((unit, place))

    async def north_writes(self):
        note = LINES.replace("1", "n")
        await self._write(self.north, "north", 0, hint="north", weight=5, note=note, title="n")

    async def south_writes(self):
        note = LINES.replace("4", "s")
        await self._write(self.south, "south", 1, hint="south", weight=3, note=note, price="7")

    async def back(self):
        with clock(300):
            for ident in self.ids:
                await moved(self.hub, ident, "north", price="9")

    async def north_meets(self):
        with clock(310):
            await exchange(self.north, self.hub)

    async def south_meets(self):
        with clock(310):
            await exchange(self.south, self.hub)


ORDERS = [
    # A write is told apart from its site's meeting alone, the move back from both meetings.
    (*(("north_writes",) if north else ()), *(("south_writes",) if south else ()), *meets,
     *(() if north else ("north_writes",)), *(() if south else ("south_writes",)))
    for meets in itertools.permutations(("back", "north_meets", "south_meets"))
    for north in (True, False)
    for south in (True, False)
]  # fmt: skip


@pytest.mark.parametrize("part", range(4))
async def test_in_whatever_order_they_hear_of_it_all_have_the_same(parties, part):
    """Writes beside one another with clocks in both orders, in every order that makes a difference."""
    hub, north, south = parties
    for steps in ORDERS[part::4]:
        story = Story(hub, north, south)
        await story.begin()
        for step in steps:
            await getattr(story, step)()
        for _ in range(2):
            await story.south_meets()
            await story.north_meets()
        for place, ident in enumerate(story.ids):
            data, asked = await agree(ident, hub, north, south)
            if part == 0:
                # Neither had heard of the other: the later clock, the larger, both texts.
                newest = ("south", "north")[place]
                assert (data["hint"], data["weight"], data["note"]) == (newest, 5, "n\n2\n3\ns\n")
                assert "title" in [register for _, register, _ in asked]
    await sound(hub, north, south)


async def test_a_move_says_clocks_of_what_is_live_and_nothing_else(parties):
    hub, north, south = parties
    story = Story(hub, north, south)
    await story.begin()
    ident = story.ids[0]
    with clock(50):
        await moved(hub, ident, "north", hint="last")
    (entry,) = [
        e.entry for _, e in await hub.log(hub.tenant.units["north"])
        if e.entry.record_id == ident and e.entry.op is EntryOp.ARRIVE
    ]  # fmt: skip
    ext = entry.body.ext
    assert len(ext[MARKS]) == len(entry.body.seen) == 2
    assert all(0 <= (row[0] >> 16) - DAY < 50 for row in ext[MARKS])
    assert {*ext[KNEW]} == {hub.tenant.units[u].hex for u in ("north", "south")}


def without_pasts(logged):
    """The same entries as a program that does not know of clocks in moves has written them."""
    found = []
    for one in logged:
        body = one.entry.body
        ext = {k: v for k, v in body.ext.items() if k not in (MARKS, KNEW)}
        if ext != body.ext:
            ext[STRIPPED] = []
        body = msgspec.structs.replace(body, ext=ext)
        entry = msgspec.structs.replace(one.entry, body=body)
        found.append(
            msgspec.structs.replace(one, entry=entry, hash=b"" if STRIPPED in ext else one.hash)
        )
    return found


async def test_a_move_without_clocks_is_still_taken(parties):
    hub, north, south = parties
    story = Story(hub, north, south)
    await story.begin()
    await story.back()
    stream = hub.tenant.units["north"]
    down = await hub.log(stream)
    entries = without_pasts([e for _, e in down if e.entry.origin != north.origin])
    await north.take(stream, entries, peer=1, cursor=down[-1][0])
    for ident in story.ids:
        ((_, _, _, _, data, *_),) = await north.tenant_rows(WHOLE, ident)
        assert json.loads(data)["title"] == "moved"
    with clock(400):
        await story._write(north, "north", 0, hint="here")
    await story.north_meets()
    for ident in story.ids:
        ((_, _, _, _, data, *_),) = await hub.tenant_rows(WHOLE, ident)
        assert json.loads(data)["hint"] == "here"
    await sound(hub)


async def test_a_site_moves_what_it_wrote_with_a_clock_that_is_ahead(site_dsns, tenant, hub):
    """The hub cuts the clock of what it takes, and tells those who know it by the move alone."""
    await tenant.add_kind(KIND, FIELDS)
    async with (
        replicas.opened(site_dsns[0], 2, tenant, ["north"]) as north,
        replicas.opened(site_dsns[1], 3, tenant, ["north", "south"]) as mover,
    ):
        await exchange(north, hub)
        await exchange(mover, hub)
        with clock(90_000):
            done = await mover.write(create(KIND, title="t", hint="far"), unit="south")
            ident = done.outcomes[0].id
            await moved(mover, ident, "north", title="there")
        with clock(0):
            await exchange(mover, hub)
            await exchange(north, hub)
            await agree(ident, hub, north)
            late = [e.entry for _, e in await hub.log(hub.tenant.units["north"])][-1]
            assert (late.origin, late.op) == (hub.origin, EntryOp.ARRIVE)
            assert all(row[0] >> 16 <= DAY + AHEAD_MS for row in late.body.ext[MARKS])
        await sound(hub, north)


@pytest.mark.parametrize("order", [("head", "north"), ("north", "head")])
@pytest.mark.parametrize("is_known", [True, False])
async def test_a_write_through_the_first_of_three_homes_is_neither_lost_nor_brought_back(
    site_dsns, tenant, hub, order, is_known
):
    """Head, south, north, while a site of the head and the north was away: it wrote where the record
    was (`is_known` to the mover, or not), and hears of its two streams in either order.
    """
    await tenant.add_kind(KIND, FIELDS)
    units = tenant.units
    async with replicas.opened(site_dsns[0], 2, tenant, ["head", "north"]) as away:
        with clock(0):
            done = await hub.write(create(KIND, title="t", hint="h", weight=1), unit="head")
            ident = done.outcomes[0].id
            await exchange(away, hub)
        with clock(100):
            # Its clock is far ahead of what happens after.
            await away.write(update(KIND, ident, title="away", hint="away"), unit="head")
        own = [e for _, e in await away.log(units["head"]) if e.entry.origin == away.origin]
        if is_known:
            await hub.take(units["head"], own, peer=away.origin)
        with clock(10):
            await moved(hub, ident, "south", title="south")
            await moved(hub, ident, "north", weight=4)
        if not is_known:
            await hub.take(units["head"], own, peer=away.origin)
        for name in order:
            down = await hub.log(units[name])
            entries = [e for _, e in down if e.entry.origin != away.origin]
            await away.take(units[name], entries, peer=1, cursor=down[-1][0])
        data, asked = await agree(ident, hub, away)
        assert (data["hint"], data["weight"]) == ("away", 4)
        if is_known:
            assert (data["title"], asked) == ("south", [])
        else:
            assert [register for _, register, _ in asked] == ["title"]
        await sound(hub, away)
