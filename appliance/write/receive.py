"""The sync door: entries of peers into the log and the tables, in one transaction for a frame.

Promises: each entry once, in its origin's order, with the dot, base and hash of its author; the
same rows, slots, links, claims and outbox rows that a local write leaves; known entries cost
nothing. Nothing here can refuse an entry: what cannot be applied is parked with its reason, keeps
its place in the chain, and everything behind it goes on (research/sync 2.8, 2.10).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

import msgspec

from appliance.base import logs
from appliance.base.clock import now
from appliance.base.errors import Clash
from appliance.db.columns import Column
from appliance.db.database import Database, Transaction
from appliance.db.values import bytea_of
from appliance.db.wire import Call, Row, Rows, Statement
from appliance.kernel.change import Logged, encode_body
from appliance.kernel.context import Ctx
from appliance.write.crowd import PART, Part, is_shared, note_other, parts_of
from appliance.write.definitions import refuse_undefinable
from appliance.write.incoming import NOTHING, Sifted, Tip, sift, transactions
from appliance.write.late import late_arrivals
from appliance.write.log import CLOCK
from appliance.write.merging import finish_merged, merge_frame, write_rows
from appliance.write.parked import carry_out, parked_id, skip_calls
from appliance.write.piecemeal import Parked, Source, Taken, join_taken, take_pieces
from appliance.write.sound import hold_unsound

_HERE = Statement(
    "SELECT s.head, s.origin, s.oseq, s.hash, t.log_key FROM stream s JOIN tenant_state t "
    "ON t.tenant_id = s.tenant_id WHERE s.tenant_id = $1 AND s.id = $2"
)
_TIPS = Statement(
    "SELECT origin, got, hash FROM stream_vector WHERE tenant_id = $1 AND stream = $2"
)
_LOCKED = Statement("SELECT head, origin, oseq, hash FROM stream WHERE tenant_id = $1 AND id = $2")
# The origin that writes here has its tip in the stream's own row, the others in a vector.
_TIP = "(SELECT {} FROM unnest($4::bigint[], $5::bigint[], $6::bytea[]) AS u(o, g, h) WHERE o = origin)"
_HEAD = Statement(
    f"UPDATE stream SET head = head + $3, oseq = coalesce({_TIP.format('g')}, oseq), "
    f"hash = coalesce({_TIP.format('h')}, hash) WHERE tenant_id = $1 AND id = $2"
)
_KEEP = Statement(
    "INSERT INTO stream_vector (tenant_id, stream, origin, got, hash) "
    "SELECT $1, $2, o, g, h FROM unnest($3::bigint[], $4::bigint[], $5::bytea[]) AS u(o, g, h) "
    "WHERE o <> (SELECT s.origin FROM stream s WHERE s.tenant_id = $1 AND s.id = $2) "
    "ON CONFLICT (tenant_id, stream, origin) DO UPDATE SET got = EXCLUDED.got, hash = EXCLUDED.hash"
)
# The counter is locked by the statement that brings the rows, and not by one before it: that would
# hold it for as long as the rows are on their way, which on a busy machine is longer than all else.
_INSERT = Statement(
    "WITH s AS (SELECT head FROM stream WHERE tenant_id = $1 AND id = $2 FOR UPDATE) "
    "INSERT INTO change (tenant_id, stream, seq, origin, oseq, tx, hlc, ehlc, actor, door, kind, "
    "record_id, op, schema_rev, change_set, body, hash) "
    "SELECT $1, $2, s.head + n, "
    "o, q, t, h, e, a, d, k, r, p, v, c, b, x FROM s, unnest("
    "$3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::uuid[], "
    "$9::text[], $10::text[], $11::uuid[], $12::text[], $13::bigint[], $14::uuid[], "
    "$15::bytea[], $16::bytea[]) WITH ORDINALITY AS u(o, q, t, h, e, a, d, k, r, p, v, c, b, x, n)"
)
_TYPES = (
    "bigint", "bigint", "bigint", "bigint", "bigint", "uuid", "text", "text", "uuid", "text",
    "bigint", "uuid", "bytea", "bytea",
)  # fmt: skip
_CURSOR = Statement(
    "INSERT INTO peer_stream (tenant_id, peer, stream, cursor) VALUES ($1, $2, $3, $4) "
    "ON CONFLICT (tenant_id, peer, stream) DO UPDATE SET "
    "cursor = GREATEST(peer_stream.cursor, EXCLUDED.cursor), seen_at = now()"
)
_PARK = Statement(
    "INSERT INTO parked (tenant_id, id, stream, origin, oseq, peer, entries, reason, detail, body, "
    "is_logged) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, true) "
    "ON CONFLICT (tenant_id, stream, origin, oseq) DO NOTHING"
)


@dataclass(slots=True)
class _Frame:
    """One call of `receive`."""

    db: Database
    ctx: Ctx
    stream: UUID
    peer: int
    from_hub: bool
    proved: Mapping[int, bytes]


async def receive(
    db: Database,
    ctx: Ctx,
    stream: UUID,
    entries: Sequence[Logged],
    *,
    peer: int,
    cursor: int | None = None,
    from_hub: bool,
    proved: Mapping[int, bytes] = NOTHING,
) -> Taken:
    """Take entries of one stream over from a peer; `cursor` is how far its stream is read by them.

    `proved`: from which hash on, by origin, the caller has computed those of the entries. Where
    others write to the stream as well they are taken part by part, each in a transaction (crowd).
    Raises Forked, Clash when this node does not hold the stream, and what the database says of
    itself; nothing of that part is taken then, or whole transactions of it from the first on
    (piecemeal), and nothing of what follows it.
    """
    frame = _Frame(db, ctx, stream, peer, from_hub, proved)
    parts = [Part(entries, proved)]
    if len(entries) > PART and is_shared(ctx.tenant, stream):
        parts = parts_of(entries, proved)
    done = []
    for n, part in enumerate(parts, 1):
        take = partial(_take, replace(frame, proved=part.proved))
        source = Source(db, ctx.tenant, stream, peer, take)
        end = cursor if n == len(parts) else None
        done.append(await take_pieces(source, part.entries, end))
    return join_taken(done)


async def _take(
    frame: _Frame, entries: Sequence[Logged], cursor: int | None, limit_ms: int | None
) -> Taken:
    ctx, stream = frame.ctx, frame.stream
    async with frame.db.transaction(ctx.tenant, timeout_ms=limit_ms, generic=True) as tx:
        here, rows = await tx.run((_HERE, (ctx.tenant, stream)), (_TIPS, (ctx.tenant, stream)))
        row = here.first()
        if row is None:
            raise Clash("This node does not hold the stream.", code="sync.stream_unknown")
        now_ms = None if frame.from_hub else int(now().timestamp() * 1000)
        found = sift(entries, _tips(row, rows), bytea_of(row[4]), now_ms, frame.proved)
        found.fresh = hold_unsound(ctx.schema.kinds, found.fresh)
        if not found.fresh:
            await tx.run(*_cursor_calls(frame, cursor), commit=True)
            return Taken(
                stream, int(row[0] or 0), _got(_tips(row, rows)), known=found.known, gap=found.gap
            )
        return await _apply(tx, frame, found, cursor, int(row[0] or 0))


async def _apply(
    tx: Transaction, frame: _Frame, found: Sifted, cursor: int | None, was: int
) -> Taken:
    """Merge what is new, then write it under the stream's counter, which is locked last; `was` is
    where it stood at first.
    """
    ctx, stream = frame.ctx, frame.stream
    good = [e for e in found.fresh if not e.parked]
    merged = await merge_frame(tx, ctx, good, at_once=True)
    refuse_undefinable(merged.drafts)
    late = [] if frame.from_hub else await late_arrivals(tx, ctx, stream, merged, found.fresh)
    jobs = await write_rows(tx, ctx, merged)
    # The rows of the log are made while the records are being written, and before the counter is
    # locked: everybody who writes to the stream waits for that.
    columns = _log_columns(found.fresh)
    written = await finish_merged(tx, ctx, merged, jobs, is_hub=not frame.from_hub)
    for decision in merged.decisions:
        actor, ext = decision.actor, decision.body.ext
        if late:
            await tx.run(*late)
            late = []
        written += await carry_out(
            tx,
            ctx,
            decision.record_id,
            actor,
            ext,
            is_hub=not frame.from_hub,
            beside=good,
        )
    ends = {e.entry.origin: Tip(e.entry.oseq, e.hash) for e in found.fresh}
    parked = _parked(found.fresh)
    # All in one round trip, so that the counter is held for as long as the database takes alone.
    _, locked, rows, *_ = await tx.run(
        (_INSERT, (ctx.tenant, stream, *columns)),
        (_LOCKED, (ctx.tenant, stream)),
        (_TIPS, (ctx.tenant, stream)),
        *_tip_calls(ctx, stream, ends, len(found.fresh)),
        *_cursor_calls(frame, cursor),
        *late,
        *written,
        *(_park_call(frame, p, found.fresh) for p in parked),
        *skip_calls(ctx, merged.decisions),
        commit=True,
    )
    row = locked.first()
    assert row is not None, "there was a place for the log"
    tips, head = _tips(row, rows) | ends, int(row[0] or 0)
    if head != was:
        note_other(ctx.tenant, stream)
    CLOCK.receive(max(e.ehlc for e in found.fresh))
    cuts = {
        (e.entry.origin, e.entry.oseq): e.ehlc for e in found.fresh if e.ehlc < e.entry.hlc
    }  # fmt: skip
    return Taken(
        stream, head + len(found.fresh), _got(tips), len(good), found.known, parked, cuts,
        found.gap,
    )  # fmt: skip


def _log_columns(fresh: Sequence[Logged]) -> list[Column]:
    """What the log holds of entries, ready to be sent, but for their places here."""
    rows = [
        (
            e.origin, e.oseq, e.tx, e.hlc, logged.ehlc, e.actor, e.door, e.kind, e.record_id,
            e.op, e.schema_rev, e.change_set, encode_body(e.body), logged.hash,
        )
        for logged in fresh
        for e in (logged.entry,)
    ]  # fmt: skip
    columns = [Column(t, c) for t, c in zip(_TYPES, zip(*rows, strict=True), strict=True)]
    for column in columns:
        column.encode()
    return columns


def _tip_calls(ctx: Ctx, stream: UUID, ends: dict[int, Tip], count: int) -> list[Call]:
    """Move the stream's counter, and the tips of the origins, on."""
    places = [end.oseq for end in ends.values()]
    columns = (list(ends), places, Column("bytea", [end.hash for end in ends.values()]))
    return [
        (_KEEP, (ctx.tenant, stream, *columns)),
        (_HEAD, (ctx.tenant, stream, count, *columns)),
    ]


