"""How far this node and a peer are with each other, stream by stream: the table `peer_stream`.

On a site the peer is its hub: `cursor` is the hub's sequence up to which its stream was taken (the
room write saves it with the entries), `acked` our own sequence up to which the hub has what we
made. On the hub the peer is a site: `cursor` is what that site said last, for its health and for
what may be compacted. Nothing here decides what is true: a position that is too low costs a
repetition, and none is saved before what it stands for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec

from appliance.db.database import Database
from appliance.db.wire import Statement

_HEADS = Statement(
    "SELECT id::text, head, floor, name, origin, oseq FROM stream WHERE tenant_id = $1"
)
_VECTORS = Statement(
    "SELECT stream::text, origin, got FROM stream_vector WHERE tenant_id = $1 "
    "AND origin = ANY($2::bigint[])"
)
_READ = Statement(
    "SELECT stream::text, cursor, acked, epoch FROM peer_stream WHERE tenant_id = $1 AND peer = $2"
)
# What did not move is written once a minute, so that an idle conversation leaves no trace of rows.
_CURSORS = Statement(
    "INSERT INTO peer_stream AS p (tenant_id, peer, stream, cursor, epoch) "
    "SELECT $1, $2, s, c, e FROM unnest($3::uuid[], $4::bigint[], $5::int[]) AS u(s, c, e) "
    "ORDER BY s ON CONFLICT (tenant_id, peer, stream) DO UPDATE SET cursor = EXCLUDED.cursor, "
    "epoch = EXCLUDED.epoch, seen_at = now() WHERE p.cursor <> EXCLUDED.cursor "
    "OR p.epoch <> EXCLUDED.epoch OR p.seen_at < now() - interval '1 minute'"
)
# The first entry of ours that the peer has not is where it goes on; all before it is acknowledged.
_ACKED = Statement(
    "INSERT INTO peer_stream AS p (tenant_id, peer, stream, acked) "
    "SELECT $1, $2, $3, coalesce((SELECT min(c.seq) - 1 FROM change c "
    "JOIN unnest($6::bigint[], $7::bigint[]) AS u(origin, got) ON u.origin = c.origin "
    "WHERE c.tenant_id = $1 AND c.stream = $3 AND c.seq > $4 AND c.seq <= $5 AND c.oseq > u.got), "
    "$5) ON CONFLICT (tenant_id, peer, stream) DO UPDATE SET acked = EXCLUDED.acked, "
    "seen_at = now() RETURNING acked"
)
_CUTS = Statement(
    "INSERT INTO clock_cut (tenant_id, stream, origin, oseq, ehlc) "
    "SELECT $1, $2, o, q, e FROM unnest($3::bigint[], $4::bigint[], $5::bigint[]) AS u(o, q, e) "
    "ON CONFLICT (tenant_id, stream, origin, oseq) DO UPDATE SET ehlc = EXCLUDED.ehlc"
)


class Head(msgspec.Struct, frozen=True):
    """A stream as it stands here. `origin` and `oseq`: the newest entry this node made itself."""

    stream: UUID
    head: int
    floor: int
    name: str
    origin: int
    oseq: int


class Position(msgspec.Struct, frozen=True):
    """How far a peer is in one stream."""

    cursor: int = 0
    acked: int = 0
    epoch: int = 0


async def read_heads(db: Database, tenant: UUID) -> dict[UUID, Head]:
    """Every stream of the tenant on this node."""
    (rows,) = await db.read(tenant, (_HEADS, (tenant,)))
    found: dict[UUID, Head] = {}
    for ident, head, floor, name, origin, oseq in rows:
        stream = UUID((ident or b"").decode())
        found[stream] = Head(
            stream, int(head or 0), int(floor or 0), (name or b"").decode(), int(origin or 0),
            int(oseq or 0),
        )  # fmt: skip
    return found


async def read_vectors(
    db: Database, tenant: UUID, origins: Sequence[int]
) -> dict[UUID, dict[int, int]]:
    """What this node has of other nodes' origins, by stream."""
    (rows,) = await db.read(tenant, (_VECTORS, (tenant, list(origins))))
    found: dict[UUID, dict[int, int]] = {}
    for stream, origin, got in rows:
        found.setdefault(UUID((stream or b"").decode()), {})[int(origin or 0)] = int(got or 0)
    return found


async def read_positions(db: Database, tenant: UUID, peer: int) -> dict[UUID, Position]:
    """How far a peer is, by stream; a stream that was never spoken of is missing."""
    (rows,) = await db.read(tenant, (_READ, (tenant, peer)))
    return {
        UUID((stream or b"").decode()): Position(int(cursor or 0), int(acked or 0), int(epoch or 0))
        for stream, cursor, acked, epoch in rows
    }


async def note_cursors(
    db: Database, tenant: UUID, peer: int, reached: Mapping[UUID, tuple[int, int]]
) -> None:
    """Keep how far a peer says it is: (cursor, epoch) by stream."""
    if not reached:
        return
    cursors = [c for c, _ in reached.values()]
    epochs = [e for _, e in reached.values()]
    async with db.transaction(tenant) as tx:
        await tx.run((_CURSORS, (tenant, peer, list(reached), cursors, epochs)), commit=True)


class Acknowledged(msgspec.Struct, frozen=True):
    """What the hub's receipt of one stream says of what we sent between two of our sequences."""

    stream: UUID
    after: int
    upto: int
    got: dict[int, int]
    cuts: list[tuple[int, int, int]]


async def note_acked(db: Database, tenant: UUID, peer: int, receipt: Acknowledged) -> int:
    """Keep a receipt with the clocks it cut; our sequence up to which the hub has all of ours."""
    got, cuts = receipt.got, receipt.cuts
    place = (tenant, peer, receipt.stream, receipt.after, receipt.upto)
    async with db.transaction(tenant) as tx:
        calls = [(_ACKED, (*place, list(got), list(got.values())))]
        if cuts:
            columns = [list(column) for column in zip(*cuts, strict=True)]
            calls.append((_CUTS, (tenant, receipt.stream, *columns)))  # type: ignore[arg-type]
        rows = (await tx.run(*calls, commit=True))[0]
    row = rows.first()
    assert row is not None, "an upsert returns its row"
    return int(row[0] or 0)
