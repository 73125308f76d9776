"""Where the chains of a site and its hub part, found with a few questions.

A chain's hash says everything before it, so the last entry that both have alike is found by
comparing some hashes of a span, then of the part in which they cease to agree.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from uuid import UUID

from appliance.db.columns import Column
from appliance.db.database import Database
from appliance.db.values import bytea_of
from appliance.db.wire import Statement
from appliance.sync import messages as say

Chain = tuple[UUID, int]
# Entries of one chain in one question, and of all chains.
PROBES, PROBES_MAX = 32, 2_000

# Where the hub's log no longer has an entry itself, that its origin is known that far has to do.
_MET = Statement(
    "SELECT u.stream::text, u.origin, max(u.oseq) FILTER (WHERE c.hash = u.hash OR (c.hash IS NULL "
    "AND g.got >= u.oseq)), max(g.got) FROM unnest($2::uuid[], $3::bigint[], $4::bigint[], "
    "$5::bytea[]) AS u(stream, origin, oseq, hash) LEFT JOIN change c ON c.tenant_id = $1 "
    "AND c.stream = u.stream AND c.origin = u.origin AND c.oseq = u.oseq "
    "LEFT JOIN LATERAL (SELECT greatest((SELECT v.got FROM stream_vector v WHERE v.tenant_id = $1 "
    "AND v.stream = u.stream AND v.origin = u.origin), (SELECT s.oseq FROM stream s "
    "WHERE s.tenant_id = $1 AND s.id = u.stream AND s.origin = u.origin)) AS got) g ON true "
    "GROUP BY u.stream, u.origin"
)
_HASHES = Statement(
    "SELECT u.stream::text, u.origin, u.oseq, c.hash FROM unnest($2::uuid[], $3::bigint[], "
    "$4::bigint[]) AS u(stream, origin, oseq) JOIN change c ON c.tenant_id = $1 "
    "AND c.stream = u.stream AND c.origin = u.origin AND c.oseq = u.oseq"
)
_ENDS = Statement(
    "SELECT stream::text, origin, max(got) FROM (SELECT stream, origin, got FROM stream_vector "
    "WHERE tenant_id = $1 UNION ALL SELECT id, origin, oseq FROM stream WHERE tenant_id = $1) AS v "
    "WHERE got > 0 GROUP BY stream, origin"
)


async def compare(
    db: Database, tenant: UUID, entries: Sequence[tuple[UUID, int, int, bytes]]
) -> list[tuple[UUID, int, int, int]]:
    """At the hub: see messages.Compared."""
    if not entries:
        return []
    columns = [list(column) for column in zip(*entries[:PROBES_MAX], strict=True)]
    hashes = Column("bytea", columns.pop())
    (rows,) = await db.read(tenant, (_MET, (tenant, *columns, hashes)))
    return [
        (_stream(stream), int(origin or 0), int(met or 0), int(got or 0))
        for stream, origin, met, got in rows
    ]


async def read_ends(db: Database, tenant: UUID) -> dict[UUID, dict[int, int]]:
    """How far this node has each origin, its own included, by stream."""
    (rows,) = await db.read(tenant, (_ENDS, (tenant,)))
    found: dict[UUID, dict[int, int]] = {}
    for stream, origin, got in rows:
        found.setdefault(_stream(stream), {})[int(origin or 0)] = int(got or 0)
    return found


async def find_partings(
    db: Database,
    tenant: UUID,
    ends: Mapping[Chain, int],
    ask: Callable[[say.Compare], Awaitable[say.Compared]],
) -> dict[Chain, tuple[int, int]]:
    """At a site: of each chain, which ends here at `ends`, the last entry that the hub has alike and
    how far it has that origin. Where it has more than the first it has something else there.
    """
    spans = {chain: (0, end) for chain, end in ends.items()}
    found: dict[Chain, tuple[int, int]] = {}
    while spans:
        now = {c: spans.pop(c) for c in list(spans)[: PROBES_MAX // PROBES]}
        places = [(s, o, q) for (s, o), span in now.items() for q in _probes(*span)]
        columns = [list(column) for column in zip(*places, strict=True)]
        (rows,) = await db.read(tenant, (_HASHES, (tenant, *columns)))
        probes = [(_stream(s), int(o or 0), int(q or 0), bytea_of(h)) for s, o, q, h in rows]
        answer = await ask(say.Compare(probes))
        said = {(s, o): (met, got) for s, o, met, got in answer.met}
        here = {(s, o, q) for s, o, q, _ in probes}
        for chain, span in now.items():
            met, got = said.get(chain, (0, 0))
            # What this log holds no more the hub has had: nothing is let go before that.
            gone = [q for q in _probes(*span) if (*chain, q) not in here]
            low = max(span[0], met, *gone)
            high = min([q - 1 for q in _probes(*span) if q > low], default=low)
            if low < high:
                spans[chain] = (low, high)
            else:
                found[chain] = (low, got)
    return found


def _probes(low: int, high: int) -> list[int]:
    """Some places of (low, high], the last one among them."""
    step = max(1, -((low - high) // PROBES))
    return [*range(low + step, high, step), high]


def _stream(value: bytes | None) -> UUID:
    return UUID((value or b"").decode())
