"""The write path: seven stages in order, always a batch, one transaction, commit at the edge.

Promises: every door goes through here; a batch is idempotent by its command id; all faults come
at once; a refused batch leaves nothing behind; what is acknowledged is in the log and in the
tables, or in neither. Three round trips: lock and read; counters; write and commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Protocol
from uuid import UUID

import msgspec

from appliance.base import limits
from appliance.base.errors import Clash, TooLarge
from appliance.base.ids import uuid7
from appliance.db.database import Database, Transaction
from appliance.db.wire import Call, Rows, Statement
from appliance.kernel.context import Ctx
from appliance.kernel.number import format_number, period_of, series_pattern
from appliance.write import conflict, schema_effects
from appliance.write.authorize import authorize, check_settled
from appliance.write.balances import Floors
from appliance.write.claims import check_claims, load_restored
from appliance.write.command import Command, Op
from appliance.write.derive import derive
from appliance.write.draft import Draft
from appliance.write.emit import emit_calls
from appliance.write.entries import reverse
from appliance.write.hooks import check_system
from appliance.write.lending import check_lending
from appliance.write.load import Loaded, load_calls, read_loaded
from appliance.write.log import LOCK_STREAMS, append, log_calls, read_heads, streams_of
from appliance.write.outcome import Applied, Conflict, Outcome, Rejected, Result
from appliance.write.project import project_calls
from appliance.write.settle import settle
from appliance.write.validate import validate

_KNOWN = Statement("SELECT fingerprint, outcome FROM command WHERE tenant_id = $1 AND id = $2")
_LOCK_COMMAND = Statement("SELECT pg_advisory_xact_lock($1)")
_REMEMBER = Statement(
    "INSERT INTO command (tenant_id, id, fingerprint, outcome) VALUES ($1, $2, $3, $4)"
)
_LOG_KEY = Statement("SELECT log_key FROM tenant_state WHERE tenant_id = $1")
_NUMBERS = Statement(
    "INSERT INTO number_series AS s (tenant_id, series, period, last) "
    "SELECT $1, u.series, u.period, u.n FROM unnest($2::text[], $3::text[], $4::bigint[]) "
    "AS u(series, period, n) ORDER BY u.series, u.period "
    "ON CONFLICT (tenant_id, series, period) DO UPDATE SET last = s.last + EXCLUDED.last "
    "RETURNING series, last"
)
_encode = msgspec.msgpack.encode
_decode_result = msgspec.msgpack.Decoder(Result).decode


class Guard(Protocol):
    """Something to check in the first round trip: the session and the revisions of rights."""

    @property
    def calls(self) -> Sequence[Call]:
        """Statements to run before anything is locked."""

    def check(self, answers: Sequence[Rows]) -> None:
        """Raise to stop the batch."""


async def apply(
    db: Database,
    ctx: Ctx,
    commands: Sequence[Command],
    *,
    command_id: UUID | None = None,
    atomic: bool = True,
    guard: Guard | None = None,
) -> Result:
    """Run a batch. `atomic`: one refusal refuses all; else the good ones are written.

    Raises TooLarge over BATCH_COMMANDS_MAX, Clash for a command id used with other content,
    and whatever the guard or the database say.
    """
    if len(commands) > limits.BATCH_COMMANDS_MAX:
        raise TooLarge(
            f"At most {limits.BATCH_COMMANDS_MAX} records in one call; {len(commands)} were sent."
        )
    drafts = _draft(ctx, commands)
    async with db.transaction(ctx.tenant) as tx:
        return await _apply(tx, ctx, drafts, command_id, atomic=atomic, guard=guard)


async def check(db: Database, ctx: Ctx, commands: Sequence[Command]) -> tuple[Outcome, ...]:
    """Stages 1–4 without saving: what would become of each command."""
    drafts = _draft(ctx, commands)
    loaded = read_loaded(drafts, await db.read(ctx.tenant, *load_calls(ctx, drafts, lock=False)))
    _decide(ctx, drafts, loaded)
    return tuple(
        Rejected(d.id, tuple(d.faults), d.status)
        if d.faults
        else d.outcome or Applied(d.id, "", None, d.command.op)
        for d in drafts
    )


def _draft(ctx: Ctx, commands: Sequence[Command]) -> list[Draft]:
    drafts = [validate(ctx, n, command, uuid7()) for n, command in enumerate(commands)]
    seen: set[UUID] = set()
    for draft in drafts:
        if draft.command.id is not None and draft.id in seen:
            draft.fault("/id", "repeated", "A record may stand only once in a batch.")
        seen.add(draft.id)
    return drafts


async def _apply(
    tx: Transaction,
    ctx: Ctx,
    drafts: list[Draft],
    command_id: UUID | None,
    *,
    atomic: bool,
    guard: Guard | None,
) -> Result:
    fingerprint = _fingerprint(drafts) if command_id else b""
    opening: list[Call] = list(guard.calls) if guard else []
    guarded = len(opening)
    if command_id:
        opening.append((_LOCK_COMMAND, (command_id.int >> 64 & 0x7FFF_FFFF_FFFF_FFFF,)))
        opening.append((_KNOWN, (ctx.tenant, command_id)))
    opened = len(opening)
    opening.append((_LOG_KEY, (ctx.tenant,)))
    answers = await tx.run(*opening, *load_calls(ctx, drafts))
    if guard:
        guard.check(answers[:guarded])
    if command_id and (known := answers[opened - 1].first()) is not None:
        return _repeat(known, fingerprint)
    loaded = read_loaded(drafts, answers[opened + 1 :])
    await load_restored(tx, ctx, drafts, loaded)
    await schema_effects.name_fields(tx, ctx, drafts)
    await check_lending(tx, ctx, drafts)
    _decide(ctx, drafts, loaded)
    await conflict.explain(tx, ctx, [d for d in drafts if d.is_open and d.stale])
    good = [d for d in drafts if d.is_open]
    refused = any(map(_is_refusal, drafts))
    if not good or (atomic and refused):
        return _uncommitted(ctx, drafts, refused=refused)
    log_key = _bytea(answers[opened].first())
    floors = Floors(ctx, good, loaded)
    result = await _write(tx, ctx, drafts, good, log_key, floors, atomic=atomic)
    if not result.committed:
        await tx.finish(commit=False)
        return result
    ending = [(_REMEMBER, (ctx.tenant, command_id, fingerprint, _encode(result)))]
    await tx.run(*(ending if command_id else ()), commit=True)
    return result


def _decide(ctx: Ctx, drafts: Sequence[Draft], loaded: Loaded) -> None:
    """Stages 2 to 4 on what was loaded."""
    check_system(ctx, drafts)
    born = {d.id: d.kind for d in drafts if d.command.op is Op.CREATE and d.kind and not d.faults}
    for draft in drafts:
        if draft.is_open:
            authorize(ctx, draft, loaded, born)
        if draft.is_open:
            settle(draft)
            reverse(ctx, draft, loaded)
        if draft.is_open:
            derive(draft)
    check_claims(drafts, loaded)


async def _write(
    tx: Transaction,
    ctx: Ctx,
    drafts: list[Draft],
    good: list[Draft],
    log_key: bytes,
    floors: Floors,
    *,
    atomic: bool,
) -> Result:
    """Stages 5 to 7. The scope is checked once more on the settled records."""
    calls, series = _number_calls(ctx, good)
    calls.append((LOCK_STREAMS, (ctx.tenant, streams_of(ctx, good), ctx.origin)))
    locked = len(calls)
    answers = await tx.run(*calls, *floors.calls())
    numbers = _numbers(ctx, answers[0], series) if series else {}
    heads = read_heads(ctx, answers[locked - 1])
    floors.check(answers[locked:])
    jobs = await schema_effects.apply(tx, ctx, good)
    for draft in good:
        append(ctx, draft, heads, numbers.get(draft.id))
        check_settled(ctx, draft)
    if any(d.faults for d in good):
        # Dots and numbers given to refused drafts would leave gaps: start over without them.
        return await _without_refused(tx, ctx, drafts, good, log_key, floors, atomic=atomic)
    emitted, effects = emit_calls(ctx, good, jobs)
    entries = [e for d in good for e in d.entries]
    await tx.run(*log_calls(ctx, log_key, entries, heads), *project_calls(ctx, good), *emitted)
    for draft in good:
        assert draft.after is not None, "appended drafts have a state"
        draft.outcome = Applied(
            draft.id, str(draft.after.stamps), draft.after.number, draft.command.op
        )
    return Result(ctx.request_id, tuple(map(_outcome, drafts)), effects)


async def _without_refused(
    tx: Transaction,
    ctx: Ctx,
    drafts: list[Draft],
    good: list[Draft],
    log_key: bytes,
    floors: Floors,
    *,
    atomic: bool,
) -> Result:
    rest = [d for d in good if not d.faults]
    if atomic or not rest:
        return _uncommitted(ctx, drafts, refused=True)
    for draft in rest:
        draft.entries.clear()
        draft.after = None
    return await _write(
        tx, ctx, drafts, rest, log_key, Floors(ctx, rest, floors.loaded), atomic=atomic
    )


def _number_calls(ctx: Ctx, drafts: Sequence[Draft]) -> tuple[list[Call], dict[str, list[Draft]]]:
    series: dict[str, list[Draft]] = {}
    for draft in drafts:
        kind = draft.kind
        if draft.command.op is Op.CREATE and kind and not kind.system and not kind.ledger:
            series.setdefault(kind.key, []).append(draft)
    if not series:
        return [], series
    keys = sorted(series)
    periods = [period_of(_pattern(series[k][0]), ctx.at, ctx.tz) for k in keys]
    return [(_NUMBERS, (ctx.tenant, keys, periods, [len(series[k]) for k in keys]))], series


def _numbers(ctx: Ctx, rows: Rows, series: dict[str, list[Draft]]) -> dict[UUID, str]:
    found: dict[UUID, str] = {}
    for key, last in rows:
        drafts = series[(key or b"").decode()]
        first = int(last or 0) - len(drafts) + 1
        for n, draft in enumerate(drafts, first):
            found[draft.id] = format_number(_pattern(draft), n, ctx.node_prefix, ctx.at, ctx.tz)
    return found


def _pattern(draft: Draft) -> str:
    assert draft.kind is not None, "open drafts have a kind"
    return series_pattern(draft.kind.key, draft.kind.series)


def _outcome(draft: Draft) -> Outcome:
    if draft.faults:
        return Rejected(draft.id, tuple(draft.faults), draft.status)
    if draft.outcome is not None:
        return draft.outcome
    version = str(draft.before.stamps) if draft.before else ""
    return Applied(draft.id, version, None, draft.command.op)


def _is_refusal(draft: Draft) -> bool:
    return bool(draft.faults) or isinstance(draft.outcome, Conflict)


def _uncommitted(ctx: Ctx, drafts: Sequence[Draft], *, refused: bool) -> Result:
    return Result(ctx.request_id, tuple(map(_outcome, drafts)), committed=not refused)


def _fingerprint(drafts: Sequence[Draft]) -> bytes:
    return blake2b(_encode([d.command for d in drafts]), digest_size=16).digest()


def _repeat(known: Sequence[bytes | None], fingerprint: bytes) -> Result:
    if _bytea(known) != fingerprint:
        raise Clash(
            "This idempotency key was used for another request; use a new one.",
            code="command.reused",
        )
    return _decode_result(_bytea(known[1:]))


def _bytea(row: Sequence[bytes | None] | None) -> bytes:
    assert row and row[0], "a bytea column was selected"
    return bytes.fromhex(row[0][2:].decode())
