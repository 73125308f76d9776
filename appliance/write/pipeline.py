"""The write path: seven stages in order, always a batch, one transaction, commit at the edge.

Promises: every door goes through here; a batch is idempotent by its command id; all faults come
at once; a refused batch leaves nothing behind; what is acknowledged is in the log and in the
tables, or in neither. Three round trips: lock and read; counters; write and commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
from appliance.pricing import Answer
from appliance.pricing.shelf import Read
from appliance.write import conflict, prices, schema_effects, stages
from appliance.write.authorize import authorize
from appliance.write.claims import check_claims, load_restored
from appliance.write.command import Command, Op
from appliance.write.derive import derive
from appliance.write.draft import Draft
from appliance.write.entries import reverse
from appliance.write.fit import fit
from appliance.write.follow import follow
from appliance.write.held import check_held
from appliance.write.hooks import check_system
from appliance.write.lending import check_lending
from appliance.write.load import Loaded, load_calls, read_loaded
from appliance.write.outcome import Conflict, Outcome, Result
from appliance.write.persist import persist
from appliance.write.pointing import note_seen
from appliance.write.settle import place_with_parent, settle
from appliance.write.shown import show_outcome
from appliance.write.stages import Steps
from appliance.write.validate import validate

_KNOWN = Statement("SELECT fingerprint, outcome FROM command WHERE tenant_id = $1 AND id = $2")
_LOCK_COMMAND = Statement("SELECT pg_advisory_xact_lock($1)")
_REMEMBER = Statement(
    "INSERT INTO command (tenant_id, id, fingerprint, outcome) VALUES ($1, $2, $3, $4)"
)
_encode = msgspec.msgpack.encode
# Integers beyond 64 bits, lone surrogates, foreign types, endless nesting.
_UNPACKABLE = (OverflowError, ValueError, TypeError, RecursionError)
_decode_result = msgspec.msgpack.Decoder(Result).decode


class Guard(Protocol):
    """Something to check in the first round trip: the session and the revisions of rights."""

    @property
    def calls(self) -> Sequence[Call]:
        """Statements to run before anything is locked."""

    def check(self, answers: Sequence[Rows]) -> None:
        """Raise to stop the batch."""


class Echo(Protocol):
    """Something to read in the last round trip: the records as they are now."""

    def calls(self, result: Result) -> Sequence[Call]:
        """Statements to run behind the writing, before the commit."""

    def take(self, answers: Sequence[Rows]) -> None:
        """Their answers; what was written is committed by then."""


class _Doors:
    """What a door wants done in the first and in the last round trip."""

    def __init__(self, guard: Guard | None, echo: Echo | None) -> None:
        self._guard = guard
        self._echo = echo

    def enter(self, tx: Transaction) -> None:
        if self._guard is not None:
            tx.defer(self._guard.calls, self._guard.check)

    async def leave(self, tx: Transaction, calls: list[Call], result: Result) -> None:
        echoed = list(self._echo.calls(result)) if self._echo else []
        answers = await tx.run(*calls, *echoed, commit=True)
        if self._echo and echoed:
            self._echo.take(answers[len(calls) :])


async def apply(
    db: Database,
    ctx: Ctx,
    commands: Sequence[Command],
    *,
    command_id: UUID | None = None,
    atomic: bool = True,
    guard: Guard | None = None,
    echo: Echo | None = None,
) -> Result:
    """Run a batch. `atomic`: one refusal refuses all; else the good ones are written.

    `echo` reads in the transaction what it has written. Raises TooLarge over BATCH_COMMANDS_MAX, Clash for a command id used with other content,
    and whatever the guard or the database say.
    """
    if len(commands) > limits.BATCH_COMMANDS_MAX:
        raise TooLarge(
            f"At most {limits.BATCH_COMMANDS_MAX} records in one call; {len(commands)} were sent."
        )
    drafts = _draft(ctx, commands)
    doors = _Doors(guard, echo)
    async with db.transaction(ctx.tenant, generic=True) as tx:
        return await _apply(tx, ctx, drafts, command_id, atomic=atomic, doors=doors)


async def check(db: Database, ctx: Ctx, commands: Sequence[Command]) -> tuple[Outcome, ...]:
    """Stages 1–4 without saving: what would become of each command."""
    drafts = _draft(ctx, commands)
    loads = load_calls(ctx, drafts, lock=False)
    loaded = read_loaded(drafts, loads, await db.read(ctx.tenant, *loads))

    async def read(calls: Sequence[Call]) -> list[Rows]:
        return await db.read(ctx.tenant, *calls)

    _decide(ctx, drafts, loaded, await _look_up(read, ctx, drafts, loaded))
    return tuple(show_outcome(ctx, d) for d in drafts)


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
    doors: _Doors,
) -> Result:
    fingerprint = _fingerprint(drafts) if command_id else b""
    loads = load_calls(ctx, drafts)
    doors.enter(tx)
    if command_id:
        locked = (_LOCK_COMMAND, (command_id.int >> 64 & 0x7FFF_FFFF_FFFF_FFFF,))
        _, known, *answers = await tx.run(locked, (_KNOWN, (ctx.tenant, command_id)), *loads)
        if (row := known.first()) is not None:
            return _repeat(row, fingerprint)
    else:
        # With nothing to load the first round trip is that of the counters.
        answers = await tx.run(*loads) if loads else []
    loaded = read_loaded(drafts, loads, answers)
    await load_restored(tx, ctx, drafts, loaded)
    await schema_effects.name_fields(tx, ctx, drafts)
    await check_lending(tx, ctx, drafts)

    async def read(calls: Sequence[Call]) -> list[Rows]:
        return await tx.run(*calls)

    _decide(ctx, drafts, loaded, await _look_up(read, ctx, drafts, loaded))
    await conflict.explain(tx, ctx, [d for d in drafts if d.is_open and d.stale])
    good = [d for d in drafts if d.is_open]
    refused = any(map(_is_refusal, drafts))
    if not good or (atomic and refused):
        # The guard is asked also about what is refused.
        await tx.run()
        return _uncommitted(ctx, drafts, refused=refused)
    good += await follow(tx, ctx, good)
    await note_seen(tx, ctx, good)
    unsent = await persist(tx, ctx, good, loaded, atomic=atomic)
    if unsent is None:
        await tx.finish(commit=False)
        return _uncommitted(ctx, drafts, refused=True)
    result = Result(ctx.request_id, tuple(show_outcome(ctx, d) for d in drafts), unsent.effects)
    if command_id:
        unsent.calls.append((_REMEMBER, (ctx.tenant, command_id, fingerprint, _encode(result))))
    await doors.leave(tx, unsent.calls, result)
    return result


@dataclass(frozen=True, slots=True)
class _LookedUp:
    """What the rules of the trade need to know: prices by place in the batch, steps."""

    prices: dict[int, Answer]
    steps: Steps


async def _look_up(read: Read, ctx: Ctx, drafts: Sequence[Draft], loaded: Loaded) -> _LookedUp:
    traded = [d for d in drafts if d.kind is not None and d.kind.marks]
    if not traded:
        return _LookedUp({}, Steps())
    steps = await stages.load_steps(read, ctx, drafts)
    return _LookedUp(await prices.find_for(read, ctx, drafts, loaded), steps)


def _decide(ctx: Ctx, drafts: Sequence[Draft], loaded: Loaded, found: _LookedUp) -> None:
    """Stages 2 to 4 on what was loaded."""
    check_system(ctx, drafts)
    come = (Op.CREATE, Op.RESTORE)
    born = {d.id: d.kind for d in drafts if d.command.op in come and d.kind and not d.faults}
    batch = {d.id: d for d in drafts}
    for draft in drafts:
        if draft.is_open:
            authorize(ctx, draft, loaded, born)
        if draft.is_open and draft.kind and draft.kind.marks:
            place_with_parent(ctx, draft, loaded, batch)
            prices.fill(ctx, draft, found.prices)
            stages.check_move(ctx, draft, found.steps)
        if draft.is_open:
            fit(ctx, draft)
        if draft.is_open:
            settle(draft)
            reverse(ctx, draft, loaded)
        if draft.is_open:
            derive(ctx, draft)
        if draft.is_open and ctx.schema.hold is not None:
            check_held(ctx, draft)
    check_claims(drafts, loaded)


def _is_refusal(draft: Draft) -> bool:
    return bool(draft.faults) or isinstance(draft.outcome, Conflict)


def _uncommitted(ctx: Ctx, drafts: Sequence[Draft], *, refused: bool) -> Result:
    return Result(
        ctx.request_id, tuple(show_outcome(ctx, d) for d in drafts), committed=not refused
    )


def _fingerprint(drafts: Sequence[Draft]) -> bytes:
    commands = [d.command for d in drafts]
    try:
        packed = _encode(commands)
    except _UNPACKABLE:
        packed = b"".join(map(_pack_or_mark, commands))
    return blake2b(packed, digest_size=16).digest()


def _pack_or_mark(command: Command) -> bytes:
    """A command that cannot be packed holds what no field takes: it is refused, whatever it says."""
    try:
        return _encode(command)
    except _UNPACKABLE:
        return b"refused"


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
