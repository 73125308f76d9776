"""Tickets: who may read a file now gets an address that works once, for 30 seconds, for them.

A verdict that is older than a week and of other signatures is made anew first. What runs is looked
after: twice a second the node asks whether the session behind each ticket and each running
download still lives and the file is still released, and takes it away where not. Without Redis
there is no download, so nothing can run on unseen.
"""

from __future__ import annotations

import asyncio
import secrets
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import msgspec
import redis.asyncio as aioredis
from redis.exceptions import RedisError

from appliance.access.session import is_live
from appliance.audit import audit_calls
from appliance.base import logs
from appliance.base.clock import now
from appliance.base.errors import ApplianceError, Clash, Unavailable
from appliance.base.pause import pause
from appliance.content import ContentPlane
from appliance.db.database import Database
from appliance.files.copies import look_here, read_call
from appliance.files.places import REVIEW
from appliance.files.rows import File, find_file
from appliance.files.states import DOWNLOADABLE, FileState
from appliance.files.upload import job_of
from appliance.kernel.context import Ctx
from quarantine.contract import LIVE_KEY, TICKET_KEY, TICKET_S, TRANSFER_KEY, Ticket, Verdict
from quarantine.signing import Forged

OLD_DAYS = 7
RESCAN_WAIT_S = 15.0
WATCH_S = 0.5
_LOOK_S = 0.1


class Issued(msgspec.Struct, frozen=True):
    """Where to fetch it, and until when."""

    url: str
    expires_at: datetime


async def issue(
    db: Database, ctx: Ctx, plane: ContentPlane, redis: aioredis.Redis, file: File, *,
    token: str, inline: bool,
) -> Issued:  # fmt: skip
    """A ticket for a file that the actor sees. Raises Clash while it is not released, Unavailable."""
    check_downloadable(ctx, file)
    file = await make_current(db, ctx, plane, file)
    at = now()
    ticket = Ticket(
        id=secrets.token_urlsafe(24), blob=file.id, tenant=ctx.tenant, file=file.id,
        person=ctx.actor, session=sha256(token.encode()).hexdigest(),
        session_id=ctx.session or UUID(int=0), name=file.name, type=file.type, size=file.size,
        expires_at=at + timedelta(seconds=TICKET_S), inline=inline,
        reviewed=file.state is FileState.RESTRICTED,
    )  # fmt: skip
    event = audit_calls(
        ctx.tenant, "file.ticket_issued", actor=ctx.actor, subject=file.id,
        request_id=ctx.request_id, details={"ticket": ticket.id[:12]},
    )  # fmt: skip
    async with db.transaction(ctx.tenant) as tx:
        await tx.run(*event, read_call(ctx.tenant, file.id), commit=True)
    sealed = plane.signer.seal(ticket)
    try:
        async with redis.pipeline(transaction=True) as pipe:
            pipe.hset(LIVE_KEY, ticket.id, sealed)
            pipe.set(TICKET_KEY.format(ticket.id), sealed, ex=TICKET_S)
            await pipe.execute()
    except (RedisError, OSError) as error:
        raise Unavailable(
            "Downloads wait for Redis, which does not answer.", dependency="redis"
        ) from error
    return Issued(f"{plane.public_url}/d/{ticket.id}", ticket.expires_at)


def check_downloadable(ctx: Ctx, file: File) -> None:
    """Raises Clash with the reason of its state."""
    if file.state not in DOWNLOADABLE:
        raise Clash(
            f"This file is {file.state}: {file.reason or 'it is not for download.'}",
            code=f"file.{file.state}",
        )
    if file.state is FileState.RESTRICTED and not (
        file.owner == ctx.actor or ctx.profile.may(REVIEW)
    ):
        raise Clash("This file is for reviewers and for who brought it.", code="file.restricted")


