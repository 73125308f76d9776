"""How replication stands, for people: each peer of a tenant with its streams, on a hub and a site.

`lag` counts entries of the hub that the site has not taken, `backlog` entries that this site made
and its hub has not: what the other side has and has not told of is not guessed at. A mask does not
change the count: an entry of which nothing may be seen is taken too.
"""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import msgspec
import redis.asyncio as aioredis

from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.sync.health import Health, read_health
from appliance.sync.nodes import PeerNode, find_self, hub_of, list_nodes, run_control
from appliance.sync.positions import read_heads
from appliance.sync.scope import streams_for

_PEERS = Statement(
    "SELECT peer, stream::text, cursor, acked, (extract(epoch FROM seen_at) * 1000)::bigint "
    "FROM peer_stream WHERE tenant_id = $1"
)
_PARKED = Statement(
    "SELECT peer, stream::text, count(*) FROM parked WHERE tenant_id = $1 AND state = 'waiting' "
    "GROUP BY peer, stream"
)
# By stream: entries of ours after what is acknowledged.
_BACKLOG = Statement(
    "SELECT s.id::text, (SELECT count(*) FROM change c WHERE c.tenant_id = $1 AND c.stream = s.id "
    "AND c.seq > coalesce(p.acked, 0) AND c.origin = ANY($3::bigint[])) FROM stream s "
    "LEFT JOIN peer_stream p ON p.tenant_id = $1 AND p.stream = s.id AND p.peer = $2 "
    "WHERE s.tenant_id = $1 AND s.head > coalesce(p.acked, 0)"
)


class StreamState(msgspec.Struct, frozen=True):
    """One stream between this node and a peer; `head` is this node's own."""

    stream: UUID
    name: str
    head: int
    cursor: int
    lag: int
    backlog: int
    parked: int
    seen_at: datetime | None


class PeerState(msgspec.Struct, frozen=True):
    """One peer. `seen_at` is when it was last heard, bytes are sums since they were first kept."""

    node: UUID
    name: str
    role: str
    state: str
    seen_at: datetime | None
    lag: int
    backlog: int
    parked: int
    protocol: int
    clock_off_s: int
    sent: int
    received: int
    failures: int
    last_error: str
    last_error_at: datetime | None
    notices: list[str]
    streams: list[StreamState]


class SyncState(msgspec.Struct, frozen=True):
    """All peers of one tenant: its sites at a hub, its hub at a site."""

    tenant: UUID
    peers: list[PeerState]


class _Seen(msgspec.Struct, frozen=True):
    cursor: int = 0
    acked: int = 0
    seen_ms: int = 0


async def shared_tenants(db: Database) -> set[UUID]:
    """The tenants that this node has in common with any other one."""
    if await hub_of(db) is not None:
        return {route.tenant for route in db.routes.all()}
    rows = await run_control(db, "SELECT DISTINCT tenant_id FROM node_scope")
    return {tenant for (tenant,) in rows}


async def read_status(db: Database, redis: aioredis.Redis, tenant: UUID) -> SyncState:
    """How it stands now. Raises Unavailable, Refused."""
    seen = await _read_seen(db, tenant)
    parked = await _read_parked(db, tenant)
    hub = await hub_of(db)
    if hub is not None:
        me = await find_self(db)
        health = await read_health(redis, tenant, hub.origin)
        backlog = await _read_backlog(db, tenant, hub.origin, me.origins if me else frozenset())
        streams = await _streams_of_site(db, tenant, hub, seen, backlog)
        return SyncState(tenant, [_state_of(hub, health, _with_parked(streams, parked, None))])
    peers: list[PeerState] = []
    for site in await list_nodes(db, tenant):
        if site.is_self:
            continue
        streams = await _streams_at_hub(db, tenant, site, seen)
        health = await read_health(redis, tenant, site.origin)
        peers.append(_state_of(site, health, _with_parked(streams, parked, site.origin)))
    return SyncState(tenant, peers)


