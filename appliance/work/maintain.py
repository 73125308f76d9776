"""The chores of every node: seal the audit, forget what is over, find jobs that are missing.

Promises: each chore is bounded per tenant and round, goes tenant by tenant inside row-level
security, and doing it twice changes nothing.
"""

from __future__ import annotations

import asyncio
from uuid import UUID

from appliance.base import logs
from appliance.base.errors import ApplianceError, Unavailable
from appliance.channels.feed_rows import take_due
from appliance.channels.reports import REPORT_DAYS
from appliance.db.wire import Statement
from appliance.exchange.box import forget_left
from appliance.files.keeping import ask_for_missed, purge_due
from appliance.sync.checking import ask_check
from appliance.sync.nodes import hub_of
from appliance.work.imports import watch_sources
from appliance.work.inbox import tend_inbox
from appliance.work.jobs import enqueue
from appliance.work.node import WorkNode, system_context
from appliance.work.schedule import Schedule
from appliance.write.release import Watch, release_due

COMMAND_DAYS = 30
SESSION_DAYS = 30
JOB_DAYS = 30
CODE_DAYS = 7
# What a receiver has, and what it never took: nothing of a record stands in either.
DELIVERED_DAYS, DEAD_DAYS = 3, 30
PACKAGE_DAYS = 7
GONE_DAYS = 30
DELETE_ROWS_MAX = 5_000
# What the node does of its own is nobody's.
NOBODY = UUID(int=0)
_PROMISES = Watch()

_UNSEALED = Statement("SELECT tenant_id::text FROM tenants_with_unsealed()")
_OLD_COMMANDS = Statement(
    "DELETE FROM command WHERE tenant_id = $1 AND id IN (SELECT id FROM command "
    "WHERE tenant_id = $1 AND created_at < now() - make_interval(days => $2) LIMIT $3)"
)
_OLD_SESSIONS = Statement(
    "DELETE FROM session WHERE tenant_id = $1 AND id IN (SELECT id FROM session "
    "WHERE tenant_id = $1 AND COALESCE(ended_at, expires_at) < now() - make_interval(days => $2) "
    "LIMIT $3)"
)
_OLD_CODES = Statement(
    "DELETE FROM one_time_code WHERE tenant_id = $1 AND code_hash IN (SELECT code_hash FROM "
    "one_time_code WHERE tenant_id = $1 AND expires_at < now() - make_interval(days => $2) "
    "LIMIT $3)"
)
_OLD_JOBS = Statement(
    "DELETE FROM job WHERE tenant_id = $1 AND id IN (SELECT id FROM job WHERE tenant_id = $1 "
    "AND outbox_id IS NULL AND updated_at < now() - make_interval(days => $2) LIMIT $3)"
)
# Keys end within a year and a day: what was told to a base that has none any more is of no use.
_OLD_ORDERS = Statement(
    "DELETE FROM exchange_order WHERE tenant_id = $1 AND (session_id, record_id) IN (SELECT "
    "x.session_id, x.record_id FROM exchange_order x WHERE x.tenant_id = $1 AND NOT EXISTS (SELECT "
    "FROM session s WHERE s.tenant_id = $1 AND s.id = x.session_id AND s.expires_at > now() - "
    "make_interval(days => $2)) LIMIT $3)"
)
_OLD_PACKAGES = Statement(
    "DELETE FROM exchange_package WHERE tenant_id = $1 AND id IN (SELECT id FROM exchange_package "
    "WHERE tenant_id = $1 AND created_at < now() - make_interval(days => $2) LIMIT $3)"
)
_OLD_DELIVERED, _OLD_DEAD = (
    Statement(
        "DELETE FROM webhook_event WHERE tenant_id = $1 AND (webhook, id) IN (SELECT webhook, id "
        f"FROM webhook_event WHERE tenant_id = $1 AND state = '{state}' "
        "AND last_at < now() - make_interval(days => $2) LIMIT $3)"
    )
    for state in ("delivered", "dead")
)
_OLD_LETTERS = Statement(
    "DELETE FROM intake_lost WHERE tenant_id = $1 AND id IN (SELECT id FROM intake_lost "
    "WHERE tenant_id = $1 AND state <> 'open' "
    "AND failed_at < now() - make_interval(days => $2) LIMIT $3)"
)
_OLD_REPORTS = Statement(
    "DELETE FROM channel_report WHERE tenant_id = $1 AND id IN (SELECT id FROM channel_report "
    "WHERE tenant_id = $1 AND at < now() - make_interval(days => $2) LIMIT $3)"
)
# Who pushes a channel has long heard of what is gone; a feed that nobody polls is nobody's.
_OLD_GONE = Statement(
    "DELETE FROM channel_offer WHERE tenant_id = $1 AND (channel_id, product_id, variant_id) IN ("
    "SELECT channel_id, product_id, variant_id FROM channel_offer WHERE tenant_id = $1 AND is_gone "
    "AND changed_at < now() - make_interval(days => $2) LIMIT $3)"
)
_OLD_FEEDS = Statement(
    "DELETE FROM channel_feed WHERE tenant_id = $1 AND (channel_id, form, sight) IN (SELECT "
    "channel_id, form, sight FROM channel_feed WHERE tenant_id = $1 "
    "AND polled_at < now() - make_interval(days => $2) LIMIT $3)"
)
# A slot that is not ready and has no job waiting (a restored backup, a replayed dead letter).
_UNREADY = Statement(
    "INSERT INTO outbox (tenant_id, topic, payload) "
    "SELECT DISTINCT s.tenant_id, 'job.reproject', jsonb_build_object('kind', s.kind) FROM slot s "
    "WHERE s.tenant_id = $1 AND NOT s.is_ready AND NOT s.is_retired AND NOT EXISTS ("
    "SELECT 1 FROM outbox o WHERE o.tenant_id = $1 AND o.topic = 'job.reproject' "
    "AND o.payload->>'kind' = s.kind)",
    leaves=True,
)


