"""Which references dangle follows from the entries alone: not from clocks, nor from what came first."""

import contextlib
import time
from itertools import permutations

import pytest

from appliance.write.clashes import sweep
from appliance.write.dangling import DANGLING_LIVE
from appliance.write.log import CLOCK
from tests.pair import exchange
from tests.tenants import create, delete, restore, update

pytestmark = pytest.mark.anyio
STANDING = (
    "SELECT c.record_id::text, c.register, c.sides::text, c.stream::text FROM conflict c "
    f"WHERE c.tenant_id = $1 AND c.sort = 'dangling_ref' AND {DANGLING_LIVE} ORDER BY 1, 2"
)
APART = [
    (seller, deleter) for seller, deleter in permutations(("hub", "north", "south"), 2)
    if seller != "north"
]  # fmt: skip


@contextlib.contextmanager
def clock(hours):
    """As if this node's clock were off, and had never been right."""
    wall, last = CLOCK._wall, CLOCK._last
    CLOCK._wall, CLOCK._last = lambda: time.time_ns() // 1_000_000 + hours * 3_600_000, 0
    try:
        yield
    finally:
        CLOCK._wall, CLOCK._last = wall, last


class Trade:
    """Three nodes that know the same customers, and sell to them."""

    def __init__(self, **nodes):
        self.nodes = nodes

    async def write(self, name, command, unit="north"):
        result = await self.nodes[name].write(command, unit=unit)
        assert result.committed, result
        return result.outcomes[0].id

    async def meet(self, *names):
        for name in names or ("north", "south", "north", "south"):
            await exchange(self.nodes[name], self.nodes["hub"])

    async def standing(self, *names):
        found = [
            await self.nodes[n].tenant_rows(STANDING) for n in names or ("hub", "north", "south")
        ]
        assert all(f == found[0] for f in found[1:]), found
        return [(row[0], row[1]) for row in found[0]]

    async def sweep(self, *names):
        for name in names or self.nodes:
            node = self.nodes[name]
            async with node.db.transaction(node.tenant.id) as tx:
                await sweep(tx, await node.ctx())


@pytest.fixture
async def trade(hub, north, south):
    await hub.tenant.add_kind("customer", [("name", "text")], display="name", home="shared")
    await hub.tenant.add_kind(
        "sale",
        [
            ("title", "text"),
            {"name": "customer", "type": "reference", "options": {"target": "customer"}},
            {"name": "others", "type": "references", "options": {"target": "customer"}},
        ],
    )
    found = Trade(hub=hub, north=north, south=south)
    await found.meet("north", "south")
    return found


@pytest.mark.parametrize("order", list(permutations(("north", "south"))), ids=".".join)
@pytest.mark.parametrize("hours", [(36, 0), (-36, 0), (0, -36)], ids=str)
@pytest.mark.parametrize(("seller", "deleter"), APART)
async def test_neither_knew_of_the_other(trade, seller, deleter, hours, order):
    known = await trade.write("hub", create("customer", name="Known"))
    await trade.meet()
    with clock(hours[0]):
        fields = {"customer": str(known), "others": [str(known)]}
        sale = await trade.write(seller, create("sale", title="x", **fields))
    with clock(hours[1]):
        await trade.write(deleter, delete("customer", known))
    await trade.meet(*order, *order)
    assert await trade.standing() == [(str(sale), "customer"), (str(sale), "others")]
    assert (await trade.nodes["hub"].tenant_rows(STANDING))[0][2] == f'[{{"target": "{known}"}}]'


@pytest.mark.parametrize("order", list(permutations(("north", "south"))), ids=".".join)
@pytest.mark.parametrize("hours", [(36, 0), (36, -36)], ids=str)
@pytest.mark.parametrize(("seller", "deleter"), APART)
async def test_who_deleted_knew_of_the_sale(trade, seller, deleter, hours, order):
    known = await trade.write("hub", create("customer", name="Known"))
    await trade.meet()
    with clock(hours[0]):
        fields = {"customer": str(known), "others": [str(known)]}
        await trade.write(seller, create("sale", title="x", **fields))
    await trade.meet()
    with clock(hours[1]):
        await trade.write(deleter, delete("customer", known))
    await trade.meet(*order, *order)
    assert await trade.standing() == []


async def test_a_second_deletion_that_knew_of_it_ends_it_everywhere(trade):
    known = await trade.write("hub", create("customer", name="Known"))
    await trade.meet()
    sale = await trade.write("south", create("sale", title="x", customer=str(known)))
    await trade.write("hub", delete("customer", known))
    await trade.meet()
    assert await trade.standing() == [(str(sale), "customer")]
    await trade.write("north", restore("customer", known))
    assert await trade.standing("north") == []
    await trade.write("north", delete("customer", known))
    await trade.meet()
    assert await trade.standing() == []


async def test_a_sale_that_is_deleted_and_restored_dangles_again(trade):
    known = await trade.write("hub", create("customer", name="Known"))
    await trade.meet()
    sale = await trade.write("south", create("sale", title="x", customer=str(known)))
    await trade.write("hub", delete("customer", known))
    await trade.meet()
    await trade.write("hub", delete("sale", sale))
    await trade.meet()
    assert await trade.standing() == []
    await trade.sweep("hub", "south")
    await trade.write("hub", restore("sale", sale))
    await trade.meet()
    assert await trade.standing() == [(str(sale), "customer")]
    other = await trade.write("hub", create("customer", name="Other"))
    await trade.write("hub", update("sale", sale, customer=str(other)))
    await trade.meet()
    assert await trade.standing() == []


async def test_of_several_targets_those_are_named_that_dangle(trade):
    one, two, three = [await trade.write("hub", create("customer", name=n)) for n in "ABC"]
    await trade.meet()
    await trade.write("hub", delete("customer", one))
    await trade.write("hub", delete("customer", two))
    others = [str(i) for i in (one, two, three)]
    sale = await trade.write("south", create("sale", title="x", others=others))
    await trade.meet()
    assert await trade.standing() == [(str(sale), "others")]
    await trade.write("north", restore("customer", one))
    await trade.meet()
    await trade.write("north", delete("customer", one))
    await trade.meet()
    assert await trade.standing() == [(str(sale), "others")]
    assert (await trade.nodes["hub"].tenant_rows(STANDING))[0][2] == f'[{{"target": "{two}"}}]'


async def test_a_sale_that_moves_takes_it_along(trade):
    known = await trade.write("hub", create("customer", name="Known"))
    await trade.meet()
    sale = await trade.write("south", create("sale", title="x", customer=str(known)))
    await trade.write("hub", delete("customer", known))
    await trade.meet()
    units = trade.nodes["hub"].tenant.units
    await trade.write("south", update("sale", sale, unit=units["south"]), unit="south")
    await trade.meet()
    assert await trade.standing("hub", "south") == [(str(sale), "customer")]
    assert await trade.standing("north") == []
