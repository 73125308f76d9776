"""What became of what a channel was given: a report of each try, and a row of each item that failed.

An item that failed is a dead letter: it stays until the channel takes it, and somebody may ask for
it again. Reports are kept for ninety days, dead letters until they are settled.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from appliance.audit import audit_calls
from appliance.channels.channel import Channel
from appliance.channels.kept import JUMP
from appliance.db.columns import Column
from appliance.db.database import Database
from appliance.db.values import text_of
from appliance.db.wire import Call, Statement
from appliance.kernel.context import Ctx

ITEMS_MAX = 1_000
REPORT_DAYS = 90
_NOT_CONFIRMED = "not-confirmed"
STATES = ("confirmed", "refused", "held", "not_confirmed")
_INSERT = Statement(
    "INSERT INTO channel_report (tenant_id, id, channel_id, form, worker, actor, dry_run, sent, "
    "confirmed, refused, held, detail, started_at) "
    "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) ON CONFLICT DO NOTHING"
)
_FAULTS = Statement(
    "INSERT INTO channel_fault (tenant_id, channel_id, form, sku, report_id, code, field, detail) "
    "SELECT $1, $2, $3, s, $4, c, f, d FROM unnest($5::text[], $6::text[], $7::text[], $8::text[]) "
    "AS u(s, c, f, d) ON CONFLICT (tenant_id, channel_id, form, sku, field) DO UPDATE SET "
    "report_id = EXCLUDED.report_id, code = EXCLUDED.code, detail = EXCLUDED.detail, "
    "state = 'waiting', looks = 0, at = now(), "
    "times = channel_fault.times + (channel_fault.report_id <> EXCLUDED.report_id)::int"
)
_SETTLED = Statement(
    "DELETE FROM channel_fault WHERE tenant_id = $1 AND channel_id = $2 AND form = $3 "
    "AND sku = ANY($4::text[])"
)
# What was asked for and is not told of by two reports behind that has got through.
_LOOKED = Statement(
    "UPDATE channel_fault SET looks = looks + 1 WHERE tenant_id = $1 AND channel_id = $2 "
    "AND form = '' AND state = 'asked'"
)
_THROUGH = Statement(
    "DELETE FROM channel_fault WHERE tenant_id = $1 AND channel_id = $2 AND form = '' "
    "AND report_id <> $3 AND ((state = 'asked' AND looks >= 2) OR ($4::bool AND code <> $5))"
)
_OTHERS = Statement(
    "DELETE FROM channel_fault WHERE tenant_id = $1 AND channel_id = $2 AND form = $3 "
    "AND report_id <> $4"
)
_ASK = Statement(
    "UPDATE channel_fault SET state = 'asked', looks = 0 WHERE tenant_id = $1 AND channel_id = $2 "
    "AND form = '' AND ($4::bool OR sku = ANY($3::text[])) RETURNING sku"
)
# Another turn is another revision, so whoever compares revisions sends it again.
_TURN = Statement(
    "UPDATE channel_offer SET turn = turn + 1, revision = '', changed_at = $4 "
    "WHERE tenant_id = $1 AND channel_id = $2 AND sku = ANY($3::text[])"
)
_RELEASE = Statement(
    "UPDATE channel_offer SET released = COALESCE(held_price, price), held_price = NULL, "
    "held_code = '', held_at = NULL, turn = turn + 1, revision = '', changed_at = $3 "
    "WHERE tenant_id = $1 AND channel_id = $2 AND NOT is_gone AND CASE WHEN $5::bool THEN "
    "held_price IS NOT NULL OR sku IN (SELECT f.sku FROM channel_fault f WHERE f.tenant_id = $1 "
    "AND f.channel_id = $2 AND f.form = '' AND f.code = $6) ELSE sku = ANY($4::text[]) END"
)
_HELD = Statement(
    "SELECT sku, product_id::text, variant_id::text, price::text, held_price::text, currency, "
    "held_code, held_at::text FROM channel_offer WHERE tenant_id = $1 AND channel_id = $2 "
    "AND held_price IS NOT NULL ORDER BY held_at, sku LIMIT $3"
)
_COUNTS = Statement(
    "SELECT c::text, (SELECT count(*) FROM channel_offer o WHERE o.tenant_id = $1 AND "
    "o.channel_id = c AND o.held_price IS NOT NULL), (SELECT count(*) FROM channel_fault f WHERE "
    "f.tenant_id = $1 AND f.channel_id = c AND f.form = '' AND f.state = 'waiting') "
    "FROM unnest($2::uuid[]) AS u(c)"
)
_LIST = Statement(
    "SELECT id::text, form, started_at, worker, dry_run, sent, confirmed, refused, held, detail, "
    "to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') FROM channel_report "
    "WHERE tenant_id = $1 AND channel_id = $2 ORDER BY at DESC, id DESC LIMIT $3"
)
_LETTERS = Statement(
    "SELECT form, sku, code, field, detail, state, times, "
    "to_char(first_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), "
    "to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') FROM channel_fault "
    "WHERE tenant_id = $1 AND channel_id = $2 AND (form, sku) > ($3, $4) ORDER BY form, sku LIMIT $5"
)


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be said of one item: `what` of it (price, stock) was to be `value` and was `before`.
    `state` is one of confirmed, refused, held, not_confirmed.
    """

    sku: str
    state: str = "refused"
    code: str = ""
    detail: str = ""
    what: str = ""
    value: str = ""
    before: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One try. Counts are items; `form` is a feed's, empty for a push."""

    id: UUID
    started_at: datetime
    form: str = ""
    worker: str = ""
    dry_run: bool = False
    sent: int = 0
    confirmed: int = 0
    refused: int = 0
    held: int = 0
    detail: str = ""
    at: str = ""


