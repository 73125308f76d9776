"""What the plane found out, taken over: arrows by verdicts, recalls with their incident, reads.

Notices are acknowledged when they are written down, so one that comes twice changes nothing and
none is lost, whichever side was killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from uuid import UUID

from appliance.audit import audit_calls
from appliance.base import logs
from appliance.base.errors import ApplianceError, Clash, Refused, Unavailable
from appliance.base.pause import pause
from appliance.content import ContentPlane
from appliance.db.database import Database, translated
from appliance.files.incidents import open_incident
from appliance.files.rows import File, as_system, find_file, move
from appliance.files.states import RESTING, FileState, after_verdict
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from appliance.write import Command, Op, apply
from quarantine.contract import Fetched, Judged, Notice, Verdict

NOBODY = UUID(int=0)
_RETRY_S = 2.0
_TRIES = 5
_SAME_S = 0.002
_ACTIONS = {
    FileState.RELEASED: "file.released",
    FileState.SUSPICIOUS: "file.suspicious",
    FileState.REJECTED: "file.rejected",
    FileState.RECALLED: "file.recalled",
}
# The node's own context in a tenant, for somebody: what the worker is given.
Contexts = Callable[[UUID, UUID], Awaitable[Ctx]]
# Who wants to know that a file has come to rest: its tenant, and the file as it is now.
Settled = Callable[[UUID, File], Awaitable[None]]


class Takes:
    """Takes notices one by one, in order."""

    def __init__(
        self, db: Database, plane: ContentPlane, contexts: Contexts, settled: Settled | None = None
    ) -> None:
        self._db = db
        self._plane = plane
        self._contexts = contexts
        self._settled = settled
        self._taken = 0
        self._failures = 0

    async def follow(self, stop: asyncio.Event) -> None:
        """Take what comes until `stop`; a plane or a database that is away is waited for."""
        while not stop.is_set():
            try:
                await self._take_some(await self._ask(stop))
            except ApplianceError as error:
                logs.event("files.waiting", level="warning", code=error.code)
                await pause(stop, _RETRY_S)

    async def take_once(self) -> int:
        """One round; how many notices. Raises Unavailable."""
        found = await self._plane.notices(self._taken)
        await self._take_some(found)
        return len(found)

    async def _ask(self, stop: asyncio.Event) -> list[Notice]:
        """What is new; nothing at once when everything stops while the plane waits for news."""
        asking = asyncio.create_task(self._plane.notices(self._taken))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({asking, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return asking.result() if asking.done() else []
        finally:
            for task in (asking, stopping):
                task.cancel()
            await asyncio.gather(asking, stopping, return_exceptions=True)

    async def _take_some(self, found: Sequence[Notice]) -> None:
        for notice in found:
            try:
                await self._take_known(notice.what)
            except Unavailable:
                raise
            except ApplianceError as error:
                # A tenant that is gone took its files with it; anything else is tried again, and
                # what is then left out is asked for by `keeping.ask_for_missed`.
                self._failures += not isinstance(error, Refused)
                if 0 < self._failures < _TRIES:
                    raise
                logs.event("files.notice_dropped", level="warning", code=error.code)
            self._failures = 0
            self._taken = notice.serial

    async def _take_known(self, what: Judged | Fetched) -> None:
        try:
            await self._take(what)
        except Refused:
            # A tenant that was made or opened again a moment ago is shut here still.
            with translated():
                await self._db.routes.refresh()
            await self._take(what)

    async def _take(self, what: Judged | Fetched) -> None:
        if isinstance(what, Fetched):
            await self._note_read(what)
            return
        for left in reversed(range(_TRIES)):
            try:
                await self._judge(what)
            except Clash:
                # Somebody's arrow came between: look again.
                if not left:
                    raise
                continue
            return

    async def _judge(self, judged: Judged) -> None:
        file = await find_file(self._db, judged.tenant, judged.blob)
        if file is None:
            return
        ctx = await self._contexts(judged.tenant, file.owner or NOBODY)
        is_ours = file.is_held_by(ctx.origin)
        to = after_verdict(file.state, judged.report.verdict, is_ours=is_ours)
        says_else = is_ours and _says_else(file, judged)
        if to is None and file.state is FileState.SUSPICIOUS and says_else:
            to = FileState.SUSPICIOUS
        if to is not None:
            # What reviewers said of other findings does not count for these.
            values = {**_values(judged, ctx.origin), "review": None}
            await move(self._db, ctx, file, to, _ACTIONS[to], values)
        elif not _is_of(file, judged):
            # Another node's word came first: who waits for the file here may go on or give up.
            if self._settled is not None and file.state in RESTING:
                await self._settled(judged.tenant, file)
            return
        else:
            # It came before, and what follows from it may not have: the node was killed between.
            to = file.state
        after = await find_file(self._db, judged.tenant, file.id)
        if self._settled is not None and after is not None:
            await self._settled(judged.tenant, after)
        if to is FileState.RECALLED:
            await open_incident(self._db, ctx, file, judged.judged_at, _findings(judged))
        elif to is FileState.RELEASED and file.for_field and file.deleted_at is None:
            await _hang(self._db, ctx, file)

    async def _note_read(self, read: Fetched) -> None:
        event = audit_calls(
            read.tenant, "file.downloaded", actor=read.person, subject=read.file,
            details={"bytes": read.bytes_sent, "whole": read.whole, "ticket": read.ticket[:12]},
        )  # fmt: skip
        async with self._db.transaction(read.tenant) as tx:
            await tx.run(*event, commit=True)


def _is_of(file: File, judged: Judged) -> bool:
    """Whether the file's state follows from this verdict; moments are kept to the millisecond."""
    if (file.state is FileState.RELEASED) is not (judged.report.verdict is Verdict.CLEAN):
        return False
    if not file.judged_at:
        return False
    apart = datetime.fromisoformat(file.judged_at) - judged.judged_at
    return abs(apart.total_seconds()) < _SAME_S


