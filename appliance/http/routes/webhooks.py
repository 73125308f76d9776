"""Webhooks: who is told of changes by HTTP. They live where the head office is."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from litestar.response.base import ASGIResponse

from appliance.base.errors import FieldFault, Invalid
from appliance.base.roles import HUB
from appliance.http.answers import empty, reply
from appliance.http.ask import Ask
from appliance.http.bodies import check_storable
from appliance.http.route import API, Book
from appliance.webhooks import Changes, Made, NewWebhook, Replay, WebhookView, manage, replay, views
from appliance.webhooks.render import read_message_id
from appliance.webhooks.shape import Delivery

book = Book("webhooks")
PATH = f"{API}/webhooks"
ONE = f"{PATH}/{{id}}"
_ROWS_MAX = 200
READS: dict[str, Any] = {"capability": "webhooks.manage", "placed": HUB}
WRITES: dict[str, Any] = {**READS, "writes": True}


class WebhookList(msgspec.Struct, frozen=True):
    """Oldest first."""

    webhooks: list[WebhookView]


class Deliveries(msgspec.Struct, frozen=True):
    """Newest first; `next` is `before` of the following page."""

    deliveries: list[Delivery]
    next: str | None


class DeliveryParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A page of deliveries; `state` is waiting, delivered or dead."""

    state: str | None = None
    limit: int = 50
    before: str | None = None


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For how long the former secret signs beside the new one."""

    overlap_hours: int = manage.OVERLAP_H


class Pinged(msgspec.Struct, frozen=True):
    """The id of the test event, as it is listed among the deliveries."""

    id: str


@book.route("GET", PATH, **READS, answers={200: WebhookList})
async def list_webhooks(ask: Ask) -> ASGIResponse:
    """The webhooks of the tenant, and how each one does."""
    return reply(WebhookList(await views.list_webhooks(ask.node.db, ask.ctx.tenant)))


@book.route("POST", PATH, **WRITES, body=NewWebhook, answers={201: Made}, refuses=(409,))
async def make_webhook(ask: Ask) -> ASGIResponse:
    """Tell a receiver what changes from now on, under a profile that you may lend."""
    new = ask.read(NewWebhook)
    check_storable(new.name, "/name")
    check_storable(new.profile, "/profile")
    node = ask.node
    allowed = node.settings.webhooks.allowed
    made = await manage.make_webhook(node.db, ask.ctx, new, node.webhook_box, allowed)
    return reply(made, 201)


@book.route("GET", ONE, **READS, answers={200: WebhookView})
async def read_webhook(ask: Ask) -> ASGIResponse:
    """One webhook."""
    return reply(await views.find_webhook(ask.node.db, ask.ctx.tenant, ask.ident()))


@book.route("PATCH", ONE, **WRITES, body=Changes, answers={200: WebhookView})
async def change_webhook(ask: Ask) -> ASGIResponse:
    """Change what is named; you answer for what it tells from then on."""
    changes, allowed = ask.read(Changes), ask.node.settings.webhooks.allowed
    for name in ("name", "profile"):
        if isinstance(text := getattr(changes, name), str):
            check_storable(text, f"/{name}")
    done = await manage.change_webhook(ask.node.db, ask.ctx, ask.ident(), changes, allowed)
    return reply(done)


@book.route("DELETE", ONE, **READS, answers={204: None})
async def remove_webhook(ask: Ask) -> ASGIResponse:
    """End a webhook."""
    await manage.remove_webhook(ask.node.db, ask.ctx, ask.ident())
    return empty()


@book.route("POST", f"{ONE}/pause", **WRITES, answers={200: WebhookView})
async def pause_webhook(ask: Ask) -> ASGIResponse:
    """Tell nothing for now; what changes meanwhile is told when it is resumed."""
    return reply(await manage.pause_webhook(ask.node.db, ask.ctx, ask.ident()))


@book.route("POST", f"{ONE}/resume", **WRITES, answers={200: WebhookView}, refuses=(409,))
async def resume_webhook(ask: Ask) -> ASGIResponse:
    """Go on where it stopped."""
    return reply(await manage.resume_webhook(ask.node.db, ask.ctx, ask.ident()))


@book.route("POST", f"{ONE}/rotate", **WRITES, body=Rotation, answers={201: Made})
async def rotate_secret(ask: Ask) -> ASGIResponse:
    """A new secret; both sign until the former one's time is over."""
    hours = ask.read(Rotation).overlap_hours
    made = await manage.rotate_secret(
        ask.node.db, ask.ctx, ask.ident(), ask.node.webhook_box, overlap_h=hours
    )
    return reply(made, 201)


@book.route("POST", f"{ONE}/ping", **WRITES, answers={202: Pinged}, refuses=(409,))
async def ping_webhook(ask: Ask) -> ASGIResponse:
    """Send a test event."""
    return reply(Pinged(await replay.ping(ask.node.db, ask.ctx, ask.ident())), 202)


@book.route("POST", f"{ONE}/replay", **WRITES, body=Replay, answers={202: replay.Replayed})
async def replay_events(ask: Ask) -> ASGIResponse:
    """Tell again, with the ids that the events had."""
    done = await replay.replay(ask.node.db, ask.ctx, ask.ident(), ask.read(Replay))
    return reply(done, 202)


@book.route("GET", f"{ONE}/deliveries", **READS, params=DeliveryParams, answers={200: Deliveries})
async def list_deliveries(ask: Ask) -> ASGIResponse:
    """What was sent, what waits, and what the receiver never took (`state=dead`)."""
    given = ask.params(DeliveryParams)
    if given.state is not None and given.state not in views.STATES:
        raise _wrong("/state", f"Expected one of {', '.join(views.STATES)}.")
    if not 0 < given.limit <= _ROWS_MAX:
        raise _wrong("/limit", f"Expected 1 to {_ROWS_MAX}.")
    before: UUID | None = read_message_id(given.before) if given.before else None
    found = await views.list_deliveries(
        ask.node.db, ask.ctx.tenant, ask.ident(), state=given.state, limit=given.limit,
        before=before,
    )  # fmt: skip
    return reply(Deliveries(found, found[-1].id if len(found) == given.limit else None))


def _wrong(pointer: str, detail: str) -> Invalid:
    return Invalid(
        detail, code="request.parameter", faults=(FieldFault(pointer, "out_of_range", detail),)
    )
