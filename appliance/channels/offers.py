"""The offers of a channel: what it calls an item, what it costs there, how many it may sell.

Products come by creation, block by block; everything about a block is read in a few statements,
so memory is that of a block and the cost of an offer does not grow with their number. An item is a
product, or each variant of one that has variants. What the channel calls it is an external
reference (`external_ref`, system = the channel's source): the very one that its orders come back
by. With `link_by` = sku an item without one goes by our own SKU.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from appliance.base import limits
from appliance.base.errors import Forbidden, Refused
from appliance.channels.channel import Channel
from appliance.channels.compose import Composer, Item, Offer
from appliance.channels.groups import Groups
from appliance.channels.kept import (
    Key,
    moment_of,
    note_call,
    range_call,
    read_kept,
)
from appliance.channels.look import (
    Look,
    Place,
    Row,
    look_by,
    look_entries,
    look_page,
    open_fields,
    open_kind,
)
from appliance.channels.stock import Stock
from appliance.db.database import Database
from appliance.db.wire import Call, Rows
from appliance.kernel.context import Ctx
from appliance.kernel.profile import ScopeKind
from appliance.pricing import Shelved, Shown, find_shown
from appliance.read import Guard
from appliance.read.guard import READ

BLOCK = 1_000
START: Place = (datetime(1, 1, 1, tzinfo=UTC), UUID(int=0))
_PRODUCT = (
    "name", "sku", "barcode", "category", "section", "brand", "maker", "measure", "description",
    "weight", "archived", "image_links",
)  # fmt: skip
_VARIANT = ("product", "name", "sku", "barcode", "archived")
_ITEM = (
    "channel", "product", "variant", "listing", "off_sale", "buffer_units", "price_factor", "title",
    "text", "category", "pictures",
)  # fmt: skip
_PRICE = ("product", "variant", "price_type", "price", "currency")


class Scan(msgspec.Struct, frozen=True):
    """One look at a channel. `note`: what is given is kept, so that it can be told from what
    comes later; not for looking alone.
    """

    channel: Channel
    groups: Groups
    digits: int = 2
    note: bool = False


class Block(msgspec.Struct, frozen=True):
    """The offers of some products, and where the next ones begin; None at the end."""

    offers: list[Offer]
    next: Place | None


def check_open(ctx: Ctx, channel: Channel) -> None:
    """Raises Forbidden, Refused where the reader may not take products or prices away."""
    product, price = open_kind(ctx, "product"), open_kind(ctx, "price")
    if product is None or "name" not in open_fields(ctx, product):
        raise Forbidden("Your profile may not export products, so no channel is given any.")
    if price is None or not set(_PRICE) <= open_fields(ctx, price).keys():
        raise Forbidden("Your profile may not export prices, so no channel is given any.")
    if channel.price_type is None:
        raise Refused("The channel has no price type for you.", code="channel.price_type")


async def sees_prices(db: Database, ctx: Ctx, channel: Channel) -> bool:
    """Whether the reader may look at the prices of a channel."""
    kind = open_kind(ctx, "price", READ)
    if kind is None or "price" not in open_fields(ctx, kind) or channel.price_type is None:
        return False
    look = look_by(ctx, "price_type", (), "id", [channel.price_type], actions=READ)
    return look is not None and bool(len((await db.read(ctx.tenant, look.call))[0]))


async def read_block(
    db: Database, ctx: Ctx, scan: Scan, after: Place, *, guard: Guard | None = None,
    size: int = BLOCK,
) -> Block:  # fmt: skip
    """The next block, of so many products. Raises Forbidden, Refused, and what the guard says."""
    kind = open_kind(ctx, "product")
    assert kind is not None and scan.channel.price_type is not None, "see check_open"
    page = look_page(ctx, kind, _PRODUCT, after, size)
    # That the reader sees the type itself is asked each time: it may be taken away in between.
    type_ = look_by(ctx, "price_type", ("currency",), "id", [scan.channel.price_type])
    calls = [*(guard.calls if guard else ()), page.call, *([type_.call] if type_ else ())]
    answers = await db.read(ctx.tenant, *calls, timeout_ms=limits.EXPORT_TIMEOUT_MS)
    if guard:
        guard.check(answers[: len(guard.calls)])
        answers = answers[len(guard.calls) :]
    if type_ is None or not len(answers[1]):
        raise Forbidden("Your profile may not export prices of this channel's type.")
    products = page.read(answers[0])
    upto = _place(products[-1]) if len(products) == size else None
    composer = await _gather(db, ctx, scan, products, (after, upto))
    offers, noted = composer.offers()
    if scan.note and noted:
        async with db.transaction(ctx.tenant) as tx:
            await tx.run(note_call(ctx, scan.channel, noted), commit=True)
    return Block(offers, upto)


async def read_offers(
    db: Database, ctx: Ctx, scan: Scan, *, guard: Guard | None = None
) -> AsyncIterator[list[Offer]]:
    """All offers, block by block; those that are gone among them."""
    after: Place | None = START
    while after is not None:
        block = await read_block(db, ctx, scan, after, guard=guard)
        yield block.offers
        after = block.next


async def _gather(
    db: Database, ctx: Ctx, scan: Scan, products: Sequence[Row], span: tuple[Place, Place | None]
) -> Composer:
    """Everything about the products of a block, in two round trips and those of its prices."""
    ids = [UUID(p["id"]) for p in products]
    stock = Stock(ctx, scan.channel, ids)
    makers = sorted({UUID(p["maker"]) for p in products if p["maker"]})
    asked: dict[str, Look | None] = {
        "variant": look_by(ctx, "variant", _VARIANT, "product", ids),
        "item": look_by(ctx, "channel_item", _ITEM, "product", ids),
        "barcode": look_by(ctx, "barcode", ("code", "product", "variant"), "product", ids),
        "maker": look_by(ctx, "brand", ("name", "country"), "id", makers),
    }
    looks = {key: look for key, look in asked.items() if look is not None}
    kept_call = range_call(ctx, scan.channel.id, span[0], span[1])
    calls = [look.call for look in looks.values()] + [kept_call, *stock.calls]
    answers = await _read(db, ctx, calls)
    found = {
        key: look.read(rows) for (key, look), rows in zip(looks.items(), answers, strict=False)
    }
    kept = read_kept(answers[len(looks)])
    stock.read(answers[len(looks) + 1 :])
    items = list_items(products, found)
    refs = await _read_refs(db, ctx, scan.channel, items)
    wanted = [i for i in items if i.key in refs or (scan.channel.by_sku and i.has_own)]
    prices = await _read_prices(db, ctx, scan.channel, wanted)
    return Composer(
        ctx, scan.channel, scan.groups, scan.digits,
        items=wanted, refs=refs, prices=prices, stock=stock, kept=kept,
    )  # fmt: skip


def list_items(products: Sequence[Row], found: Mapping[str, list[Row]]) -> list[Item]:
    """The items of a block: each product that is not archived, then its variants.

    A product that has variants is itself an item only where a reference says so: its own SKU is
    that of a family.
    """
    variants: dict[str, list[Row]] = {}
    for row in found.get("variant", ()):
        if row["archived"] != "true":
            variants.setdefault(row["product"], []).append(row)
    special: dict[tuple[str, str], dict[str, Row]] = {}
    for row in found.get("item", ()):
        special.setdefault((row["product"], row["variant"]), {})[row["channel"]] = row
    codes: dict[tuple[str, str], list[str]] = {}
    for row in found.get("barcode", ()):
        codes.setdefault((row["product"], row["variant"]), []).append(row["code"])
    makers = {r["id"]: r for r in found.get("maker", ())}
    items = []
    for product in products:
        if product["archived"] == "true":
            continue
        own = variants.get(product["id"], [])
        for variant in (None, *own):
            ident = variant["id"] if variant else ""
            items.append(Item(
                product, variant, has_own=variant is not None or not own, key=(product["id"], ident),
                codes=tuple(codes.get((product["id"], ident), ())),
                special=special.get((product["id"], ident), {}),
                maker=makers.get(product["maker"]), is_family=bool(own),
            ))  # fmt: skip
    return items


async def _read_refs(
    db: Database, ctx: Ctx, channel: Channel, items: Sequence[Item]
) -> dict[Key, str]:
    """What the channel calls each item, the oldest where it has several names."""
    names = ("system", "local_kind", "external_id", "record")
    look = look_by(ctx, "external_ref", names, "record", [i.record for i in items])
    if look is None or not items:
        return {}
    (rows,) = await _read(db, ctx, [look.call])
    keys = {i.record: i for i in items}
    found: dict[Key, str] = {}
    for row in look.read(rows):
        item = keys.get(row["record"])
        if item is None or row["system"] != channel.source or row["local_kind"] != item.kind:
            continue
        found.setdefault(item.key, row["external_id"])
    return found


async def _read_prices(
    db: Database, ctx: Ctx, channel: Channel, items: Sequence[Item]
) -> dict[Key, Shown]:
    async def read(calls: Sequence[Call]) -> list[Rows]:
        return await _read(db, ctx, calls)

    assert channel.price_type is not None, "see check_open"
    if not items:
        return {}
    only: set[UUID] | None = None
    scopes = {ctx.profile.scope("price", action).kind for action in ("read", "export")}
    if scopes != {ScopeKind.ALL}:
        look = look_entries(ctx, "price", "product", sorted({UUID(i.key[0]) for i in items}))
        rows = look.read((await _read(db, ctx, [look.call]))[0]) if look else []
        only = {UUID(r["id"]) for r in rows}
    asked = [Shelved(UUID(p), UUID(v) if v else None) for p, v in (i.key for i in items)]
    found = await find_shown(
        read, ctx, asked, ctx.at, price_type=channel.price_type, unit=channel.branch,
        currency=channel.currency, only=only,
    )  # fmt: skip
    return {i.key: shown for i, shown in zip(items, found, strict=True)}


async def _read(db: Database, ctx: Ctx, calls: Sequence[Call]) -> list[Rows]:
    return await db.read(ctx.tenant, *calls, timeout_ms=limits.EXPORT_TIMEOUT_MS)


def _place(product: Row) -> Place:
    return moment_of(int(product["created_at"])), UUID(product["id"])
