"""One webhook's turn: read what is new in the log, tell it, and note how each try ended.

Promises: at least once, because a cursor moves only together with the events it covers and an event
is done only when the receiver said so; in order for each record; a receiver that fails is tried
again with full jitter, asked less often the longer it fails, and left alone once a person has to
look; what it was told of, and what it was not, can be seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from uuid import UUID

import msgspec

from appliance.base import logs
from appliance.base.errors import ApplianceError, Invalid, Refused
from appliance.base.ids import parse_uuid, uuid7
from appliance.base.settings import Webhooks
from appliance.db.database import Database
from appliance.webhooks.events import (
    BATCH,
    behind_call,
    decisions_of,
    read_events,
    released_call,
)
from appliance.webhooks.queue import LEASE_S, Claimed, Hold, Try, Waiting
from appliance.webhooks.render import Reader, Subscriber, Unwanted, message_id
from appliance.webhooks.secrets import Box, Unsealable, sign
from appliance.webhooks.send import Resolve, Sender, Sent
from appliance.webhooks.shape import read_watches
from connectors.sdk.egress import resolve
from connectors.sdk.retry import Policy, wait_before

# Events of different records that are on their way to one receiver at once.
AT_ONCE = 4
TURN = 50


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """When to try again, and when not any more.

    After `rest_after` failures in a row the receiver is left alone for a while, twice as long each
    time. `wrong_max`: failures in a row that a person has to mend. `attempts_max`: tries of one
    event that the receiver does not take while it takes others.
    """

    retry: Policy = Policy(first_s=5.0, most_s=21_600.0)
    rest_after: int = 3
    wrong_max: int = 8
    refused_max: int = 20
    attempts_max: int = 12


class Post(msgspec.Struct, frozen=True, kw_only=True):
    """What deliveries are made with."""

    db: Database
    box: Box
    origin: int
    settings: Webhooks = msgspec.field(default_factory=Webhooks)
    pace: Pace = msgspec.field(default_factory=Pace)
    look_up: Resolve = resolve


async def deliver(post: Post, tenant: UUID, webhook: UUID) -> None:
    """Tell a webhook's receiver all that is due. Raises what the database raises."""
    hold = Hold(post.db, tenant, webhook, uuid7())
    claimed = await hold.claim()
    if claimed is None:
        return
    bound = logs.bind(tenant=tenant)
    try:
        await _Turn(post, hold, claimed).run()
    finally:
        logs.unbind(bound)
        # Shielded: a stop of the worker must not leave others waiting for the lease to end.
        with contextlib.suppress(ApplianceError):
            await asyncio.shield(hold.release())


