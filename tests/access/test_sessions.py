"""What a session may do is true on the very next request, in every process."""

from datetime import UTC, datetime, timedelta

import pytest

from appliance.access.session import SESSION_CHECK, Stale, Verdict, judge
from appliance.access.sessions import (
    EVERYTHING,
    LOGINS,
    end_others,
    end_person,
    end_session,
    list_sessions,
)
from appliance.access.secrets import change_password
from appliance.access.switch import choices, switch_profile
from appliance.base.errors import Clash, Invalid, Limited, Refused, Unauthenticated
from appliance.base.ids import uuid7
from appliance.base.settings import Login
from appliance.kernel.profile import Mode, ScopeKind
from tests import tenants
from tests.access.world import PASSWORD, POLICY, sessions
from tests.tenants import create, delete, update

pytestmark = pytest.mark.anyio


@pytest.fixture
async def two(db, dsns):
    """Two processes: each with a database of its own and what it has compiled."""
    async with tenants.opened(dsns) as other:
        yield sessions(db), sessions(other), other


async def prove(known, token):
    """One request: the cached context, proved in its own round trip; no second try."""
    ctx, guard = await known.enter(token, uuid7())
    guard.check(await known._db.read(ctx.tenant, *guard.calls))
    return ctx


async def ended(known, token):
    with pytest.raises(Unauthenticated) as caught:
        await prove(known, token)
    assert caught.value.code == "session.ended"


async def test_a_revoked_right_fails_on_the_next_request_of_every_process(world, two):
    one, other, _ = two
    await world.person("anna", "dispatcher")
    token = (await world.sign_in("anna")).token
    for known in (one, other):
        ctx = await prove(known, token)
        assert ctx.profile.scope("card", "update").kind is ScopeKind.SUBTREE
    (grant,) = await world.tenant.sql(
        "SELECT id::text FROM record WHERE tenant_id = $1 AND kind = 'sys.grant' AND data->>'kind' = 'card' "
        "AND r1 = $2", world.id, world.profiles["dispatcher"],
    )  # fmt: skip
    from uuid import UUID

    await world.run(update("sys.grant", UUID(grant[0]), None, actions={"read": "own"}))
    for known in (one, other):
        with pytest.raises(Stale):
            await prove(known, token)
        ctx = await known.authenticate(token, uuid7())
        assert ctx.profile.scope("card", "update").kind is ScopeKind.NONE
        assert ctx.profile.scope("card", "read").kind is ScopeKind.OWN


async def test_a_membership_that_is_gone_ends_the_session_everywhere(world, two):
    one, other, _ = two
    await world.person("anna", "viewer")
    token = (await world.sign_in("anna")).token
    await prove(one, token), await prove(other, token)
    await world.run(delete("sys.membership", world.members["anna"]))
    for known in (one, other):
        with pytest.raises(Unauthenticated):
            await known.authenticate(token, uuid7())


@pytest.mark.parametrize("gone", ["sys.profile", "sys.person"])
async def test_a_profile_or_person_that_is_gone_ends_the_session(world, gone):
    who = await world.person("anna", "viewer")
    token = (await world.sign_in("anna")).token
    known = sessions(world.db)
    await prove(known, token)
    await world.run(delete(gone, who if gone == "sys.person" else world.profiles["viewer"]))
    with pytest.raises(Unauthenticated):
        await known.authenticate(token, uuid7())


async def test_a_new_kind_and_a_new_field_are_there_and_closed(world, two):
    one, other, _ = two
    await world.person("anna", "dispatcher")
    token = (await world.sign_in("anna")).token
    await prove(one, token), await prove(other, token)
    await world.tenant.add_kind("later", [("name", "text")])
    await world.run(create("sys.field", kind="card", name="more", type="text"))
    for known in (one, other):
        ctx = await known.authenticate(token, uuid7())
        card = ctx.schema.kinds["card"]
        assert not ctx.profile.sees(ctx.schema.kinds["later"])
        assert ctx.profile.mode("card", card.by_name["more"]) is Mode.HIDDEN


