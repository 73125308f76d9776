"""What one node's tables hold, read past row security in one moment."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

import psycopg

from appliance.runtime.account import service_account
from appliance.runtime.postgres import Postgres
from appliance.write.dangling import DANGLING_LIVE


class Row(NamedTuple):
    """One entry of the log."""

    stream: UUID
    seq: int
    origin: int
    oseq: int
    tx: int
    hlc: int
    ehlc: int
    actor: UUID
    kind: str
    record_id: UUID
    op: str
    change_set: UUID
    body: bytes
    hash: bytes


# The clock that counts: the author's, or what the hub made of it.
_CHANGES = (
    f"SELECT {', '.join(f if f != 'ehlc' else 'least(c.ehlc, t.ehlc)' for f in Row._fields)} "
    "FROM change c LEFT JOIN clock_cut t USING (tenant_id, stream, origin, oseq) ORDER BY stream, seq"
)
_STREAMS = "SELECT id, name, head, floor FROM stream"
_RECORDS = (
    "SELECT id, stream, kind, unit_id, owner_id, number, data::text, stamps, encode(open, 'hex'), "
    "deleted_at IS NOT NULL FROM {} ORDER BY id"
)
# Those that stand: one that a later write has ended is forgotten by a worker, each node at its time.
_CONFLICTS = (
    "SELECT record_id, stream, sort, register, kind, sides::text FROM conflict c "
    f"WHERE sort <> 'dangling_ref' OR {DANGLING_LIVE.replace('$1', 'c.tenant_id')}"
)
_PARKED = "SELECT stream, origin, oseq, reason, state, is_logged, detail, entries FROM parked"
_WAITING = "SELECT topic FROM outbox WHERE dead_reason IS NULL"
_DEAD = "SELECT topic, dead_reason FROM outbox WHERE dead_reason IS NOT NULL"


@dataclass
class Stand:
    """`records` and `conflicts` by stream; `log` by stream and (origin, oseq)."""

    name: str
    streams: dict = field(default_factory=dict)
    rows: list = field(default_factory=list)
    log: dict = field(default_factory=lambda: defaultdict(dict))
    records: dict = field(default_factory=lambda: defaultdict(dict))
    conflicts: dict = field(default_factory=lambda: defaultdict(set))
    parked: list = field(default_factory=list)
    dead: list = field(default_factory=list)

    def by_change_set(self):
        found = defaultdict(list)
        for row in self.rows:
            found[str(row.change_set)].append(row)
        return found


def connect(node):
    dsn = Postgres(node.data, node.data, service_account()).dsn("postgres", "nexus_pool")
    return psycopg.connect(dsn, autocommit=True)


def read_stand(node):
    """Everything that the proof looks at, in one snapshot."""
    found = Stand(node.name)
    with connect(node) as conn:
        conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        found.streams = {i: (name, head, floor) for i, name, head, floor in conn.execute(_STREAMS)}
        found.rows = [Row(*r) for r in conn.execute(_CHANGES)]
        for table in ("record", "entry"):
            for ident, stream, *rest in conn.execute(_RECORDS.format(table)):
                found.records[stream][ident] = tuple(rest)
        for record, stream, *rest in conn.execute(_CONFLICTS):
            found.conflicts[stream].add((record, *rest))
        found.parked = conn.execute(_PARKED).fetchall()
        found.dead = conn.execute(_DEAD).fetchall()
    for row in found.rows:
        found.log[row.stream][row.origin, row.oseq] = row
    return found


def read_vectors(node):
    """By stream and origin the last entry; and the topics of outbox rows that wait."""
    text = "SELECT stream, origin, max(oseq), count(*) FROM change GROUP BY 1, 2"
    with connect(node) as conn:
        vectors = defaultdict(dict)
        for stream, origin, last, count in conn.execute(text):
            vectors[stream][origin] = (last, count)
        return vectors, [topic for (topic,) in conn.execute(_WAITING)]
