"""A command in a person's name: over the node, under the first of their profiles that may do it.

The node may run or not; where a command needs its content plane, that is asked first, so that
nothing is begun without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from appliance.access.login import normal_email
from appliance.base.errors import Invalid
from appliance.cli.imports import actor_of
from appliance.cli.node import Opened, opened, read_settings
from appliance.cli.plane import ask_status, reached
from appliance.content import ContentPlane
from appliance.db.wire import Statement
from appliance.kernel.context import Ctx, Door

_PEOPLE = Statement(
    "SELECT email FROM credential WHERE tenant_id = $1 AND state = 'active' ORDER BY email LIMIT 2"
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


def run(call: Call, work: Work) -> int:
    """Do it; the exit code. Raises what the work raises, Unavailable, Misconfigured, Refused."""

    async def go() -> int:
        settings = read_settings(call.data, port=call.port)
        async with reached(settings) as plane:
            if call.needs_plane:
                await ask_status(settings, plane)
            async with opened(settings) as node:
                slug = call.tenant or only_tenant(node)
                email = normal_email(call.email) if call.email else await only_person(node, slug)
                ctx = await actor_of(
                    node.db, slug, email, node.origin, capability=call.capability, door=Door.HTTP
                )
                return await work(At(node, ctx, plane))

    return asyncio.run(go())


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
