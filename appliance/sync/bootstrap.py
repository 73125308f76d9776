"""How a site begins a stream, or comes back to one: by states first, by the log from there on.

Promises: how far it is stands in the database with what was joined, so that a kill anywhere costs
the piece that was on its way and nothing else; what was made here is offered to the hub before a
piece is asked for, and stays whatever a piece says; the cursor is set to the cut when the last
piece is joined, never before.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from uuid import UUID

import msgspec

from appliance.base import logs
from appliance.db.columns import Column
from appliance.db.database import Database
from appliance.db.values import bytea_of
from appliance.db.wire import Call, Statement
from appliance.sync import messages as say
from appliance.sync.client import HubClient
from appliance.sync.positions import read_heads
from appliance.sync.snapshot import ROWS, AskCut, AskPart, Cut, Piece, open_piece
from appliance.sync.taking import Taker
from appliance.write.carried import decode_had
from appliance.write.join import BUCKET, ENTRIES, LAST, RECORDS, Part, join_part

# By the log, a stream of fewer entries comes about as fast, and with its history.
STATES_AFTER = 20_000
WHOLE = "whole"
_FIRST = UUID(int=0)

_READ = Statement(
    "SELECT stream::text, cut, tips, part, after::text FROM stream_join WHERE tenant_id = $1"
)
_BEGIN = Statement(
    "INSERT INTO stream_join (tenant_id, stream, cut, tips) VALUES ($1, $2, $3, $4) "
    "ON CONFLICT (tenant_id, stream) DO UPDATE SET cut = EXCLUDED.cut, tips = EXCLUDED.tips, "
    "part = 'record', after = '00000000-0000-0000-0000-000000000000', began_at = now()"
)
_PROGRESS = Statement(
    "UPDATE stream_join SET part = $3, after = $4 WHERE tenant_id = $1 AND stream = $2"
)
_END = Statement("DELETE FROM stream_join WHERE tenant_id = $1 AND stream = $2")
_LOCK = Statement(
    "SELECT head, origin, oseq FROM stream WHERE tenant_id = $1 AND id = $2 FOR UPDATE"
)
_VECTORS = Statement("SELECT origin, got FROM stream_vector WHERE tenant_id = $1 AND stream = $2")
_OWN = Statement("UPDATE stream SET oseq = $3, hash = $4 WHERE tenant_id = $1 AND id = $2")
_KEEP = Statement(
    "INSERT INTO stream_vector (tenant_id, stream, origin, got, hash) "
    "SELECT $1, $2, o, g, h FROM unnest($3::bigint[], $4::bigint[], $5::bytea[]) AS u(o, g, h) "
    "ON CONFLICT (tenant_id, stream, origin) DO UPDATE SET got = EXCLUDED.got, hash = EXCLUDED.hash"
)
_BASE = Statement(
    "INSERT INTO stream_base (tenant_id, stream, origin, oseq, hash) "
    "SELECT $1, $2, o, g, h FROM unnest($3::bigint[], $4::bigint[], $5::bytea[]) AS u(o, g, h) "
    "ON CONFLICT (tenant_id, stream, origin) DO UPDATE SET oseq = EXCLUDED.oseq, hash = EXCLUDED.hash"
)
_CURSOR = Statement(
    "INSERT INTO peer_stream (tenant_id, peer, stream, cursor) VALUES ($1, $2, $3, $4) "
    "ON CONFLICT (tenant_id, peer, stream) DO UPDATE SET cursor = EXCLUDED.cursor, seen_at = now()"
)
_AHEAD = Statement("SELECT id::text, known FROM stream_ahead WHERE tenant_id = $1")
_HERE = Statement(
    "SELECT stream::text, origin, got FROM stream_vector WHERE tenant_id = $1 UNION ALL "
    "SELECT id::text, origin, oseq FROM stream WHERE tenant_id = $1"
)
# What waits for a beginning that stood below the cut: it moved between two pieces.
_WAITING = Statement(
    f"SELECT c.stream::text, {BUCKET.format(id='e.record_id')} FROM early e JOIN change c "
    "ON c.tenant_id = $1 AND c.record_id = e.record_id WHERE e.tenant_id = $1 GROUP BY 1, 2"
)
_PASSED = Statement("DELETE FROM stream_ahead WHERE tenant_id = $1 AND id = ANY($2::uuid[])")
_pack_tips = msgspec.msgpack.Encoder().encode
_read_tips = msgspec.msgpack.Decoder(list[tuple[int, int, bytes]]).decode


class Joining(msgspec.Struct, frozen=True):
    """How far a snapshot has come here."""

    cut: int
    tips: list[tuple[int, int, bytes]]
    part: str = RECORDS
    after: UUID = _FIRST


async def read_joining(db: Database, tenant: UUID) -> dict[UUID, Joining]:
    """The snapshots that are not whole yet, by stream."""
    (rows,) = await db.read(tenant, (_READ, (tenant,)))
    return {
        UUID((stream or b"").decode()): Joining(
            int(cut or 0), _read_tips(bytea_of(tips)), (part or b"").decode(),
            UUID((after or b"").decode()),
        )
        for stream, cut, tips, part, after in rows
    }  # fmt: skip


async def wanted(
    db: Database,
    tenant: UUID,
    grants: Mapping[UUID, say.Granted],
    cursors: Mapping[UUID, int],
    states_after: int,
) -> set[UUID]:
    """The granted streams that states are needed of: what was begun, what the hub's log no longer
    reaches back to, and what is new here and long.
    """
    begun = await read_joining(db, tenant)
    found = {s for s in begun if s in grants}
    for stream, granted in grants.items():
        cursor = cursors.get(stream, 0)
        if cursor < granted.floor or (cursor == 0 and granted.head > states_after):
            found.add(stream)
    return found


class Bootstrap:
    """Takes snapshots in one conversation."""

    def __init__(
        self,
        db: Database,
        tenant: UUID,
        client: HubClient,
        taker: Taker,
        *,
        hub_origin: int,
        at_any_length: bool = False,
    ) -> None:
        """`at_any_length` prefers states also where the log is about as short."""
        self._db, self._tenant, self._client = db, tenant, client
        self._taker, self._hub = taker, hub_origin
        self._at_any_length = at_any_length
        self.rows = ROWS

    async def take(self, stream: UUID, cursor: int) -> int | None:
        """Take a whole stream, or what is missing of it; the cursor from which its log goes on.

        None where the log is as good: it reaches back far enough and is not much longer.
        """
        known = (await read_joining(self._db, self._tenant)).get(stream)
        found = await self._client.ask("snap/manifest", AskCut(stream), Cut)
        if known is None or known.cut < found.floor:
            is_short = found.cut < 2 * found.states and not self._at_any_length
            if known is None and cursor >= found.floor and is_short:
                return None
            known = Joining(found.cut, found.tips)
            async with self._db.transaction(self._tenant) as tx:
                call = (self._tenant, stream, known.cut, _pack_tips(known.tips))
                await tx.run((_BEGIN, call), commit=True)
        while known.part != WHOLE:
            known = await self._take_one(stream, known)
        await self._finish(stream, known)
        logs.event("sync.snapshot_joined", tenant=self._tenant, stream=stream, count=found.states)
        return known.cut

    async def _take_one(self, stream: UUID, known: Joining) -> Joining:
        part = await self.ask(stream, known.part, known.after)
        after = known.after if part.high == LAST else part.high
        step = known.part
        if part.high == LAST:
            step, after = (ENTRIES, _FIRST) if known.part == RECORDS else (WHOLE, _FIRST)
        progress: Call = (_PROGRESS, (self._tenant, stream, step, after))
        await join_part(self._db, await self._taker.ctx(), part, progress=[progress])
        return msgspec.structs.replace(known, part=step, after=after)

    async def ask(
        self, stream: UUID, table: str, after: UUID, buckets: list[int] | None = None
    ) -> Part:
        """One piece. Raises Malformed, Unavailable."""
        asked = AskPart(stream, table, after, self.rows, self._client.pace.size, buckets or [])
        return open_piece(await self._client.ask("snap/chunk", asked, Piece), asked)

    async def mend(self, stream: UUID, buckets: list[int]) -> int:
        """Fetch and join the records of some buckets; how many changed."""
        changed = 0
        for table in (RECORDS, ENTRIES):
            after, is_over = _FIRST, False
            while not is_over:
                part = await self.ask(stream, table, after, buckets)
                done = await join_part(self._db, await self._taker.ctx(), part)
                changed += done.new + done.changed + done.gone
                after, is_over = part.high, part.high == LAST
        return changed

    async def settle(self, streams: Collection[UUID]) -> None:
        """Once the tail has come as far as the pieces knew: fetch what moved from a stream whose
        piece was yet to come into one whose piece had been, and let go of what pieces knew.
        """
        passed = await _read_passed(self._db, self._tenant)
        if not passed:
            return
        (rows,) = await self._db.read(self._tenant, (_WAITING, (self._tenant,)))
        waiting: dict[UUID, list[int]] = {}
        for stream, bucket in rows:
            waiting.setdefault(UUID((stream or b"").decode()), []).append(int(bucket or 0))
        for ident in sorted(waiting.keys() & set(streams)):
            await self.mend(ident, sorted(waiting[ident]))
        async with self._db.transaction(self._tenant) as tx:
            await tx.run((_PASSED, (self._tenant, passed)), commit=True)

    async def _finish(self, stream: UUID, known: Joining) -> None:
        """From here on the log goes on: tips and cursor at the cut, in one transaction."""
        tenant = self._tenant
        async with self._db.transaction(tenant) as tx:
            counter, vectors = await tx.run((_LOCK, (tenant, stream)), (_VECTORS, (tenant, stream)))
            row = counter.first()
            calls: list[Call] = []
            if row is not None:
                own, got = int(row[1] or 0), {int(o or 0): int(g or 0) for o, g in vectors}
                got[own] = max(got.get(own, 0), int(row[2] or 0))
                raised = [t for t in known.tips if t[1] > got.get(t[0], 0)]
                others = [t for t in raised if t[0] != own]
                calls = [(_OWN, (tenant, stream, q, h)) for o, q, h in raised if o == own]
                calls += [(_KEEP, _columns(tenant, stream, others))] if others else []
                calls += [(_BASE, _columns(tenant, stream, raised))] if raised else []
            await tx.run(
                *calls, (_CURSOR, (tenant, self._hub, stream, known.cut)),
                (_END, (tenant, stream)), commit=True,
            )  # fmt: skip


def _columns(
    tenant: UUID, stream: UUID, tips: list[tuple[int, int, bytes]]
) -> tuple[UUID, UUID, Column, Column, Column]:
    origins, oseqs, hashes = zip(*tips, strict=True)
    return tenant, stream, Column("bigint", origins), Column("bigint", oseqs), Column(
        "bytea", hashes
    )  # fmt: skip


async def _read_passed(db: Database, tenant: UUID) -> list[UUID]:
    """What pieces knew ahead of the tail, and the tail has brought since."""
    ahead, here = await db.read(tenant, (_AHEAD, (tenant,)), (_HERE, (tenant,)))
    if not len(ahead):
        return []
    got: dict[tuple[UUID, int], int] = {}
    for stream, origin, oseq in here:
        key = (UUID((stream or b"").decode()), int(origin or 0))
        got[key] = max(got.get(key, 0), int(oseq or 0))
    held = {stream for stream, _ in got} | (await read_heads(db, tenant)).keys()
    passed: list[UUID] = []
    for ident, known in ahead:
        had = decode_had(bytea_of(known))
        if all(
            got.get((stream, origin), 0) >= oseq
            for stream, origins in had.got.items()
            if stream in held
            for origin, oseq in origins.items()
        ):
            passed.append(UUID((ident or b"").decode()))
    return passed
