"""People come with a code, lose their password, and go with every door closed."""

import msgspec
import pytest

from appliance.access.acting import act_as
from appliance.access.codes import accept, check_free, find_person, invite, reset
from appliance.access.keys import NewKey, make_key
from appliance.access.offboard import close_doors, look_at_doors, reopen
from appliance.access.rights import effective_rights, find_profile, is_last_manager
from appliance.base.errors import Clash, Forbidden, Invalid, Refused, Unauthenticated
from appliance.base.ids import uuid7
from appliance.kernel.context import Door
from tests.access.world import POLICY, sessions
from tests.tenants import create, delete

pytestmark = pytest.mark.anyio
WORD = "nine yellow trams at noon"


async def invited(world, who="anna", profile="viewer"):
    ctx, _ = await world.enter("owner")
    ident = uuid7()
    await world.run(
        create("sys.person", ident, name=who, email=f"{who}@example.org"),
        create("sys.membership", person=str(ident), profile=str(world.profiles[profile])),
    )
    return ctx, ident, await invite(world.db, ctx, ident, f"{who.upper()}@example.org")


async def test_an_invitation_is_good_once(world):
    ctx, anna, made = await invited(world)
    assert made.code.startswith(f"nxi_{world.id.hex}_")
    stored = await world.tenant.sql("SELECT * FROM one_time_code WHERE tenant_id = $1", world.id)
    assert made.code[37:] not in str(stored)
    with pytest.raises(Unauthenticated):
        await world.sign_in("anna", "")
    with pytest.raises(Invalid):
        await accept(world.db, made.code, "short", POLICY, uuid7())
    assert await accept(world.db, made.code, WORD, POLICY, uuid7()) == (world.id, anna)
    with pytest.raises(Refused):
        await accept(world.db, made.code, WORD, POLICY, uuid7())
    await world.sign_in("anna", WORD)
    with pytest.raises(Clash):
        await check_free(world.db, world.id, " Anna@example.ORG")
    with pytest.raises(Clash):
        await invite(world.db, ctx, uuid7(), "anna@example.org")
    assert [len(await world.audited(a)) for a in ("code.invite", "password.set_by_code")] == [1, 1]


async def test_codes_end_and_unknown_ones_read_alike(world):
    _, _, made = await invited(world)
    await world.sql("UPDATE one_time_code SET expires_at = now() WHERE tenant_id = $1", world.id)
    texts = set()
    for code in (made.code, "", "nxi_x", made.code[:-1] + "A", f"nxi_{uuid7().hex}_{'A' * 43}"):
        with pytest.raises(Refused) as caught:
            await accept(world.db, code, WORD, POLICY, uuid7())
        texts.add((caught.value.code, caught.value.detail))
    assert len(texts) == 1


async def test_a_reset_voids_older_codes_sessions_and_the_brake_but_no_second_factor_and_no_keys(
    world,
):
    await world.person("anna", "dispatcher")
    anna, token = await world.enter("anna")
    key = await make_key(world.db, anna, NewKey("till", "dispatcher"))
    ctx, _ = await world.enter("owner")
    first = await reset(world.db, ctx, anna.actor)
    second = await reset(world.db, ctx, anna.actor)
    with pytest.raises(Refused):
        await accept(world.db, first.code, WORD, POLICY, uuid7())
    await world.sql(
        "UPDATE credential SET totp_secret = 'JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP' WHERE tenant_id = $1 AND person_id = $2",
        world.id,
        anna.actor,
    )
    for _ in range(6):
        with pytest.raises(Exception):
            await world.sign_in("anna", "wrong wrong wrong")
    await accept(world.db, second.code, WORD, POLICY, uuid7())
    with pytest.raises(Unauthenticated) as caught:
        await world.sign_in("anna", WORD)
    assert caught.value.code == "session.totp_required"
    with pytest.raises(Unauthenticated):
        await sessions(world.db).authenticate(token, uuid7())
    await sessions(world.db).authenticate(key.token, uuid7())