class _Turn:
    """One claim of one webhook."""

    def __init__(self, post: Post, hold: Hold, claimed: Claimed) -> None:
        self._post, self._hold = post, hold
        values = claimed.values
        self._claimed = claimed
        self._url = str(values.get("url") or "")
        named = values.get("units")
        units = [parse_uuid(u) for u in named] if isinstance(named, list) else []
        nobody = UUID(int=0)
        self._who = Subscriber(
            webhook=hold.webhook, tenant=hold.tenant,
            maker=parse_uuid(values.get("maker")) or nobody,
            profile=parse_uuid(values.get("profile")) or nobody,
            units=frozenset(u for u in units if u is not None),
            watches={w.kind: w for w in read_watches(values.get("watches"))},
        )  # fmt: skip
        self._reader = Reader(post.db, self._who, post.origin, hold.runner)
        self._is_over = False
        self._kept_at = time.monotonic()

    async def run(self) -> None:
        """Until nothing is due, or it has to end."""
        try:
            secrets = self._secrets()
        except Unsealable:
            await self._stop("failing", "secret.unreadable: make a new secret on this node")
            return
        settings = self._post.settings
        sender = Sender(
            self._url, settings.allowed, timeout_s=settings.timeout_seconds,
            ca_file=settings.ca_file, look_up=self._post.look_up,
        )  # fmt: skip
        try:
            while not self._is_over:
                is_more = await self._read_log()
                due = await self._hold.next(TURN)
                if not due and not is_more:
                    return
                await self._tell_all(sender, secrets, due)
        finally:
            await sender.close()

    def _secrets(self) -> list[bytes]:
        """Those that sign. A former one that cannot be opened is nobody's any more."""
        hold, open_ = self._hold, self._post.box.open
        found = [open_(hold.tenant, hold.webhook, self._claimed.secret)]
        if self._claimed.former is not None:
            with contextlib.suppress(Unsealable):
                found.append(open_(hold.tenant, hold.webhook, self._claimed.former))
        return found

    async def _read_log(self) -> bool:
        """Make events of what is behind the cursor, as far as there is room; whether there is more."""
        hold, db = self._hold, self._post.db
        if await hold.room() <= 0:
            return False
        actions = {kind: watch.actions for kind, watch in self._who.watches.items()}
        (rows,) = await db.read(hold.tenant, behind_call(hold.tenant, hold.webhook, actions))
        if not len(rows):
            return False
        released: dict[UUID, list[tuple[bytes | None, ...]]] = {}
        if decided := decisions_of(rows):
            (let_in,) = await db.read(hold.tenant, released_call(hold.tenant, decided, actions))
            for row in let_in:
                released.setdefault(UUID((row[0] or b"").decode()), []).append(row)
        found = read_events(rows, released, hold.webhook, actions, BATCH)
        if found.is_cut:
            logs.event("webhook.missed", level="error", record=hold.webhook)
        if not await hold.enter(found):
            self._is_over = True
        return found.is_more

    async def _tell_all(
        self, sender: Sender, secrets: Sequence[bytes], due: Sequence[Waiting]
    ) -> None:
        waiting = iter(due)

        async def go_on() -> None:
            for one in waiting:
                if self._is_over:
                    return
                await self._keep()
                await self._tell(sender, secrets, one)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(AT_ONCE, len(due))):
                group.create_task(go_on())

    async def _keep(self) -> None:
        if time.monotonic() - self._kept_at > LEASE_S / 3:
            self._kept_at = time.monotonic()
            if not await self._hold.keep():
                self._is_over = True

    async def _tell(self, sender: Sender, secrets: Sequence[bytes], waiting: Waiting) -> None:
        event = waiting.event
        try:
            told = await self._reader.tell(event)
        except Unwanted:
            self._is_over = True
            return
        except Refused as error:
            await self._stop("failing", f"{error.code}: {error.detail}")
            return
        except Invalid as error:
            where = "the condition cannot be asked under this profile any more"
            await self._stop("failing", f"{error.code}: {where}")
            return
        if told is None:
            await self._hold.nothing(event)
            return
        ident, moment = message_id(event.id), int(time.time())
        headers = {
            "Content-Type": "application/json", "webhook-id": ident,
            "webhook-timestamp": str(moment),
            "webhook-signature": " ".join(sign(s, ident, moment, told.body) for s in secrets),
        }  # fmt: skip
        sent = await sender.send(headers, told.body)
        if not sent.code:
            await self._hold.taken(
                event, status=sent.status, duration_ms=sent.duration_ms, is_known=told.is_known
            )
            return
        await self._fail(waiting, sent)

    async def _fail(self, waiting: Waiting, sent: Sent) -> None:
        pace = self._post.pace
        again = wait_before(pace.retry, waiting.attempts, sent.after_s)
        tried = Try(
            status=sent.status, code=sent.code, duration_ms=sent.duration_ms, again_s=again,
            is_dead=sent.is_refused, attempts_max=pace.attempts_max,
        )  # fmt: skip
        result = await self._hold.failed(waiting.event, tried)
        if result is None:
            self._is_over = True
            return
        failures, failing_s = result
        logs.event(
            "webhook.failed", level="warning", record=self._hold.webhook, code=sent.code,
            attempt=waiting.attempts + 1, duration_ms=sent.duration_ms,
        )  # fmt: skip
        most = pace.refused_max if sent.is_refused else pace.wrong_max
        if sent.is_gone:
            await self._stop("disabled", "http-410: the receiver said that it is gone")
        elif (sent.is_wrong or sent.is_refused) and failures >= most:
            await self._stop("failing", f"{sent.code}, {failures} times in a row")
        elif failing_s > self._post.settings.failing_days * 86_400:
            await self._stop(
                "failing", f"{sent.code}: no success for {failing_s / 86_400:.1f} days"
            )
        elif sent.after_s or (failures >= pace.rest_after and not sent.is_refused):
            # It is the receiver that ails, not this event: nothing of it is tried meanwhile.
            rest = wait_before(pace.retry, failures - 1, sent.after_s)
            await self._hold.rest(rest)
            self._is_over = True

    async def _stop(self, state: str, reason: str) -> None:
        self._is_over = True
        await self._hold.stop(state, reason)
        logs.event(
            "webhook.stopped", level="error", record=self._hold.webhook, state=state,
            code=reason.partition(":")[0][:60],
        )  # fmt: skip
