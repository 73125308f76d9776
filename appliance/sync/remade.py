"""At the hub: what a site made anew (write/remake) and another site had made anew before.

Two sites may hold the same entries of a hub that was put back and has since written others under
their names. Each makes them anew; the hub applies them once.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec

from appliance.db.database import Database
from appliance.db.values import bytea_of
from appliance.db.wire import Statement
from appliance.kernel.change import Logged, decode_body
from appliance.write.remake import REMADE

TWICE = "remade: another node has made it anew before"
_OF_SETS = Statement(
    "SELECT change_set::text, record_id::text, origin, body FROM change WHERE tenant_id = $1 "
    "AND change_set = ANY($2::uuid[])"
)


async def mark_known(db: Database, tenant: UUID, entries: Sequence[Logged]) -> list[Logged]:
    """The entries, with the transactions marked that are here already under another name: they
    keep their place in the chain and are not applied.
    """
    anew = [e for e in entries if REMADE in e.entry.body.ext]
    if not anew:
        return list(entries)
    sets = sorted({e.entry.change_set for e in anew})
    (rows,) = await db.read(tenant, (_OF_SETS, (tenant, sets)))
    known: dict[tuple[str, str, str], int] = {}
    for change_set, record, origin, body in rows:
        found = decode_body(bytea_of(body)).ext.get(REMADE)
        if found is not None:
            place = ((change_set or b"").decode(), (record or b"").decode(), str(found))
            known[place] = int(origin or 0)
    twice = {
        (e.entry.origin, e.entry.tx)
        for e in anew
        if known.get(
            (str(e.entry.change_set), str(e.entry.record_id), str(e.entry.body.ext[REMADE])),
            e.entry.origin,
        )
        != e.entry.origin
    }
    return [
        msgspec.structs.replace(e, parked=e.parked or TWICE)
        if (e.entry.origin, e.entry.tx) in twice else e
        for e in entries
    ]  # fmt: skip
