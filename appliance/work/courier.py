"""The courier: gives each webhook that has something due a turn of its own.

Promises: a commit is looked at within milliseconds (it is woken as the relay is) and within POLL_S
whatever happens; each webhook has a task of its own on the worker's loop, so a receiver that hangs
holds up nobody: no thread of a queue, no other webhook, no transaction. Several workers share the
work, one of them at a time has a webhook (a lease, which ends by itself when a worker is killed).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from uuid import UUID

from appliance.base import logs
from appliance.base.errors import ApplianceError
from appliance.base.pause import pause
from appliance.db.wire import Statement
from appliance.sync.wake import GAP_S, Ear, Waker
from appliance.webhooks.deliver import Post, deliver
from appliance.webhooks.queue import due_call

POLL_S = 1.0
# A tenant that is suspended, moving, or whose database is away is not asked at every look.
SKIP_S = 15.0
_KNOWN = Statement("SELECT tenant_id::text, is_due FROM tenants_with_webhooks()")


class Courier:
    """One per worker process."""

    def __init__(self, post: Post, waker: Waker) -> None:
        self._post, self._waker = post, waker
        self._known: set[UUID] = set()
        self._turns: dict[UUID, asyncio.Task[None]] = {}
        self._tenants: dict[UUID, UUID] = {}
        self._again: set[UUID] = set()
        self._down: set[str] = set()
        self._skipped: dict[UUID, float] = {}

    async def follow(self, stop: asyncio.Event) -> None:
        """Deliver until `stop`; turns that run then are cut off and repeated elsewhere."""
        loop = asyncio.get_running_loop()
        with self._waker.listen() as ear:
            ending = asyncio.create_task(_ring_at(stop, ear))
            try:
                due_at = loop.time()
                while not stop.is_set():
                    if loop.time() >= due_at:
                        due_at = loop.time() + POLL_S
                        await self._look(await self._poll())
                    await ear.wait(due_at - loop.time())
                    heard = ear.take()
                    if heard:
                        await self._look(heard & self._known)
                        await pause(stop, GAP_S)
            finally:
                ending.cancel()
                await self._end()

    async def _poll(self) -> set[UUID]:
        """The tenants with something due, over every placement; and which have webhooks at all."""
        known, due = set(), set()
        for target in sorted({r.target for r in self._post.db.routes.all()}):
            try:
                async with self._post.db.wire(target) as wire:
                    (rows,) = await wire.run([(_KNOWN, ())])
            except ApplianceError as error:
                if target not in self._down:
                    logs.event("courier.placement_down", level="warning", code=error.code)
                self._down.add(target)
                continue
            self._down.discard(target)
            for tenant, is_due in rows:
                ident = UUID((tenant or b"").decode())
                known.add(ident)
                if is_due == b"t":
                    due.add(ident)
        self._known = known
        return due

    async def _look(self, tenants: Collection[UUID]) -> None:
        at = asyncio.get_running_loop().time()
        for tenant in tenants:
            if not self._post.db.routes.knows(tenant) or self._skipped.get(tenant, 0.0) > at:
                continue
            try:
                (rows,) = await self._post.db.read(tenant, due_call(tenant))
            except ApplianceError as error:
                self._skip(tenant, error)
                continue
            found = {UUID((ident or b"").decode()) for ident in rows.column()}
            # One that runs has a lease and is not due: it looks once more before it ends.
            self._again |= {w for w, owner in self._tenants.items() if owner == tenant}
            for webhook in found - self._turns.keys():
                self._tenants[webhook] = tenant
                self._turns[webhook] = asyncio.create_task(self._turn(tenant, webhook))

    async def _turn(self, tenant: UUID, webhook: UUID) -> None:
        try:
            while True:
                self._again.discard(webhook)
                await deliver(self._post, tenant, webhook)
                if webhook not in self._again:
                    return
        except* ApplianceError as errors:
            self._skip(tenant, errors)
        except* Exception as errors:  # noqa: BLE001 - one fault must not end the others
            logs.event("courier.turn_failed", level="error", record=webhook,
                       error_type=type(errors.exceptions[0]).__name__)  # fmt: skip
            self._skip(tenant, errors)
        finally:
            del self._turns[webhook], self._tenants[webhook]

    def _skip(self, tenant: UUID, error: Exception) -> None:
        self._skipped[tenant] = asyncio.get_running_loop().time() + SKIP_S
        known = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
        code = known.code if isinstance(known, ApplianceError) else "node.fault"
        logs.event("courier.tenant_skipped", tenant=tenant, code=code)

    async def _end(self) -> None:
        turns = list(self._turns.values())
        for turn in turns:
            turn.cancel()
        await asyncio.gather(*turns, return_exceptions=True)


async def _ring_at(stop: asyncio.Event, ear: Ear) -> None:
    await stop.wait()
    ear.ring(None)
