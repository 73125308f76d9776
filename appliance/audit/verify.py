"""Prove the audit: recompute each seal over the rows it names, in order, without a gap."""

from __future__ import annotations

from uuid import UUID

import msgspec

from appliance.audit.seal import GENESIS, seal_hash
from appliance.db.database import Database
from appliance.db.wire import Statement

_SEALS = Statement(
    "SELECT no, array_to_string(ids, ','), hash FROM audit_seal WHERE tenant_id = $1 AND no > $2 "
    "ORDER BY no LIMIT 200"
)
_ROWS = Statement(
    "SELECT id::text, at::text, actor::text, action, subject, request_id::text, outcome, "
    "details::text FROM audit WHERE tenant_id = $1 AND id = ANY($2::uuid[]) ORDER BY id"
)
_COUNTS = Statement(
    "SELECT (SELECT count(*) FROM audit WHERE tenant_id = $1), "
    "(SELECT count(*) FROM audit_unsealed WHERE tenant_id = $1)"
)


class AuditReport(msgspec.Struct, frozen=True):
    """How many events and seals were checked, how many wait, and every fault found."""

    events: int
    seals: int
    unsealed: int
    faults: tuple[str, ...]


async def verify_audit(db: Database, tenant: UUID) -> AuditReport:
    """Recompute the chain of a tenant."""
    previous, number, events = GENESIS, 0, 0
    faults: list[str] = []
    while True:
        (seals,) = await db.read(tenant, (_SEALS, (tenant, number)))
        for no, ids_text, digest in seals:
            ids = [UUID(i) for i in (ids_text or b"").decode().split(",")]
            if int(no or 0) != number + 1:
                faults.append(f"seal {number + 1} is missing")
            number = int(no or 0)
            (rows,) = await db.read(tenant, (_ROWS, (tenant, ids)))
            found = list(rows)
            if len(found) != len(ids):
                faults.append(f"seal {number}: {len(ids) - len(found)} events are missing")
            stored = bytes.fromhex((digest or b"")[2:].decode())
            if seal_hash(previous, found) != stored:
                faults.append(f"seal {number}: an event is not what was written")
            previous, events = stored, events + len(found)
        if len(seals) < 200:
            break
    (counts,) = await db.read(tenant, (_COUNTS, (tenant,)))
    total, unsealed = (int(v or 0) for v in (counts.first() or (b"0", b"0")))
    if total != events + unsealed:
        faults.append(f"{total - events - unsealed} events are in no seal and not waiting for one")
    return AuditReport(events, number, unsealed, tuple(faults))
