"""API keys: lent rights that are never wider than the lender's, and end."""

from datetime import timedelta

import pytest

from appliance.access import keys
from appliance.access.keys import NewKey, make_key
from appliance.access.sessions import KEYS, end_person, end_session, list_sessions
from appliance.access.tokens import checksum, read_token
from appliance.base.clock import now
from appliance.base.errors import Forbidden, Invalid, Refused, Unauthenticated
from appliance.base.ids import uuid7
from tests.access.world import sessions

pytestmark = pytest.mark.anyio


async def test_a_key_has_its_own_profile_and_units(world):
    ctx, _ = await world.enter("owner")
    north = world.tenant.units["north"]
    made = await make_key(world.db, ctx, NewKey("till", "dispatcher", 30, [north]))
    assert timedelta(days=29) < made.expires_at - now() < timedelta(days=31)
    robot = await sessions(world.db).authenticate(made.token, uuid7())
    assert (robot.profile.key, robot.units, robot.subtree) == ("dispatcher", {north}, {north})
    assert robot.actor == ctx.actor
    (row,) = await list_sessions(world.db, world.id, None, KEYS)
    assert (row.id, row.label, row.sort, row.units) == (made.id, "till", "api_key", [north])
    stored = await world.tenant.sql("SELECT * FROM session WHERE tenant_id = $1", world.id)
    assert made.token[37:] not in str(stored)
    assert len(await world.audited("key.made")) == 1
    await end_session(world.db, ctx, made.id, own=False, sorts=KEYS, reason="revoked")
    with pytest.raises(Unauthenticated):
        await sessions(world.db).authenticate(made.token, uuid7())


async def test_a_token_with_a_typing_error_is_no_key(world):
    ctx, _ = await world.enter("owner")
    token = (await make_key(world.db, ctx, NewKey("till", "viewer"))).token
    head, check = token[:-6], token[-6:]
    assert check == checksum(head) and read_token(token)
    swapped = head[:50] + ("A" if head[50] != "A" else "B") + head[51:]
    for bad in (head, head + "000000", swapped + check):
        assert read_token(bad) is None


@pytest.mark.parametrize("network, inside, outside", [
    ("192.0.2.0/24", ["192.0.2.7", "::ffff:192.0.2.7"], ["192.0.3.1", "", "no address", "2001:db8::1"]),
    ("2001:db8::/32", ["2001:db8::7"], ["192.0.2.7", "2001:db9::1"]),
])  # fmt: skip
async def test_a_key_is_bound_to_its_networks(world, network, inside, outside):
    ctx, _ = await world.enter("owner")
    made = await make_key(world.db, ctx, NewKey("till", "viewer", networks=[network]))
    known = sessions(world.db)
    for address in inside:
        await known.authenticate(made.token, uuid7(), address=address)
    for address in outside:
        with pytest.raises(Refused):
            await known.authenticate(made.token, uuid7(), address=address)


@pytest.mark.parametrize("change, pointer", [
    ({"days": 0}, "/days"), ({"days": keys.DAYS_MAX + 1}, "/days"), ({"label": " "}, "/label"),
    ({"label": "x" * 201}, "/label"), ({"networks": ["10.0.0.1/8", "nowhere"]}, "/networks/0"),
    ({"networks": ["10.0.0.0/8"] * 21}, "/networks"), ({"units": [uuid7()]}, "/units/0"),
])  # fmt: skip
async def test_faults_name_their_place(world, change, pointer):
    ctx, _ = await world.enter("owner")
    given = {"label": "till", "profile": "viewer", **change}
    with pytest.raises(Invalid) as caught:
        await make_key(world.db, ctx, NewKey(**given))
    assert caught.value.faults[0].pointer == pointer


async def test_nobody_lends_more_than_they_have(world):
    await world.person("boss", "branch_manager", "north")
    ctx, _ = await world.enter("boss")
    with pytest.raises(Invalid):
        await make_key(world.db, ctx, NewKey("till", "viewer", units=[world.tenant.units["south"]]))
    for wider in ("owner", "admin", "finance", "bookkeeper"):
        with pytest.raises(Forbidden):
            await make_key(world.db, ctx, NewKey("till", wider))
    with pytest.raises(Refused):
        await make_key(world.db, ctx, NewKey("till", "no such profile"))
    made = await make_key(world.db, ctx, NewKey("till", "branch_manager"))
    robot = await sessions(world.db).authenticate(made.token, uuid7())
    assert robot.units == ctx.units


async def test_a_key_without_units_reaches_none(world):
    ctx, _ = await world.enter("owner")
    made = await make_key(world.db, ctx, NewKey("till", "viewer"))
    for units in ("NULL", "'{}'"):
        await world.sql(
            f"UPDATE session SET unit_ids = {units} WHERE tenant_id = $1 AND sort = 'api_key'",
            world.id,
        )
        robot = await sessions(world.db).authenticate(made.token, uuid7())
        assert not robot.units and not robot.subtree


async def test_keys_outlive_idle_hours_and_end_with_their_person(world):
    ctx, _ = await world.enter("owner")
    made = await make_key(world.db, ctx, NewKey("till", "viewer"))
    await world.sql(
        "UPDATE session SET seen_at = now() - interval '40 days' WHERE tenant_id = $1", world.id
    )
    await sessions(world.db).authenticate(made.token, uuid7())
    await end_person(world.db, ctx, ctx.actor, "test")
    with pytest.raises(Unauthenticated):
        await sessions(world.db).authenticate(made.token, uuid7())
