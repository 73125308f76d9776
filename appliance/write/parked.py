"""What is decided about parked entries, as an entry of their stream: every node decides alike.

A release folds the parked entries in after all; that they come late changes nothing, for what is
live follows from the set of entries. What was covered meanwhile stays covered.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID, uuid5

import msgspec

from appliance.base.errors import Clash, Refused
from appliance.db.database import Transaction
from appliance.db.wire import Call, Statement
from appliance.kernel.change import Body, Entry, EntryOp, Logged, encode_body
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from appliance.write.definitions import refuse_undefinable
from appliance.write.late import late_arrivals
from appliance.write.log import CLOCK, LOCK_STREAMS, advance_calls, log_call, read_heads
from appliance.write.merging import merge_frame, write_merged
from appliance.write.sound import refuse_unsound
from appliance.write.trail import COLUMNS, read_entry

_FIND = Statement(
    "SELECT stream::text, origin, oseq, state FROM parked WHERE tenant_id = $1 AND id = $2 "
    "AND is_logged FOR UPDATE"
)
_DECIDE = Statement(
    "UPDATE parked SET state = $3, decided_by = $4, decided_at = now(), "
    "detail = CASE WHEN $5 = '' THEN detail ELSE $5 END "
    "WHERE tenant_id = $1 AND id = $2 AND is_logged AND state = 'waiting' "
    "RETURNING stream::text, origin, oseq, entries",
    # The word itself stands in the log, also when it changes no record.
    leaves=True,
)
_ENTRIES = Statement(
    f"SELECT {COLUMNS}, ehlc FROM change WHERE tenant_id = $1 AND stream = $2 AND origin = $3 "
    "AND oseq >= $4 AND oseq < $5 ORDER BY oseq"
)


_OF_TX = Statement(
    f"SELECT {COLUMNS} FROM change WHERE tenant_id = $1 AND stream = $2 AND origin = $3 "
    "AND tx = (SELECT c.tx FROM change c WHERE c.tenant_id = $1 AND c.stream = $2 "
    "AND c.origin = $3 AND c.oseq = $4) ORDER BY oseq"
)
_PARK = Statement(
    "INSERT INTO parked (tenant_id, id, stream, origin, oseq, peer, entries, reason, detail, body, "
    "is_logged) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, true) ON CONFLICT DO NOTHING"
)


async def decide_parked(
    tx: Transaction, ctx: Ctx, ident: UUID, *, release: bool, reason: str = ""
) -> None:
    """Release or skip a parked transaction here, and tell the other nodes by the log.

    Raises Refused for what is not parked, Clash for what is decided, and whatever keeps the
    entries from being applied; nothing is decided then.
    """
    (found,) = await tx.run((_FIND, (ctx.tenant, ident)))
    row = found.first()
    if row is None:
        raise Refused("Nothing is parked under this id.", code="parked.unknown")
    if row[3] != b"waiting":
        raise Clash(f"This is {(row[3] or b'').decode()} already.", code="parked.decided")
    stream = UUID((row[0] or b"").decode())
    ext: dict[str, Json] = {"decision": "release" if release else "skip", "reason": reason}
    # Who holds everything is the hub of all who do not.
    is_hub = ctx.schema.hold is None
    calls = await carry_out(tx, ctx, ident, ctx.actor, ext, is_hub=is_hub)
    (heads_rows,) = await tx.run((LOCK_STREAMS, (ctx.tenant, [stream], ctx.origin)))
    heads = read_heads(ctx, heads_rows)
    head = heads[stream]
    head.oseq += 1
    entry = Entry(
        stream=stream, origin=ctx.origin, oseq=head.oseq, tx=head.tx, hlc=CLOCK.tick(),
        actor=ctx.actor, door=ctx.door, kind="", record_id=ident, op=EntryOp.DECIDE,
        schema_rev=ctx.schema.rev, change_set=ctx.request_id, body=Body(ext=ext),
    )  # fmt: skip
    await tx.run(log_call(ctx, [entry], heads), *advance_calls(ctx, heads), *calls)


async def carry_out(
    tx: Transaction, ctx: Ctx, ident: UUID, actor: UUID, ext: dict[str, Json], *, is_hub: bool,
    beside: Sequence[Logged] = (),
) -> list[Call]:  # fmt: skip
    """Do what was decided; what is left to run with the commit. Twice is as good as once.

    `beside` is what came with the decision and is not in the log yet. A hub tells those who hold
    only the new home of a record that has moved since.
    """
    release = ext.get("decision") == "release"
    state, reason = "released" if release else "skipped", str(ext.get("reason") or "")
    (rows,) = await tx.run((_DECIDE, (ctx.tenant, ident, state, actor, reason)))
    row = rows.first()
    if row is None or not release:
        return []
    stream, origin, oseq, count = UUID((row[0] or b"").decode()), *(int(v or 0) for v in row[1:])
    place = (ctx.tenant, stream, origin, oseq, oseq + count)
    (rows,) = await tx.run((_ENTRIES, place))
    good = [Logged(entry=read_entry(r), hash=b"", ehlc=int(r[15] or 0)) for r in rows]
    refuse_unsound(ctx.schema.kinds, good)
    merged = await merge_frame(tx, ctx, good, beside=beside)
    refuse_undefinable(merged.drafts)
    if is_hub:
        # At once: of several decisions each needs the counters as the one before has left them.
        if late := await late_arrivals(tx, ctx, stream, merged, beside):
            await tx.run(*late)
    return await write_merged(tx, ctx, merged, is_hub=is_hub)


async def park_logged(
    tx: Transaction, tenant: UUID, place: tuple[UUID, int, int], *, peer: int, reason: str
) -> set[UUID]:
    """Hold back the transaction of an entry (stream, origin, oseq) that is in the log already; the
    records that have to be folded without it, none when it was parked before.
    """
    stream, origin, oseq = place
    (rows,) = await tx.run((_OF_TX, (tenant, *place)))
    entries = {e.oseq: e for e in map(read_entry, rows)}
    first = last = oseq
    while first - 1 in entries:
        first -= 1
    while last + 1 in entries:
        last += 1
    whole = [entries[n] for n in range(first, last + 1)]
    why, _, detail = reason.partition(": ")
    body = msgspec.msgpack.encode([encode_body(entry.body) for entry in whole])
    known = (parked_id(stream, origin, first), stream, origin, first, peer)
    (done,) = await tx.run((_PARK, (tenant, *known, len(whole), why, detail, body)))
    return {entry.record_id for entry in whole} if done.affected else set()


def parked_id(stream: UUID, origin: int, oseq: int) -> UUID:
    """The same on every node, so that one decision is about one thing."""
    return uuid5(stream, f"parked {origin}.{oseq}")


def skip_calls(ctx: Ctx, decisions: Sequence[Entry]) -> list[Call]:
    """Let go of what a frame brings together with the word that it was skipped."""
    return [
        (
            _DECIDE,
            (ctx.tenant, d.record_id, "skipped", d.actor, str(d.body.ext.get("reason") or "")),
        )
        for d in decisions
        if d.body.ext.get("decision") == "skip"
    ]
