"""Platform staff: no way into a tenant but a live grant of it, and every use in the tenant's audit."""

import time

import pyotp
import pytest

from appliance.access.codes import invite, reset
from appliance.access.grants import (
    NewStaffGrant,
    answer_request,
    grant_staff,
    list_staff_grants,
    list_staff_requests,
    refuse_request,
    revoke_staff,
)
from appliance.access.keys import NewKey, make_key
from appliance.access.staff import (
    create_staff,
    enter_tenant,
    list_entries,
    request_entry,
    staff_of,
    staff_sign_in,
    staff_sign_out,
    suspend_staff,
)
from appliance.base.errors import Clash, Forbidden, Invalid, Limited, Refused, Unauthenticated
from appliance.base.ids import uuid7
from appliance.base.settings import Login
from tests.access.world import POLICY, sessions

pytestmark = pytest.mark.anyio
WORD = "eleven copper kettles sing"
_count = iter(range(1, 10**6))


@pytest.fixture
async def sam(db):
    """One of the staff, signed in: the account and a token."""
    email = f"sam{next(_count)}@platform.example"
    made = await create_staff(db, email, "Sam of support", WORD, POLICY)
    code = pyotp.TOTP(made.totp_secret).at(time.time() - 30)
    signed = await staff_sign_in(db, email.upper(), WORD, code, POLICY)
    found = await staff_of(db, signed.token)
    assert (found.id, found.email, found.name) == (made.id, email, "Sam of support")
    return found, signed.token, made


async def entered(world, sam, ctx, profile="viewer"):
    request = await request_entry(world.db, sam, world.slug, "ticket 7", 4)
    grant = await answer_request(world.db, ctx, request, profile)
    return grant, await enter_tenant(world.db, sam, world.slug, grant, uuid7())


async def test_from_a_request_to_its_end(world, sam):
    staff, _, _ = sam
    ctx, _ = await world.enter("owner")
    request = await request_entry(world.db, staff, world.slug, "ticket 7", 4)
    (asked,) = await list_staff_requests(world.db, ctx)
    assert (asked.id, asked.staff_name, asked.reason, asked.hours) == (
        request,
        "Sam of support",
        "ticket 7",
        4,
    )
    assert await list_entries(world.db, staff, world.slug) == []
    grant = await answer_request(world.db, ctx, request, "viewer", hours=2)
    with pytest.raises(Refused):
        await answer_request(world.db, ctx, request, "viewer")
    (entry,) = await list_entries(world.db, staff, world.slug)
    assert (entry.grant, entry.profile, entry.reason) == (grant, "viewer", "ticket 7")
    signed = await enter_tenant(world.db, staff, world.slug, grant, uuid7())
    known = sessions(world.db)
    inside, guard = await known.enter(signed.token, uuid7(), about="GET /api/v1/query")
    answers = await world.db.read(world.id, *guard.calls)
    guard.check(answers[: len(guard.calls)])
    await world.db.read(world.id, *guard.calls)
    assert (inside.actor, inside.staff_grant, inside.profile.key) == (staff.id, grant, "viewer")
    assert inside.units == ctx.units
    (used,) = await world.audited("staff.used")
    assert used[0] == str(staff.id) and "GET /api/v1/query" in used[3] and str(grant) in used[3]
    await revoke_staff(world.db, ctx, grant)
    with pytest.raises(Unauthenticated):
        await known.authenticate(signed.token, uuid7())
    assert len(await world.audited("staff.used")) == 1
    with pytest.raises(Refused):
        await enter_tenant(world.db, staff, world.slug, grant, uuid7())
    with pytest.raises(Refused):
        await revoke_staff(world.db, ctx, grant)
    (shown,) = await list_staff_grants(world.db, ctx)
    assert shown.revoked_at is not None and shown.reason == "ticket 7"
    for action in ("staff.requested", "staff.granted", "staff.entered", "staff.revoked"):
        assert len(await world.audited(action)) == 1, action


async def test_a_session_ends_with_its_grant(world, sam):
    ctx, _ = await world.enter("owner")
    grant, signed = await entered(world, sam[0], ctx)
    known = sessions(world.db)
    await known.authenticate(signed.token, uuid7())
    (shown,) = await list_staff_grants(world.db, ctx)
    assert (
        signed.expires_at <= shown.expires_at
        or abs((signed.expires_at - shown.expires_at).total_seconds()) < 1
    )
    await world.sql("UPDATE staff_grant SET expires_at = now() WHERE tenant_id = $1", world.id)
    with pytest.raises(Unauthenticated):
        await known.authenticate(signed.token, uuid7())
    assert await list_entries(world.db, sam[0], world.slug) == []


async def test_a_staff_session_without_a_grant_is_none(world, sam):
    ctx, _ = await world.enter("owner")
    _, signed = await entered(world, sam[0], ctx)
    await world.sql(
        "UPDATE session SET staff_grant_id = NULL WHERE tenant_id = $1 AND sort = 'staff'", world.id
    )
    with pytest.raises(Unauthenticated):
        await sessions(world.db).authenticate(signed.token, uuid7())


