"""One inbox for all nodes: whoever decides first decides for all, two at once are asked again."""

import msgspec
import pytest

from appliance.kernel.context import Door
from appliance.sync.conflicts import Filter, read_page
from appliance.sync.resolving import Choice, Keep, Rule, resolve, resolve_many
from appliance.write import rebuild
from tests.pair import exchange
from tests.tenants import create, delete, everything, update

pytestmark = pytest.mark.anyio
ROW = "SELECT data::text, stamps, open IS NULL FROM record WHERE tenant_id = $1 AND id = $2"


async def person(node):
    """Somebody who may do everything, at a node."""
    ctx = await node.ctx(Door.HTTP)
    whole = everything(ctx.schema)
    units = frozenset(node.tenant.units.values())
    tree = (await node.tenant.ctx()).unit_tree
    return msgspec.structs.replace(
        ctx, profile=whole, units=units, subtree=units, unit_tree=tree,
        unit=node.tenant.units["north"],
    )  # fmt: skip


async def inbox(node):
    return (await read_page(node.db, await person(node), Filter()))[0]


async def meet(hub, *sites):
    for site in (*sites, *sites):
        await exchange(site, hub)


async def clashing(hub, north, south):
    """A deal that both branches named while apart."""
    (outcome,) = (await hub.write(create("deal", title="A"))).outcomes
    await meet(hub, north, south)
    for node, title in ((north, "North"), (south, "South")):
        assert (await node.write(update("deal", outcome.id, title=title))).committed
    await meet(hub, north, south)
    return outcome.id


async def decide(node, choice):
    (held,) = await inbox(node)
    result = await resolve(node.db, await person(node), held, choice(held))
    assert result.committed, result


def shown(held):
    """Keep what is shown."""
    return Choice(choose=next(s.dot for s in held.sides if dict(s.values) == held.shown()))


def other(held):
    """Take the side that is not shown."""
    return Choice(choose=next(s.dot for s in held.sides if dict(s.values) != held.shown()))


async def agree(ident, *nodes):
    rows = [(await n.tenant_rows(ROW, ident))[0] for n in nodes]
    assert all(row == rows[0] for row in rows), rows
    for node in nodes:
        assert not [d async for d in rebuild(node.db, await node.ctx())]
    return msgspec.json.decode(rows[0][0])["title"], rows[0][2] == "t"


@pytest.mark.parametrize("choice", [shown, other])
async def test_the_first_to_decide_decides_for_all(hub, north, south, choice):
    ident = await clashing(hub, north, south)
    for node in (hub, north, south):
        (held,) = await inbox(node)
        assert {s.values["title"] for s in held.sides} == {"North", "South"}
    await decide(south, choice)
    assert await inbox(hub) and not await inbox(south)
    await meet(hub, north, south)
    assert not [n for n in (hub, north, south) if await inbox(n)]
    assert (await agree(ident, hub, north, south))[1]


async def test_two_who_decide_at_once_alike_have_decided(hub, north, south):
    ident = await clashing(hub, north, south)
    await decide(south, shown)
    await decide(north, shown)
    await meet(hub, north, south)
    assert not [n for n in (hub, north, south) if await inbox(n)]
    await agree(ident, hub, north, south)


async def test_two_who_decide_at_once_differently_are_asked_again(hub, north, south):
    ident = await clashing(hub, north, south)
    await decide(south, shown)
    await decide(north, other)
    await meet(hub, north, south)
    for node in (hub, north, south):
        assert [h.sort for h in await inbox(node)] == ["field"]
    batch = await resolve_many(hub.db, await person(hub), Filter(), Rule.NEWEST)
    assert [d.status for d in batch.decided] == ["resolved"]
    await meet(hub, north, south)
    assert not [n for n in (hub, north, south) if await inbox(n)]
    assert (await agree(ident, hub, north, south))[1]


@pytest.mark.parametrize("keep", list(Keep))
async def test_a_deletion_that_met_an_edit_is_decided_for_all(hub, north, south, keep):
    (outcome,) = (await hub.write(create("deal", title="A"))).outcomes
    await meet(hub, north, south)
    assert (await north.write(delete("deal", outcome.id))).committed
    assert (await south.write(update("deal", outcome.id, title="South"))).committed
    await meet(hub, north, south)
    for node in (hub, north, south):
        assert [h.sort for h in await inbox(node)] == ["edit_vs_delete"]
    await decide(north, lambda held: Choice(keep=keep))
    await meet(hub, north, south)
    assert not [n for n in (hub, north, south) if await inbox(n)]
    await agree(outcome.id, hub, north, south)
    for node in (hub, north, south):
        text = "SELECT deleted_at IS NULL FROM record WHERE tenant_id = $1 AND id = $2"
        assert (await node.tenant_rows(text, outcome.id))[0][0] == (
            "t" if keep is Keep.RECORD else "f"
        )
