"""API keys, and grants that let platform staff in."""

from __future__ import annotations

from uuid import UUID

import msgspec
from litestar.response.base import ASGIResponse

from appliance.http.accounts import grants
from appliance.http.accounts.sessions import KEYS, SessionRow, end_session, list_sessions
from appliance.http.answers import empty, reply
from appliance.http.ask import Ask
from appliance.http.bodies import check_storable
from appliance.http.route import API, Book

book = Book("keys")
PATH = f"{API}/keys"
STAFF = f"{API}/staff-grants"


class Keys(msgspec.Struct, frozen=True):
    """Live keys, newest first."""

    keys: list[SessionRow]


class StaffGrants(msgspec.Struct, frozen=True):
    """Every grant there was, newest first."""

    grants: list[grants.StaffGrant]


class Granted(msgspec.Struct, frozen=True):
    """The id of a new grant."""

    id: UUID


@book.route("GET", PATH, capability="keys.manage", answers={200: Keys})
async def list_keys(ask: Ask) -> ASGIResponse:
    """The API keys of the tenant."""
    return reply(Keys(await list_sessions(ask.node.db, ask.ctx.tenant, None, KEYS)))


@book.route("POST", PATH, capability="keys.manage", writes=True, body=grants.NewKey,
            answers={201: grants.MadeKey})  # fmt: skip
async def make_key(ask: Ask) -> ASGIResponse:
    """A key for a program, never wider than your own rights."""
    new = ask.read(grants.NewKey)
    check_storable(new.label, "/label")
    check_storable(new.profile, "/profile")
    return reply(await grants.make_key(ask.node.db, ask.ctx, new), 201)


@book.route("DELETE", f"{PATH}/{{id}}", capability="keys.manage", answers={204: None})
async def end_key(ask: Ask) -> ASGIResponse:
    """End a key; its next request fails."""
    await end_session(ask.node.db, ask.ctx, ask.ident(), own=False, sorts=KEYS, reason="revoked")
    return empty()


@book.route("GET", STAFF, capability="staff.grant", answers={200: StaffGrants})
async def list_staff_grants(ask: Ask) -> ASGIResponse:
    """Who of the platform's staff may see this tenant."""
    return reply(StaffGrants(await grants.list_staff_grants(ask.node.db, ask.ctx)))


@book.route("POST", STAFF, capability="staff.grant", writes=True, body=grants.NewStaffGrant,
            answers={201: Granted})  # fmt: skip
async def grant_staff(ask: Ask) -> ASGIResponse:
    """Let one of the platform's staff in for hours."""
    new = ask.read(grants.NewStaffGrant)
    for name in ("staff_email", "profile", "reason"):
        check_storable(getattr(new, name), f"/{name}")
    return reply(Granted(await grants.grant_staff(ask.node.db, ask.ctx, new)), 201)


@book.route("DELETE", f"{STAFF}/{{id}}", capability="staff.grant", answers={204: None})
async def revoke_staff(ask: Ask) -> ASGIResponse:
    """End a grant."""
    await grants.revoke_staff(ask.node.db, ask.ctx, ask.ident())
    return empty()
