"""Bring projections back to what data and log say: after a schema change, and as a proof.

`reproject_kind` fills slots, links, claims and search of existing records when a field became
filterable, searchable or unique. `rebuild` replays the whole log and compares with the tables.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID

import msgspec

from appliance.db.database import Database, Transaction
from appliance.db.wire import Statement
from appliance.kernel.context import Ctx
from appliance.kernel.record import RecordState
from appliance.kernel.replay import Replay, Taken
from appliance.write.load import COLUMNS, read_state
from appliance.write.project import FIXED, claim_calls, link_calls, row_call, slots_of
from appliance.write.trail import STREAMS, read_streams, read_trail

BATCH = 1_000
_FIRST = UUID(int=0)

_NEXT = {
    table: Statement(
        f"SELECT {COLUMNS} FROM {table} WHERE tenant_id = $1 AND kind = $2 AND id > $3 "
        "ORDER BY id LIMIT $4 FOR UPDATE"
    )
    for table in ("record", "entry")
}
_COUNT = {
    table: Statement(f"SELECT count(*) FROM {table} WHERE tenant_id = $1 AND kind = $2")
    for table in ("record", "entry")
}
_READY = Statement(
    "UPDATE slot SET is_ready = true WHERE tenant_id = $1 AND kind = $2 AND NOT is_retired"
)
_BUMP = Statement("UPDATE tenant_state SET schema_rev = schema_rev + 1 WHERE tenant_id = $1")
_RETIRED = Statement("SELECT slot FROM slot WHERE tenant_id = $1 AND kind = $2 AND is_retired")
_FREE = Statement("DELETE FROM slot WHERE tenant_id = $1 AND kind = $2 AND is_retired")
# Records of which entries are no longer (or never were) in the log cannot be replayed from it.
_IDS = Statement(
    "SELECT DISTINCT record_id::text FROM change c WHERE tenant_id = $1 AND record_id > $2 "
    "AND NOT EXISTS (SELECT FROM record_base b WHERE b.tenant_id = $1 "
    "AND b.record_id = c.record_id) ORDER BY 1 LIMIT $3"
)
Progress = Callable[[int, int], Awaitable[None]]


async def reproject_kind(db: Database, ctx: Ctx, kind_key: str, progress: Progress) -> int:
    """Rewrite the projection of every record of a kind; retired slots are cleared and freed.

    Batches commit one by one and writing goes on between them: each batch locks its rows and
    projects from what it reads then, so it cannot undo anybody's change. Resumable.
    """
    kind = ctx.schema.kinds.get(kind_key)
    if kind is None:
        return 0
    (rows,) = await db.read(ctx.tenant, (_COUNT[kind.table], (ctx.tenant, kind_key)))
    total = int((rows.first() or (b"0",))[0] or 0)
    done, last = 0, _FIRST
    while True:
        async with db.transaction(ctx.tenant) as tx:
            retired, page = await tx.run(
                (_RETIRED, (ctx.tenant, kind_key)),
                (_NEXT[kind.table], (ctx.tenant, kind_key, last, BATCH)),
            )
            states = [read_state(r) for r in page]
            if not states:
                break
            calls = [row_call(ctx, kind, states, insert=False)]
            calls += link_calls(ctx, kind, states, drop=True)
            calls += claim_calls(ctx, kind, states, drop=True)
            for (slot,) in retired:
                calls.append(
                    (
                        _clear(kind.table, (slot or b"").decode()),
                        (ctx.tenant, [s.id for s in states]),
                    )
                )
            await tx.run(*calls)
        last, done = states[-1].id, done + len(states)
        await progress(done, total)
    async with db.transaction(ctx.tenant) as tx:
        await tx.run(
            (_READY, (ctx.tenant, kind_key)),
            (_FREE, (ctx.tenant, kind_key)),
            (_BUMP, (ctx.tenant,)),
        )
    return done


def _clear(table: str, slot: str) -> Statement:
    assert slot[0] in "tndr" and slot[1:].isdigit(), "slot names come from our own table"
    return Statement(
        f"UPDATE {table} SET {slot} = NULL WHERE tenant_id = $1 AND id = ANY($2::uuid[]) "
        f"AND {slot} IS NOT NULL"
    )


class Difference(msgspec.Struct, frozen=True):
    """One record whose table row is not what the log says."""

    record_id: UUID
    kind: str
    column: str


async def rebuild(db: Database, ctx: Ctx) -> AsyncIterator[Difference]:
    """Replay every record of the log and report each column that differs, byte for byte.

    Records with entries below the floor, or that came as states, are left out: `sync digest`
    compares those with another node.
    """
    last = _FIRST
    while True:
        async with db.transaction(ctx.tenant) as tx:
            (page,) = await tx.run((_IDS, (ctx.tenant, last, BATCH)))
            ids = [UUID((i or b"").decode()) for i in page.column()]
            if not ids:
                return
            for difference in await _compare(tx, ctx, ids):
                yield difference
        last = ids[-1]


async def _compare(tx: Transaction, ctx: Ctx, ids: list[UUID]) -> list[Difference]:
    trails = await read_trail(tx, ctx.tenant, ids)
    (held,) = await tx.run((STREAMS, (ctx.tenant,)))
    streams = read_streams(held)
    states: dict[UUID, RecordState] = {}
    for ident, entries in trails.items():
        # Of some all that is known is parked.
        kind = ctx.schema.kinds.get(entries[0].kind) if entries else None
        replay = Replay(kind, Taken(streams.__contains__))
        for entry in entries:
            replay.take(entry)
        if replay.state is not None and not replay.has_left:
            states[ident] = replay.state
    found: list[Difference] = []
    for kind_key in sorted({s.kind for s in states.values()}):
        group = [s for s in states.values() if s.kind == kind_key]
        found += await _compare_kind(tx, ctx, kind_key, group)
    return found


async def _compare_kind(
    tx: Transaction, ctx: Ctx, kind_key: str, states: list[RecordState]
) -> list[Difference]:
    """Let PostgreSQL compute the projected row from the replayed state and compare it there."""
    kind = ctx.schema.kinds.get(kind_key)
    if kind is None:
        return []
    _, params = row_call(ctx, kind, states, insert=True)
    slots = slots_of(kind)
    searches = any(f.searchable for f in kind.fields)
    names = [*FIXED, *slots, *([("words", "text")] if searches else [])]
    arrays = ", ".join(f"${n}::{t}[]" for n, (_, t) in enumerate(names, 2))
    aliases = ", ".join(n for n, _ in names)
    # A fact is not touched again, also where the hub has cut its author's clock since.
    ours = {"created_at", "updated_at"} if kind.ledger else set()
    columns = [n for n, _ in (*FIXED, *slots) if n not in ours]
    tests = [
        f"CASE WHEN r.{c} IS DISTINCT FROM u.{c}{'::jsonb' if c == 'data' else ''} THEN '{c}' END"
        for c in columns
    ]
    if searches:
        tests.append(
            "CASE WHEN r.search IS DISTINCT FROM to_tsvector('nexus', u.words) || "
            f"array_to_tsvector(ARRAY[${len(names) + 2}::text]) THEN 'search' END"
        )
    statement = Statement(
        f"SELECT u.id::text, CASE WHEN r.id IS NULL THEN 'row' ELSE concat_ws(',', {', '.join(tests)}) "
        f"END AS bad FROM unnest({arrays}) AS u({aliases}) "
        f"LEFT JOIN {kind.table} r ON r.tenant_id = $1 AND r.id = u.id"
    )
    (rows,) = await tx.run((statement, params))
    return [
        Difference(UUID((ident or b"").decode()), kind_key, column)
        for ident, bad in rows
        for column in (bad or b"").decode().split(",")
        if column
    ]
