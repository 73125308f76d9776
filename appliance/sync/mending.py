"""A site whose chains are not its hub's: what it made, or took, under names that are others' there.

It was put back from a backup or copied and went on writing, or its hub was. The hub's chain
counts; what this node has beyond the parting is made anew under its present origin (write/remake)
and sent like anything else, so nothing of it is lost and nothing waits. What the hub merely lacks
is left as it is, and offered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from appliance.audit import audit_calls
from appliance.base import logs
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.kernel.context import Ctx
from appliance.sync import messages as say
from appliance.sync.chains import find_partings, read_ends
from appliance.sync.nodes import PeerNode
from appliance.write.merging import Merged, write_merged
from appliance.write.parked import park_logged
from appliance.write.refold import refold
from appliance.write.remake import remake

# Chains with an entry that came without its hidden fields prove nothing to anybody else.
_STRIPPED = Statement(
    "SELECT DISTINCT stream::text, origin FROM change WHERE tenant_id = $1 "
    "AND position('stripped'::bytea IN body) > 0"
)


async def mend(
    db: Database, ctx: Ctx, own: frozenset[int], streams: Sequence[UUID],
    ask: Callable[[say.Compare], Awaitable[say.Compared]],
) -> int:  # fmt: skip
    """Compare the chains of these streams with the hub's and make anew what is not there under its
    name; how many entries. `own` are the origins of this node. Again is fine.
    """
    ends = await read_ends(db, ctx.tenant)
    veiled = await read_veiled(db, ctx.tenant)
    chains = {
        (s, o): end for s in streams for o, end in ends.get(s, {}).items() if (s, o) not in veiled
    }
    parted = await find_partings(db, ctx.tenant, chains, ask)
    forked = {c: met for c, (met, got) in parted.items() if met < min(chains[c], got)}
    if not forked:
        return 0
    # What this node made since may speak of what gets another name now.
    tails = forked | {c: met for c, (met, _) in parted.items() if c[1] in own and met < chains[c]}
    async with db.transaction(ctx.tenant) as tx:
        count = await remake(tx, ctx, tails)
        details: dict[str, object] = {"entries": count, "chains": len(tails)}
        await tx.run(
            *audit_calls(ctx.tenant, "sync.remade", actor=ctx.actor, details=details), commit=True
        )
    logs.event("sync.entries_remade", level="warning", tenant=ctx.tenant, count=count)
    return count


async def read_veiled(db: Database, tenant: UUID) -> set[tuple[UUID, int]]:
    """Chains (stream, origin) that are here without what is kept from this node."""
    (rows,) = await db.read(tenant, (_STRIPPED, (tenant,)))
    return {(UUID((stream or b"").decode()), int(origin or 0)) for stream, origin in rows}


async def read_held(
    db: Database, tenant: UUID, me: PeerNode, welcome: say.Welcome
) -> dict[UUID, set[int]]:
    """Origins of others by stream, of which this node can prove what it has."""
    ends, veiled = await read_ends(db, tenant), await read_veiled(db, tenant)
    own = {*me.origins, welcome.hub_origin}
    return {s: {o for o in by if o not in own and (s, o) not in veiled} for s, by in ends.items()}


async def park_own(
    db: Database, ctx: Ctx, stream: UUID, hub: int, parked: Sequence[say.Parked]
) -> None:
    """Hold back here too what the hub has not applied of ours: every node parks the same."""
    async with db.transaction(ctx.tenant) as tx:
        ids: set[UUID] = set()
        for one in parked:
            place = (stream, one.origin, one.oseq)
            ids |= await park_logged(tx, ctx.tenant, place, peer=hub, reason=one.reason)
        drafts = [d for d in await refold(tx, ctx, sorted(ids)) if d.before != d.after]
        calls = await write_merged(tx, ctx, Merged(None, drafts), is_hub=False) if drafts else []
        await tx.run(*calls, commit=True)