def _cursor_calls(frame: _Frame, cursor: int | None) -> list[Call]:
    if cursor is None:
        return []
    return [(_CURSOR, (frame.ctx.tenant, frame.peer, frame.stream, cursor))]


def _parked(fresh: Sequence[Logged]) -> tuple[Parked, ...]:
    return tuple(
        Parked(part[0].entry.origin, part[0].entry.oseq, len(part), part[0].parked)
        for part in transactions(fresh)
        if part[0].parked
    )


def _park_call(frame: _Frame, parked: Parked, fresh: Sequence[Logged]) -> Call:
    reason, _, detail = parked.reason.partition(": ")
    bodies = [
        encode_body(e.entry.body)
        for e in fresh
        if e.entry.origin == parked.origin
        and parked.oseq <= e.entry.oseq < parked.oseq + parked.entries
    ]
    logs.event(
        "sync.entries_parked", level="error", stream=frame.stream, origin=parked.origin,
        count=parked.entries, reason=reason,
    )  # fmt: skip
    return _PARK, (
        frame.ctx.tenant, parked_id(frame.stream, parked.origin, parked.oseq), frame.stream,
        parked.origin, parked.oseq, frame.peer, parked.entries, reason, detail,
        msgspec.msgpack.encode(bodies),
    )  # fmt: skip


async def read_tips(db: Database, tenant: UUID, stream: UUID) -> dict[int, Tip]:
    """How far each origin of a stream is here; empty when this node does not hold it."""
    asked = (tenant, stream)
    here, rows = await db.read(tenant, (_HERE, asked), (_TIPS, asked))
    row = here.first()
    return _tips(row, rows) if row is not None else {}


def _tips(row: Row, vectors: Rows) -> dict[int, Tip]:
    found = {int(o or 0): Tip(int(got or 0), bytea_of(digest)) for o, got, digest in vectors}
    if int(row[2] or 0):
        found[int(row[1] or 0)] = Tip(int(row[2] or 0), bytea_of(row[3]))
    return found


def _got(tips: dict[int, Tip]) -> dict[int, int]:
    return {origin: tip.oseq for origin, tip in tips.items()}


def _name(error: BaseException) -> str:
    return type(error).__name__
