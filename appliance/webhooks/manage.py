"""Make, change, stop and resume webhooks: what the API and the command line do.

Promises: whoever makes a webhook, changes what it tells, resumes it, or sees a secret of it could
lend the profile it has, so nobody learns by a webhook what they may not read; a secret is shown
once; every step is in the audit, and the webhook itself is a record with a history.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from uuid import UUID

import msgspec
from msgspec import UNSET

from appliance.access.bounds import check_not_staff
from appliance.access.rights import (
    lend_profile,
    lendable_units,
    may_lend,
    profiles_call,
    read_profiles,
)
from appliance.audit import audit_calls
from appliance.base.clock import now
from appliance.base.errors import Clash, FieldFault, Forbidden, Invalid, Refused
from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.db.wire import Call, Rows, Statement
from appliance.kernel.context import Ctx, Door
from appliance.kernel.kind import Json
from appliance.kernel.profile import Profile
from appliance.webhooks.secrets import Box, new_secret, shown
from appliance.webhooks.shape import (
    KIND,
    WEBHOOKS_MAX,
    Changes,
    Made,
    NewWebhook,
    Watch,
    WebhookView,
    check_shape,
)
from appliance.webhooks.views import find_webhook, list_webhooks
from appliance.write import Command, Op, Rejected, Result, apply

OVERLAP_H = 24
OVERLAP_H_MAX = 168
_MAKE = Statement(
    "INSERT INTO webhook (tenant_id, id, secret, cursors) SELECT $1, $2, $3, "
    "coalesce(jsonb_object_agg(s.id::text, s.head), '{}') FROM stream s WHERE s.tenant_id = $1",
    leaves=True,
)
# One that came from another node, or whose row was lost, starts with now.
_RENEW = Statement(
    "INSERT INTO webhook AS w (tenant_id, id, secret, state, cursors) SELECT $1, $2, $3, 'paused', "
    "coalesce(jsonb_object_agg(s.id::text, s.head), '{}') FROM stream s WHERE s.tenant_id = $1 "
    "ON CONFLICT (tenant_id, id) DO UPDATE SET secret = EXCLUDED.secret, former = "
    "CASE WHEN $4::timestamptz IS NULL THEN NULL ELSE w.secret END, former_until = $4"
)
_PAUSE = Statement(
    "UPDATE webhook SET state = 'paused', reason = '' WHERE tenant_id = $1 AND id = $2 "
    "AND state <> 'paused'"
)
_RESUME = Statement(
    "UPDATE webhook SET state = 'active', reason = '', failures = 0, failing_since = NULL, "
    "rest_until = NULL WHERE tenant_id = $1 AND id = $2",
    leaves=True,
)
_DUE_NOW = Statement(
    "UPDATE webhook_event SET due_at = now() WHERE tenant_id = $1 AND webhook = $2 "
    "AND state = 'waiting'",
    leaves=True,
)
# What is changed takes effect with the next turn: a running one is ended.
_FENCE = Statement(
    "UPDATE webhook SET runner = NULL, lease_until = NULL WHERE tenant_id = $1 AND id = $2"
)
_FORGET = tuple(
    Statement(f"DELETE FROM {table} WHERE tenant_id = $1 AND {key} = $2")
    for table, key in (("webhook_event", "webhook"), ("webhook_seen", "webhook"), ("webhook", "id"))
)


class _With:
    """Calls in the transaction of a write, when it was one; see write.Echo."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = calls

    def calls(self, result: Result) -> Sequence[Call]:
        """Beside the record."""
        return self._calls if result.committed else ()

    def take(self, answers: Sequence[Rows]) -> None:
        """Nothing to read back."""


