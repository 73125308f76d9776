"""People: invite, reset, offboard; what a person may do."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from litestar.response.base import ASGIResponse

from appliance.access import codes, rights
from appliance.access.bounds import check_not_staff
from appliance.access.offboard import reopen
from appliance.base.errors import Refused
from appliance.http.answers import empty, reply
from appliance.http.ask import Ask
from appliance.http.bodies import check_storable
from appliance.http.credentials import check_transport
from appliance.http.design import rows_of
from appliance.http.outcomes import refuse_uncommitted
from appliance.http.route import API, PUBLIC, SIGNED_IN, Book
from appliance.kernel.context import Door
from appliance.people import offboard, onboard
from appliance.write import apply

book = Book("people")
PATH = f"{API}/people"


class People(msgspec.Struct, frozen=True):
    """People you may read; `sign_in` is invited, active, suspended or none."""

    people: list[dict[str, Any]]


class OffboardBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`to` takes over the records; with `preview` nothing is done."""

    to: UUID | None = None
    preview: bool = False


class Acceptance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The code from the link, and the password from now on."""

    code: str
    password: str


class RightsParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose rights; your own when nobody is named."""

    person: UUID | None = None


class RightsView(msgspec.Struct, frozen=True):
    """One entry for each membership."""

    person: UUID
    memberships: list[rights.Effective]


@book.route("GET", PATH, capability="people.read", answers={200: People})
async def list_people(ask: Ask) -> ASGIResponse:
    """People of the tenant, as far as you may read them."""
    person = ask.ctx.schema.kinds["sys.person"]
    if not ask.ctx.profile.sees(person):
        raise Refused("There is no such kind for you.", code="kind.unknown")
    states = await onboard.sign_in_states(ask.node.db, ask.ctx.tenant)
    rows = await rows_of(ask, "sys.person", None, None)
    return reply(People([{**r, "sign_in": states.get(r["id"], "none")} for r in rows]))


@book.route("POST", f"{API}/invitations", capability="people.manage", writes=True,
            body=onboard.NewPerson, answers={201: codes.Invited})  # fmt: skip
async def invite_person(ask: Ask) -> ASGIResponse:
    """Make a person with memberships, and the code for their link."""
    check_not_staff(ask.ctx)
    new = ask.read(onboard.NewPerson)
    check_storable(new.email, "/email")
    await codes.check_free(ask.node.db, ask.ctx.tenant, new.email)
    ident, commands = onboard.person_commands(new)
    result = await apply(ask.node.db, ask.ctx, commands, guard=ask.gate)
    refuse_uncommitted(result, _placed)
    return reply(await codes.invite(ask.node.db, ask.ctx, ident, new.email), 201)


@book.route(
    "POST", f"{API}/invitations/accept", capability=PUBLIC, body=Acceptance, answers={204: None}
)
async def accept_invitation(ask: Ask) -> ASGIResponse:
    """Set the password an invitation or a reset stands for; then sign in."""
    check_transport(ask.scope)
    given = ask.read(Acceptance)
    node, request = ask.node, ask.visit.request_id
    policy = node.settings.login
    tenant, person = await codes.accept(node.db, given.code, given.password, policy, request)
    await onboard.activate(node.db, tenant, person, request, node.origin)
    return empty()


@book.route("POST", f"{PATH}/{{id}}/reset", capability="people.manage", writes=True,
            answers={201: codes.Invited})  # fmt: skip
async def reset_person(ask: Ask) -> ASGIResponse:
    """A fresh code for somebody who cannot sign in; older ones are void."""
    return reply(await codes.reset(ask.node.db, ask.ctx, ask.ident()), 201)


@book.route("POST", f"{PATH}/{{id}}/reopen", capability="people.manage", writes=True,
            answers={204: None})  # fmt: skip
async def reopen_person(ask: Ask) -> ASGIResponse:
    """Let somebody back in who was offboarded: they may be given a code again."""
    await reopen(ask.node.db, ask.ctx, ask.ident())
    system = msgspec.structs.replace(ask.ctx, door=Door.SYSTEM)
    await onboard.set_state(ask.node.db, system, ask.ident(), "invited")
    return empty()


@book.route("POST", f"{PATH}/{{id}}/offboard", capability="people.manage", writes=True,
            body=OffboardBody, answers={200: offboard.Leaving})  # fmt: skip
async def offboard_person(ask: Ask) -> ASGIResponse:
    """End sessions and keys, close the account, hand the records on; or say what that would do."""
    given, node, ctx = ask.read(OffboardBody), ask.node, ask.ctx
    if given.preview:
        return reply(await offboard.look_at_leaving(node.db, ctx, ask.ident()))
    left = await offboard.offboard(node.db, ctx, ask.ident(), given.to)
    if given.to is not None and sum(left.records.values()) > offboard.MOVED_AT_ONCE:
        payload = {"from_owner": str(ask.ident()), "to_owner": str(given.to), "by": str(ctx.actor)}
        job = await node.jobs.enqueue(ctx.tenant, "reassign", {**payload}, ctx.actor)
        left = msgspec.structs.replace(left, moved_by_job=job)
    return reply(left)


@book.route(
    "GET", f"{API}/rights", capability=SIGNED_IN, params=RightsParams, answers={200: RightsView}
)
async def read_rights(ask: Ask) -> ASGIResponse:
    """The effective rights of a person, for those who manage them; your own for everybody."""
    person = ask.params(RightsParams).person or ask.ctx.actor
    if person != ask.ctx.actor and not ask.ctx.profile.may("profiles.manage"):
        raise Refused("There is no such person for you.", code="person.unknown")
    found = await rights.effective_rights(ask.node.db, ask.ctx, person)
    if not found and person != ask.ctx.actor:
        raise Refused("There is no such person for you.", code="person.unknown")
    return reply(RightsView(person, found))


def _placed(place: int, pointer: str) -> str:
    inner = pointer.removeprefix("/fields")
    return inner if place == 0 else f"/memberships/{place - 1}{inner}"