async def _streams_of_site(
    db: Database,
    tenant: UUID,
    hub: PeerNode,
    seen: dict[tuple[int, UUID], _Seen],
    backlog: dict[UUID, int],
) -> list[StreamState]:
    """At a site: what of the hub's it lacks is known to the hub, and in a conversation."""
    found: list[StreamState] = []
    for head in (await read_heads(db, tenant)).values():
        known = seen.get((hub.origin, head.stream), _Seen())
        found.append(
            StreamState(
                head.stream, head.name, head.head, known.cursor, 0, backlog.get(head.stream, 0), 0,
                _moment(known.seen_ms),
            )
        )  # fmt: skip
    return found


async def _streams_at_hub(
    db: Database, tenant: UUID, site: PeerNode, seen: dict[tuple[int, UUID], _Seen]
) -> list[StreamState]:
    heads = await read_heads(db, tenant)
    found: list[StreamState] = []
    for grant in (await streams_for(db, site.id, tenant)).values():
        head, known = heads[grant.stream].head, seen.get((site.origin, grant.stream), _Seen())
        found.append(
            StreamState(
                grant.stream, grant.name, head, known.cursor, max(0, head - known.cursor), 0, 0,
                _moment(known.seen_ms),
            )
        )  # fmt: skip
    return found


def _with_parked(
    streams: list[StreamState], parked: dict[tuple[int, UUID], int], peer: int | None
) -> list[StreamState]:
    """Count what waits for a person; at a site whoever it came through."""
    counts: dict[UUID, int] = {}
    for (origin, stream), count in parked.items():
        if peer is None or origin == peer:
            counts[stream] = counts.get(stream, 0) + count
    return [msgspec.structs.replace(s, parked=counts.get(s.stream, 0)) for s in streams]


def _state_of(peer: PeerNode, health: Health, streams: list[StreamState]) -> PeerState:
    moments = [s.seen_at for s in streams if s.seen_at is not None]
    heard = [m for m in (_moment(health.seen_ms), peer.seen_at, *moments) if m is not None]
    state = peer.state if peer.state != "active" or not peer.scope_state else peer.scope_state
    return PeerState(
        node=peer.id, name=peer.name, role=peer.role, state=state,
        seen_at=max(heard) if heard else None,
        # A site knows of its hub what it heard last.
        lag=sum(s.lag for s in streams) or health.lag,
        backlog=sum(s.backlog for s in streams), parked=sum(s.parked for s in streams),
        protocol=health.protocol, clock_off_s=health.clock_off_s, sent=health.sent,
        received=health.received, failures=health.failures, last_error=health.last_error,
        last_error_at=_moment(health.last_error_ms), notices=health.notices.split(),
        streams=streams,
    )  # fmt: skip


async def _read_seen(db: Database, tenant: UUID) -> dict[tuple[int, UUID], _Seen]:
    (rows,) = await db.read(tenant, (_PEERS, (tenant,)))
    return {
        (int(peer or 0), UUID((stream or b"").decode())): _Seen(
            int(cursor or 0), int(acked or 0), int(at or 0)
        )
        for peer, stream, cursor, acked, at in rows
    }


async def _read_parked(db: Database, tenant: UUID) -> dict[tuple[int, UUID], int]:
    (rows,) = await db.read(tenant, (_PARKED, (tenant,)))
    return {
        (int(peer or 0), UUID((stream or b"").decode())): int(count or 0)
        for peer, stream, count in rows
    }


async def _read_backlog(
    db: Database, tenant: UUID, hub: int, own: frozenset[int]
) -> dict[UUID, int]:
    (rows,) = await db.read(tenant, (_BACKLOG, (tenant, hub, sorted(own))))
    return {UUID((stream or b"").decode()): int(count or 0) for stream, count in rows}


def _moment(ms: int) -> datetime | None:
    return datetime.fromtimestamp(ms / 1000, UTC) if ms else None
