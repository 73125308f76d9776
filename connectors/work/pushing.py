"""Sales channels of a worker: each is looked at again and again, and none holds up another.

The node says what each item shall be; what a marketplace has confirmed stands in the worker's own
file (ledger). How a look went is told to the node, whatever has happened in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from connectors.markets.open import open_market, system_of
from connectors.markets.selling import Market
from connectors.sdk.channels import Channel, Offer, Report
from connectors.sdk.retry import Breaker, Policy, Trouble, as_trouble, wait_before
from connectors.work.ledger import Ledger
from connectors.work.node import Node
from connectors.work.selling import Selling
from connectors.work.settings import Selling as Source
from connectors.work.told import tell

_SPREAD = Policy()
_DETAIL_MAX = 500


async def serve(
    node: Node, source: Source, data: Path, worker: str, *, looks: int = 0,
    now: Callable[[], float] = time.monotonic,
) -> None:  # fmt: skip
    """Look again and again; `looks` times when that is not 0. Only a cancel ends it."""
    breaker, tried = Breaker(), 0
    while not looks or tried < looks:
        tried += 1
        if breaker.allows(now()):
            trouble: Trouble | None = None
            try:
                await look(node, source, data, worker)
            except (Trouble, OSError, sqlite3.Error) as error:
                trouble = as_trouble(error)
                tell("channel.failed", channel=source.key, code=trouble.code,
                     detail=trouble.detail, permanent=int(trouble.is_permanent))  # fmt: skip
            breaker.note(now(), trouble)
        if not looks or tried < looks:
            jitter = wait_before(_SPREAD, 0) * min(1.0, source.every_s / 10)
            await asyncio.sleep(source.every_s + (0 if looks else jitter))


async def look(
    node: Node, source: Source, data: Path, worker: str, *,
    open_shop: Callable[[], Market] | None = None,
) -> Report | None:  # fmt: skip
    """One look; None at a channel that is not active. Raises Trouble."""
    channel = _choose(await node.list_channels(), source)
    if not channel.active:
        return None
    folder = data / "channels"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    stop = threading.Event()
    ledger = Ledger(folder / f"{source.key}.sqlite")
    market: Market | None = None
    try:
        market = await asyncio.to_thread(open_shop or (lambda: open_market(source.place)))
        selling = Selling(
            channel, market, ledger, worker=worker, stop=stop, gone_share=source.gone_share
        )
        await _want(node, channel, selling)
        report, trouble = await _push(selling, stop)
        if trouble is not None:
            detail = f"{trouble.code}: {trouble.detail}"[:_DETAIL_MAX]
            report = replace(report, detail=detail)
        if report.sent or report.confirmed or report.items or report.detail:
            tell("channel.looked", channel=source.key, sent=report.sent, held=report.held,
                 confirmed=report.confirmed, refused=report.refused,
                 dry_run=int(report.dry_run))  # fmt: skip
            await node.report(channel.id, report)
            if not channel.dry_run:
                selling.mark_told(report)
        if trouble is not None:
            raise trouble
    finally:
        stop.set()
        ledger.close()
        if market is not None:
            market.close()
    return report


async def _want(node: Node, channel: Channel, selling: Selling) -> None:
    """Every offer, page by page, noted as it comes."""
    after: str | None = None
    seen: set[str] = set()
    while True:
        page = await node.list_offers(channel.id, after)
        offers: tuple[Offer, ...] = page.offers
        await asyncio.to_thread(selling.want, offers)
        after = page.next
        if not after:
            return
        if after in seen:
            raise Trouble("cursor-loop", "the pages of offers lead around and never end")
        seen.add(after)


async def _push(selling: Selling, stop: threading.Event) -> tuple[Report, Trouble | None]:
    """What a look has come to, also where it was broken off. A cancel waits for what is under way."""
    pushing = asyncio.create_task(asyncio.to_thread(selling.push))
    try:
        return await asyncio.shield(pushing), None
    except (Trouble, OSError) as error:
        return selling.report(), as_trouble(error)
    except asyncio.CancelledError:
        stop.set()
        with contextlib.suppress(Exception):
            await pushing
        raise


def _choose(channels: tuple[Channel, ...], source: Source) -> Channel:
    found = [c for c in channels if source.channel in (c.id, c.name)]
    if len(found) != 1:
        text = f"{len(found)} channels at the node are called {source.channel}; name one by its id"
        raise Trouble("channel-unknown", text, is_permanent=True)
    system = system_of(source.place)
    if found[0].system != system:
        text = f"{source.channel} is a channel of {found[0].system}, its place is of {system}"
        raise Trouble("channel-wrong", text, is_permanent=True)
    return found[0]