async def make_webhook(
    db: Database, ctx: Ctx, new: NewWebhook, box: Box, allowed: Collection[str]
) -> Made:
    """A webhook that tells what changes from now on. Raises Invalid, Refused, Forbidden, Clash."""
    check_not_staff(ctx)
    lent = await lend_profile(db, ctx, new.profile)
    units = _units(ctx, lent, new.units)
    check_shape(_seen_by(ctx, lent, units), new.name, new.url, new.watches, allowed)
    if len(await list_webhooks(db, ctx.tenant)) >= WEBHOOKS_MAX:
        raise Clash(f"A tenant has at most {WEBHOOKS_MAX} webhooks.", code="webhook.too_many")
    ident, secret = uuid7(), new_secret()
    command = Command(
        op=Op.CREATE, kind=KIND, id=ident,
        fields={
            "name": new.name.strip(), "url": new.url, "watches": _stored(new.watches),
            "profile": lent.id, "units": _texts(units), "maker": str(ctx.actor),
        },
    )  # fmt: skip
    made: Call = (_MAKE, (ctx.tenant, ident, box.seal(ctx.tenant, ident, secret)))
    await _write(db, ctx, command, made, *_event(ctx, "webhook.made", ident, profile=lent.id))
    return Made(ident, shown(secret))


async def change_webhook(
    db: Database, ctx: Ctx, ident: UUID, changes: Changes, allowed: Collection[str]
) -> WebhookView:
    """Change what is named. Whoever does so answers for it from now on. Raises Invalid, Refused,
    Forbidden, Clash.
    """
    check_not_staff(ctx)
    found = await find_webhook(db, ctx.tenant, ident)
    if changes.profile is UNSET:
        lent = await _lent(db, ctx, found)
    else:
        lent = await lend_profile(db, ctx, changes.profile)
    units = _units(ctx, lent, found.units if changes.units is UNSET else changes.units)
    name = found.name if changes.name is UNSET else changes.name
    url = found.url if changes.url is UNSET else changes.url
    watches = found.watches if changes.watches is UNSET else changes.watches
    check_shape(_seen_by(ctx, lent, units), name, url, watches, allowed)
    command = Command(
        op=Op.UPDATE, kind=KIND, id=ident,
        fields={
            "name": name.strip(), "url": url, "watches": _stored(watches), "profile": lent.id,
            "units": _texts(units), "maker": str(ctx.actor),
        },
    )  # fmt: skip
    fence: Call = (_FENCE, (ctx.tenant, ident))
    await _write(db, ctx, command, fence, *_event(ctx, "webhook.changed", ident, profile=lent.id))
    return await find_webhook(db, ctx.tenant, ident)


async def pause_webhook(db: Database, ctx: Ctx, ident: UUID) -> WebhookView:
    """Tell nothing until it is resumed; what happens meanwhile is told then. Raises Refused."""
    await find_webhook(db, ctx.tenant, ident)
    event = _event(ctx, "webhook.paused", ident)
    async with db.transaction(ctx.tenant) as tx:
        await tx.run((_PAUSE, (ctx.tenant, ident)), *event, commit=True)
    return await find_webhook(db, ctx.tenant, ident)


async def resume_webhook(db: Database, ctx: Ctx, ident: UUID) -> WebhookView:
    """Go on where it stopped, in the name of who resumes it. Raises Refused, Forbidden, Clash."""
    check_not_staff(ctx)
    found = await find_webhook(db, ctx.tenant, ident)
    await _lent(db, ctx, found)
    if not found.cursor:
        raise Clash("This node has no secret for it: make a new one first.", code="webhook.secret")
    calls: list[Call] = [
        (_RESUME, (ctx.tenant, ident)), (_DUE_NOW, (ctx.tenant, ident)),
        *_event(ctx, "webhook.resumed", ident),
    ]  # fmt: skip
    if found.maker != ctx.actor:
        fields: dict[str, Json] = {"maker": str(ctx.actor)}
        await _write(db, ctx, Command(op=Op.UPDATE, kind=KIND, id=ident, fields=fields), *calls)
    else:
        async with db.transaction(ctx.tenant) as tx:
            await tx.run(*calls, commit=True)
    return await find_webhook(db, ctx.tenant, ident)