class Letter(msgspec.Struct, frozen=True):
    """A dead letter. `form` is a feed's, empty for a push; `state`: waiting, or asked for again."""

    form: str
    sku: str
    code: str
    field: str
    detail: str
    state: str
    times: int
    first_at: str
    at: str


class HeldPrice(msgspec.Struct, frozen=True):
    """A price that waits for a person: the one that is given meanwhile, the one that is wanted."""

    sku: str
    product: str
    variant: str
    price: str
    wanted: str
    currency: str
    code: str
    since: str


async def keep_report(
    db: Database, ctx: Ctx, channel: Channel, report: Report, items: Sequence[Item]
) -> bool:
    """Keep what a worker tells of a push; False when that report is here already."""
    settled = [i.sku for i in items if i.state == "confirmed"]
    failed = [i for i in items if i.state != "confirmed"]
    calls: list[Call] = []
    if not report.dry_run:
        calls.append((_SETTLED, (ctx.tenant, channel.id, "", Column("text", settled))))
        calls.append(_faults(ctx, channel, report, failed))
        is_clear = not report.refused and not report.held
        through = (ctx.tenant, channel.id, report.id, is_clear, _NOT_CONFIRMED)
        calls += [(_LOOKED, (ctx.tenant, channel.id)), (_THROUGH, through)]
    async with db.transaction(ctx.tenant) as tx:
        (kept,) = await tx.run(_insert(ctx, channel, report))
        # One that is told again must not bring back what was settled since.
        if kept.affected:
            await tx.run(*calls, commit=True)
    return bool(kept.affected)


def replace_calls(ctx: Ctx, channel: Channel, report: Report, items: Sequence[Item]) -> list[Call]:
    """The report of a feed; who stays out of it now is all who does."""
    others: Call = (_OTHERS, (ctx.tenant, channel.id, report.form, report.id))
    return [_insert(ctx, channel, report), _faults(ctx, channel, report, items), others]


async def replay(db: Database, ctx: Ctx, channel: Channel, skus: Sequence[str]) -> int:
    """Ask for dead letters again, all if none is named; how many."""
    async with db.transaction(ctx.tenant) as tx:
        listed = Column("text", list(skus))
        (rows,) = await tx.run((_ASK, (ctx.tenant, channel.id, listed, not skus)))
        found = [text_of(v) for v in rows.column()]
        turn: Call = (_TURN, (ctx.tenant, channel.id, Column("text", found), ctx.at))
        await tx.run(turn, *_audit(ctx, channel, "channel.replayed", len(found)), commit=True)
    return len(found)


