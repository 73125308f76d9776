"""A feed is made whole beside its place, looked at, and only then served.

A marketplace takes whatever is missing off sale. So a feed that has lost more offers than its
channel allows waits for a person while the last one goes on being served; one that cannot be made
changes nothing. Who reads a file that is replaced meanwhile reads it to its end.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import msgspec

from appliance.audit import audit_calls
from appliance.base.clock import now
from appliance.base.errors import ApplianceError, Clash, Invalid, StorageFull
from appliance.base.ids import uuid7
from appliance.channels import feed_rows
from appliance.channels.channel import Channel, read_channel
from appliance.channels.compose import Offer
from appliance.channels.feed_rows import Feed
from appliance.channels.groups import derived, read_groups
from appliance.channels.offers import Scan, check_open, read_offers
from appliance.channels.reports import Item, Report, replace_calls
from appliance.channels.sight import sight_of
from appliance.db.database import Database
from appliance.kernel.context import Ctx
from connectors.sdk.contract import Fault, Place, Refused
from connectors.sdk.feeding import write_feed
from connectors.sdk.feeds import Begin, Counts, Left, Piece, Shop
from connectors.sdk.feeds import Offer as Said

FOLDER = "channels"
FORMS = ("yml", "rozetka", "prom", "hotline", "kaspi")
FAULTS_MAX = 5_000
_PICTURES_MAX = {"prom": 10, "rozetka": 15}
# Numbers of groups have nine digits at most.
_GROUPS = 10**9
_ORPHAN_S = 3_600


class Made(msgspec.Struct, frozen=True):
    """What became of a making."""

    state: str
    offers: int
    left: int
    bytes: int
    detail: str = ""


class _Draft:
    """What is gathered while a feed is written."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.left = self.held = 0
        self.counts = Counts(0, 0, 0)

    def leave(self, sku: str, fault: Fault) -> None:
        self.left += 1
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(
                msgspec.structs.replace(fault, place=Place(sku, column=fault.place.column))
            )


async def make_feed(
    db: Database, ctx: Ctx, ident: UUID, form: str, *, data_dir: Path, sight: str = ""
) -> Made:
    """Make a feed anew in the name of who polls it. Raises what keeps it from being tried again in
    a moment; what is refused is kept as its state.
    """
    place = (ident, form, sight or sight_of(ctx))
    started = now()
    try:
        channel = await read_channel(db, ctx, ident)
        if place[2] != sight_of(ctx):
            raise Clash("The rights of who polls this feed have changed.", code="channel.rights")
        check_served(channel)
        check_open(ctx, channel)
        file = f"{ident.hex}.{form}.{uuid7().hex}.xml"
        path = folder_of(data_dir, ctx.tenant) / file
        draft = await write(db, ctx, channel, form, path)
    except (Refused, ApplianceError) as error:
        if isinstance(error, ApplianceError) and error.status >= 500:
            raise
        detail = error.detail if isinstance(error, ApplianceError) else str(error)
        async with db.transaction(ctx.tenant) as tx:
            await tx.run(feed_rows.fail_call(ctx.tenant, place, detail[:500]), commit=True)
        return Made("failed", 0, 0, 0, detail[:500])
    report = Report(
        id=uuid7(), form=form, started_at=started, sent=draft.counts.offers,
        refused=draft.left, held=draft.held,
    )  # fmt: skip
    return await _settle(db, ctx, channel, place, (path, draft, report))


async def _settle(
    db: Database, ctx: Ctx, channel: Channel, place: tuple[UUID, str, str],
    made: tuple[Path, _Draft, Report],
) -> Made:  # fmt: skip
    """Publish what was written, or have it wait."""
    path, draft, report = made
    counts = draft.counts
    async with db.transaction(ctx.tenant) as tx:
        (rows,) = await tx.run(feed_rows.lock_call(ctx.tenant, place))
        feed = feed_rows.read_feed(rows.first())
        if feed is None:
            path.unlink(missing_ok=True)
            raise Clash("The feed is not polled any more.", code="channel.feed_unknown")
        why = why_held(channel, feed, counts.offers)
        if why:
            waiting = (path.name, counts.offers, counts.bytes)
            step = feed_rows.hold_call(ctx.tenant, feed, waiting, why)
        else:
            step = feed_rows.publish_call(ctx.tenant, feed, path.name, counts.offers, counts.bytes)
        report = msgspec.structs.replace(report, detail=why)
        items = [
            Item(f.place.sheet, code=f.code, detail=f.expected, what=f.place.column)
            for f in draft.faults
        ]
        await tx.run(step, *replace_calls(ctx, channel, report, items), commit=True)
    _sweep(path.parent, channel.id, await feed_rows.feeds_of(db, ctx.tenant, [channel.id]))
    return Made("held" if why else "published", counts.offers, draft.left, counts.bytes, why)


def _sweep(folder: Path, channel: UUID, feeds: list[Feed]) -> None:
    """Remove what no feed of a channel is any more; what is only just being made stays."""
    known = {name for f in feeds for name in (f.file, f.held_file)}
    since = time.time() - _ORPHAN_S
    for path in folder.glob(f"*{channel.hex}.*"):
        if path.name not in known and path.stat().st_mtime < since:
            path.unlink(missing_ok=True)


