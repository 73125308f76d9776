"""Seal audit events: an append-only row that chains the hash of a batch to the one before.

Neither table is ever updated. What a seal covers cannot be changed, removed or reordered without
the chain showing it; what is newer than the last seal (a second, while a worker runs) is not
covered yet, and a superuser who rewrites the whole chain is seen only against a copied head.
An event that was committed late, behind a seal, goes into the next one: seals name their events.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from uuid import UUID

from appliance.db.database import Database
from appliance.db.wire import Row, Statement

BATCH = 1_000
GENESIS = b""
# One text form whatever the server's DateStyle; the keys of jsonb are in an order of its own.
COLUMNS = (
    "a.id::text, to_char(a.at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), "
    "a.actor::text, a.action, a.subject, a.request_id::text, a.outcome, a.details::text"
)

_LOCK = Statement("SELECT pg_advisory_xact_lock(hashtextextended('audit.seal ' || $1, 0))")
_TIP = Statement("SELECT no, hash FROM audit_seal WHERE tenant_id = $1 ORDER BY no DESC LIMIT 1")
_NEXT = Statement(
    f"SELECT {COLUMNS} FROM audit_unsealed u JOIN audit a ON a.tenant_id = u.tenant_id "
    "AND a.id = u.id WHERE u.tenant_id = $1 ORDER BY u.id LIMIT $2"
)
_SEAL = Statement(
    "INSERT INTO audit_seal (tenant_id, no, ids, hash) VALUES ($1, $2, $3::uuid[], $4)"
)
_DONE = Statement("DELETE FROM audit_unsealed WHERE tenant_id = $1 AND id = ANY($2::uuid[])")


def seal_hash(previous: bytes, rows: Sequence[Row]) -> bytes:
    """H(previous ‖ rows), each column with its length in front, so that no two rows read alike."""
    digest = sha256(previous)
    for row in rows:
        for value in row:
            digest.update(b"-1:" if value is None else b"%d:" % len(value) + value)
    return digest.digest()


async def seal(db: Database, tenant: UUID) -> int:
    """Seal what waits, at most a batch; how many events were sealed.

    Two sealers at once take turns: the lock is held to the commit, and the second reads after it.
    """
    async with db.transaction(tenant) as tx:
        await tx.run((_LOCK, (str(tenant),)))
        tip, rows = await tx.run((_TIP, (tenant,)), (_NEXT, (tenant, BATCH)))
        events = list(rows)
        if not events:
            return 0
        last = tip.first()
        number = int(last[0] or 0) + 1 if last else 1
        previous = bytes.fromhex((last[1] or b"")[2:].decode()) if last else GENESIS
        ids = [UUID((e[0] or b"").decode()) for e in events]
        await tx.run(
            (_SEAL, (tenant, number, ids, seal_hash(previous, events))),
            (_DONE, (tenant, ids)),
            commit=True,
        )
        return len(events)