async def make_current(db: Database, ctx: Ctx, plane: ContentPlane, file: File) -> File:
    """Scan again first what was last judged more than a week ago by other signatures.

    Raises Clash when it is not released any more, or not judged by this node yet: one that came
    from another node or from a backup; `file.not_here` while its bytes are not here.
    """
    look = await look_here(db, ctx, plane, file)
    if look.verdict is None or look.judged_at is None:
        raise Clash(
            "This file came back from a backup, or came from another node, and waits for its scan "
            "here; ask again in a while.",
            code="file.rescanning",
        )
    if file.state is FileState.RESTRICTED and look.verdict is Verdict.SUSPICIOUS:
        return file
    if look.verdict is not Verdict.CLEAN:
        # Judged while nobody listened, with the tenant suspended: the word has to come again.
        await plane.scan(job_of(file, ctx.tenant, priority=0))
        raise Clash("This file is not released any more.", code="file.recalled")
    if (
        file.state is FileState.RESTRICTED
        or look.is_current
        or now() - look.judged_at < timedelta(days=OLD_DAYS)
    ):
        return file
    await plane.scan(job_of(file, ctx.tenant, priority=0))
    end = asyncio.get_running_loop().time() + RESCAN_WAIT_S
    while asyncio.get_running_loop().time() < end:
        look = await plane.look(ctx.tenant, file.id)
        if look.is_current and look.verdict is not None:
            break
        await asyncio.sleep(_LOOK_S)
    else:
        raise Clash(
            "This file is being looked at again, because it was judged long ago; ask in a moment.",
            code="file.rescanning",
        )
    found = await find_file(db, ctx.tenant, file.id)
    if found is None or look.verdict != "clean":
        raise Clash("This file is not released any more.", code="file.recalled")
    return found


class Watch:
    """Looks after all tickets and downloads of the node."""

    def __init__(self, db: Database, plane: ContentPlane, redis: aioredis.Redis) -> None:
        self._db = db
        self._plane = plane
        self._redis = redis

    async def follow(self, stop: asyncio.Event) -> None:
        """Look twice a second until `stop`."""
        while not stop.is_set():
            try:
                await self.look_once()
            except (ApplianceError, RedisError, OSError) as error:
                logs.event("files.watch_failed", level="warning", error_type=type(error).__name__)
            await pause(stop, WATCH_S)

    async def look_once(self) -> int:
        """One look; how many were taken away. Raises ApplianceError, RedisError."""
        held: dict[bytes, bytes] = await _answer(self._redis.hgetall(LIVE_KEY))
        ended, away = 0, None
        for name, sealed in held.items():
            ident = name.decode()
            keys = (TICKET_KEY.format(ident), TRANSFER_KEY.format(ident))
            if not await _answer(self._redis.exists(*keys)):
                await _answer(self._redis.hdel(LIVE_KEY, ident))
                continue
            try:
                lives = await self._lives(sealed)
            except Unavailable as error:
                # One tenant's database is away: the others' are looked after all the same.
                away = error
                continue
            if not lives:
                await _answer(self._redis.delete(*keys))
                await _answer(self._redis.hdel(LIVE_KEY, ident))
                ended += 1
        if away is not None:
            raise away
        return ended

    async def _lives(self, sealed: bytes) -> bool:
        """Whether it may go on; not when its tenant is gone. Raises Unavailable."""
        try:
            ticket = self._plane.signer.open(sealed.decode(), Ticket)
        except (Forged, UnicodeDecodeError):
            return False
        try:
            return await self._is_allowed(ticket)
        except Unavailable:
            raise
        except ApplianceError:
            return False

    async def _is_allowed(self, ticket: Ticket) -> bool:
        if not await is_live(self._db, ticket.tenant, ticket.session_id):
            return False
        file = await find_file(self._db, ticket.tenant, ticket.file)
        return file is not None and file.deleted_at is None and file.state in DOWNLOADABLE


async def _answer(asked: Any) -> Any:
    """The client's types are those of its blocking twin as well."""
    return await asked
