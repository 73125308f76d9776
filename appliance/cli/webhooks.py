"""`nexus webhook …`: make, watch over and mend webhooks on the command line, in a person's name."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

import msgspec
from msgspec import UNSET
from rich.console import Console
from rich.table import Column, Table

from appliance.base.settings import Webhooks
from appliance.cli.acting import As, At, Call, read_id, run
from appliance.cli.node import read_node_settings
from appliance.webhooks import (
    ACTIONS,
    Changes,
    Made,
    NewWebhook,
    Replay,
    Watch,
    WebhookView,
    manage,
    views,
)
from appliance.webhooks import replay as replaying
from appliance.webhooks.secrets import Box, key_path

_CAPABILITY = "webhooks.manage"
State = Literal["waiting", "delivered", "dead"]


class _Node(msgspec.Struct, frozen=True):
    """What of the node's settings webhooks need."""

    webhooks: Webhooks
    box: Box


def list_(*, tenant: str | None = None, by: As = None, data: str | None = None) -> int:
    """List the webhooks and how each one does.

    Parameters
    ----------
    tenant: the tenant's short name; not needed where there is one.
    by: the address of the person in whose name it is done.
    """

    async def work(at: At) -> int:
        for one in await views.list_webhooks(at.node.db, at.ctx.tenant):
            counts = f"{one.delivered} delivered, {one.waiting} waiting, {one.dead} dead"
            print(f"{one.id}  {one.state}  {one.name}  {one.url}  {counts}")
            if one.reason:
                print(f"  {one.reason}")
        return 0

    return run(Call(tenant, by, _CAPABILITY, data, None), work)


def show(webhook: str, *, tenant: str | None = None, by: As = None, data: str | None = None) -> int:
    """Show one webhook: what it tells, under whose rights, and what went wrong last.

    Parameters
    ----------
    webhook: its id, as `list` prints it.
    """

    async def work(at: At) -> int:
        _print(await views.find_webhook(at.node.db, at.ctx.tenant, read_id(webhook, "a webhook")))
        return 0

    return run(Call(tenant, by, _CAPABILITY, data, None), work)


def make(
    name: str,
    url: str,
    *,
    profile: str,
    kind: list[str],
    action: list[str] | None = None,
    unit: list[UUID] | None = None,
    tenant: str | None = None,
    by: As = None,
    data: str | None = None,
) -> int:
    """Make a webhook; its secret is printed this once.

    Parameters
    ----------
    name: what people call it.
    url: the https address that is told.
    profile: the key of the profile it sees with; one that you may lend.
    kind: a kind it is told of; repeat for more.
    action: created, updated, deleted, restored, left; all when none is named.
    unit: a unit it sees; yours when none is named.
    """
    node = _node(data)
    watches = [Watch(k, actions=[*(action or ACTIONS)]) for k in kind]
    new = NewWebhook(name, url, watches, profile, unit or [])

    async def work(at: At) -> int:
        allowed = node.webhooks.allowed
        _print_made(await manage.make_webhook(at.node.db, at.ctx, new, node.box, allowed))
        return 0

    return run(Call(tenant, by, _CAPABILITY, data, None), work)


def change(
    webhook: str,
    *,
    name: str | None = None,
    url: str | None = None,
    tenant: str | None = None,
    by: As = None,
    data: str | None = None,
) -> int:
    """Change the name or the address of a webhook.

    Parameters
    ----------
    webhook: its id, as `list` prints it.
    """
    node = _node(data)
    changes = Changes(name=UNSET if name is None else name, url=UNSET if url is None else url)

    async def work(at: At) -> int:
        allowed = node.webhooks.allowed
        _print(
            await manage.change_webhook(
                at.node.db, at.ctx, read_id(webhook, "a webhook"), changes, allowed
            )
        )
        return 0

    return run(Call(tenant, by, _CAPABILITY, data, None), work)


def pause(
    webhook: str, *, tenant: str | None = None, by: As = None, data: str | None = None
) -> int:
    """Tell a webhook nothing for now; what changes meanwhile is told when it is resumed."""

    async def work(at: At) -> int:
        _print(await manage.pause_webhook(at.node.db, at.ctx, read_id(webhook, "a webhook")))
        return 0

    return run(Call(tenant, by, _CAPABILITY, data, None), work)