async def test_the_grant_of_one_is_no_grant_of_another(world, db, sam):
    ctx, _ = await world.enter("owner")
    other = await create_staff(db, f"kim{next(_count)}@platform.example", "Kim", WORD, POLICY)
    from appliance.access.staff import Staff

    grant, _ = await entered(world, sam[0], ctx)
    with pytest.raises(Refused):
        await enter_tenant(db, Staff(other.id, "", "Kim"), world.slug, grant, uuid7())


async def test_a_request_can_be_refused_and_a_grant_be_given_unasked(world, sam):
    staff, _, _ = sam
    ctx, _ = await world.enter("owner")
    request = await request_entry(world.db, staff, world.slug, "curious", 1)
    await refuse_request(world.db, ctx, request)
    assert await list_staff_requests(world.db, ctx) == []
    with pytest.raises(Refused):
        await refuse_request(world.db, ctx, request)
    grant = await grant_staff(world.db, ctx, NewStaffGrant(staff.email, "viewer", "audit", 1))
    await enter_tenant(world.db, staff, world.slug, grant, uuid7())


async def test_nobody_lets_staff_in_wider_than_themselves(world, sam):
    staff, _, _ = sam
    await world.person("boss", "branch_manager", "north")
    ctx, _ = await world.enter("boss")
    for new, error in (
        (NewStaffGrant(staff.email, "owner", "x", 1), Forbidden), (NewStaffGrant(staff.email, "viewer", " ", 1), Invalid),
        (NewStaffGrant(staff.email, "viewer", "x", 73), Invalid), (NewStaffGrant("no@body", "branch_manager", "x", 1), Refused),
    ):  # fmt: skip
        with pytest.raises(error):
            await grant_staff(world.db, ctx, new)
    grant = await grant_staff(world.db, ctx, NewStaffGrant(staff.email, "branch_manager", "x", 1))
    signed = await enter_tenant(world.db, staff, world.slug, grant, uuid7())
    inside = await sessions(world.db).authenticate(signed.token, uuid7())
    assert inside.subtree == {world.tenant.units["north"]}


async def test_a_suspended_one_is_out_of_everything(world, db, sam):
    staff, token, made = sam
    ctx, _ = await world.enter("owner")
    _, signed = await entered(world, staff, ctx)
    assert await suspend_staff(db, staff.id) == []
    for failing in (staff_of(db, token), sessions(db).authenticate(signed.token, uuid7()),
                    staff_sign_in(db, staff.email, WORD, pyotp.TOTP(made.totp_secret).now(), POLICY)):  # fmt: skip
        with pytest.raises(Unauthenticated):
            await failing


async def test_signing_in_takes_password_and_code_and_brakes(db, sam):
    staff, token, made = sam
    codes = pyotp.TOTP(made.totp_secret)
    for password, code in (
        (WORD, ""),
        (WORD, codes.at(time.time() - 30)),
        ("wrong", codes.now()),
        (WORD, codes.at(time.time() + 900)),
    ):
        with pytest.raises(Unauthenticated) as caught:
            await staff_sign_in(db, staff.email, password, code, POLICY)
        assert caught.value.code == "session.refused"
    await staff_sign_in(db, staff.email, WORD, codes.now(), POLICY)
    policy = Login(failures_before_delay=1)
    for email in (staff.email, f"nobody{next(_count)}@platform.example"):
        with pytest.raises(Unauthenticated):
            await staff_sign_in(db, email, "wrong", "000000", policy)
        with pytest.raises(Limited):
            await staff_sign_in(db, email, "wrong", "000000", policy)
    await staff_sign_out(db, token)
    for bad in (token, "", "nxp_x"):
        with pytest.raises(Unauthenticated):
            await staff_of(db, bad)
    with pytest.raises(Clash):
        await create_staff(db, staff.email, "Again", WORD, POLICY)


async def test_a_platform_token_opens_no_tenant(world, sam):
    with pytest.raises(Unauthenticated):
        await sessions(world.db).authenticate(sam[1], uuid7())


async def test_staff_make_no_way_in_that_outlasts_their_grant(world, sam):
    staff, _, _ = sam
    owner, _ = await world.enter("owner")
    grant = await grant_staff(world.db, owner, NewStaffGrant(staff.email, "owner", "x", 1))
    signed = await enter_tenant(world.db, staff, world.slug, grant, uuid7())
    inside = await sessions(world.db).authenticate(signed.token, uuid7())
    request = await request_entry(world.db, staff, world.slug, "more", 72)
    for attempt in (
        grant_staff(world.db, inside, NewStaffGrant(staff.email, "viewer", "x", 72)),
        answer_request(world.db, inside, request, "viewer"),
        make_key(world.db, inside, NewKey("robot", "viewer")),
        reset(world.db, inside, owner.actor),
        invite(world.db, inside, uuid7(), "friend@example.org"),
    ):
        with pytest.raises(Forbidden) as caught:
            await attempt
        assert caught.value.code == "staff.lends_nothing"
    assert await suspend_staff(world.db, staff.id) == []
    (ended,) = await world.audited("staff.suspended")
    assert ended[0] == str(staff.id)
