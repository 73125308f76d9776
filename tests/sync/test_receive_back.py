"""A record that leaves by one stream that a node holds and comes back by another, in either order."""

import pytest

from tests.sync.test_receive import made, same, sound
from tests.tenants import update

pytestmark = pytest.mark.anyio


async def take_in_order(site, hub, names):
    for name in names:
        stream = hub.tenant.units[name]
        down = [(seq, e) for seq, e in await hub.log(stream) if e.entry.origin != site.origin]
        if down:
            await site.take(stream, [e for _, e in down], peer=hub.origin, cursor=down[-1][0])


@pytest.mark.parametrize("order", [("north", "south"), ("south", "north")])
@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("path", ["north head south", "north south head south", "north south head north",
                                  "north head north head south"])  # fmt: skip
async def test_it_is_where_it_came_to_last(hub, south, path, is_known, order):
    first, *rest = path.split()
    ident = await made(hub, title="Lamp", amount="1")
    if is_known:
        await take_in_order(south, hub, ("north",))
    for n, unit in enumerate(rest):
        done = await hub.write(update("deal", ident, unit=hub.tenant.units[unit], note=f"step {n}"))
        assert done.committed, done
    await take_in_order(south, hub, order)
    await same(ident, hub, south)
    await sound(hub, south)
