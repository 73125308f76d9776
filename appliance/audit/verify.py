"""Prove the audit: recompute each seal over the rows it names, in order, without a gap.

The change log has chains of its own, proved by the room write; `verify` runs both and says in
one report whether anything of a tenant's past is not what was written.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol
from uuid import UUID

import msgspec

from appliance.audit.seal import COLUMNS, GENESIS, seal_hash
from appliance.db.database import Database
from appliance.db.wire import Row, Statement

PAGE = 100
TIMEOUT_MS = 60_000
_SEALS = Statement(
    "SELECT no, array_to_string(ids, ','), hash FROM audit_seal WHERE tenant_id = $1 AND no > $2 "
    "ORDER BY no LIMIT $3"
)
_ROWS = Statement(
    f"SELECT {COLUMNS} FROM audit a WHERE a.tenant_id = $1 AND a.id = ANY($2::uuid[]) ORDER BY a.id"
)
# One statement, so one moment: seals made while we read are counted with what they cover.
_COUNTS = Statement(
    "SELECT (SELECT count(*) FROM audit WHERE tenant_id = $1), "
    "(SELECT count(*) FROM audit_unsealed u JOIN audit a ON a.tenant_id = u.tenant_id "
    "AND a.id = u.id WHERE u.tenant_id = $1), "
    "(SELECT count(*) FROM audit_unsealed WHERE tenant_id = $1), "
    "(SELECT coalesce(sum(cardinality(ids)), 0) FROM audit_seal WHERE tenant_id = $1 AND no > $2)"
)


class AuditReport(msgspec.Struct, frozen=True):
    """How many events and seals were checked, how many wait, and every fault found.

    `head` is the hash of the last seal: copied elsewhere, it also shows a chain that was cut
    short or rewritten whole.
    """

    events: int
    seals: int
    unsealed: int
    faults: tuple[str, ...]
    head: str = ""


class LogFault(Protocol):
    """One fault of the change log."""

    @property
    def stream(self) -> UUID:
        """The stream it is in."""

    @property
    def seq(self) -> int:
        """Where in the stream."""

    @property
    def detail(self) -> str:
        """What is wrong."""


class LogReport(Protocol):
    """What the room write says of the change log."""

    @property
    def streams(self) -> int:
        """Streams checked."""

    @property
    def entries(self) -> int:
        """Entries checked."""

    @property
    def faults(self) -> Sequence[LogFault]:
        """What was found."""


class Report(msgspec.Struct, frozen=True):
    """The audit and the change log of one tenant."""

    tenant: UUID
    audit: AuditReport
    streams: int
    entries: int
    faults: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether everything is what was written."""
        return not self.faults


async def verify(
    db: Database, tenant: UUID, *, verify_log: Callable[[Database, UUID], Awaitable[LogReport]]
) -> Report:
    """Recompute every chain of a tenant; `verify_log` is `appliance.write.verify_log`."""
    audit = await verify_audit(db, tenant)
    log = await verify_log(db, tenant)
    entries = tuple(f"stream {f.stream} entry {f.seq}: {f.detail}" for f in log.faults)
    faults = (*(f"audit {f}" for f in audit.faults), *entries)
    return Report(tenant, audit, log.streams, log.entries, faults)


async def verify_audit(db: Database, tenant: UUID) -> AuditReport:
    """Recompute the chain of a tenant."""
    previous, number, seals, events = GENESIS, 0, 0, 0
    faults: list[str] = []
    while True:
        (page,) = await db.read(tenant, (_SEALS, (tenant, number, PAGE)), timeout_ms=TIMEOUT_MS)
        for no, ids_text, digest in page:
            present = int(no or 0)
            if present != number + 1:
                faults.append(f"seal {number + 1} is missing")
            number, seals = present, seals + 1
            ids = [UUID(i) for i in (ids_text or b"").decode().split(",") if i]
            (rows,) = await db.read(tenant, (_ROWS, (tenant, ids)), timeout_ms=TIMEOUT_MS)
            found = list(rows)
            stored = bytes.fromhex((digest or b"")[2:].decode())
            faults += _compare(number, ids, found, previous, stored)
            previous, events = stored, events + len(found)
        if len(page) < PAGE:
            break
    (counts,) = await db.read(tenant, (_COUNTS, (tenant, number)), timeout_ms=TIMEOUT_MS)
    total, waiting, unsealed, later = (int(v or 0) for v in (counts.first() or ()))
    if unsealed > waiting:
        faults.append(f"{unsealed - waiting} events that wait for a seal are missing")
    if total > events + waiting + later:
        faults.append(f"{total - events - waiting - later} events are in no seal")
    return AuditReport(events, seals, unsealed, tuple(faults), previous.hex())


def _compare(
    number: int, ids: Sequence[UUID], found: Sequence[Row], previous: bytes, stored: bytes
) -> list[str]:
    """What is wrong with one seal, as precisely as can be said."""
    if len(found) != len(ids):
        return [f"seal {number}: {len(ids) - len(found)} events are missing"]
    if seal_hash(previous, found) != stored:
        return [f"seal {number}: an event is not what was written, or the seal is not"]
    return []