async def seal_audit(node: WorkNode) -> int:
    """Seal what the audit has unsealed, in every placement; how many events."""
    sealed = 0
    for target in sorted({r.target for r in node.db.routes.all()}):
        async with node.db.wire(target) as wire:
            (rows,) = await wire.run([(_UNSEALED, ())])
        for value in rows.column():
            tenant = UUID((value or b"").decode())
            try:
                sealed += await node.seal(node.db, tenant)
            except ApplianceError as error:
                logs.event("audit.seal_failed", level="error", tenant=tenant, code=error.code)
    return sealed


async def forget_old(node: WorkNode) -> int:
    """Delete answered commands, ended sessions, spent codes, ended jobs, delivered events, settled
    dead letters and what 1C left behind, past their time.
    """
    gone = 0
    for route in node.db.routes.all():
        limits = ((_OLD_COMMANDS, COMMAND_DAYS), (_OLD_SESSIONS, SESSION_DAYS),
                  (_OLD_CODES, CODE_DAYS), (_OLD_JOBS, JOB_DAYS),
                  (_OLD_LETTERS, JOB_DAYS), (_OLD_PACKAGES, PACKAGE_DAYS),
                  (_OLD_ORDERS, SESSION_DAYS), (_OLD_DELIVERED, DELIVERED_DAYS),
                  (_OLD_DEAD, DEAD_DAYS), (_OLD_REPORTS, REPORT_DAYS), (_OLD_GONE, GONE_DAYS),
                  (_OLD_FEEDS, GONE_DAYS))  # fmt: skip
        for statement, days in limits:
            gone += await _repeat(node, route.tenant, statement, days)
    return gone + await asyncio.to_thread(forget_left, node.data_dir, days=PACKAGE_DAYS)


async def _repeat(node: WorkNode, tenant: UUID, statement: Statement, days: int) -> int:
    gone = 0
    while True:
        try:
            async with node.db.transaction(tenant) as tx:
                call = (statement, (tenant, days, DELETE_ROWS_MAX))
                (rows,) = await tx.run(call, commit=True)
        except ApplianceError as error:
            # A suspended or moving tenant keeps everything until it is back.
            logs.event("forget.tenant_skipped", tenant=tenant, code=error.code)
            return gone
        gone += rows.affected
        if rows.affected < DELETE_ROWS_MAX:
            return gone


async def queue_missing(node: WorkNode) -> int:
    """Queue a job for each kind with a slot that is not ready and that nobody works on."""
    queued = 0
    for route in node.db.routes.all():
        try:
            async with node.db.transaction(route.tenant) as tx:
                (rows,) = await tx.run((_UNREADY, (route.tenant,)), commit=True)
        except ApplianceError:
            continue
        queued += rows.affected
    return queued


async def release_promises(node: WorkNode) -> int:
    """Release reservations and the like whose time is over."""
    released = 0
    for route in node.db.routes.all():
        try:
            if await _PROMISES.has_open(node.db, route.tenant):
                ctx = await system_context(node, route.tenant, NOBODY)
                released += await release_due(node.db, ctx)
        except ApplianceError as error:
            logs.event("release.tenant_skipped", tenant=route.tenant, code=error.code)
    return released


async def purge_files(node: WorkNode) -> int:
    """Let go of the bytes of files whose time is over."""
    purged = 0
    if node.content is None:
        return purged
    for route in node.db.routes.all():
        ctx = await system_context(node, route.tenant, NOBODY)
        try:
            await ask_for_missed(node.db, ctx, node.content)
            purged += await purge_due(node.db, ctx, node.content)
        except Unavailable:
            raise
        except ApplianceError as error:
            logs.event("files.tenant_skipped", tenant=route.tenant, code=error.code)
    return purged


async def renew_feeds(node: WorkNode) -> int:
    """Have feeds made anew that are polled and old; how many."""
    queued = 0
    for route in node.db.routes.open():
        try:
            for due in await take_due(node.db, route.tenant):
                payload = {
                    "channel": due.channel, "form": due.form, "sight": due.sight,
                    "by": str(due.actor), "profile": due.profile, "units": due.units,
                }  # fmt: skip
                await enqueue(node.db, route.tenant, "channels.feed", payload, by=due.actor)
                queued += 1
        except ApplianceError as error:
            logs.event("channels.tenant_skipped", tenant=route.tenant, code=error.code)
    return queued


async def compare_streams(node: WorkNode) -> int:
    """Have a site's next conversation compare every stream with the hub's; how many tenants."""
    if await hub_of(node.db) is None:
        return 0
    asked = 0
    for route in node.db.routes.all():
        try:
            await ask_check(node.db, route.tenant)
        except ApplianceError as error:
            logs.event("sync.tenant_skipped", tenant=route.tenant, code=error.code)
            continue
        asked += 1
    return asked


SCHEDULES = (
    Schedule(name="seal_audit", every_s=1.0, run=seal_audit),
    Schedule(name="release_promises", every_s=60.0, run=release_promises),
    Schedule(name="tend_inbox", every_s=60.0, run=tend_inbox),
    Schedule(name="watch_sources", every_s=30.0, run=watch_sources),
    Schedule(name="purge_files", every_s=3_600.0, run=purge_files),
    Schedule(name="renew_feeds", every_s=300.0, run=renew_feeds),
    Schedule(name="queue_missing", every_s=900.0, run=queue_missing),
    Schedule(name="compare_streams", every_s=86_400.0, run=compare_streams),
    Schedule(name="forget_old", every_s=21_600.0, run=forget_old),
)
