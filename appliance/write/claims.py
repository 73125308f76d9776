"""Unique values are claims: the write path refuses what it can see taken, replication adds.

Two branches may take one value while apart; both records stay usable and the clash is visible
(research/sync 2.5). Inside one node the values were locked before they were read.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from appliance.db.database import Transaction
from appliance.kernel.context import Ctx
from appliance.write.command import Op
from appliance.write.draft import Draft
from appliance.write.load import CLAIMS, Claim, Loaded, claims_in, claims_of


async def load_restored(tx: Transaction, ctx: Ctx, drafts: Sequence[Draft], loaded: Loaded) -> None:
    """A restored record claims its old values again: who holds them now?"""
    wanted = sorted({c for d in drafts if d.command.op is Op.RESTORE for c in _restored(d)})
    if not wanted:
        return
    kinds, rules, values = zip(*wanted, strict=True)
    (rows,) = await tx.run((CLAIMS, (ctx.tenant, kinds, rules, values)))
    for kind, rule, value, holder in rows:
        claim = ((kind or b"").decode(), (rule or b"").decode(), (value or b"").decode())
        loaded.holders.setdefault(claim, []).append(UUID((holder or b"").decode()))


def _restored(draft: Draft) -> list[Claim]:
    if draft.kind is None or draft.before is None or draft.faults:
        return []
    return claims_in(draft.kind, draft.before.data)


def _freed(draft: Draft) -> set[Claim]:
    """The values that a record lets go in this batch."""
    if draft.kind is None or draft.before is None or draft.command.op is Op.RESTORE:
        return set()
    held = set(claims_in(draft.kind, draft.before.data))
    if draft.command.op is Op.DELETE:
        return held
    return {c for c in held if c[1] in draft.values} - set(claims_of(draft))


def check_claims(drafts: Sequence[Draft], loaded: Loaded) -> None:
    """Refuse a value that another live record, here or earlier in the batch, holds."""
    taken: dict[Claim, UUID] = {}
    freed = {d.id: _freed(d) for d in drafts if d.is_open}
    for draft in drafts:
        if not draft.is_open or draft.kind is None:
            continue
        claims = _restored(draft) if draft.command.op is Op.RESTORE else claims_of(draft)
        for claim in claims:
            others = [
                h for h in loaded.holders.get(claim, ())
                if h != draft.id and claim not in freed.get(h, ())
            ]  # fmt: skip
            if others or taken.setdefault(claim, draft.id) != draft.id:
                name = draft.kind.by_fid[claim[1]].name
                draft.fault(
                    f"/fields/{name}", "taken", "Another record holds this value; it is unique."
                )
