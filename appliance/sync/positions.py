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
from appliance.db.wire import Call, Statement

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
_ACKED = Statement(
    "INSERT INTO peer_stream AS p (tenant_id, peer, stream, acked) "
    "SELECT $1, $2, s, a FROM unnest($3::uuid[], $4::bigint[]) AS u(s, a) ORDER BY s "
    "ON CONFLICT (tenant_id, peer, stream) DO UPDATE SET acked = EXCLUDED.acked, seen_at = now() "
    "WHERE p.acked <> EXCLUDED.acked"
)
# An origin's numbers are dense: the first entry that the peer lacks is the one after its last. Not
# found as `oseq = got + 1`: a sum may fail on a value, so that under row security no index is
# searched by it, and each of these looks read all that the origin had ever made.
PENDING = Statement(
    "SELECT u.stream::text, min(c.seq) FROM unnest($2::uuid[], $3::bigint[], $4::bigint[]) "
    "AS u(stream, origin, got) CROSS JOIN LATERAL (SELECT o.seq FROM change o "
    "WHERE o.tenant_id = $1 AND o.stream = u.stream AND o.origin = u.origin AND o.oseq > u.got "
    "ORDER BY o.oseq LIMIT 1) AS c GROUP BY u.stream"
)
_CUTS = Statement(
    "INSERT INTO clock_cut (tenant_id, stream, origin, oseq, ehlc) "
    "SELECT $1, s, o, q, e FROM unnest($2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[]) "
    "AS u(s, o, q, e) "
    "ON CONFLICT (tenant_id, stream, origin, oseq) DO UPDATE SET ehlc = EXCLUDED.ehlc"
)
# Up to which of our entries a receipt was taken; what is asked for is the newest one below.
_HEARD = Statement(
    "SELECT p.stream::text, o.origin, (SELECT c.oseq FROM change c WHERE c.tenant_id = $1 "
    "AND c.stream = p.stream AND c.origin = o.origin AND c.seq <= p.acked "
    "ORDER BY c.oseq DESC LIMIT 1) FROM peer_stream p CROSS JOIN unnest($3::bigint[]) AS o(origin) "
    "WHERE p.tenant_id = $1 AND p.peer = $2 AND p.acked > 0"
)
_CUT_SINCE = Statement(
    "SELECT c.stream::text, c.origin, c.oseq, c.ehlc FROM unnest($2::uuid[], $3::bigint[], "
    "$4::bigint[]) AS u(stream, origin, heard) JOIN change c ON c.tenant_id = $1 "
    "AND c.stream = u.stream AND c.origin = u.origin AND c.oseq > u.heard WHERE c.ehlc < c.hlc"
)
# Whether any sign-in is another than before, without looking at whose.
_PEOPLE = Statement(
    "SELECT coalesce(hashtextextended(string_agg(concat_ws(',', person_id, email, password_hash, "
    "totp_secret, totp_step, recovery_hashes, state, must_change, session_epoch), ';' "
    "ORDER BY person_id), 0), 0) FROM credential WHERE tenant_id = $1"
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


async def read_people_mark(db: Database, tenant: UUID) -> int:
    """A number that is another when the sign-ins of the tenant are."""
    (rows,) = await db.read(tenant, (_PEOPLE, (tenant,)))
    return int((rows.first() or (b"0",))[0] or 0)


async def read_pending(
    db: Database, tenant: UUID, got: Mapping[UUID, Mapping[int, int]]
) -> dict[UUID, int]:
    """Where in our order that begins what the peer lacks, by stream; `got` is what it has by origin.

    Streams of which it has all are missing.
    """
    asked = [(s, origin, upto) for s, vector in got.items() for origin, upto in vector.items()]
    if not asked:
        return {}
    columns = [list(column) for column in zip(*asked, strict=True)]
    (rows,) = await db.read(tenant, (PENDING, (tenant, *columns)))
    return {UUID((stream or b"").decode()): int(seq or 0) for stream, seq in rows}


async def read_heard(
    db: Database, tenant: UUID, peer: int, origins: Sequence[int]
) -> dict[UUID, dict[int, int]]:
    """At a site: the newest of our entries whose receipt was taken, by stream and origin."""
    (rows,) = await db.read(tenant, (_HEARD, (tenant, peer, list(origins))))
    found: dict[UUID, dict[int, int]] = {}
    for stream, origin, oseq in rows:
        found.setdefault(UUID((stream or b"").decode()), {})[int(origin or 0)] = int(oseq or 0)
    return found


async def read_cuts(
    db: Database, tenant: UUID, had: Mapping[UUID, Mapping[int, int]],
    heard: Mapping[UUID, Mapping[int, int]],
) -> list[tuple[UUID, int, int, int]]:  # fmt: skip
    """At the hub: the clocks it has cut of entries that it `had` and of which the site has `heard`
    no receipt: (stream, origin, oseq, the clock that counts).
    """
    asked = [
        (stream, origin, heard.get(stream, {}).get(origin, 0))
        for stream, vector in had.items()
        for origin, got in vector.items()
        if got > heard.get(stream, {}).get(origin, 0)
    ]
    if not asked:
        return []
    columns = [list(column) for column in zip(*asked, strict=True)]
    (rows,) = await db.read(tenant, (_CUT_SINCE, (tenant, *columns)))
    return [
        (UUID((stream or b"").decode()), int(origin or 0), int(oseq or 0), int(ehlc or 0))
        for stream, origin, oseq, ehlc in rows
    ]


async def note_acked(
    db: Database,
    tenant: UUID,
    peer: int,
    acked: Mapping[UUID, int],
    cuts: Sequence[tuple[UUID, int, int, int]] = (),
) -> None:
    """Keep up to where in our order the peer has all that we made, and the clocks that it cut:
    (stream, origin, oseq, the clock that counts).
    """
    calls: list[Call] = []
    if acked:
        calls.append((_ACKED, (tenant, peer, list(acked), list(acked.values()))))
    if cuts:
        calls.append((_CUTS, (tenant, *(list(column) for column in zip(*cuts, strict=True)))))
    if calls:
        async with db.transaction(tenant) as tx:
            await tx.run(*calls, commit=True)
