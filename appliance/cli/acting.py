"""A command in a person's name: over the node, under the first of their profiles that may do it.

The node may run or not; where a command needs its content plane, that is asked first, so that
nothing is begun without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated
from uuid import UUID

import msgspec
from cyclopts import Parameter

from appliance.access.acting import act_as
from appliance.access.login import normal_email
from appliance.access.memberships import choices_call, read_choices
from appliance.base.clock import now
from appliance.base.errors import Invalid, Refused
from appliance.base.ids import parse_uuid
from appliance.cli.node import Opened, opened, read_node_settings
from appliance.cli.plane import ask_status, reached
from appliance.content import ContentPlane
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.kernel.context import Ctx, Door

# In whose name a command is done.
As = Annotated[str | None, Parameter(name="--as")]
_PEOPLE = Statement(
    "SELECT email FROM credential WHERE tenant_id = $1 AND state = 'active' ORDER BY email LIMIT 2"
)


_PERSON = Statement(
    "SELECT person_id::text FROM credential WHERE tenant_id = $1 AND email = $2 AND state = 'active'"
)


class At(msgspec.Struct, frozen=True):
    """What a command works with: the node, the person, the plane."""

    node: Opened
    ctx: Ctx
    plane: ContentPlane


Work = Callable[[At], Awaitable[int]]


class Call(msgspec.Struct, frozen=True):
    """Who wants to do what, where."""

    tenant: str | None
    email: str | None
    capability: str
    data: str | None
    port: int | None
    needs_plane: bool = False
    door: Door = Door.HTTP


def read_id(text: str, what: str) -> UUID:
    """An id that somebody typed, of `what`. Raises Invalid."""
    found = parse_uuid(text)
    if found is None:
        raise Invalid(f"{text[:60]!r} is not the id of {what}.")
    return found


def run(call: Call, work: Work) -> int:
    """Do it; the exit code. Raises what the work raises, Unavailable, Misconfigured, Refused."""

    async def go() -> int:
        settings = read_node_settings(call.data, call.port)
        async with reached(settings) as plane:
            if call.needs_plane:
                await ask_status(settings, plane)
            async with opened(settings) as node:
                slug = call.tenant or only_tenant(node)
                email = normal_email(call.email) if call.email else await only_person(node, slug)
                ctx = await actor_of(
                    node.db, slug, email, node.origin, capability=call.capability, door=call.door
                )
                return await work(At(node, ctx, plane))

    return asyncio.run(go())


async def actor_of(
    db: Database,
    slug: str,
    email: str,
    origin: int,
    *,
    capability: str = "import.run",
    door: Door = Door.INTAKE,
) -> Ctx:
    """A person's context under the first of their profiles that may do it. Raises Refused."""
    tenant = db.routes.by_slug(slug).tenant
    (rows,) = await db.read(tenant, (_PERSON, (tenant, email)))
    row = rows.first()
    if row is None:
        raise Refused(f"Nobody signs in to {slug} as {email}.", code="person.unknown")
    person = UUID((row[0] or b"").decode())
    (found,) = await db.read(tenant, choices_call(tenant, person))
    for choice in read_choices(found, now()):
        ctx = await act_as(
            db, tenant, person, choice.profile, frozenset(choice.units), origin=origin,
            door=door,
        )  # fmt: skip
        if ctx.profile.may(capability):
            return ctx
    raise Refused(f"{email} has no profile with the right {capability}.", code="profile.unknown")


def only_tenant(node: Opened) -> str:
    """The tenant of a node that has one. Raises Invalid."""
    routes = node.db.routes.all()
    if len(routes) != 1:
        raise Invalid("Say which tenant: --tenant NAME (nexus tenant list).")
    return routes[0].slug


async def only_person(node: Opened, slug: str) -> str:
    """The address of the one person who signs in. Raises Invalid."""
    tenant = node.db.routes.by_slug(slug).tenant
    (rows,) = await node.db.read(tenant, (_PEOPLE, (tenant,)))
    found = rows.column()
    if len(found) != 1:
        raise Invalid("Say in whose name: --as EMAIL.")
    return (found[0] or b"").decode()
