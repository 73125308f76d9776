"""Where each tenant lives: routes read from the control plane, fresh within seconds.

Promises: an unknown or suspended tenant is refused before any tenant database is opened; a
routing change reaches every process within REFRESH_S because each polls one counter row.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from uuid import UUID

import msgspec
import psycopg
from psycopg_pool import AsyncConnectionPool

from appliance.base import logs
from appliance.base.errors import Refused, Unavailable

REFRESH_S = 2.0
_SHUT = ("creating", "suspended", "closed")


class Route(msgspec.Struct, frozen=True):
    """One tenant and the database it is in (`target` names it, see `Database.pool`)."""

    tenant: UUID
    slug: str
    name: str
    state: str
    target: str
    placement: str


class Routes:
    """The routing table of this process."""

    def __init__(
        self,
        control: AsyncConnectionPool[psycopg.AsyncConnection[object]],
        on_change: Callable[[set[str]], Awaitable[None]] | None = None,
    ) -> None:
        """`on_change` hears the targets in use whenever the routes were reloaded."""
        self._control = control
        self._on_change = on_change
        self._rev = -1
        self._by_id: dict[UUID, Route] = {}
        self._by_slug: dict[str, Route] = {}
        self._task: asyncio.Task[None] | None = None
        self._pinned: dict[UUID, Route] = {}

    @contextlib.contextmanager
    def pinned(self, route: Route) -> Iterator[None]:
        """Reach a tenant that is still being made, in this process and block only."""
        self._pinned[route.tenant] = route
        try:
            yield
        finally:
            del self._pinned[route.tenant]

    async def start(self) -> None:
        """Load once, then keep following the counter."""
        await self.refresh()
        self._task = asyncio.create_task(self._follow(), name="routes")

    async def stop(self) -> None:
        """End the polling."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                await self.refresh()
            except (psycopg.Error, Unavailable, TimeoutError) as error:
                # The last known routes stay: tenants' databases may well be up.
                logs.event(
                    "routes.refresh_failed", level="warning", error_type=type(error).__name__
                )

    async def refresh(self) -> None:
        """Reload when the counter moved."""
        async with self._control.connection() as conn:
            row = await (await conn.execute("SELECT rev FROM routing")).fetchone()
            rev = int(row[0]) if row else 0  # type: ignore[index]
            if rev == self._rev:
                return
            cursor = await conn.execute(
                "SELECT t.id, t.slug, t.name, t.state, p.target, p.name FROM tenant t "
                "JOIN placement p ON p.id = t.placement_id"
            )
            routes = [Route(*row) for row in await cursor.fetchall()]  # type: ignore[misc]
        self._by_id = {r.tenant: r for r in routes}
        self._by_slug = {r.slug: r for r in routes}
        self._rev = rev
        if self._on_change:
            await self._on_change({r.target for r in routes})

    def all(self) -> list[Route]:
        """Every known tenant."""
        return list(self._by_id.values())

    def open(self) -> list[Route]:
        """The tenants that are worked in: neither being made nor suspended nor closed."""
        return [r for r in self._by_id.values() if r.state not in _SHUT]

    def knows(self, tenant: UUID) -> bool:
        """Whether a route leads to the tenant, as far as this process has heard."""
        return tenant in self._by_id or tenant in self._pinned

    def of(self, tenant: UUID, *, read: bool = False) -> Route:
        """The route of an active tenant; Refused when unknown, suspended or closed.

        While it moves only reads pass: the rows stay readable in the old place until the switch.
        """
        return _active(self._pinned.get(tenant) or self._by_id.get(tenant), read=read)

    async def seek(self, tenant: UUID) -> None:
        """Ask once for a tenant that is not open here: another process may just have opened it.

        Sign-in and the next request may reach two processes within REFRESH_S, and this one may
        have last looked while the tenant was still being made.
        """
        route = self._by_id.get(tenant)
        if tenant in self._pinned or (route is not None and route.state not in _SHUT):
            return
        with contextlib.suppress(psycopg.Error, Unavailable, TimeoutError):
            await self.refresh()

    def by_slug(self, slug: str) -> Route:
        """The same by slug, for login."""
        return _active(self._by_slug.get(slug))


def _active(route: Route | None, *, read: bool = False) -> Route:
    if route is None or route.state in _SHUT:
        raise Refused("There is no such tenant here.", code="tenant.unknown")
    if route.state == "moving" and not read:
        raise moving()
    return route


def moving() -> Unavailable:
    """Why a write is refused while its tenant is between two databases."""
    return Unavailable(
        "This tenant is being moved to another database; try again in a moment.",
        dependency="placement",
        code="tenant.moving",
    )