async def rotate_secret(
    db: Database, ctx: Ctx, ident: UUID, box: Box, *, overlap_h: int = OVERLAP_H
) -> Made:
    """A new secret; the former one signs beside it for a while (0: ends now). Raises Refused,
    Forbidden, Invalid.
    """
    check_not_staff(ctx)
    if not 0 <= overlap_h <= OVERLAP_H_MAX:
        detail = f"Expected 0 to {OVERLAP_H_MAX} hours."
        raise Invalid(detail, faults=(FieldFault("/overlap_hours", "out_of_range", detail),))
    await _lent(db, ctx, await find_webhook(db, ctx.tenant, ident))
    secret = new_secret()
    until = now() + timedelta(hours=overlap_h) if overlap_h else None
    renew: Call = (_RENEW, (ctx.tenant, ident, box.seal(ctx.tenant, ident, secret), until))
    async with db.transaction(ctx.tenant) as tx:
        await tx.run(
            renew, (_FENCE, (ctx.tenant, ident)), *_event(ctx, "webhook.secret_rotated", ident),
            commit=True,
        )  # fmt: skip
    return Made(ident, shown(secret), until)


async def remove_webhook(db: Database, ctx: Ctx, ident: UUID) -> None:
    """End it and forget what it had delivered. Raises Refused."""
    await find_webhook(db, ctx.tenant, ident)
    forget: list[Call] = [(s, (ctx.tenant, ident)) for s in _FORGET]
    command = Command(op=Op.DELETE, kind=KIND, id=ident)
    await _write(db, ctx, command, *forget, *_event(ctx, "webhook.removed", ident))


async def check_lending(db: Database, ctx: Ctx, ident: UUID) -> WebhookView:
    """The webhook, when one could lend its profile. Raises Refused, Forbidden."""
    check_not_staff(ctx)
    found = await find_webhook(db, ctx.tenant, ident)
    await _lent(db, ctx, found)
    return found


async def _lent(db: Database, ctx: Ctx, found: WebhookView) -> Profile:
    """The profile of a webhook, as it is now. Raises Forbidden, Refused."""
    (rows,) = await db.read(ctx.tenant, profiles_call(ctx.tenant, [found.profile_id]))
    lent = read_profiles(rows, ctx.profile.rev).get(found.profile_id)
    if lent is None:
        raise Refused(
            "The profile of this webhook is gone; give it another.", code="profile.unknown"
        )
    if not (may_lend(lent, ctx.profile) and set(found.units) <= lendable_units(ctx, lent)):
        raise Forbidden(
            "This webhook sees more than you; somebody who may lend its profile has to do this.",
            code="webhook.wider_than_you",
        )
    return lent


def _units(ctx: Ctx, lent: Profile, named: Sequence[UUID]) -> list[UUID]:
    own = lendable_units(ctx, lent)
    faults = [
        FieldFault(f"/units/{n}", "unit_unknown", "There is no such unit for you.")
        for n, unit in enumerate(named)
        if unit not in own
    ]
    if faults:
        raise Invalid("The webhook cannot be made like this.", faults=tuple(faults))
    return sorted(set(named) or ctx.units)


def _seen_by(ctx: Ctx, lent: Profile, units: Sequence[UUID]) -> Ctx:
    """The context in which kinds, fields and conditions are judged."""
    return msgspec.structs.replace(ctx, profile=lent, units=frozenset(units))


async def _write(db: Database, ctx: Ctx, command: Command, *calls: Call) -> None:
    """The record and what stands beside it, in one transaction. Raises Invalid, Refused."""
    through = msgspec.structs.replace(ctx, door=Door.SYSTEM)
    result = await apply(db, through, [command], echo=_With(calls))
    if not result.committed:
        outcome = result.outcomes[0]
        faults = outcome.faults if isinstance(outcome, Rejected) else ()
        if faults and command.op is Op.CREATE:
            raise Invalid("The webhook cannot be made like this.", faults=faults)
        raise Refused("There is no such webhook.", code="webhook.unknown")


def _event(ctx: Ctx, action: str, ident: UUID, **details: object) -> list[Call]:
    return audit_calls(
        ctx.tenant, action, actor=ctx.actor, subject=ident, request_id=ctx.request_id,
        details=details,
    )  # fmt: skip


def _stored(watches: Sequence[Watch]) -> Json:
    stored: Json = msgspec.to_builtins(watches)
    return stored


def _texts(units: Sequence[UUID]) -> Json:
    return [str(u) for u in units]