async def test_ending_one_all_others_and_everything_of_a_person(world, two):
    one, other, _ = two
    tokens = [(await world.sign_in("owner")).token for _ in range(4)]
    contexts = [await prove(other, t) for t in tokens]
    ctx = contexts[0]
    rows = await list_sessions(world.db, world.id, ctx.actor, EVERYTHING)
    assert {r.id for r in rows} == {c.session for c in contexts}
    await end_session(
        world.db, ctx, contexts[1].session, own=True, sorts=LOGINS, reason="ended_by_person"
    )
    await ended(other, tokens[1])
    with pytest.raises(Refused):
        await end_session(
            world.db, ctx, contexts[1].session, own=True, sorts=LOGINS, reason="again"
        )
    assert await end_others(world.db, ctx) == 2
    await ended(other, tokens[2])
    await prove(other, tokens[0])
    assert await end_person(world.db, ctx, ctx.actor, "test") == 1
    for known in (one, other):
        await ended(known, tokens[0])
    assert [
        len(await world.audited(a))
        for a in ("session.ended", "session.others_ended", "session.all_ended")
    ] == [1, 1, 1]


async def test_nobody_ends_the_session_of_somebody_else_as_their_own(world):
    await world.person("anna", "viewer")
    ctx, _ = await world.enter("anna")
    owner, token = await world.enter("owner")
    with pytest.raises(Refused):
        await end_session(world.db, ctx, owner.session, own=True, sorts=LOGINS, reason="x")
    await prove(sessions(world.db), token)


async def test_the_epoch_ends_what_was_made_before(world):
    token = (await world.sign_in("owner")).token
    known = sessions(world.db)
    await prove(known, token)
    await world.sql(
        "UPDATE credential SET session_epoch = session_epoch + 1 WHERE tenant_id = $1", world.id
    )
    await ended(known, token)
    await prove(known, (await world.sign_in("owner")).token)


@pytest.mark.parametrize("change", [
    "seen_at = now() - interval '61 min'", "expires_at = now()", "ended_at = now()",
])  # fmt: skip
async def test_idle_and_absolute_ends(world, change):
    token = (await world.sign_in("owner")).token
    known = sessions(world.db)
    await prove(known, token)
    await world.sql(f"UPDATE session SET {change} WHERE tenant_id = $1", world.id)
    await ended(known, token)
    await ended(sessions(world.db), token)


async def test_a_suspended_person_and_a_suspended_tenant_are_out(world, dsns):
    token = (await world.sign_in("owner")).token
    known = sessions(world.db)
    await prove(known, token)
    for off, on in (
        ("UPDATE credential SET state = 'suspended' WHERE tenant_id = $1", "UPDATE credential SET state = 'active' WHERE tenant_id = $1"),
        ("UPDATE tenant_state SET state = 'suspended' WHERE tenant_id = $1", "UPDATE tenant_state SET state = 'active' WHERE tenant_id = $1"),
    ):  # fmt: skip
        await world.sql(off, world.id)
        await ended(known, token)
        await world.sql(on, world.id)
    await prove(known, token)


async def test_use_is_noted_at_most_once_a_minute(world):
    token = (await world.sign_in("owner")).token
    known = sessions(world.db)
    seen = "SELECT seen_at::text FROM session WHERE tenant_id = $1"
    first = await world.tenant.sql(seen, world.id)
    await known.authenticate(token, uuid7())
    assert await world.tenant.sql(seen, world.id) == first
    await world.sql(
        "UPDATE session SET seen_at = now() - interval '10 min' WHERE tenant_id = $1", world.id
    )
    before = await world.tenant.sql(seen, world.id)
    await known.authenticate(token, uuid7())
    assert await world.tenant.sql(seen, world.id) > before


async def test_units_of_all_memberships_that_hold_today_and_what_is_below(world):
    today = datetime.now(UTC).date()
    past, soon = (today - timedelta(days=3)).isoformat(), (today + timedelta(days=3)).isoformat()
    who = await world.person("anna", "viewer", "north")
    for unit, dates in (("south", {"valid_to": past}), ("head", {"valid_from": soon})):
        await world.run(create("sys.membership", person=str(who), profile=str(world.profiles["viewer"]),
                               units=[str(world.tenant.units[unit])], **dates))  # fmt: skip
    ctx, token = await world.enter("anna")
    units = world.tenant.units
    assert ctx.units == {units["north"]} == ctx.subtree and ctx.unit == units["north"]
    owner, _ = await world.enter("owner")
    assert owner.units == {units["head"]} and owner.subtree == set(units.values())
    assert owner.tz == "Europe/Kyiv"
    # The next boundary loads the rights anew without any change of a record.
    known = sessions(world.db)
    ctx, guard = await known.enter(token, uuid7())
    assert guard._until is not None and timedelta(days=2) < guard._until - ctx.at < timedelta(
        days=4
    )


