"""What the hub has withdrawn leaves this node: rows, files, sessions, and the bytes they were.

Promises: first the site has stopped writing (withdrawal.take_told), then what it made and the hub
has not taken yet goes up, only then is anything deleted; a kill at any moment costs a repetition;
the proof is made when nothing is left and not before. The application cannot delete from the log:
the functions that do (migration 0010) refuse whatever is not withdrawn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import UUID

import msgspec
import redis.asyncio as aioredis
from redis.exceptions import RedisError

from appliance.base import logs
from appliance.base.clock import now
from appliance.base.errors import Unavailable
from appliance.content import ContentPlane
from appliance.db.database import Database, translated
from appliance.db.values import text_of
from appliance.db.wire import Call, Statement
from appliance.sync.blobs import forget_files
from appliance.sync.people import belonging
from appliance.sync.scope import PARENTS, units_below
from appliance.sync.scrub import scrub
from appliance.sync.withdrawal import Proof, SignedProof
from appliance.write.outcome import Rejected, Result

ROWS_AT_ONCE = 5_000
_OPEN = Statement(
    "SELECT w.stream::text, w.epoch, w.state, w.is_scrubbed, h.is_leaving, h.node_id::text, "
    "h.epoch FROM withdrawal w JOIN hold h ON h.tenant_id = w.tenant_id "
    "WHERE w.tenant_id = $1 AND w.state <> 'proved' ORDER BY w.stream"
)
_BEGIN = Statement("SELECT begin_purge($2, $3) WHERE $1::uuid IS NOT NULL")
_SOME = Statement("SELECT purge_some($2, $3) WHERE $1::uuid IS NOT NULL")
_TENANT = Statement("SELECT purge_tenant($2) WHERE $1::uuid IS NOT NULL")
_FORGET = Statement("SELECT forget_hold() WHERE $1::uuid IS NOT NULL")
_FILES = Statement(
    "SELECT id::text FROM record WHERE tenant_id = $1 AND stream = $2 AND kind = 'sys.file' "
    "AND id > $3 ORDER BY id LIMIT $4"
)
_FILES_GONE = Statement(
    "UPDATE withdrawal SET files = $3 WHERE tenant_id = $1 AND stream = $2 AND files < $3"
)
_PURGED = Statement(
    "UPDATE withdrawal SET state = 'purged' WHERE tenant_id = $1 AND stream = $2 "
    "AND state = 'purging'"
)
_SCRUBBED = Statement(
    "UPDATE withdrawal SET is_scrubbed = true WHERE tenant_id = $1 AND state = 'purged' "
    "AND stream = ANY($2::uuid[])"
)
_PROVED = Statement(
    "UPDATE withdrawal SET state = 'proved' WHERE tenant_id = $1 AND state = 'purged' "
    "AND stream = ANY($2::uuid[])"
)
# Counted in every table that names a stream or a unit.
_LEFT = Statement(
    "SELECT w.stream::text, w.rows, w.files, "
    + " + ".join(
        f"(SELECT count(*) FROM {table} t WHERE t.tenant_id = $1 AND t.{column} = w.stream)"
        for table, column in (
            ("record", "stream"), ("entry", "stream"), ("change", "stream"),
            ("turnover", "unit_id"), ("stream_vector", "stream"), ("peer_stream", "stream"),
            ("clock_cut", "stream"), ("parked", "stream"), ("conflict", "stream"),
        )
    )
    + " FROM withdrawal w WHERE w.tenant_id = $1 AND w.stream = ANY($2::uuid[])"
)  # fmt: skip
_ANSWERS = Statement(
    "SELECT id::text, outcome FROM command WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3"
)
_STRANGE = Statement(
    "DELETE FROM command WHERE tenant_id = $1 AND id IN (SELECT u.command "
    "FROM unnest($2::uuid[], $3::uuid[]) AS u(command, record) "
    "WHERE NOT EXISTS (SELECT FROM record r WHERE r.tenant_id = $1 AND r.id = u.record) "
    "AND NOT EXISTS (SELECT FROM entry e WHERE e.tenant_id = $1 AND e.id = u.record))"
)
_NAMED = (
    "SELECT o.id, jsonb_agg(c) FILTER (WHERE {here}) AS kept FROM outbox o, "
    "jsonb_array_elements(o.payload->'changes') AS c WHERE o.tenant_id = $1 "
    "AND o.topic = 'changes' GROUP BY o.id HAVING NOT bool_and({here})"
)
_HERE = (
    "EXISTS (SELECT FROM record r WHERE r.tenant_id = $1 AND r.id = (c->>'id')::uuid) OR "
    "EXISTS (SELECT FROM entry e WHERE e.tenant_id = $1 AND e.id = (c->>'id')::uuid)"
)
_OUTBOX = Statement(
    f"WITH named AS ({_NAMED.format(here=_HERE)}) UPDATE outbox o SET payload = "
    "jsonb_set(o.payload, '{changes}', COALESCE(n.kept, '[]')) FROM named n "
    "WHERE o.tenant_id = $1 AND o.id = n.id"
)
# An import reaches the units of whoever brought it: what was read from its file may be anybody's.
_RUNS = Statement(
    "SELECT id::text, blob::text FROM intake_run WHERE tenant_id = $1 AND "
    "(units && $2::uuid[] OR ($3::uuid[] IS NOT NULL AND NOT units <@ $3::uuid[]))"
)
_RUN_ROWS = Statement("DELETE FROM intake_row WHERE tenant_id = $1 AND run = ANY($2::uuid[])")
_RUN_FRAMES = Statement("DELETE FROM intake_frame WHERE tenant_id = $1 AND run = ANY($2::uuid[])")
_RUN_WORK = Statement("DELETE FROM intake_work WHERE tenant_id = $1 AND run = ANY($2::uuid[])")
_RUN = Statement("DELETE FROM intake_run WHERE tenant_id = $1 AND id = ANY($2::uuid[])")
# What workers have told of files may be anybody's too; a source is told anew.
_OF_UNITS = "(units && $2::uuid[] OR ($3::uuid[] IS NOT NULL AND NOT units <@ $3::uuid[]))"
_LOST_FILES = Statement(f"DELETE FROM intake_lost WHERE tenant_id = $1 AND {_OF_UNITS}")
_SOURCES = Statement(f"DELETE FROM intake_source WHERE tenant_id = $1 AND {_OF_UNITS}")
_JOBS = Statement(
    "DELETE FROM job WHERE tenant_id = $1 AND state IN ('done', 'failed', 'cancelled')"
)
_MEMBERS = Statement(
    "SELECT data FROM record WHERE tenant_id = $1 AND kind = 'sys.membership' AND deleted_at IS NULL"
)
_HELD = Statement("SELECT array_to_string(unit_ids, ',') FROM hold WHERE tenant_id = $1")
_KEEP = Statement("SELECT keep_people($2::uuid[]) WHERE $1::uuid IS NOT NULL")
_AOF_WAIT_S, _AOF_WAITS = 0.1, 300
_ZERO = UUID(int=0)
_decode = msgspec.msgpack.Decoder(Result).decode


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """What a purge works with. `hub` is the hub's origin; None gives up what it has not taken.
    `forget_files` removes what this machine has of a tenant's imports outside of databases.
    """

    hub: int | None
    sign: Callable[[bytes], bytes]
    plane: ContentPlane | None = None
    events: aioredis.Redis | None = None
    forget_files: Callable[[UUID], None] | None = None


class _Leaving(msgspec.Struct, frozen=True):
    """One withdrawal as it stands."""

    stream: UUID
    epoch: int
    state: str
    is_scrubbed: bool
    is_whole: bool
    node: UUID
    scope_epoch: int


async def purge(db: Database, tenant: UUID, tools: Tools) -> SignedProof | None:
    """Go on with everything that has to leave; the proof of what has left, until it is `proved`.

    None while there is nothing to prove: nothing was withdrawn, or the hub has not taken what was
    made here. Raises Unavailable when there are files and no content plane.
    """
    for found in await _read(db, tenant):
        if found.state == "closing" and not await _begin(db, tenant, found.stream, tools.hub):
            logs.event("sync.purge_waits", tenant=tenant, stream=found.stream)
            continue
        if found.state != "purged":
            await _purge_stream(db, tenant, found.stream, tools)
    done = [w for w in await _read(db, tenant) if w.state == "purged"]
    if not done or (done[0].is_whole and len(done) < len(await _read(db, tenant))):
        return None
    if not all(w.is_scrubbed for w in done):
        await _purge_rest(db, tenant, done, tools)
        await _purge_events(tenant, tools.events)
        if await scrub(db, tenant, whole=done[0].is_whole):
            streams = [w.stream for w in done]
            async with db.transaction(tenant) as tx:
                await tx.run((_SCRUBBED, (tenant, streams)), commit=True)
    return await _prove(db, tenant, tools)


async def proved(db: Database, tenant: UUID, proof: SignedProof) -> None:
    """The hub has taken the proof: nothing more to say. A tenant that left as a whole is forgotten
    here with its route.
    """
    said = msgspec.msgpack.decode(proof.proof, type=Proof)
    is_whole = any(w.is_whole for w in await _read(db, tenant))
    async with db.transaction(tenant) as tx:
        call: Call = (_PROVED, (tenant, sorted(said.left)))
        await tx.run(*([(_FORGET, (tenant,))] if is_whole else [call]), commit=True)
    if is_whole:
        with translated():
            async with db.control.connection() as conn:
                await conn.execute("SELECT forget_tenant(%s)", (tenant,))
                await conn.execute("VACUUM (FULL) tenant")
    logs.event("sync.purge_closed", tenant=tenant, count=len(said.left))


async def _read(db: Database, tenant: UUID) -> list[_Leaving]:
    (rows,) = await db.read(tenant, (_OPEN, (tenant,)))
    return [
        _Leaving(
            UUID(text_of(r[0])), int(r[1] or 0), text_of(r[2]), r[3] == b"t", r[4] == b"t",
            UUID(text_of(r[5])), int(r[6] or 0),
        )
        for r in rows
    ]  # fmt: skip


async def _begin(db: Database, tenant: UUID, stream: UUID, hub: int | None) -> bool:
    async with db.transaction(tenant) as tx:
        (rows,) = await tx.run((_BEGIN, (tenant, stream, hub)), commit=True)
    return (rows.first() or (b"f",))[0] == b"t"


async def _purge_stream(db: Database, tenant: UUID, stream: UUID, tools: Tools) -> None:
    """Its files first, while there are rows to know them by; then its rows, some at a time."""
    count, after = 0, _ZERO
    while True:
        (rows,) = await db.read(tenant, (_FILES, (tenant, stream, after, ROWS_AT_ONCE)))
        files = [UUID(text_of(row[0])) for row in rows]
        if files:
            await forget_files(db, _plane(tools), tenant, files)
        count += len(files)
        if not files:
            break
        after = files[-1]
    async with db.transaction(tenant) as tx:
        await tx.run((_FILES_GONE, (tenant, stream, count)), commit=True)
    while True:
        async with db.transaction(tenant, timeout_ms=60_000) as tx:
            (rows,) = await tx.run((_SOME, (tenant, stream, ROWS_AT_ONCE)))
            gone = int((rows.first() or (b"0",))[0] or 0)
            if not gone:
                await tx.run((_PURGED, (tenant, stream)), commit=True)
                break
    logs.event("sync.stream_purged", tenant=tenant, stream=stream, count=count)


async def _purge_rest(db: Database, tenant: UUID, done: list[_Leaving], tools: Tools) -> None:
    """What speaks of deleted records without being of their stream."""
    if tools.forget_files is not None:
        tools.forget_files(tenant)
    if done[0].is_whole:
        if tools.plane is not None:
            await tools.plane.erase(tenant)
        while True:
            async with db.transaction(tenant, timeout_ms=60_000) as tx:
                (rows,) = await tx.run((_TENANT, (tenant, ROWS_AT_ONCE)), commit=True)
            if not int((rows.first() or (b"0",))[0] or 0):
                return
    await _purge_answers(db, tenant)
    held, members, parents = await db.read(
        tenant, (_HELD, (tenant,)), (_MEMBERS, (tenant,)), (PARENTS, (tenant,))
    )
    named = (held.first() or (None,))[0]
    units = frozenset(map(UUID, text_of(named).split(","))) if named else None
    kept = sorted(belonging(members, parents, units))
    reach = sorted(units_below(parents, units)) if units is not None else None
    left = (tenant, [w.stream for w in done], reach)
    (runs,) = await db.read(tenant, (_RUNS, left))
    found = [(UUID(text_of(run)), text_of(blob)) for run, blob in runs]
    for _, blob in found:
        if blob:
            await _plane(tools).purge(tenant, UUID(blob))
    ids = [run for run, _ in found]
    async with db.transaction(tenant, timeout_ms=60_000) as tx:
        await tx.run(
            (_OUTBOX, (tenant,)), (_RUN_ROWS, (tenant, ids)),
            (_RUN_FRAMES, (tenant, ids)), (_RUN_WORK, (tenant, ids)), (_RUN, (tenant, ids)),
            (_LOST_FILES, left), (_SOURCES, left),
            (_JOBS, (tenant,)), (_KEEP, (tenant, kept)), commit=True,
        )  # fmt: skip


async def _purge_answers(db: Database, tenant: UUID) -> None:
    """Stored answers to commands about records that are not here any more."""
    after = _ZERO
    while True:
        (rows,) = await db.read(tenant, (_ANSWERS, (tenant, after, ROWS_AT_ONCE)))
        if not len(rows):
            return
        pairs: list[tuple[UUID, UUID]] = []
        for ident, outcome in rows:
            after = UUID(text_of(ident))
            pairs += [(after, record) for record in _records_of(outcome)]
        commands, records = [c for c, _ in pairs], [r for _, r in pairs]
        async with db.transaction(tenant) as tx:
            await tx.run((_STRANGE, (tenant, commands, records)), commit=True)


def _records_of(outcome: bytes | None) -> list[UUID]:
    """The records an answer speaks of; what cannot be read speaks of one that is nowhere."""
    try:
        result = _decode(bytes.fromhex(text_of(outcome)[2:]))
    except (msgspec.MsgspecError, ValueError):
        return [_ZERO]
    return [one.id for one in result.outcomes if not isinstance(one, Rejected)]


async def _purge_events(tenant: UUID, events: aioredis.Redis | None) -> None:
    """Live updates that were handed to Redis, in its memory and in its file. Redis away is no
    matter: its stream lives an hour, and readers of one that is gone read afresh.
    """
    if events is None:
        return
    try:
        await events.delete(f"events:{tenant}")
        await events.execute_command("BGREWRITEAOF")  # type: ignore[no-untyped-call]
        for _ in range(_AOF_WAITS):
            state = await events.info("persistence")
            busy = state.get("aof_rewrite_in_progress"), state.get("aof_rewrite_scheduled")
            if not any(busy):
                return
            await asyncio.sleep(_AOF_WAIT_S)
    except RedisError as error:
        logs.event("sync.events_kept", level="warning", error_type=type(error).__name__)


async def _prove(db: Database, tenant: UUID, tools: Tools) -> SignedProof:
    done = [w for w in await _read(db, tenant) if w.state == "purged"]
    (rows,) = await db.read(tenant, (_LEFT, (tenant, [w.stream for w in done])))
    counts = {UUID(text_of(s)): (int(r or 0), int(f or 0), int(n or 0)) for s, r, f, n in rows}
    proof = Proof(
        done[0].node, tenant, max(w.epoch for w in done), now(),
        {stream: (left, 0) for stream, (_, _, left) in counts.items()},
        {stream: (gone, files) for stream, (gone, files, _) in counts.items()},
        all(w.is_scrubbed for w in done),
    )  # fmt: skip
    raw = msgspec.msgpack.encode(proof)
    return SignedProof(raw, tools.sign(raw))


def _plane(tools: Tools) -> ContentPlane:
    if tools.plane is None:
        raise Unavailable(
            "There are files to erase and no content plane to ask; nothing more was deleted. Start "
            "it, or name its address in files.plane_url.", dependency="content plane",
        )  # fmt: skip
    return tools.plane
