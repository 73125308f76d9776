"""Nobody hands out more than they hold, and somebody always manages rights."""

from datetime import timedelta
from uuid import UUID

import pytest

from appliance.base.clock import now
from appliance.kernel.context import Door
from appliance.write import Applied, undo
from tests.access import world as worlds
from tests.access.conftest import world  # noqa: F401 - the fixture
from tests.tenants import create, delete, update

pytestmark = pytest.mark.anyio


async def codes(made, ctx, *commands):
    result = await made.tenant.apply(*commands, ctx=ctx)
    return [[f.code for f in getattr(o, "faults", ())] for o in result.outcomes]


async def test_an_administrator_makes_no_owner_and_gives_no_more_than_they_have(world):  # noqa: F811
    anna = await world.person("anna", "admin", "head")
    other = await world.person("ben", "viewer", "north")
    ctx, _ = await world.enter("anna")

    def member(profile, **more):
        return create(
            "sys.membership", person=str(other), profile=str(world.profiles[profile]), **more
        )

    wide = [["wider_than_yours"]]
    assert await codes(world, ctx, member("owner")) == wide
    assert await codes(world, ctx, member("viewer")) == [[]]
    own = world.members["anna"]
    promoted = update("sys.membership", own, profile=str(world.profiles["owner"]))
    assert await codes(world, ctx, promoted) == wide
    profile = create("sys.profile", key="sly", capabilities=["tenant.manage"])
    assert await codes(world, ctx, profile) == wide
    mine = await world.tenant.sql(
        "SELECT id::text FROM record WHERE kind = 'sys.grant' AND r1 = $1 AND t1 = 'card'",
        world.profiles["admin"],
    )
    grant = UUID(mine[0][0])
    opened = update("sys.grant", grant, fields={"restricted": "write"})
    assert await codes(world, ctx, opened) == wide
    narrowed = update("sys.grant", grant, fields={"public": "read"})
    assert await codes(world, ctx, narrowed) == [[]]
    assert anna


async def test_undo_is_no_way_around(world):  # noqa: F811
    await world.person("anna", "admin", "head")
    ben = await world.person("ben", "owner", "head")
    owner, _ = await world.enter("owner")
    taken = await world.tenant.apply(delete("sys.membership", world.members["ben"]), ctx=owner)
    assert taken.committed
    anna, _ = await world.enter("anna")
    result = await undo(world.db, anna, taken.change_set)
    assert not result.committed
    assert [f.code for f in result.outcomes[0].faults] == ["wider_than_yours"]
    assert ben


async def test_units_are_lent_within_ones_own(world):  # noqa: F811
    await world.person("anna", "admin", "north")
    other = await world.person("ben", "viewer", "north")
    ctx, _ = await world.enter("anna")
    units = world.tenant.units

    def member(*named):
        fields = {"units": [str(units[u]) for u in named]} if named else {}
        return create(
            "sys.membership", person=str(other), profile=str(world.profiles["viewer"]), **fields
        )

    assert await codes(world, ctx, member("north")) == [[]]
    assert await codes(world, ctx, member("south")) == [["wider_than_yours"]]
    assert await codes(world, ctx, member()) == [["wider_than_yours"]]


async def test_somebody_always_manages_rights(world):  # noqa: F811
    ctx, _ = await world.enter("owner")
    own, profile = world.members["owner"], world.profiles["owner"]
    yesterday = (now() - timedelta(days=1)).date().isoformat()
    for command in (
        delete("sys.membership", own),
        update("sys.membership", own, valid_to=yesterday),
        update("sys.membership", own, profile=str(world.profiles["viewer"])),
        delete("sys.person", ctx.actor),
        update("sys.profile", profile, capabilities=["records.use"]),
    ):
        assert await codes(world, ctx, command) == [["last_manager"]], command
    await world.person("ben", "owner", "head")
    result = await world.tenant.apply(delete("sys.membership", own), ctx=ctx)
    assert isinstance(result.outcomes[0], Applied)


async def test_installation_is_not_asked(world):  # noqa: F811
    ctx = await world.tenant.ctx(door=Door.INSTALL)
    assert await codes(world, ctx, delete("sys.membership", world.members["owner"])) == [[]]
    assert worlds.PASSWORD
