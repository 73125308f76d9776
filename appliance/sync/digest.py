"""Whether two nodes that have the same entries hold the same records: sums over 4 096 buckets.

Promises: nothing is compared but a stream of which both have the same entries, so a difference is
a fault and never a delay; a record that waits for a decision about parked entries, on either side,
is left out on both; what is kept from a site does not count. Each sum is read in one statement
with the vector it stands for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256
from uuid import UUID

import msgspec

from appliance.db.columns import Column
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.kernel.hold import Mask
from appliance.sync.messages import Message
from appliance.write.join import BUCKET

# Records with parked entries; of more than so many nothing is compared.
SKIPPED_MAX = 10_000
_PARKED = Statement(
    "SELECT DISTINCT c.record_id::text FROM parked p JOIN change c ON c.tenant_id = $1 "
    "AND c.stream = p.stream AND c.origin = p.origin AND c.oseq >= p.oseq "
    "AND c.oseq < p.oseq + p.entries WHERE p.tenant_id = $1 AND p.state <> 'released' LIMIT $2"
)
# What a mask takes out of a record: its fields, and registers that name members of its sets.
_MASKED = (
    "LEFT JOIN unnest($4::text[], $5::text[], $6::text[]) AS m(kind, fids, members) "
    "ON m.kind = r.kind WHERE r.tenant_id = $1 AND r.stream = $2 AND r.id <> ALL($3::uuid[])"
)
_DATA = "COALESCE(r.data - string_to_array(m.fids, ','), r.data)"
_STAMPS = "COALESCE(regexp_replace(r.stamps, m.members, '', 'g'), r.stamps)"
_SUM = "('x' || left(md5(concat_ws('|', {of})), 16))::bit(64)::bigint"
_SUMS = Statement(
    "WITH parts AS (SELECT " + BUCKET.format(id="r.id") + " AS bucket, "
    + _SUM.format(of=f"r.id, r.kind, {_STAMPS}, r.unit_id, r.owner_id, r.number, {_DATA}")
    + f" AS part FROM record r {_MASKED} UNION ALL SELECT " + BUCKET.format(id="r.id") + ", "
    + _SUM.format(of=f"r.id, r.kind, {_DATA}") + f" FROM entry r {_MASKED}), "
    "sums AS (SELECT bucket, sum(part)::text AS total FROM parts GROUP BY bucket) "
    "SELECT (SELECT json_agg(json_build_array(v.o, v.g)) FROM (SELECT origin AS o, got AS g "
    "FROM stream_vector WHERE tenant_id = $1 AND stream = $2 UNION ALL SELECT origin, oseq "
    "FROM stream WHERE tenant_id = $1 AND id = $2) AS v), "
    "(SELECT json_agg(json_build_array(bucket, total) ORDER BY bucket) FROM sums)"
)  # fmt: skip
_decode_got = msgspec.json.Decoder(list[tuple[int, int]]).decode
_decode_sums = msgspec.json.Decoder(list[tuple[int, str]]).decode
_WORD = (1 << 64) - 1


class AskDigest(Message, frozen=True):
    """Do we hold the same? `got` is the site's vector of the stream, `mark` that of its sums, and
    `skip` records that it leaves out.
    """

    stream: UUID
    got: dict[int, int]
    mark: bytes
    skip: list[UUID] = msgspec.field(default_factory=list)


class Digest(Message, frozen=True):
    """`is_even`: both have the same entries, else nothing was compared. `is_same`: also the same
    sums. Otherwise `sums` by bucket, with `skip` left out too.
    """

    is_even: bool
    is_same: bool = False
    sums: list[tuple[int, int]] = msgspec.field(default_factory=list)
    skip: list[UUID] = msgspec.field(default_factory=list)


class Sums(msgspec.Struct, frozen=True):
    """A stream here: how far, and the sum of each bucket that holds anything."""

    got: dict[int, int]
    buckets: dict[int, int]

    @property
    def mark(self) -> bytes:
        """All sums in one."""
        return sha256(msgspec.msgpack.encode(sorted(self.buckets.items()))).digest()


async def read_skipped(db: Database, tenant: UUID) -> list[UUID]:
    """Records with entries that are parked, or were skipped for good, here."""
    (rows,) = await db.read(tenant, (_PARKED, (tenant, SKIPPED_MAX)))
    return sorted(UUID((i or b"").decode()) for i in rows.column())


async def read_sums(
    db: Database, tenant: UUID, stream: UUID, *, mask: Mask | None = None, skip: Sequence[UUID] = ()
) -> Sums:
    """The sums of a stream, as a node under `mask` would have them."""
    hidden = sorted((mask or Mask()).kinds.items())
    kinds = [key for key, _ in hidden]
    fids = [",".join(sorted(h.fids)) for _, h in hidden]
    members = [f";({'|'.join(re.escape(f) for f in sorted(h.fids))})/[^;]*" for _, h in hidden]
    masked = (Column("text", column) for column in (kinds, fids, members))
    (rows,) = await db.read(
        tenant, (_SUMS, (tenant, stream, list(skip), *masked)), timeout_ms=120_000
    )
    row = rows.first()
    got: dict[int, int] = {}
    for origin, oseq in _decode_got(row[0]) if row and row[0] else ():
        got[origin] = max(got.get(origin, 0), oseq)
    sums = _decode_sums(row[1]) if row and row[1] else []
    return Sums({o: q for o, q in got.items() if q}, {b: int(t) & _WORD for b, t in sums})


async def answer(db: Database, tenant: UUID, asked: AskDigest, mask: Mask) -> Digest:
    """The hub's side."""
    ours = await read_skipped(db, tenant)
    skip = sorted({*ours, *asked.skip[:SKIPPED_MAX]})
    sums = await read_sums(db, tenant, asked.stream, mask=mask, skip=skip)
    if sums.got != asked.got:
        return Digest(is_even=False)
    more = sorted(set(ours) - set(asked.skip))
    if not more and sums.mark == asked.mark:
        return Digest(is_even=True, is_same=True)
    return Digest(is_even=True, sums=sorted(sums.buckets.items()), skip=more)


def differing(ours: Sums, theirs: Sequence[tuple[int, int]]) -> list[int]:
    """The buckets that are not alike."""
    other = dict(theirs)
    return sorted(b for b in {*ours.buckets, *other} if ours.buckets.get(b, 0) != other.get(b, 0))
