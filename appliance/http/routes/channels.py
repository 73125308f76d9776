"""Sales channels: what they are given, how it went, what waits for a person.

A worker asks for offers, sends what has changed to its marketplace and reports; it holds a key for
`channels.push`. Whoever polls a feed holds one for `channels.feed`: see feeds.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from uuid import UUID

import msgspec
from litestar.response.base import ASGIResponse

from appliance.audit import audit_calls
from appliance.base.errors import FieldFault, Invalid
from appliance.base.ids import uuid7
from appliance.channels import feed_rows, reports
from appliance.channels.channel import Channel, read_channel, read_channels
from appliance.channels.compose import Offer
from appliance.channels.feeds import check_form, release_feeds
from appliance.channels.groups import read_groups
from appliance.channels.kept import micros, moment_of
from appliance.channels.look import Place
from appliance.channels.offers import (
    BLOCK,
    START,
    Block,
    Scan,
    check_open,
    read_block,
    sees_prices,
)
from appliance.http.answers import JSON, Stream, reply
from appliance.http.ask import Ask
from appliance.http.route import API, Book
from appliance.kernel.kind import Json

book = Book("channels")
PATH = f"{API}/channels"
ONE = f"{PATH}/{{id}}"
NDJSON = "application/x-ndjson"
# Blocks that one page looks through before it answers, found or not.
_BLOCKS_MAX = 20
_encode = msgspec.json.Encoder().encode


class FeedState(msgspec.Struct, frozen=True):
    """A feed of a channel. `held_offers`: of the one that waits."""

    form: str
    state: str
    detail: str
    offers: int
    bytes: int
    held_offers: int
    made_at: datetime | None
    published_at: datetime | None


class ChannelView(msgspec.Struct, frozen=True):
    """A channel as its worker knows it. `max_change_share`: by which share of it a price may move
    at once. `held_prices` and `dead_letters` wait for a person.
    """

    id: UUID
    name: str
    system: str
    source: str
    currency: str
    active: bool
    dry_run: bool
    max_change_share: str | None
    warehouses: int
    held_prices: int
    dead_letters: int
    feeds: list[FeedState]


class Channels(msgspec.Struct, frozen=True):
    """The channels that you see."""

    channels: list[ChannelView]


class OfferParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A page of about `limit` offers, whole products. `changed_since`: the `as_of` of an earlier
    first page; what is gone since is told, too. `look`: yes to look without keeping what was given.
    """

    after: str = ""
    limit: int = 500
    changed_since: datetime | None = None
    look: bool = False


class Offers(msgspec.Struct, frozen=True):
    """`as_of` of the first page is what to ask `changed_since` with next time; `next` is null at the
    end, and a page may be empty before it. In a dry run nothing may be sent.
    """

    offers: list[Offer]
    next: str | None
    as_of: datetime
    dry_run: bool


class NewReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a push went; the same `id` again changes nothing. Counts are items; `items` names at most
    1000 of them, `left_off` says how many more there are. `started_at`: a moment with an offset.
    """

    id: UUID | None = None
    started_at: datetime | None = None
    worker: str = ""
    dry_run: bool = False
    sent: int = 0
    confirmed: int = 0
    refused: int = 0
    held: int = 0
    detail: str = ""
    items: list[reports.Item] = []
    left_off: int = 0


class Kept(msgspec.Struct, frozen=True):
    """Whether it was new."""

    is_new: bool


class ListParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many; `form` and `after` (an SKU) say behind which dead letter."""

    limit: int = 100
    form: str = ""
    after: str = ""


class Reports(msgspec.Struct, frozen=True):
    """The newest first."""

    rows: list[reports.Report]


class Waiting(msgspec.Struct, frozen=True):
    """What waits for a person: prices that jumped, and items that did not get through."""

    prices: list[reports.HeldPrice]
    letters: list[reports.Letter]