async def release_prices(db: Database, ctx: Ctx, channel: Channel, skus: Sequence[str]) -> int:
    """Let prices that wait go out with the next look, all if none is named; how many."""
    async with db.transaction(ctx.tenant) as tx:
        listed = Column("text", list(skus))
        call: Call = (_RELEASE, (ctx.tenant, channel.id, ctx.at, listed, not skus, JUMP))
        (rows,) = await tx.run(call)
        audit = _audit(ctx, channel, "channel.prices_released", rows.affected)
        await tx.run(*audit, commit=True)
    return rows.affected


async def list_reports(db: Database, ctx: Ctx, channel: Channel, limit: int) -> list[Report]:
    """The newest reports."""
    (rows,) = await db.read(ctx.tenant, (_LIST, (ctx.tenant, channel.id, limit)))
    return [_report([text_of(v) for v in row]) for row in rows]


async def list_letters(
    db: Database, ctx: Ctx, channel: Channel, after: tuple[str, str], limit: int
) -> list[Letter]:
    """Dead letters by form and SKU."""
    (rows,) = await db.read(ctx.tenant, (_LETTERS, (ctx.tenant, channel.id, *after, limit)))
    found = ([text_of(v) for v in row] for row in rows)
    return [Letter(t[0], t[1], t[2], t[3], t[4], t[5], int(t[6]), t[7], t[8]) for t in found]


async def list_held(db: Database, ctx: Ctx, channel: Channel, limit: int) -> list[HeldPrice]:
    """Prices that wait, the longest first."""
    (rows,) = await db.read(ctx.tenant, (_HELD, (ctx.tenant, channel.id, limit)))
    return [HeldPrice(*(text_of(v) for v in row)) for row in rows]


async def count_waiting(
    db: Database, ctx: Ctx, channels: Sequence[UUID]
) -> dict[UUID, tuple[int, int]]:
    """By channel: prices that wait, and dead letters."""
    call: Call = (_COUNTS, (ctx.tenant, Column("uuid", list(channels))))
    (rows,) = await db.read(ctx.tenant, call)
    return {UUID(text_of(c)): (int(h or 0), int(f or 0)) for c, h, f in rows}


def _insert(ctx: Ctx, channel: Channel, report: Report) -> Call:
    return _INSERT, (
        ctx.tenant, report.id, channel.id, report.form, report.worker, ctx.actor, report.dry_run,
        report.sent, report.confirmed, report.refused, report.held, report.detail,
        report.started_at,
    )  # fmt: skip


def _faults(ctx: Ctx, channel: Channel, report: Report, items: Sequence[Item]) -> Call:
    # One row for each thing of an item: what is said of it last.
    last = list({(i.sku, i.what): i for i in items}.values())
    return _FAULTS, (
        ctx.tenant, channel.id, report.form, report.id, Column("text", [i.sku for i in last]),
        Column("text", [i.code or i.state for i in last]), Column("text", [i.what for i in last]),
        Column("text", [_said(i)[:500] for i in last]),
    )  # fmt: skip


def _said(item: Item) -> str:
    moved = f"{item.before} → {item.value}" if item.before else item.value
    return "; ".join(filter(None, (item.detail, moved)))


def _audit(ctx: Ctx, channel: Channel, action: str, count: int) -> Sequence[Call]:
    return audit_calls(
        ctx.tenant, action, actor=ctx.actor, subject=str(channel.id), request_id=ctx.request_id,
        details={"count": count},
    )  # fmt: skip


def _report(t: list[str]) -> Report:
    return Report(
        id=UUID(t[0]), form=t[1], started_at=datetime.fromisoformat(t[2]), worker=t[3],
        dry_run=t[4] == "t", sent=int(t[5]), confirmed=int(t[6]), refused=int(t[7]),
        held=int(t[8]), detail=t[9], at=t[10],
    )  # fmt: skip
