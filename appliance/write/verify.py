"""Prove the log: each stream dense, each entry's hash what its content and predecessor make it."""

from __future__ import annotations

from uuid import UUID

import msgspec

from appliance.db.database import Database
from appliance.db.values import bytea_of
from appliance.db.wire import Statement
from appliance.kernel.change import GENESIS, chain_hash
from appliance.write.incoming import STRIPPED
from appliance.write.trail import COLUMNS, read_entry

PAGE = 2_000
_STREAMS = Statement(
    "SELECT s.id::text, s.head, s.origin, s.oseq, s.hash, t.log_key, s.floor FROM stream s "
    "JOIN tenant_state t ON t.tenant_id = s.tenant_id WHERE s.tenant_id = $1 ORDER BY s.id"
)
_PAGE = Statement(
    f"SELECT {COLUMNS} FROM change WHERE tenant_id = $1 AND stream = $2 AND seq > $3 "
    "ORDER BY seq LIMIT $4"
)

# Where the log of an origin begins here, and the hash of the entry before that.
_BASES = Statement(
    "SELECT origin, oseq, hash FROM stream_base WHERE tenant_id = $1 AND stream = $2"
)


class LogFault(msgspec.Struct, frozen=True):
    """Where the log is not what it was: the stream, the place, and what is wrong with it."""

    stream: UUID
    seq: int
    detail: str


class LogReport(msgspec.Struct, frozen=True):
    """What was checked and what was found."""

    streams: int
    entries: int
    faults: tuple[LogFault, ...]


async def verify_log(db: Database, tenant: UUID) -> LogReport:
    """Recompute every chain of a tenant."""
    (rows,) = await db.read(tenant, (_STREAMS, (tenant,)))
    entries, faults, streams = 0, list[LogFault](), 0
    for row in rows:
        streams += 1
        stream = UUID((row[0] or b"").decode())
        count, found = await _verify_stream(db, tenant, stream, row)
        entries += count
        faults += found
    return LogReport(streams, entries, tuple(faults))


async def _verify_stream(
    db: Database, tenant: UUID, stream: UUID, row: tuple[bytes | None, ...]
) -> tuple[int, list[LogFault]]:
    head, origin, oseq = int(row[1] or 0), int(row[2] or 0), int(row[3] or 0)
    tip, log_key = bytea_of(row[4]), bytea_of(row[5])
    (bases,) = await db.read(tenant, (_BASES, (tenant, stream)))
    base = {int(o or 0): (int(q or 0), bytea_of(h)) for o, q, h in bases}
    # What is below the floor cannot be looked at; from there on the chain is proved.
    floor = last = int(row[6] or 0)
    chains = dict[int, tuple[int, bytes]]()
    faults: list[LogFault] = []
    while True:
        (page,) = await db.read(tenant, (_PAGE, (tenant, stream, last, PAGE)), timeout_ms=60_000)
        for entry_row in page:
            seq = int(entry_row[13] or 0)
            try:
                entry = read_entry(entry_row)
            except (msgspec.MsgspecError, ValueError):
                faults.append(LogFault(stream, seq, "the entry cannot be read"))
                return seq, faults
            if seq != last + 1:
                faults.append(LogFault(stream, last + 1, "an entry is missing"))
            last = seq
            known, previous = chains.get(entry.origin, (0, GENESIS))
            if known < base.get(entry.origin, (0, b""))[0] == entry.oseq - 1:
                known, previous = base[entry.origin]
            if entry.oseq != known + 1:
                faults.append(LogFault(stream, seq, "an entry of its origin is missing"))
            digest = bytea_of(entry_row[14])
            is_cut = known > 0 and not previous
            if not digest and (is_cut or STRIPPED in entry.body.ext):
                # Something was kept from this node; the chain begins again behind it.
                chains[entry.origin] = (entry.oseq, b"")
                continue
            if not is_cut and chain_hash(log_key, previous, entry) != digest:
                faults.append(LogFault(stream, seq, "the entry is not what was written"))
            chains[entry.origin] = (entry.oseq, digest)
        if len(page) < PAGE:
            break
    if last != head:
        faults.append(LogFault(stream, head, f"the stream ends at {last}, its counter says {head}"))
    ends = chains.get(origin, (0, GENESIS))
    if head and max(ends, base.get(origin, ends)) != (oseq, tip):
        faults.append(LogFault(stream, head, "the last hash is not the counter's"))
    return last - floor, faults