async def test_offboarding_closes_every_door(world):
    await world.person("anna", "dispatcher")
    anna, token = await world.enter("anna")
    key = await make_key(world.db, anna, NewKey("till", "dispatcher"))
    ctx, _ = await world.enter("owner")
    code = await reset(world.db, ctx, anna.actor)
    known = sessions(world.db)
    await known.authenticate(token, uuid7())
    doors = await look_at_doors(world.db, ctx, anna.actor)
    assert (doors.sessions, doors.keys, doors.state) == (1, 1, "active")
    with pytest.raises(Clash):
        await close_doors(world.db, ctx, ctx.actor)
    assert await close_doors(world.db, ctx, anna.actor) == doors
    for gone in (token, key.token):
        with pytest.raises(Unauthenticated):
            await known.authenticate(gone, uuid7())
    with pytest.raises(Unauthenticated):
        await world.sign_in("anna")
    with pytest.raises(Refused):
        await accept(world.db, code.code, WORD, POLICY, uuid7())
    with pytest.raises(Refused):
        await reset(world.db, ctx, anna.actor)
    assert len(await world.audited("person.doors_closed")) == 1
    await reopen(world.db, ctx, anna.actor)
    with pytest.raises(Unauthenticated):
        await world.sign_in("anna")
    for gone in (token, key.token):
        with pytest.raises(Unauthenticated):
            await known.authenticate(gone, uuid7())
    back = await reset(world.db, ctx, anna.actor)
    await accept(world.db, back.code, WORD, POLICY, uuid7())
    await world.sign_in("anna", WORD)
    with pytest.raises(Refused):
        await reopen(world.db, ctx, anna.actor)


async def test_rights_of_a_person_can_be_asked(world):
    who = await world.person("anna", "tech", "north")
    await world.run(
        create("sys.membership", person=str(who), profile=str(world.profiles["viewer"]))
    )
    ctx, _ = await world.enter("owner")
    tech, viewer = await effective_rights(world.db, ctx, who)
    units = world.tenant.units
    assert (tech.profile, set(tech.reaches)) == ("tech", {units["north"]})
    assert (viewer.profile, set(viewer.reaches)) == ("viewer", set(units.values()))
    assert tech.kinds["card"].actions == {"read": "own", "update": "own"}
    assert tech.kinds["card"].fields["personal"] == "masked"


async def is_last(world, person):
    async with world.db.transaction(world.id) as tx:
        return await is_last_manager(tx, world.id, person)


async def test_a_code_is_for_people_within_ones_own_rights(world):
    await world.person("anna", "admin", "head")
    await world.person("ben", "admin", "north")
    await world.person("carl", "viewer", "south")
    people = {who: (await world.enter(who))[0] for who in ("owner", "anna", "ben", "carl")}

    async def may(who, other):
        try:
            await reset(world.db, people[who], people[other].actor)
        except Forbidden as refused:
            assert refused.code == "person.wider_than_you"
            return False
        return True

    assert not await may("anna", "owner")  # a wider profile
    assert not await may("ben", "anna")  # the same one over more units
    assert not await may("ben", "carl")  # a narrow one over units of others
    assert await may("anna", "ben") and await may("anna", "carl") and await may("owner", "anna")
    system = msgspec.structs.replace(people["anna"], door=Door.SYSTEM)
    assert await find_person(world.db, world.id, "Owner@example.org") == people["owner"].actor
    await reset(world.db, system, people["owner"].actor)
    with pytest.raises(Refused):
        await find_person(world.db, world.id, "nobody@example.org")


async def test_a_job_under_a_profile_that_is_gone_may_do_nothing(world):
    await world.person("anna", "dispatcher")
    anna, _ = await world.enter("anna")
    profile = world.profiles["dispatcher"]

    def act():
        return act_as(
            world.db, world.id, anna.actor, profile, anna.units, origin=1, door=Door.INTAKE
        )

    found = await act()
    assert found.profile.key == "dispatcher"
    # Plans are looked up by them.
    assert hash((found.units, found.subtree)) and found.units == anna.units
    await world.run(delete("sys.profile", profile))
    with pytest.raises(Refused) as caught:
        await act()
    assert caught.value.code == "job.rights_gone"


async def test_the_last_who_manages_profiles_is_known(world):
    ctx, _ = await world.enter("owner")
    assert await is_last(world, ctx.actor)
    with pytest.raises(Clash):
        await close_doors(world.db, msgspec.structs.replace(ctx, actor=uuid7()), ctx.actor)
    await world.person("anna", "admin")
    assert not await is_last(world, ctx.actor)
    assert not await is_last(world, uuid7())
    assert (await find_profile(world.db, ctx, "viewer")).key == "viewer"
