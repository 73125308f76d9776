"""A hub's answer to a site that needs states: a cut of a stream, then its records piece by piece.

Promises: a piece is read in one short statement together with what the hub had then, so it is
exact whatever is written meanwhile; it holds records of that stream alone, without what is kept
from the site; pieces are asked for by id, so the hub remembers nothing and a broken transfer goes
on where it was. The cut lies below what waits here for a decision or a creation: that comes by the
tail.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from uuid import UUID

import msgspec
import zstandard

from appliance.base.errors import Clash, Malformed
from appliance.db.database import Database
from appliance.db.values import bytea_of
from appliance.db.wire import Call, Rows, Statement
from appliance.kernel.hold import Mask
from appliance.kernel.record import RecordState
from appliance.sync.messages import Message
from appliance.sync.scope import StreamGrant
from appliance.write.carried import Carried, Had, carry, dots_of, encoder, strip_state
from appliance.write.join import BUCKET, BUCKETS, ENTRIES, LAST, RECORDS, Part
from appliance.write.known import read_leaves
from appliance.write.load import COLUMNS, read_state

ROWS = 2_000
# A piece unpacked: what a site makes room for on a hub's word.
PART_BYTES_MAX = 32 << 20
_LEVEL = 3

_CUT = Statement(
    "SELECT s.head, s.floor, s.origin, s.oseq, s.hash, (SELECT json_agg(json_build_array(v.origin, "
    "v.got, encode(v.hash, 'hex'))) FROM stream_vector v WHERE v.tenant_id = $1 AND v.stream = $2), "
    "LEAST((SELECT min(c.seq) FROM parked p JOIN change c ON c.tenant_id = $1 "
    "AND c.stream = p.stream AND c.origin = p.origin AND c.oseq = p.oseq WHERE p.tenant_id = $1 "
    "AND p.stream = $2 AND p.is_logged AND p.state = 'waiting'), (SELECT min(c.seq) FROM early e "
    "JOIN change c ON c.tenant_id = $1 AND c.record_id = e.record_id WHERE e.tenant_id = $1 "
    "AND c.stream = $2)), (SELECT count(*) FROM record r WHERE r.tenant_id = $1 "
    "AND r.stream = $2) FROM stream s WHERE s.tenant_id = $1 AND s.id = $2"
)
# Below a cut that is not the head: where each origin that went on since was. The place before is
# worked out inside: no index is searched by a sum (positions.PENDING).
_BACK = Statement(
    "SELECT f.origin, f.was, COALESCE((SELECT c.hash FROM change c WHERE c.tenant_id = $1 "
    "AND c.stream = $2 AND c.origin = f.origin AND c.oseq = f.was), (SELECT b.hash "
    "FROM stream_base b WHERE b.tenant_id = $1 AND b.stream = $2 AND b.origin = f.origin "
    "AND b.oseq = f.was)) FROM (SELECT origin, min(oseq) - 1 AS was FROM change "
    "WHERE tenant_id = $1 AND stream = $2 AND seq > $3 GROUP BY origin) AS f"
)
_HAD = (
    "(SELECT json_build_array((SELECT json_agg(json_build_array(v.s, v.o, v.g)) FROM "
    "(SELECT stream AS s, origin AS o, got AS g FROM stream_vector WHERE tenant_id = $1 UNION ALL "
    "SELECT id, origin, oseq FROM stream WHERE tenant_id = $1) AS v), (SELECT json_agg("
    "json_build_array(p.stream, p.origin, p.oseq, p.entries)) FROM parked p "
    "WHERE p.tenant_id = $1 AND p.is_logged AND p.state <> 'released')))"
)
_PAGE = {
    (table, some): Statement(
        f"SELECT {_HAD}, r.* FROM (SELECT 1) AS one LEFT JOIN LATERAL (SELECT {COLUMNS} "
        f"FROM {table} WHERE tenant_id = $1 AND stream = $2 AND {table}.id > $3 "
        + (f"AND {BUCKET.format(id='id')} = ANY($5::int[]) " if some else "")
        + f"ORDER BY {table}.id LIMIT $4) AS r ON true"
    )
    for table in (RECORDS, ENTRIES)
    for some in (False, True)
}
_decode_had = msgspec.json.Decoder(
    tuple[list[tuple[UUID, int, int]] | None, list[tuple[UUID, int, int, int]] | None]
).decode
_decode_tips = msgspec.json.Decoder(list[tuple[int, int, str]]).decode
_read_part = msgspec.msgpack.Decoder(Part).decode


class AskCut(Message, frozen=True):
    """Where would a snapshot of this stream be cut?"""

    stream: UUID


class Cut(Message, frozen=True):
    """Everything up to `cut` in the hub's order is in the states of the pieces that follow; `tips`
    are (origin, number, hash) of the newest entries up to there. `states` is how many records.
    """

    stream: UUID
    cut: int
    floor: int
    tips: list[tuple[int, int, bytes]]
    states: int


class AskPart(Message, frozen=True):
    """The piece after an id; of some `buckets` only when it is for repair."""

    stream: UUID
    table: str
    after: UUID
    rows: int = ROWS
    max_bytes: int = 1 << 20
    buckets: list[int] = msgspec.field(default_factory=list)


class Piece(Message, frozen=True):
    """A piece by its content: `body` is zstd over the MessagePack of a Part, `digest` its SHA-256."""

    digest: bytes
    body: bytes


async def read_cut(db: Database, tenant: UUID, stream: UUID) -> Cut:
    """Where a snapshot begins now. Raises Clash for a stream that is not here."""
    (rows,) = await db.read(tenant, (_CUT, (tenant, stream)), timeout_ms=60_000)
    row = rows.first()
    if row is None:
        raise Clash("This node does not hold the stream.", code="sync.stream_unknown")
    head, floor, origin, oseq = (int(v or 0) for v in row[:4])
    tips = {o: (got, bytes.fromhex(h)) for o, got, h in _decode_tips(row[5])} if row[5] else {}
    if oseq:
        tips[origin] = (oseq, bytea_of(row[4]))
    cut = head if row[6] is None else int(row[6]) - 1
    if cut < head:
        (rows,) = await db.read(tenant, (_BACK, (tenant, stream, cut)), timeout_ms=60_000)
        tips |= {int(o or 0): (int(q or 0), bytea_of(h)) for o, q, h in rows}
    named = [(o, got, digest) for o, (got, digest) in sorted(tips.items()) if got]
    return Cut(stream, cut, floor, named, int(row[7] or 0))


async def read_piece(
    db: Database, tenant: UUID, asked: AskPart, grants: Mapping[UUID, StreamGrant]
) -> Piece:
    """The piece that was asked for, as the site may see it. Raises Malformed, Clash."""
    grant = grants.get(asked.stream)
    if grant is None:
        raise Clash("This node does not hold the stream.", code="stream.not_granted")
    return pack_part(await read_part(db, tenant, asked, grant.mask, frozenset(grants)))


async def read_part(
    db: Database, tenant: UUID, asked: AskPart, mask: Mask, streams: frozenset[UUID]
) -> Part:
    """The piece unpacked; `streams` are those whose vectors its reader may know."""
    if asked.table not in (RECORDS, ENTRIES) or any(not 0 <= b < BUCKETS for b in asked.buckets):
        raise Malformed("There is no such part of a stream.", code="sync.snapshot")
    most = max(1, min(asked.rows, ROWS))
    page: Call = (
        _PAGE[asked.table, bool(asked.buckets)],
        (tenant, asked.stream, asked.after, most, *([asked.buckets] if asked.buckets else [])),
    )
    (rows,) = await db.read(tenant, page, timeout_ms=60_000)
    found = list(rows)
    had = _had(found[0][0], streams)
    states = [read_state(row[1:]) for row in found if row[1] is not None]
    carried = await _carry(db, tenant, states, mask, is_ledger=asked.table == ENTRIES)
    fitting = _fit(carried, asked.max_bytes * 4)
    is_last = len(states) < most and len(fitting) == len(states)
    high = LAST if is_last else fitting[-1].id
    return Part(asked.stream, asked.table, asked.after, high, fitting, had, asked.buckets)


async def _carry(
    db: Database, tenant: UUID, states: list[RecordState], mask: Mask, *, is_ledger: bool
) -> list[Carried]:
    leaves = {}
    if states and not is_ledger:
        runs = _Reads(db, tenant)
        leaves = await read_leaves(runs, tenant, dots_of(states), [s.id for s in states])
    found: list[Carried] = []
    for state in states:
        hidden, carried = mask.kinds.get(state.kind), carry(state, leaves)
        found.append(strip_state(carried, hidden.fids) if hidden else carried)
    return found


class _Reads:
    """Reads outside a transaction, in one round trip."""

    def __init__(self, db: Database, tenant: UUID) -> None:
        self._db, self._tenant = db, tenant

    async def run(self, *calls: Call) -> list[Rows]:
        return await self._db.read(self._tenant, *calls, timeout_ms=60_000)


def _fit(carried: list[Carried], room: int) -> list[Carried]:
    """As many as fit; one at least."""
    size = 0
    for n, one in enumerate(carried):
        size += len(encoder.encode(one))
        if n and size > min(room, PART_BYTES_MAX // 2):
            return carried[:n]
    return carried


def _had(body: bytes | None, streams: frozenset[UUID]) -> Had:
    vectors, parked = _decode_had(body or b"[null,null]")
    got: dict[UUID, dict[int, int]] = {stream: {} for stream in sorted(streams)}
    for stream, origin, oseq in vectors or ():
        if stream in streams and oseq > got[stream].get(origin, 0):
            got[stream][origin] = oseq
    dots = [
        f"{origin}.{n}@{stream.hex}"
        for stream, origin, oseq, entries in parked or ()
        if stream in streams
        for n in range(oseq, oseq + entries)
    ]
    return Had({s: dict(sorted(o.items())) for s, o in got.items()}, sorted(dots))


def pack_part(part: Part) -> Piece:
    """A piece on its way."""
    content = encoder.encode(part)
    body = zstandard.ZstdCompressor(level=_LEVEL).compress(content)
    return Piece(sha256(body).digest(), body)


def open_piece(piece: Piece, asked: AskPart) -> Part:
    """What a piece holds, if it is the one that was asked for. Raises Malformed."""
    if sha256(piece.body).digest() != piece.digest:
        raise Malformed("A piece of a snapshot is not what its digest says.", code="sync.snapshot")
    try:
        with zstandard.ZstdDecompressor().stream_reader(piece.body) as reader:
            content = reader.read(PART_BYTES_MAX + 1)
        if len(content) > PART_BYTES_MAX:
            raise Malformed("A piece of a snapshot is too large.", code="sync.snapshot")
        part = _read_part(content)
    except (zstandard.ZstdError, msgspec.MsgspecError, ValueError, RecursionError):
        raise Malformed("A piece of a snapshot cannot be read.", code="sync.snapshot") from None
    wanted = (asked.stream, asked.table, asked.after, asked.buckets)
    inside = all(part.low < c.id <= part.high and c.stream == part.stream for c in part.states)
    if (part.stream, part.table, part.low, part.buckets) != wanted or not inside:
        raise Malformed("This is not the piece that was asked for.", code="sync.snapshot")
    return part