def why_held(channel: Channel, feed: Feed, offers: int) -> str:
    """Why a feed of so many offers is not served; empty where nothing is against it."""
    if not offers:
        return "There is no offer in it."
    most = channel.shrink_max
    if feed.file and most is not None and offers * 100 < feed.offers * (100 - most):
        return f"It has {offers} offers and the last one {feed.offers}: a loss of more than {most:f} %."
    return ""


async def write(
    db: Database, ctx: Ctx, channel: Channel, form: str, path: Path, *, note: bool = True
) -> _Draft:
    """Write a feed to a path, whole or not at all. Raises Refused (of connectors), StorageFull."""
    groups = await read_groups(db, ctx, channel, is_whole=True)
    scan = Scan(
        channel, groups, 0 if form == "kaspi" else channel.digits, note and not channel.dry_run
    )
    draft = _Draft()

    async def blocks() -> AsyncIterator[list[Said]]:
        async for block in read_offers(db, ctx, scan):
            yield [s for o in block if (s := _said(channel, form, o, draft)) is not None]

    waiting = path.with_name(f".{path.name}")
    begin = Begin(form, _shop(ctx, channel), list(groups.listed()))
    try:
        with waiting.open("xb") as file:
            async for frame in write_feed(begin, blocks()):
                match frame:
                    case Piece(data=data):
                        file.write(data)
                    case Left(id=sku, faults=faults):
                        draft.leave(sku, faults[0])
                    case Counts():
                        draft.counts = frame
            file.flush()
            os.fsync(file.fileno())
        own_like(path.parent, waiting)
        waiting.rename(path)
    except OSError as error:
        raise StorageFull(
            "The feed could not be stored on this node; free space.", dependency="disk"
        ) from error
    finally:
        waiting.unlink(missing_ok=True)
    return draft


def _said(channel: Channel, form: str, offer: Offer, draft: _Draft) -> Said | None:
    """An offer in the words of feeds; None for one that has no price or is gone."""
    if offer.is_gone:
        return None
    draft.held += offer.held is not None
    if not offer.price:
        code = offer.faults[0] if offer.faults else "no-price"
        draft.leave(offer.sku, Fault(code, "a price", "", Place(column="price")))
        return None
    is_ua = channel.language == "uk"
    address = channel.texts["offer_url"].replace("{sku}", offer.sku).replace("{id}", offer.product)
    return Said(
        id=offer.sku, name=offer.name, price=offer.price, currency=offer.currency,
        category_id=offer.category_id, url=address, is_available=offer.available != "0",
        quantity=offer.available, vendor=offer.brand, vendor_code=offer.article,
        barcodes=offer.barcodes, pictures=offer.pictures[: _PICTURES_MAX.get(form, 20)],
        description=offer.description, country=offer.country, weight=offer.weight,
        group_id=str(int(derived(offer.group)) % _GROUPS) if offer.group else "",
        name_ua=offer.name if is_ua else "", description_ua=offer.description if is_ua else "",
    )  # fmt: skip


def _shop(ctx: Ctx, channel: Channel) -> Shop:
    texts = channel.texts
    return Shop(
        name=texts["shop_name"] or channel.name, company=texts["company"], url=texts["shop_url"],
        made_at=ctx.at.isoformat(timespec="seconds"), rates={channel.currency: "1"},
        merchant=texts["merchant"], store=texts["store"],
    )  # fmt: skip


def check_served(channel: Channel) -> None:
    """Raises Clash for a channel that is not served: whoever polls keeps what they have."""
    if not channel.active:
        raise Clash("The channel is not active.", code="channel.inactive")
    if channel.dry_run:
        raise Clash("The channel is in its dry run; nothing is published.", code="channel.dry_run")


def check_form(form: str) -> None:
    """Raises Invalid."""
    if form not in FORMS:
        raise Invalid(
            f"A feed has one of the formats {', '.join(FORMS)}.", code="request.parameter"
        )


async def release_feeds(db: Database, ctx: Ctx, channel: Channel, form: str) -> int:
    """Have what waits served, of one form or all (""); how many."""
    found = [
        f for f in await feed_rows.feeds_of(db, ctx.tenant, [channel.id])
        if f.held_file and form in ("", f.form)
    ]  # fmt: skip
    if not found:
        return 0
    async with db.transaction(ctx.tenant) as tx:
        answers = await tx.run(
            *(feed_rows.release_call(ctx.tenant, f) for f in found),
            *audit_calls(ctx.tenant, "channel.feed_released", actor=ctx.actor, subject=str(channel.id),
                         request_id=ctx.request_id, details={"form": form}), commit=True,
        )  # fmt: skip
    return sum(a.affected for a in answers[: len(found)])


def folder_of(data_dir: Path, tenant: UUID) -> Path:
    """Where the feeds of a tenant are, made when it is not there."""
    above = data_dir / FOLDER
    folder = above / tenant.hex
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    own_like(above, folder)
    return folder


def own_like(parent: Path, path: Path) -> None:
    """A command of root leaves nothing behind that the node's own account cannot read."""
    owner = parent.stat()
    if os.geteuid() == 0 and owner.st_uid != path.stat().st_uid:
        os.chown(path, owner.st_uid, owner.st_gid)


def forget_tenant(data_dir: Path, tenant: UUID) -> None:
    """Remove the feeds of a tenant that is erased; may be repeated."""
    shutil.rmtree(data_dir / FOLDER / tenant.hex, ignore_errors=True)
