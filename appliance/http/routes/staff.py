"""Platform staff: their own scope in the control plane, and the tenant's side of letting them in.

A token of the platform opens no tenant. What opens one is a session under a live grant of that
tenant, and that is an ordinary session which its audit shows.
"""

from __future__ import annotations

from uuid import UUID

import msgspec
from litestar.response.base import ASGIResponse

from appliance.access import grants, staff
from appliance.access.login import SignedIn
from appliance.base.errors import Unauthenticated
from appliance.http.answers import empty, reply
from appliance.http.ask import Ask
from appliance.http.bodies import check_storable
from appliance.http.credentials import check_transport, find_token
from appliance.http.route import API, PLATFORM, PUBLIC, Book

book = Book("staff")
GRANTS = f"{API}/staff-grants"
REQUESTS = f"{API}/staff-requests"
HERE = f"{API}/platform"


class StaffSignIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Password and code, always both."""

    email: str
    password: str
    totp: str


class NewRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which tenant, why, and for how many hours."""

    tenant: str
    reason: str
    hours: int = 8


class TenantParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which tenant."""

    tenant: str


class Entering(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The tenant, and the grant of it to enter under."""

    tenant: str
    grant: UUID


class Answering(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Under which profile, and for how many hours (as asked, if none)."""

    profile: str
    hours: int | None = None


class Made(msgspec.Struct, frozen=True):
    """The id of what was made."""

    id: UUID


class StaffGrants(msgspec.Struct, frozen=True):
    """Every grant there was, newest first."""

    grants: list[grants.StaffGrant]


class StaffRequests(msgspec.Struct, frozen=True):
    """Requests that wait for an answer, oldest first."""

    requests: list[grants.StaffRequest]


class Entries(msgspec.Struct, frozen=True):
    """Grants under which a tenant may be entered now."""

    entries: list[staff.Entry]


@book.route("GET", GRANTS, capability="staff.grant", answers={200: StaffGrants})
async def list_staff_grants(ask: Ask) -> ASGIResponse:
    """Who of the platform's staff may see this tenant."""
    return reply(StaffGrants(await grants.list_staff_grants(ask.node.db, ask.ctx)))


@book.route("POST", GRANTS, capability="staff.grant", writes=True, body=grants.NewStaffGrant,
            answers={201: Made})  # fmt: skip
async def grant_staff(ask: Ask) -> ASGIResponse:
    """Let one of the platform's staff in for hours."""
    new = ask.read(grants.NewStaffGrant)
    for name in ("staff_email", "profile", "reason"):
        check_storable(getattr(new, name), f"/{name}")
    return reply(Made(await grants.grant_staff(ask.node.db, ask.ctx, new)), 201)


@book.route("DELETE", f"{GRANTS}/{{id}}", capability="staff.grant", answers={204: None})
async def revoke_staff(ask: Ask) -> ASGIResponse:
    """End a grant, and with it what it opened."""
    await grants.revoke_staff(ask.node.db, ask.ctx, ask.ident())
    return empty()


@book.route("GET", REQUESTS, capability="staff.grant", answers={200: StaffRequests})
async def list_staff_requests(ask: Ask) -> ASGIResponse:
    """Who of the platform's staff asks to be let in."""
    return reply(StaffRequests(await grants.list_staff_requests(ask.node.db, ask.ctx)))


@book.route("POST", f"{REQUESTS}/{{id}}/grant", capability="staff.grant", writes=True,
            body=Answering, answers={201: Made})  # fmt: skip
async def grant_request(ask: Ask) -> ASGIResponse:
    """Say yes to a request."""
    given = ask.read(Answering)
    check_storable(given.profile, "/profile")
    ident = await grants.answer_request(
        ask.node.db, ask.ctx, ask.ident(), given.profile, hours=given.hours
    )
    return reply(Made(ident), 201)


@book.route("POST", f"{REQUESTS}/{{id}}/refuse", capability="staff.grant", writes=True,
            answers={204: None})  # fmt: skip
async def refuse_request(ask: Ask) -> ASGIResponse:
    """Say no to a request."""
    await grants.refuse_request(ask.node.db, ask.ctx, ask.ident())
    return empty()


@book.route("POST", f"{HERE}/session", capability=PUBLIC, body=StaffSignIn,
            answers={201: staff.StaffSignedIn})  # fmt: skip
async def open_platform_session(ask: Ask) -> ASGIResponse:
    """Sign in as one of the platform's staff. The token opens no tenant."""
    check_transport(ask.scope)
    given = ask.read(StaffSignIn)
    for name in ("email", "password", "totp"):
        check_storable(getattr(given, name), f"/{name}")
    policy = ask.node.settings.login
    return reply(
        await staff.staff_sign_in(ask.node.db, given.email, given.password, given.totp, policy), 201
    )


@book.route("DELETE", f"{HERE}/session", capability=PLATFORM, answers={204: None})
async def close_platform_session(ask: Ask) -> ASGIResponse:
    """Sign out of the platform; sessions inside tenants end with their grants."""
    await _who(ask)
    await staff.staff_sign_out(ask.node.db, find_token(ask.scope))
    return empty()


@book.route("POST", f"{HERE}/requests", capability=PLATFORM, body=NewRequest, answers={201: Made})
async def request_entry(ask: Ask) -> ASGIResponse:
    """Ask a tenant to be let in; its people see the request at once."""
    who, new = await _who(ask), ask.read(NewRequest)
    check_storable(new.tenant, "/tenant")
    check_storable(new.reason, "/reason")
    return reply(
        Made(await staff.request_entry(ask.node.db, who, new.tenant, new.reason, new.hours)), 201
    )


@book.route("GET", f"{HERE}/entries", capability=PLATFORM, params=TenantParams,
            answers={200: Entries})  # fmt: skip
async def list_entries(ask: Ask) -> ASGIResponse:
    """The grants under which you may enter a tenant now."""
    who, slug = await _who(ask), ask.params(TenantParams).tenant
    check_storable(slug, "/tenant")
    return reply(Entries(await staff.list_entries(ask.node.db, who, slug)))


@book.route("POST", f"{HERE}/enter", capability=PLATFORM, body=Entering, answers={201: SignedIn})
async def enter_tenant(ask: Ask) -> ASGIResponse:
    """A session inside a tenant; it ends with the grant."""
    who, given = await _who(ask), ask.read(Entering)
    check_storable(given.tenant, "/tenant")
    signed = await staff.enter_tenant(
        ask.node.db, who, given.tenant, given.grant, ask.visit.request_id
    )
    return reply(signed, 201)


async def _who(ask: Ask) -> staff.Staff:
    """The one of the staff who asks; a cookie never counts here. Raises Unauthenticated."""
    token = find_token(ask.scope)
    if ask.header("authorization") is None:
        raise Unauthenticated("Send Authorization: Bearer <token>.", code="session.missing")
    return await staff.staff_of(ask.node.db, token)
