"""`nexus channel …`: what sales channels are given, how it went, and letting go what waits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from appliance.base.errors import Invalid, Refused
from appliance.channels import feed_rows, reports
from appliance.channels.channel import Channel, read_channels
from appliance.channels.feeds import check_form, make_feed, release_feeds, write
from appliance.channels.groups import read_groups
from appliance.channels.offers import Scan, check_open, read_offers
from appliance.cli.acting import At, Call, run
from connectors.sdk.contract import Refused as Unwritable

As = Annotated[str | None, Parameter(name="--as")]
_HEAD = ("SKU", "Name", "Price", "", "Stock", "Held", "Faults")


def list_(*, tenant: str | None = None, by: As = None, data: str | None = None) -> int:
    """List the channels, their feeds, and what waits in each.

    Parameters
    ----------
    tenant: the tenant's short name; not needed where there is one.
    by: the address of the person in whose name it is done.
    """

    async def work(at: At) -> int:
        found = await read_channels(at.node.db, at.ctx)
        ids = [c.id for c in found]
        waiting = await reports.count_waiting(at.node.db, at.ctx, ids)
        feeds = await feed_rows.feeds_of(at.node.db, at.ctx.tenant, ids)
        table = Table("Channel", "System", "Source", "State", "Held", "Dead letters", "Feeds")
        for channel in found:
            state = "off" if not channel.active else "dry run" if channel.dry_run else "active"
            said = (
                f"{f.form}: {f.state}, {f.offers} offers"
                + (f", {f.held_offers} wait" if f.held_file else "")
                for f in feeds if f.channel == channel.id
            )  # fmt: skip
            held, letters = waiting.get(channel.id, (0, 0))
            table.add_row(channel.name, channel.system, channel.source, state, str(held),
                          str(letters), "\n".join(said))  # fmt: skip
        Console().print(table)
        return 0

    return run(Call(tenant, by, "channels.manage", data, None), work)


def offers(
    channel: str,
    *,
    tenant: str | None = None,
    by: As = None,
    limit: int = 50,
    ndjson: bool = False,
    data: str | None = None,
) -> int:
    """Look at what a channel is given; nothing of it is kept.

    Parameters
    ----------
    channel: its name, source or id.
    limit: how many are shown.
    ndjson: all of them, a line each.
    """

    async def work(at: At) -> int:
        db, ctx = at.node.db, at.ctx
        found = await _find(at, channel)
        check_open(ctx, found)
        scan = Scan(found, await read_groups(db, ctx, found), found.digits)
        table, count = Table(*_HEAD), 0
        async for block in read_offers(db, ctx, scan):
            for o in block:
                count += 1
                if ndjson:
                    sys.stdout.buffer.write(msgspec.json.encode(o) + b"\n")
                elif count <= limit:
                    held = f"{o.held.price} ({o.held.code})" if o.held else ""
                    faults = ", ".join((*o.faults, *(["gone"] if o.is_gone else [])))
                    table.add_row(
                        o.sku, o.name, o.price or "", o.currency, o.available, held, faults
                    )
        if not ndjson:
            Console().print(table)
            print(f"{count} offers.")
        return 0

    return run(Call(tenant, by, "channels.manage", data, None), work)


def feed(
    channel: str,
    *,
    tenant: str | None = None,
    by: As = None,
    format: str = "yml",  # noqa: A002 - the word that people know
    out: Path | None = None,
    data: str | None = None,
) -> int:
    """Make a feed: for who polls it, or with `--out` into a file to look at.

    Parameters
    ----------
    channel: its name, source or id.
    format: yml, rozetka, prom, hotline or kaspi.
    out: a file that must not be there yet; nothing is published or kept.
    """

    async def work(at: At) -> int:
        db, ctx = at.node.db, at.ctx
        check_form(format)
        found = await _find(at, channel)
        if out is None:
            await feed_rows.poll(db, ctx, found.id, format)
            made = await make_feed(db, ctx, found.id, format, data_dir=at.node.settings.data_dir)
            print(f"{made.state}: {made.offers} offers, {made.bytes} bytes; {made.left} stay out.")
            if made.detail:
                print(made.detail)
            return 0 if made.state == "published" else 1
        if out.exists():
            raise Invalid(f"{out} is there already.")
        check_open(ctx, found)
        try:
            draft = await write(db, ctx, found, format, out, note=False)
        except Unwritable as refused:
            raise Invalid(str(refused)) from None
        print(f"{draft.counts.offers} offers, {draft.counts.bytes} bytes; {draft.left} stay out.")
        for fault in draft.faults[:20]:
            print(f"  {fault.place.sheet}: {fault.place.column}: {fault.code}: {fault.expected}")
        return 0

    return run(Call(tenant, by, "channels.manage", data, None), work)


def release(
    channel: str,
    *skus: str,
    tenant: str | None = None,
    by: As = None,
    feeds: bool = False,
    prices: bool = False,
    data: str | None = None,
) -> int:
    """Let what waits go out: prices of these SKUs, all prices, feeds.

    Parameters
    ----------
    channel: its name, source or id.
    skus: whose prices.
    feeds: every feed that waits.
    prices: every price that waits.
    """

    async def work(at: At) -> int:
        if not (skus or feeds or prices):
            raise Invalid("Say what: SKUs, --prices or --feeds.")
        found = await _find(at, channel)
        if feeds:
            count = await release_feeds(at.node.db, at.ctx, found, "")
            print(f"{count} feeds are served from now on.")
        if skus or prices:
            listed = [] if prices else list(skus)
            count = await reports.release_prices(at.node.db, at.ctx, found, listed)
            print(f"{count} prices go out with the next look.")
        return 0

    return run(Call(tenant, by, "channels.manage", data, None), work)


def report(
    channel: str,
    *,
    tenant: str | None = None,
    by: As = None,
    limit: int = 20,
    replay: bool = False,
    data: str | None = None,
) -> int:
    """Show how pushes and feeds went, and what did not get through.

    Parameters
    ----------
    channel: its name, source or id.
    limit: how many of each.
    replay: ask for all dead letters of pushes again.
    """

    async def work(at: At) -> int:
        db, ctx = at.node.db, at.ctx
        found = await _find(at, channel)
        if replay:
            print(f"{await reports.replay(db, ctx, found, [])} items are asked for again.")
        table = Table("At", "What", "Worker", "Sent", "Confirmed", "Refused", "Held", "Detail")
        for r in await reports.list_reports(db, ctx, found, limit):
            what = (r.form or "push") + (", dry run" if r.dry_run else "")
            counts = (str(n) for n in (r.sent, r.confirmed, r.refused, r.held))
            table.add_row(r.at, what, r.worker, *counts, r.detail)
        letters = Table("What", "SKU", "Code", "Field", "Times", "Last", "State", "Detail")
        for x in await reports.list_letters(db, ctx, found, ("", ""), limit):
            letters.add_row(x.form or "push", x.sku, x.code, x.field, str(x.times), x.at, x.state,
                            x.detail)  # fmt: skip
        Console().print(table, letters)
        return 0

    return run(Call(tenant, by, "channels.manage", data, None), work)


async def _find(at: At, text: str) -> Channel:
    """A channel by its id, source or name. Raises Refused."""
    known = await read_channels(at.node.db, at.ctx)
    wanted = text.strip().casefold()
    for channel in known:
        if wanted in (str(channel.id), channel.source.casefold(), channel.name.casefold()):
            return channel
    listed = ", ".join(c.name for c in known) or "none"
    raise Refused(f"There is no channel {text[:60]!r} for you; known: {listed}.")
