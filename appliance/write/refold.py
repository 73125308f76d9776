"""Records made anew out of the log, because something that they are made of counts differently now:
a clock that the hub has cut, or entries that had waited for a kind to come.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from appliance.db.database import Database, Transaction
from appliance.db.wire import Statement
from appliance.kernel.change import Entry
from appliance.kernel.context import Ctx
from appliance.kernel.replay import (
    Replay,
    Taken,
)
from appliance.write.draft import Draft
from appliance.write.known import cut_call
from appliance.write.load import LOCK_ROWS, READ_ENTRIES, read_state
from appliance.write.merging import Merged, make_draft, write_merged
from appliance.write.parked import park_logged
from appliance.write.sound import MALFORMED, find_flaw
from appliance.write.trail import STREAMS, read_streams, read_trail

BATCH = 500
OF_PLACES = Statement(
    "SELECT DISTINCT c.record_id::text FROM unnest($2::uuid[], $3::bigint[], $4::bigint[]) "
    "AS u(s, o, q) CROSS JOIN LATERAL (SELECT record_id FROM change WHERE tenant_id = $1 "
    "AND stream = u.s AND origin = u.o AND oseq = u.q OFFSET 0) AS c"
)
_EARLY = Statement(
    "SELECT record_id::text FROM early WHERE tenant_id = $1 AND record_id > $2 "
    "ORDER BY record_id LIMIT $3"
)
_FIRST = UUID(int=0)


async def recount(db: Database, ctx: Ctx, places: Sequence[tuple[UUID, int, int]]) -> int:
    """Fold the records of these entries (stream, origin, oseq) again; how many changed."""
    if not places:
        return 0
    streams, origins, oseqs = zip(*places, strict=True)
    (rows,) = await db.read(
        ctx.tenant, (OF_PLACES, (ctx.tenant, list(streams), list(origins), list(oseqs)))
    )
    ids = [UUID((i or b"").decode()) for i in rows.column()]
    return sum([await _write(db, ctx, ids[n : n + BATCH]) for n in range(0, len(ids), BATCH)])


async def fold_early(db: Database, ctx: Ctx) -> int:
    """Take up what waited in the log and can be folded since: its kind, or its creation, has come."""
    done, last = 0, _FIRST
    while True:
        (rows,) = await db.read(ctx.tenant, (_EARLY, (ctx.tenant, last, BATCH)))
        ids = [UUID((i or b"").decode()) for i in rows.column()]
        if not ids:
            return done
        last = ids[-1]
        async with db.transaction(ctx.tenant) as tx:
            ids = await _hold_unsound(tx, ctx, ids)
        done += await _write(db, ctx, ids)


async def _write(db: Database, ctx: Ctx, ids: Sequence[UUID]) -> int:
    async with db.transaction(ctx.tenant) as tx:
        drafts = await refold(tx, ctx, ids)
        drafts = [d for d in drafts if d.before != d.after]
        if not drafts:
            return 0
        merged = Merged(None, drafts, came=[d.id for d in drafts if d.before is None])
        calls = await write_merged(tx, ctx, merged, is_hub=False)
        await tx.run(*calls, commit=True)
        return len(drafts)


async def _hold_unsound(tx: Transaction, ctx: Ctx, ids: Sequence[UUID]) -> list[UUID]:
    """Park what can be judged only now that its kind is known; the records to fold then."""
    found = set(ids)
    for trail in (await read_trail(tx, ctx.tenant, ids)).values():
        for entry in trail:
            if entry.origin != ctx.origin and (flaw := find_flaw(ctx.schema.kinds, entry)):
                place = (entry.stream, entry.origin, entry.oseq)
                found |= await park_logged(
                    tx, ctx.tenant, place, peer=entry.origin, reason=f"{MALFORMED}: {flaw}"
                )
    return sorted(found)


async def refold(tx: Transaction, ctx: Ctx, ids: Sequence[UUID]) -> list[Draft]:
    """What the whole log says of records. Left out are entries of ledgers that are here, which
    never change, and records of which the log lacks something: what became of them stands in their
    states.
    """
    rows, stored, held, cut = await tx.run(
        (LOCK_ROWS, (ctx.tenant, sorted(ids))), (READ_ENTRIES, (ctx.tenant, sorted(ids))),
        (STREAMS, (ctx.tenant,)), cut_call(ctx.tenant, ids),
    )  # fmt: skip
    lacking = {UUID((i or b"").decode()) for i in cut.column()}
    ids = [i for i in ids if i not in lacking]
    streams, facts = read_streams(held), {read_state(row).id for row in stored}
    states = {s.id: s for s in map(read_state, rows)}
    trails: dict[UUID, list[Entry]] = await read_trail(tx, ctx.tenant, ids)
    found: list[Draft] = []
    for ident, trail in trails.items():
        kind = ctx.schema.kinds.get(trail[0].kind) if trail else None
        if kind is None or ident in facts:
            continue
        replay = Replay(kind, Taken(streams.__contains__))
        for entry in trail:
            replay.take(entry)
        if replay.state is not None and not replay.has_left:
            found.append(make_draft(len(found), kind, states.get(ident), replay.state, trail))
    return found
