"""Nobody hands out more than they hold, and somebody always manages rights."""

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from appliance.base.clock import now
from appliance.base.ids import uuid7
from appliance.kernel.context import Door
from appliance.write import Applied, undo
from tests.access import world as worlds
from tests.access.conftest import world  # noqa: F401 - the fixture
from tests.tenants import create, delete, restore, update

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


async def test_an_owner_may_grant_what_nobody_has(world):  # noqa: F811
    ctx, _ = await world.enter("owner")
    rows = await world.tenant.sql(
        "SELECT id::text FROM record WHERE kind = 'sys.grant' AND t1 = 'card'"
    )
    assert await codes(world, ctx, *(delete("sys.grant", UUID(i)) for (i,) in rows)) == [[]] * len(
        rows
    )
    again = create("sys.grant", profile=str(world.profiles["admin"]), kind="card",
                   actions={"read": "all"}, fields={"restricted": "read"})  # fmt: skip
    await world.person("anna", "admin", "head")
    anna, _ = await world.enter("anna")
    assert await codes(world, anna, again) == [["wider_than_yours"]]
    owner, _ = await world.enter("owner")
    assert await codes(world, owner, again) == [[]]


async def test_a_profile_that_comes_back_comes_with_its_grants(world):  # noqa: F811
    wide, grant = uuid7(), uuid7()
    await world.run(
        create("sys.profile", wide, key="wide", capabilities=[]),
        create("sys.grant", grant, profile=str(wide), kind="card", actions={"read": "all"},
               fields={"restricted": "write"}),
    )  # fmt: skip
    await world.run(delete("sys.profile", wide))
    await world.person("anna", "admin", "head")
    anna, _ = await world.enter("anna")
    assert await codes(world, anna, restore("sys.profile", wide)) == [["wider_than_yours"]]
    owner, _ = await world.enter("owner")
    assert await codes(world, owner, delete("sys.grant", grant)) == [[]]
    assert await codes(world, anna, restore("sys.grant", grant)) == [["wider_than_yours"]]
    assert await codes(world, owner, restore("sys.profile", wide)) == [[]]


async def test_a_kind_there_is_cannot_be_made_again_to_be_granted(world):  # noqa: F811
    await world.person("anna", "admin", "head")
    ctx, _ = await world.enter("anna")
    grant = create("sys.grant", profile=str(world.profiles["admin"]), kind="card",
                   actions={"read": "all"}, fields={"restricted": "write"})  # fmt: skip
    field = create("sys.field", kind="card", name="restricted", type="text")
    for pretext in (create("sys.kind", key="card"), field):
        result = await world.tenant.apply(pretext, grant, ctx=ctx, atomic=False)
        assert [[f.code for f in o.faults] for o in result.outcomes][1] == ["wider_than_yours"]


async def test_what_is_ones_own_in_one_unit_is_not_lent_over_another(world):  # noqa: F811
    near = uuid7()
    actions = dict.fromkeys(("read", "create", "update"), "all")
    await world.run(
        create("sys.profile", near, key="near", capabilities=["records.use"]),
        create("sys.grant", profile=str(near), kind="card", actions={"read": "unit"}),
        *(create("sys.grant", profile=str(near), kind=kind, actions=actions,
                 fields={f: "write" for f in ("person", "profile", "units")})
          for kind in ("sys.membership", "sys.profile", "sys.person", "sys.unit")),
    )  # fmt: skip
    world.profiles["near"] = near
    await world.person("anna", "near", "head")
    other = await world.person("ben", "viewer", "north")
    ctx, _ = await world.enter("anna")
    assert len(ctx.subtree) > len(ctx.units) == 1

    def member(unit):
        return create("sys.membership", person=str(other), profile=str(near),
                      units=[str(world.tenant.units[unit])])  # fmt: skip

    assert await codes(world, ctx, member("north")) == [["wider_than_yours"]]
    assert await codes(world, ctx, member("head")) == [[]]


async def test_nobody_draws_a_unit_under_their_own(world):  # noqa: F811
    await world.person("anna", "admin", "north")
    ctx, _ = await world.enter("anna")
    units = world.tenant.units
    drawn = update("sys.unit", units["south"], parent=str(units["north"]))
    assert await codes(world, ctx, drawn) == [["wider_than_yours"]]
    owner, _ = await world.enter("owner")
    assert await codes(world, owner, drawn) == [[]]


async def test_two_who_take_management_from_one_another_at_once(world):  # noqa: F811
    await world.person("ben", "owner", "head")
    await world.run(delete("sys.membership", world.members["owner"]))
    for turn in range(6):
        who = await world.person(f"p{turn}", "owner", "head")
        ctx, _ = await world.enter(f"p{turn}")
        ben = world.members["ben"] if not turn else world.members[f"p{turn - 1}"]
        results = await asyncio.gather(
            *(world.tenant.apply(delete("sys.membership", m), ctx=ctx)
              for m in (ben, world.members[f"p{turn}"]))
        )  # fmt: skip
        assert sum(r.committed for r in results) == 1, who
        if results[1].committed:
            world.members[f"p{turn}"] = ben
