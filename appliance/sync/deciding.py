"""Decide about entries that wait: apply them after all, or let them go.

A decision about what stands in the log is itself an entry of its stream (write/receive), so every
node decides alike. What was held before the log is this node's own matter. Either is in the audit.
"""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

import msgspec

from appliance.audit import audit_calls
from appliance.base import limits
from appliance.base.errors import (
    ApplianceError,
    Clash,
    FieldFault,
    Invalid,
    Limited,
    Refused,
    Unavailable,
)
from appliance.db.database import Database
from appliance.db.values import bytea_of
from appliance.db.wire import Call, Statement
from appliance.kernel.context import Ctx, Door
from appliance.sync.judging import VERDICTS, judge_of
from appliance.sync.parked import Told, Waiting, find_parked, read_held, show_parked
from appliance.write.definitions import Unsound
from appliance.write.parked import decide_parked, parked_id
from appliance.write.piecemeal import POISON, Taken
from appliance.write.receive import receive
from appliance.write.sound import MALFORMED

REASON_CHARS_MAX = 500
_RELEASE_MS = limits.STATEMENT_TIMEOUT_MS * 6
# These say nothing of the entries themselves.
_PASSING = (Unavailable, Clash, Limited, Refused)
_DECIDED = Statement(
    "UPDATE parked SET state = $3, decided_by = $4, decided_at = now(), "
    "detail = CASE WHEN $5 = '' THEN detail ELSE $5 END "
    "WHERE tenant_id = $1 AND id = $2 AND state = 'waiting' AND NOT is_logged"
)
_SKIPPED = Statement(
    "SELECT body, detail FROM parked WHERE tenant_id = $1 AND stream = $2 AND origin = $3 "
    "AND oseq < 0 AND -oseq < $4 AND NOT is_logged AND state = 'skipped' ORDER BY oseq DESC"
)
_STILL = Statement(
    "UPDATE parked SET reason = $3, detail = $4 "
    "WHERE tenant_id = $1 AND id = $2 AND state = 'waiting'"
)


class What(StrEnum):
    """What can be decided about entries that wait."""

    RELEASE = "release"
    SKIP = "skip"


async def decide(db: Database, ctx: Ctx, ident: UUID, what: What, *, reason: str = "") -> Told:
    """Release or skip; the transaction as it is then, with the steps that would say the same.

    What still cannot be applied goes on waiting with its new reason. Raises Refused, Invalid for a
    skip without a reason, Clash for what is decided already.
    """
    if what is What.SKIP and not reason.strip():
        detail = "Say why it is skipped; the reason stays with it."
        raise Invalid(detail, faults=(FieldFault("/reason", "required", detail),))
    if len(reason) > REASON_CHARS_MAX:
        detail = f"Expected at most {REASON_CHARS_MAX} characters."
        raise Invalid(detail, faults=(FieldFault("/reason", "too_long", detail),))
    parked, body = await find_parked(db, ctx, ident)
    if parked.state != "waiting":
        raise Clash(f"This is {parked.state} already.", code="parked.decided")
    if parked.reason in VERDICTS and ctx.schema.hold is not None:
        raise Clash(
            "The head office held this back by its own rules; it is decided there.",
            code="parked.elsewhere",
        )
    noted = audit_calls(
        ctx.tenant, f"sync.parked_{what}", actor=ctx.actor, subject=ident,
        request_id=ctx.request_id,
        details={"origin": parked.origin, "oseq": parked.oseq, "entries": parked.entries},
    )  # fmt: skip
    if not parked.is_held:
        await _decide_logged(db, ctx, ident, what, reason.strip(), noted)
        return await show_parked(db, ctx, ident)
    taken = await _take(db, ctx, parked, body) if what is What.RELEASE else None
    async with db.transaction(ctx.tenant) as tx:
        await tx.run(_end(ctx, ident, what, reason.strip()), *noted)
    if taken is not None and taken.parked:
        # It is in the log now and cannot be applied: there it waits, with its reason.
        ident = parked_id(parked.stream, parked.origin, parked.oseq)
    return await show_parked(db, ctx, ident)


async def _decide_logged(
    db: Database, ctx: Ctx, ident: UUID, what: What, reason: str, noted: list[Call]
) -> None:
    """What cannot be applied now either goes on waiting, and says why."""
    release = what is What.RELEASE
    try:
        # It may be parked because it takes longer than anything usually may.
        async with db.transaction(ctx.tenant, timeout_ms=_RELEASE_MS) as tx:
            await decide_parked(tx, ctx, ident, release=release, reason=reason)
            await tx.run(*noted)
    except _PASSING:
        raise
    except Exception as error:
        if not release:
            raise
        # Whatever it is: as when it was parked.
        detail = error.detail if isinstance(error, ApplianceError) else type(error).__name__
        why = MALFORMED if isinstance(error, Unsound) else POISON
        async with db.transaction(ctx.tenant) as tx:
            await tx.run((_STILL, (ctx.tenant, ident, why, detail[:REASON_CHARS_MAX])))


async def _take(db: Database, ctx: Ctx, parked: Waiting, body: bytes) -> Taken:
    """Receive what was held, as its node sent it, judged by what it might write; known entries
    are taken once. Raises Clash.
    """
    door = msgspec.structs.replace(ctx, door=Door.SYNC)
    await _take_skipped(db, ctx, door, parked)
    judge = await judge_of(db, ctx.tenant, parked.peer, ctx.schema.kinds)
    entries = await judge.judge(db, read_held(body))
    taken = await receive(db, door, parked.stream, entries, peer=parked.peer, from_hub=False)
    if taken.gap:
        detail = "Entries that this node made before are not here."
        async with db.transaction(ctx.tenant) as tx:
            await tx.run((_STILL, (ctx.tenant, parked.id, "gap", detail)))
        raise Clash(f"{detail} Release those that were held earlier first.", code="parked.gap")
    return taken


async def _take_skipped(db: Database, ctx: Ctx, door: Ctx, parked: Waiting) -> None:
    """What the node made before and somebody skipped takes its place in the log, skipped there
    too: nothing that follows can be taken without it.
    """
    place = (ctx.tenant, parked.stream, parked.origin, parked.oseq)
    (rows,) = await db.read(ctx.tenant, (_SKIPPED, place))
    for body, detail in rows:
        text = (detail or b"").decode()
        entries = [
            msgspec.structs.replace(logged, parked=f"skipped: {text}")
            for logged in read_held(bytea_of(body))
        ]
        taken = await receive(
            db, door, parked.stream, entries, peer=parked.peer, from_hub=False
        )  # fmt: skip
        for known in taken.parked:
            ident = parked_id(parked.stream, known.origin, known.oseq)
            async with db.transaction(ctx.tenant) as tx:
                await decide_parked(tx, ctx, ident, release=False, reason=text)


def _end(ctx: Ctx, ident: UUID, what: What, reason: str) -> Call:
    state = "released" if what is What.RELEASE else "skipped"
    return _DECIDED, (ctx.tenant, ident, state, ctx.actor, reason)
