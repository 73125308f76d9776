"""A record's entries out of the log, oldest first: the one reader of `change` by record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

from appliance.db.wire import Call, Row, Rows, Statement
from appliance.kernel.change import Entry, decode_body, op_of

COLUMNS = (
    "stream::text, origin, oseq, tx, hlc, actor::text, door, kind, record_id::text, op, "
    "schema_rev, change_set::text, body, seq, hash"
)
# The clock that counts, and nothing that waits for a decision: what records are made of.
FOLDED = COLUMNS.replace(
    "hlc",
    "COALESCE((SELECT k.ehlc FROM clock_cut k WHERE k.tenant_id = change.tenant_id "
    "AND k.stream = change.stream AND k.origin = change.origin AND k.oseq = change.oseq), ehlc)",
)
NOT_PARKED = (
    "NOT EXISTS (SELECT 1 FROM parked p WHERE p.tenant_id = change.tenant_id "
    "AND p.stream = change.stream AND p.origin = change.origin AND p.is_logged "
    "AND change.oseq >= p.oseq AND change.oseq < p.oseq + p.entries AND p.state <> 'released')"
)
_OF_RECORDS = Statement(
    f"SELECT {FOLDED} FROM change WHERE tenant_id = $1 AND record_id = ANY($2::uuid[]) "
    f"AND {NOT_PARKED} ORDER BY record_id, "
    # By clock, but never against the order of a stream: clocks are cut, and go back.
    "max(hlc) OVER (PARTITION BY record_id, stream ORDER BY seq), seq"
)

_OF_SETS = Statement(
    f"SELECT {COLUMNS} FROM change WHERE tenant_id = $1 AND record_id = ANY($2::uuid[]) "
    "AND change_set = ANY($3::uuid[]) ORDER BY record_id, hlc, seq"
)

STREAMS = Statement("SELECT id::text FROM stream WHERE tenant_id = $1")


class Placed(NamedTuple):
    """An entry and its place in the order of this node's stream."""

    entry: Entry
    seq: int


class Runs(Protocol):
    """A transaction, or anything else that answers calls in one round trip."""

    async def run(self, *calls: Call) -> list[Rows]:
        """Answers in the order of the calls."""


async def read_trail(tx: Runs, tenant: UUID, ids: Sequence[UUID]) -> dict[UUID, list[Entry]]:
    """All entries of each record; a record unknown to the log has none."""
    (rows,) = await tx.run((_OF_RECORDS, (tenant, list(ids))))
    found: dict[UUID, list[Entry]] = {ident: [] for ident in ids}
    for entry in map(read_entry, rows):
        found[entry.record_id].append(entry)
    return found


def read_streams(rows: Rows) -> frozenset[UUID]:
    """The streams that this node holds, of rows of STREAMS."""
    return frozenset(UUID((ident or b"").decode()) for ident in rows.column())


def trail_call(tenant: UUID, ids: Iterable[UUID]) -> Call:
    """The same as a call, for one round trip with others."""
    return _OF_RECORDS, (tenant, list(ids))


def set_call(tenant: UUID, ids: Iterable[UUID], sets: Iterable[UUID]) -> Call:
    """The records' entries of some change sets alone; rows of COLUMNS."""
    return _OF_SETS, (tenant, list(ids), list(sets))


def read_placed(row: Row) -> Placed:
    """One row of COLUMNS as an entry with its place."""
    return Placed(read_entry(row), int(row[13] or 0))


def read_entry(row: Row) -> Entry:
    """One row of COLUMNS as an entry."""
    text = [value.decode() if value is not None else "" for value in row]
    return Entry(
        stream=UUID(text[0]),
        origin=int(text[1]),
        oseq=int(text[2]),
        tx=int(text[3]),
        hlc=int(text[4]),
        actor=UUID(text[5]),
        door=text[6],
        kind=text[7],
        record_id=UUID(text[8]),
        op=op_of(text[9]),
        schema_rev=int(text[10]),
        change_set=UUID(text[11]),
        body=decode_body(bytes.fromhex(text[12][2:])),
    )
