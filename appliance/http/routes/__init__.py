"""One file per resource; each route says its capability and where it is placed."""

from __future__ import annotations

from appliance.http.route import Route
from appliance.http.routes import (
    audit,
    banking,
    changes,
    channels,
    conflicts,
    exchange,
    exchangeorders,
    feeds,
    files,
    health,
    intake,
    intakesources,
    intakework,
    jobs,
    keys,
    kinds,
    live,
    me,
    merging,
    modules,
    nodes,
    parked,
    people,
    prices,
    query,
    records,
    session,
    staff,
    stock,
    sync,
    syncblobs,
    syncsnap,
    uploads,
    webhooks,
)

_BOOKS = (
    session.book, me.book, people.book, keys.book, staff.book, kinds.book, modules.book, records.book, query.book, prices.book, stock.book, banking.book, merging.book,
    changes.book, live.book, conflicts.book, parked.book,
    audit.book, intake.book, intakesources.book, intakework.book, exchange.book, exchangeorders.book, channels.book, feeds.book, jobs.book, files.book, uploads.book, nodes.book, sync.book, syncblobs.book, syncsnap.book, webhooks.book, health.book,
)  # fmt: skip


def all_routes() -> list[Route]:
    """Every declared route."""
    return [route for book in _BOOKS for route in book.routes]