def resume(
    webhook: str, *, tenant: str | None = None, by: As = None, data: str | None = None
) -> int:
    """Go on with a webhook that was paused, or that stopped because it failed."""

    async def work(at: At) -> int:
        _print(await manage.resume_webhook(at.node.db, at.ctx, read_id(webhook, "a webhook")))
        return 0

    return run(Call(tenant, by, _CAPABILITY, data, None), work)


def rotate(
    webhook: str,
    *,
    overlap_hours: int = manage.OVERLAP_H,
    tenant: str | None = None,
    by: As = None,
    data: str | None = None,
) -> int:
    """Make a new secret; the former one signs beside it for the overlap.

    Parameters
    ----------
    overlap_hours: for how long; 0 ends the former one now.
    """
    node = _node(data)

    async def work(at: At) -> int:
        made = await manage.rotate_secret(
            at.node.db, at.ctx, read_id(webhook, "a webhook"), node.box, overlap_h=overlap_hours
        )
        _print_made(made)
        return 0

    return run(Call(tenant, by, _CAPABILITY, data, None), work)


def remove(
    webhook: str, *, tenant: str | None = None, by: As = None, data: str | None = None
) -> int:
    """End a webhook and forget what it had delivered."""

    async def work(at: At) -> int:
        await manage.remove_webhook(at.node.db, at.ctx, read_id(webhook, "a webhook"))
        print("It is gone.")
        return 0

    return run(Call(tenant, by, _CAPABILITY, data, None), work)


def ping(webhook: str, *, tenant: str | None = None, by: As = None, data: str | None = None) -> int:
    """Queue a test event; `deliveries` shows what became of it."""

    async def work(at: At) -> int:
        print(await replaying.ping(at.node.db, at.ctx, read_id(webhook, "a webhook")))
        return 0

    return run(Call(tenant, by, _CAPABILITY, data, None), work)


def deliveries(
    webhook: str,
    *,
    state: State | None = None,
    limit: int = 50,
    tenant: str | None = None,
    by: As = None,
    data: str | None = None,
) -> int:
    """List the last events of a webhook, newest first; `--state dead` are those never taken.

    Parameters
    ----------
    state: of which state.
    limit: how many.
    """

    async def work(at: At) -> int:
        found = await views.list_deliveries(
            at.node.db, at.ctx.tenant, read_id(webhook, "a webhook"), state=state, limit=limit
        )
        for one in found:
            ended = [str(part) for part in (one.status, one.code) if part]
            took = f"{one.duration_ms} ms" if one.duration_ms is not None else "not tried"
            print(
                f"{one.id}  {one.type}  {one.record}  {one.state}  {one.attempts} tries  {took}  "
                + " ".join(ended)
            )
        return 0

    return run(Call(tenant, by, _CAPABILITY, data, None), work)


def replay(
    webhook: str,
    *events: str,
    since: datetime | None = None,
    cursor: str | None = None,
    dead: bool = False,
    tenant: str | None = None,
    by: As = None,
    data: str | None = None,
) -> int:
    """Tell again, with the ids that the events had: named ones, dead ones, or since a moment.

    Parameters
    ----------
    events: their ids, as `deliveries` prints them.
    since: everything from this moment (UTC) on.
    cursor: everything behind a cursor, as `show` prints it.
    dead: all dead letters.
    """
    moment = since.replace(tzinfo=UTC) if since is not None and since.tzinfo is None else since
    asked = Replay(since=moment, cursor=cursor, events=[*events], dead=dead)

    async def work(at: At) -> int:
        done = await replaying.replay(at.node.db, at.ctx, read_id(webhook, "a webhook"), asked)
        print("The log is read again." if done.events is None else f"{done.events} events wait.")
        return 0

    return run(Call(tenant, by, _CAPABILITY, data, None), work)


def _node(data: str | None) -> _Node:
    settings = read_node_settings(data, None)
    return _Node(settings.webhooks, Box(key_path(settings.webhooks, settings.data_dir)))


def _print_made(made: Made) -> None:
    print(f"Webhook {made.id}\nSecret  {made.secret}   (shown this once)")
    if made.former_until is not None:
        print(f"The former secret signs beside it until {made.former_until:%Y-%m-%d %H:%M} UTC.")


def _print(one: WebhookView) -> None:
    table = Table("", Column("", overflow="fold"), show_header=False)
    for name in WebhookView.__struct_fields__:
        value = msgspec.to_builtins(getattr(one, name))
        if value not in (None, "", []):
            table.add_row(name, str(value))
    Console().print(table)