def _says_else(file: File, judged: Judged) -> bool:
    """Whether a new look at a suspicious file found something else than the last one."""
    is_held = judged.report.verdict is Verdict.SUSPICIOUS
    return is_held and file.verdict.get("findings") != _findings(judged)


def _values(judged: Judged, origin: int) -> dict[str, Json]:
    report = judged.report
    worst = [f for f in report.findings if f.verdict is report.verdict]
    verdict: dict[str, Json] = {
        "verdict": report.verdict.value,
        "findings": _findings(judged),
        "engines": [f"{r.engine} {r.version} {r.signatures}".strip() for r in report.engines],
        "policy": report.policy_revision,
        "node": origin,
    }
    return {
        "verdict": verdict, "type": report.type, "sha256": report.sha256, "size": report.size,
        "judged_at": judged.judged_at.isoformat(),
        "reason": worst[0].detail[:500] if worst and report.verdict is not Verdict.CLEAN else None,
    }  # fmt: skip


def _findings(judged: Judged) -> list[Json]:
    return [
        {"engine": f.engine, "code": f.code, "verdict": f.verdict.value, "detail": f.detail[:300],
         "place": f.place[:300]}
        for f in judged.report.findings[:50]
    ]  # fmt: skip


async def _hang(db: Database, ctx: Ctx, file: File) -> None:
    """Make it the value of the field it was brought for; a record that is gone has none."""
    command = Command(
        op=Op.UPDATE, kind=file.for_kind, id=file.for_record, fields={file.for_field: str(file.id)}
    )
    result = await apply(db, as_system(ctx), [command])
    if not result.committed:
        logs.event("files.field_left", level="warning", tenant=ctx.tenant)


def _text(value: bytes | None) -> str:
    return (value or b"").decode()