class Skus(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """These items; all of them if none is named."""

    skus: list[str] = []


class Release(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`feed`: the format whose waiting feed is to be served. `prices`: let these go out; `all_prices`
    lets all of them.
    """

    feed: str | None = None
    prices: list[str] = []
    all_prices: bool = False


class Count(msgspec.Struct, frozen=True):
    """How many."""

    count: int


@book.route("GET", PATH, capability="channels.push", answers={200: Channels})
async def list_channels(ask: Ask) -> ASGIResponse:
    """The channels you see, with what waits in each."""
    db, ctx = ask.node.db, ask.ctx
    found = await read_channels(db, ctx)
    ids = [c.id for c in found]
    waiting = await reports.count_waiting(db, ctx, ids)
    feeds = await feed_rows.feeds_of(db, ctx.tenant, ids)
    return reply(Channels([_view(c, waiting.get(c.id, (0, 0)), feeds) for c in found]))


@book.route("GET", f"{ONE}/offers", capability="channels.push", params=OfferParams,
            answers={200: Offers}, media=(JSON, NDJSON), headers=("Accept",), refuses=(409,))  # fmt: skip
async def list_offers(ask: Ask) -> ASGIResponse:
    """What the channel is to be given; as NDJSON all of it."""
    given = ask.params(OfferParams)
    if not 0 < given.limit <= reports.ITEMS_MAX:
        _fail("/limit", f"Expected 1 to {reports.ITEMS_MAX}.")
    if given.changed_since is not None and given.changed_since.tzinfo is None:
        _fail("/changed_since", "Expected a moment with an offset.")
    db, ctx = ask.node.db, ask.ctx
    channel = await read_channel(db, ctx, ask.ident())
    check_open(ctx, channel)
    note = channel.active and not (channel.dry_run or given.look)
    scan = Scan(channel, await read_groups(db, ctx, channel), channel.digits, note)
    binding = f"channel {channel.id} {ctx.tenant} {ctx.profile.id}".encode()
    after, as_of = START, ctx.at
    if given.after:
        (at, ident), started = ask.node.cursors.open(given.after, binding)
        after, as_of = (moment_of(int(str(at))), UUID(str(ident))), datetime.fromisoformat(started)
    else:
        await _audit(ask, channel, "channel.offers_given")
    if NDJSON in (ask.header("accept") or ""):
        first = await read_block(db, ctx, scan, after, guard=ask.gate)
        return Stream(_lines(ask, scan, first, given.changed_since), NDJSON)
    rows, place = await _page(ask, scan, after, given)
    cursor = None
    if place is not None:
        key: list[Json] = [micros(place[0]), str(place[1])]
        cursor = ask.node.cursors.seal(key, as_of.isoformat(), binding)
    return reply(Offers(rows, cursor, as_of, channel.dry_run or not channel.active))


@book.route("POST", f"{ONE}/reports", capability="channels.push", writes=True, body=NewReport,
            body_most=1 << 20, answers={201: Kept})  # fmt: skip
async def take_report(ask: Ask) -> ASGIResponse:
    """How a push went. What was not taken is a dead letter until it is."""
    given = ask.read(NewReport)
    if len(given.items) > reports.ITEMS_MAX:
        _fail("/items", f"At most {reports.ITEMS_MAX} items; send several reports.")
    started = given.started_at or ask.ctx.at
    if started.tzinfo is None:
        _fail("/started_at", "Expected a moment with an offset.")
    if any(not 0 <= n < 10**12 for n in (given.sent, given.confirmed, given.refused, given.held)):
        _fail("/sent", "Counts are zero or more.")
    for n, item in enumerate(given.items):
        if item.state not in reports.STATES:
            _fail(f"/items/{n}/state", f"Expected one of {', '.join(reports.STATES)}.")
    channel = await read_channel(ask.node.db, ask.ctx, ask.ident())
    report = reports.Report(
        id=given.id or uuid7(), started_at=started, worker=given.worker[:100], dry_run=given.dry_run,
        sent=given.sent, confirmed=given.confirmed, refused=given.refused, held=given.held,
        detail=given.detail[:500],
    )  # fmt: skip
    is_new = await reports.keep_report(ask.node.db, ask.ctx, channel, report, given.items)
    return reply(Kept(is_new), 201)


@book.route("GET", f"{ONE}/reports", capability="channels.manage", params=ListParams,
            answers={200: Reports})  # fmt: skip
async def list_reports(ask: Ask) -> ASGIResponse:
    """How pushes and makings of feeds went."""
    channel = await read_channel(ask.node.db, ask.ctx, ask.ident())
    limit = _limit(ask.params(ListParams))
    return reply(Reports(await reports.list_reports(ask.node.db, ask.ctx, channel, limit)))


@book.route("GET", f"{ONE}/waiting", capability="channels.manage", params=ListParams,
            answers={200: Waiting})  # fmt: skip
async def list_waiting(ask: Ask) -> ASGIResponse:
    """Prices that wait, and dead letters."""
    given, db, ctx = ask.params(ListParams), ask.node.db, ask.ctx
    channel, limit = await read_channel(db, ctx, ask.ident()), _limit(given)
    letters = await reports.list_letters(db, ctx, channel, (given.form, given.after), limit)
    may = await sees_prices(db, ctx, channel)
    held = await reports.list_held(db, ctx, channel, limit) if may else []
    return reply(Waiting(held, letters))


@book.route("POST", f"{ONE}/replay", capability="channels.manage", writes=True, body=Skus,
            answers={200: Count})  # fmt: skip
async def replay_letters(ask: Ask) -> ASGIResponse:
    """Ask for dead letters again: the worker is given these items as changed."""
    channel = await read_channel(ask.node.db, ask.ctx, ask.ident())
    skus = _skus(ask.read(Skus).skus)
    return reply(Count(await reports.replay(ask.node.db, ask.ctx, channel, skus)))


@book.route("POST", f"{ONE}/release", capability="channels.manage", writes=True, body=Release,
            answers={200: Count})  # fmt: skip
async def release(ask: Ask) -> ASGIResponse:
    """Let a feed or prices that wait go out; how many."""
    given, db, ctx = ask.read(Release), ask.node.db, ask.ctx
    channel = await read_channel(db, ctx, ask.ident())
    count = 0
    if given.feed is not None:
        check_form(given.feed)
        count += await release_feeds(db, ctx, channel, given.feed)
    if given.prices or given.all_prices:
        skus = [] if given.all_prices else _skus(given.prices)
        count += await reports.release_prices(db, ctx, channel, skus)
    return reply(Count(count))


async def _page(
    ask: Ask, scan: Scan, after: Place, given: OfferParams
) -> tuple[list[Offer], Place | None]:
    """Offers of blocks until there are enough; what one request looks through is bounded."""
    rows: list[Offer] = []
    place: Place | None = after
    for _ in range(_BLOCKS_MAX):
        assert place is not None, "the loop ends with the last block"
        # What has changed may be far apart; what is listed is not.
        size = BLOCK if given.changed_since else given.limit - len(rows)
        block = await read_block(ask.node.db, ask.ctx, scan, place, guard=ask.gate, size=size)
        rows += _wanted(block, given.changed_since)
        place = block.next
        if place is None or len(rows) >= given.limit:
            break
    return rows, place


async def _lines(
    ask: Ask, scan: Scan, block: Block, since: datetime | None
) -> AsyncIterator[bytes]:
    while True:
        yield b"".join(_encode(o) + b"\n" for o in _wanted(block, since))
        if block.next is None:
            return
        block = await read_block(ask.node.db, ask.ctx, scan, block.next, guard=ask.gate)


def _wanted(block: Block, since: datetime | None) -> list[Offer]:
    if since is None:
        return block.offers
    return [o for o in block.offers if o.changed_at is not None and o.changed_at > since]


async def _audit(ask: Ask, channel: Channel, action: str) -> None:
    ctx = ask.ctx
    async with ask.node.db.transaction(ctx.tenant) as tx:
        await tx.run(*audit_calls(ctx.tenant, action, actor=ctx.actor, subject=str(channel.id),
                                  request_id=ctx.request_id), commit=True)  # fmt: skip


def _view(channel: Channel, waiting: tuple[int, int], feeds: list[feed_rows.Feed]) -> ChannelView:
    return ChannelView(
        id=channel.id, name=channel.name, system=channel.system, source=channel.source,
        currency=channel.currency, active=channel.active, dry_run=channel.dry_run,
        max_change_share=f"{share / 100:f}" if (share := channel.price_change_max) is not None else None,
        warehouses=len(channel.warehouses), held_prices=waiting[0], dead_letters=waiting[1],
        feeds=[
            FeedState(f.form, f.state, f.detail, f.offers, f.bytes, f.held_offers, f.made_at,
                      f.published_at)
            for f in feeds if f.channel == channel.id
        ],
    )  # fmt: skip


def _limit(given: ListParams) -> int:
    if not 0 < given.limit <= reports.ITEMS_MAX:
        _fail("/limit", f"Expected 1 to {reports.ITEMS_MAX}.")
    return given.limit


def _skus(given: list[str]) -> list[str]:
    if len(given) > reports.ITEMS_MAX:
        _fail("/skus", f"At most {reports.ITEMS_MAX} at once, or none for all.")
    return given


def _fail(pointer: str, detail: str) -> None:
    raise Invalid(
        detail, code="request.parameter", faults=(FieldFault(pointer, "out_of_range", detail),)
    )