async def test_a_membership_outside_its_dates_opens_no_session(world):
    past = (datetime.now(UTC) - timedelta(days=3)).date().isoformat()
    await world.person("anna", "viewer", valid_to=past)
    with pytest.raises(Unauthenticated):
        await world.sign_in("anna")


async def test_a_membership_of_no_unit_is_one_of_the_whole_tenant(world):
    await world.person("anna", "viewer", None)
    ctx, _ = await world.enter("anna")
    assert ctx.subtree == set(world.tenant.units.values())


async def test_another_profile_is_another_session(world):
    who = await world.person("anna", "viewer", "north")
    await world.run(create("sys.membership", person=str(who), profile=str(world.profiles["bookkeeper"]),
                           units=[str(world.tenant.units["south"])]))  # fmt: skip
    signed = await world.sign_in("anna")
    known = sessions(world.db)
    ctx = await known.authenticate(signed.token, uuid7())
    assert [c.key for c in await choices(world.db, ctx)] == ["viewer", "bookkeeper"]
    with pytest.raises(Refused):
        await switch_profile(world.db, ctx, "owner")
    switched = await switch_profile(world.db, ctx, "bookkeeper")
    assert (switched.profile, switched.tenant) == ("bookkeeper", world.slug)
    assert abs(switched.expires_at - signed.expires_at) < timedelta(seconds=1)
    await ended(known, signed.token)
    fresh = await known.authenticate(switched.token, uuid7())
    assert fresh.units == {world.tenant.units["south"]} and fresh.profile.key == "bookkeeper"
    with pytest.raises(Unauthenticated):
        await switch_profile(world.db, ctx, "viewer")
    assert len(await world.audited("session.switched")) == 1
    direct = await world.sign_in("anna", profile="bookkeeper")
    assert direct.profile == "bookkeeper"


async def test_a_new_password_ends_the_other_sessions(world):
    ctx, token = await world.enter("owner")
    _, other = await world.enter("owner")
    known = sessions(world.db)
    for current, fresh in (
        ("wrong", "a new long sentence"),
        (PASSWORD, "short"),
        (PASSWORD, PASSWORD),
    ):
        with pytest.raises(Invalid):
            await change_password(world.db, ctx, current, fresh, POLICY)
    await change_password(world.db, ctx, PASSWORD, "a new long sentence", POLICY)
    await prove(known, token)
    await ended(known, other)
    with pytest.raises(Unauthenticated):
        await world.sign_in("owner")
    await world.sign_in("owner", "a new long sentence")
    with pytest.raises(Invalid):
        await change_password(
            world.db, ctx, PASSWORD, "yet another sentence", Login(failures_before_delay=1)
        )
    with pytest.raises(Limited):
        await change_password(
            world.db,
            ctx,
            "a new long sentence",
            "yet another sentence",
            Login(failures_before_delay=1),
        )


async def test_tokens_that_are_none(world):
    known, real = sessions(world.db), (await world.sign_in("owner")).token
    sort, tenant, secret = real.split("_", 2)
    other = uuid7().hex
    for token in ("", "x", real + "x", real[:-1], f"nxk_{tenant}_{secret}", f"nxs_{other}_{secret}",
                  f"{sort}_{tenant}_{'A' * 43}", real + "\n"):  # fmt: skip
        with pytest.raises(Unauthenticated) as caught:
            await known.authenticate(token, uuid7())
        assert caught.value.code == "session.ended"


def test_a_verdict():
    row = (b"active", b"3", b"7", b"t", b"0")
    assert judge(row, schema_rev=3, rights_rev=7) is Verdict.OK
    assert (
        judge(row, schema_rev=2, rights_rev=7)
        is judge(row, schema_rev=3, rights_rev=8)
        is Verdict.STALE
    )
    for bad in (None, (b"suspended", *row[1:]), (*row[:3], b"f", b"0"), (*row[:3], None, None)):
        assert judge(bad, schema_rev=3, rights_rev=7) is Verdict.ENDED
    assert b"$3" in SESSION_CHECK.sql


async def test_a_key_does_not_switch(world):
    from appliance.access.keys import NewKey, make_key

    ctx, _ = await world.enter("owner")
    key = await make_key(world.db, ctx, NewKey("robot", "viewer"))
    robot = await sessions(world.db).authenticate(key.token, uuid7())
    with pytest.raises(Clash):
        await switch_profile(world.db, robot, "owner")
