"""A site compares its streams with the hub's each night, and mends what is not alike.

Promises: a difference is heard of (log, audit, status, metric) before anything is mended; only the
records of the differing buckets are fetched, and joined as states are, so nothing that was written
here is lost; what was found stands in `stream_check`.
"""

from __future__ import annotations

import time
from uuid import UUID

import msgspec

from appliance.audit.append import audit_calls
from appliance.base import logs
from appliance.db.database import Database
from appliance.db.wire import Call, Statement
from appliance.sync.bootstrap import Bootstrap
from appliance.sync.client import HubClient
from appliance.sync.digest import AskDigest, Digest, differing, read_skipped, read_sums

# A notice, by code.
DIFFERED = "stream.differed"
# A stream in which something went on while it was compared is looked at again after this long.
AGAIN_S = 300.0
_ASKED = Statement(
    "SELECT stream::text FROM stream_check WHERE tenant_id = $1 AND state = 'asked' ORDER BY stream"
)
_NOTE = Statement(
    "INSERT INTO stream_check (tenant_id, stream, state, buckets, records) "
    "VALUES ($1, $2, $3, $4, $5) ON CONFLICT (tenant_id, stream) DO UPDATE SET "
    "state = EXCLUDED.state, buckets = EXCLUDED.buckets, records = EXCLUDED.records, "
    "checked_at = now()"
)
_READ = Statement(
    "SELECT s.name, c.stream::text, c.state, c.buckets, c.records, c.checked_at::text "
    "FROM stream_check c JOIN stream s ON s.tenant_id = $1 AND s.id = c.stream "
    "WHERE c.tenant_id = $1 ORDER BY s.name, s.id"
)
_ASK = Statement(
    "INSERT INTO stream_check (tenant_id, stream, state) SELECT $1, id, 'asked' FROM stream "
    "WHERE tenant_id = $1 ON CONFLICT (tenant_id, stream) DO UPDATE SET state = 'asked'"
)


class Checked(msgspec.Struct, frozen=True):
    """The last comparison of a stream: even, mended (and even since), or differs; asked: it is to
    come.
    """

    name: str
    stream: UUID
    state: str
    buckets: int
    records: int
    at: str


async def read_checks(db: Database, tenant: UUID) -> list[Checked]:
    """How the last comparisons ended."""
    (rows,) = await db.read(tenant, (_READ, (tenant,)))
    found = [[v.decode() if v is not None else "" for v in row] for row in rows]
    return [Checked(n, UUID(s), w, int(b), int(r), at) for n, s, w, b, r, at in found]


async def ask_check(db: Database, tenant: UUID) -> None:
    """Have every stream compared in the next conversation."""
    async with db.transaction(tenant) as tx:
        await tx.run((_ASK, (tenant,)), commit=True)


class Checking:
    """Of one conversation."""

    def __init__(self, db: Database, tenant: UUID, client: HubClient, states: Bootstrap) -> None:
        self._db, self._tenant, self._client, self._states = db, tenant, client, states
        self._tried: dict[UUID, float] = {}

    async def check_asked(self) -> int:
        """Compare what somebody asked for; how many streams differed."""
        (rows,) = await self._db.read(self._tenant, (_ASKED, (self._tenant,)))
        found, at = 0, time.monotonic()
        for value in rows.column():
            stream = UUID((value or b"").decode())
            if self._tried.get(stream, -AGAIN_S) + AGAIN_S <= at:
                self._tried[stream] = at
                found += await self._check(stream)
        return found

    async def _check(self, stream: UUID) -> int:
        """One stream; 1 when it differed."""
        compared = await self._compare(stream)
        if compared is None:
            # One of the two has something new; another time.
            return 0
        if not compared:
            await self._note(stream, "even", 0, 0)
            return 0
        logs.event(
            "sync.digest_differs", level="error", tenant=self._tenant, stream=stream,
            count=len(compared),
        )  # fmt: skip
        await self._note(stream, "differs", len(compared), 0)
        records = await self._states.mend(stream, compared)
        again = await self._compare(stream)
        state = "mended" if again == [] else "differs"
        await self._note(stream, state, len(compared), records)
        logs.event(
            "sync.digest_mended", level="warning", tenant=self._tenant, stream=stream,
            count=records, outcome=state,
        )  # fmt: skip
        return 1

    async def _compare(self, stream: UUID) -> list[int] | None:
        """The differing buckets; None when the two do not have the same entries."""
        skip = await read_skipped(self._db, self._tenant)
        ours = await read_sums(self._db, self._tenant, stream, skip=skip)
        asked = AskDigest(stream, ours.got, ours.mark, skip)
        told = await self._client.ask("digest", asked, Digest)
        if not told.is_even or told.is_same:
            return [] if told.is_same else None
        if told.skip:
            again = await read_sums(
                self._db, self._tenant, stream, skip=sorted({*skip, *told.skip})
            )
            if again.got != ours.got:
                return None
            ours = again
        return differing(ours, told.sums)

    async def _note(self, stream: UUID, state: str, buckets: int, records: int) -> None:
        tenant = self._tenant
        calls: list[Call] = [(_NOTE, (tenant, stream, state, buckets, records))]
        if state != "even":
            details: dict[str, object] = {"buckets": buckets, "records": records}
            calls += audit_calls(
                tenant, "sync.digest", subject=stream, outcome=state, details=details
            )
        async with self._db.transaction(tenant) as tx:
            await tx.run(*calls, commit=True)
