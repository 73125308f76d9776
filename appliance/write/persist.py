"""Stages 5 to 7 in blocks: while PostgreSQL writes one block, the next is being made.

Numbers and counters are taken first and held to the end of the transaction, so the log is dense
and in commit order. The last block is not sent here: it leaves with the commit, in one round trip.
A draft that is refused late takes the batch back to where no number was given, so no gap is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec

from appliance.base.ids import uuid_of
from appliance.db.database import Transaction
from appliance.db.wire import Call, Rows, Statement
from appliance.kernel.context import Ctx
from appliance.kernel.number import format_number, period_of, series_pattern
from appliance.write import schema_effects
from appliance.write.authorize import check_settled
from appliance.write.command import Op
from appliance.write.draft import Draft, changed_fields
from appliance.write.emit import emit_calls
from appliance.write.floors import Floors
from appliance.write.follow import stay
from appliance.write.load import Loaded, references_in
from appliance.write.log import (
    LOCK_STREAMS,
    Head,
    advance_calls,
    append,
    log_call,
    read_heads,
    streams_of,
)
from appliance.write.outcome import Applied, Effect
from appliance.write.past import read_pasts
from appliance.write.project import project_calls

# Records in a block: about a megabyte of changes and rows.
BLOCK = 500
_NUMBERS = Statement(
    "INSERT INTO number_series AS s (tenant_id, series, period, last) "
    "SELECT $1, u.series, u.period, u.n FROM unnest($2::text[], $3::text[], $4::bigint[]) "
    "AS u(series, period, n) ORDER BY u.series, u.period "
    "ON CONFLICT (tenant_id, series, period) DO UPDATE SET last = s.last + EXCLUDED.last "
    "RETURNING series, last"
)
_MARK = Statement("SAVEPOINT numbers")
_BACK = Statement("ROLLBACK TO SAVEPOINT numbers")


class Unsent(msgspec.Struct, frozen=True):
    """What is left to run with the commit, and the effects to tell of."""

    calls: list[Call]
    effects: tuple[Effect, ...]


async def persist(
    tx: Transaction, ctx: Ctx, good: list[Draft], loaded: Loaded, *, atomic: bool
) -> Unsent | None:
    """Write settled drafts, all but the last block; None when nothing is to be committed.

    Refused late are those whose settled record lies out of reach, or that take what is not there.
    """
    await read_pasts(tx, ctx, good)
    while good := good if atomic else _without_orphans(stay(good), loaded):
        marks: list[Call] = [] if atomic else [(_MARK, ())]
        unsent = await _attempt(tx, ctx, good, _floors(ctx, good, loaded), marks)
        if unsent is not None:
            return unsent
        for draft in good:
            draft.entries.clear()
            draft.after = draft.outcome = None
        if atomic:
            return None
        good = [d for d in good if not d.faults]
        await tx.run((_BACK, ()))
    return None


def _floors(ctx: Ctx, good: list[Draft], loaded: Loaded) -> Floors:
    """Bounds of what somebody asked for; consequences change no balance."""
    return Floors(ctx, [d for d in good if not d.is_consequence], loaded)


def _without_orphans(good: list[Draft], loaded: Loaded) -> list[Draft]:
    """Without those that point to a record of their batch which was refused since they were looked
    at: what was not written must not be pointed to.
    """
    while True:
        born = {d.id for d in good if d.command.op is Op.CREATE}
        for draft in good:
            for field in changed_fields(draft):
                if field.type not in ("reference", "references"):
                    continue
                # A value that the server found itself points to what there is.
                if field.name not in draft.command.fields:
                    continue
                targets = map(uuid_of, references_in(field, draft.values[field.fid]))
                if not all(t in born or t in loaded.targets for t in targets):
                    detail = f"There is no such {field.option('target')} for you."
                    draft.fault(f"/fields/{field.name}", "reference_unknown", detail)
        kept = [d for d in good if not d.faults]
        if len(kept) == len(good):
            return good
        good = kept


async def _attempt(
    tx: Transaction, ctx: Ctx, good: list[Draft], floors: Floors, marks: list[Call]
) -> Unsent | None:
    series = _series(good)
    calls = [*marks, *_number_calls(ctx, series)]
    calls.append((LOCK_STREAMS, (ctx.tenant, streams_of(ctx, good), ctx.origin)))
    locked = len(calls)
    answers = await tx.run(*calls, *floors.calls())
    numbers = _numbers(ctx, answers[len(marks)], series) if series else {}
    heads = read_heads(ctx, answers[locked - 1])
    floors.check(answers[locked:])
    jobs = await schema_effects.apply(tx, ctx, good)
    rest: list[Call] = []
    refused = any(d.faults for d in good)
    for start in range(0, len(good), BLOCK):
        block = good[start : start + BLOCK]
        if rest and not refused:
            await tx.send(*rest)
        rest, is_refused = _write_block(ctx, block, heads, numbers)
        refused = refused or is_refused
    if refused:
        return None
    emitted, effects = emit_calls(ctx, good, jobs)
    return Unsent([*rest, *advance_calls(ctx, heads), *emitted], effects)


def _write_block(
    ctx: Ctx, block: list[Draft], heads: dict[UUID, Head], numbers: dict[UUID, str]
) -> tuple[list[Call], bool]:
    """The calls of one block, and whether one of its drafts was refused.

    The scope is checked once more, on the records as they will be.
    """
    for draft in block:
        append(ctx, draft, heads, numbers.get(draft.id))
        check_settled(ctx, draft)
    if any(d.faults for d in block):
        return [], True
    for draft in block:
        after = draft.after
        assert after is not None, "appended drafts have a state"
        draft.outcome = Applied(draft.id, str(after.stamps), after.number, draft.command.op)
    entries = [e for d in block for e in d.entries]
    return [log_call(ctx, entries, heads), *project_calls(ctx, block)], False


def _series(drafts: Sequence[Draft]) -> dict[str, list[Draft]]:
    """New records by number series; entries of ledgers and configuration have no numbers."""
    series: dict[str, list[Draft]] = {}
    for draft in drafts:
        kind = draft.kind
        if draft.command.op is Op.CREATE and kind and not kind.system and not kind.ledger:
            series.setdefault(kind.key, []).append(draft)
    return series


def _number_calls(ctx: Ctx, series: dict[str, list[Draft]]) -> list[Call]:
    if not series:
        return []
    keys = sorted(series)
    periods = [period_of(_pattern(series[k][0]), ctx.at, ctx.tz) for k in keys]
    return [(_NUMBERS, (ctx.tenant, keys, periods, [len(series[k]) for k in keys]))]


def _numbers(ctx: Ctx, rows: Rows, series: dict[str, list[Draft]]) -> dict[UUID, str]:
    found: dict[UUID, str] = {}
    for key, last in rows:
        drafts = series[(key or b"").decode()]
        first = int(last or 0) - len(drafts) + 1
        pattern = _pattern(drafts[0])
        for n, draft in enumerate(drafts, first):
            found[draft.id] = format_number(pattern, n, ctx.node_prefix, ctx.at, ctx.tz)
    return found


def _pattern(draft: Draft) -> str:
    assert draft.kind is not None, "open drafts have a kind"
    return series_pattern(draft.kind.key, draft.kind.series)
