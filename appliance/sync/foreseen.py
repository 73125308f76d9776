"""What a change of a node's scope would do, for whoever decides it: said before anything is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec

from appliance.base.errors import Invalid
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.sync.scope import reach_of
from appliance.sync.withdrawal import change_scope

_RECORDS = Statement(
    "SELECT s.id::text, (SELECT count(*) FROM record r WHERE r.tenant_id = $1 AND r.stream = s.id) "
    "+ (SELECT count(*) FROM entry e WHERE e.tenant_id = $1 AND e.stream = s.id) "
    "FROM unnest($2::uuid[]) AS s(id)"
)


class Purge(msgspec.Struct, frozen=True):
    """A unit's records that the node deletes and proves gone; `comes_again`: under the new mask."""

    unit: UUID
    name: str
    records: int
    comes_again: bool


class Foreseen(msgspec.Struct, frozen=True):
    """Names of units that the node gets, and what it has to delete."""

    adds: list[str]
    purges: list[Purge]


async def foresee(
    db: Database,
    node: UUID,
    tenant: UUID,
    *,
    units: Sequence[UUID] | None,
    masks: Mapping[str, list[str]] | None,
) -> Foreseen:
    """What `nodes.set_units` with the same would do. Raises as it does."""
    wanted = frozenset(units) if units is not None else None
    changed = await change_scope(db, node, tenant, units=wanted, masks=masks, is_said_only=True)
    names, below = await reach_of(db, tenant, wanted)
    (rows,) = await db.read(tenant, (_RECORDS, (tenant, list(changed.withdrawn))))
    counts = {UUID((unit or b"").decode()): int(count or 0) for unit, count in rows}
    purges = [Purge(u, names[u], counts.get(u, 0), u in below) for u in changed.withdrawn]
    return Foreseen(
        sorted(names[u] for u in changed.added if u in names),
        sorted(purges, key=lambda p: p.name),
    )


def read_masks(text: str) -> dict[str, list[str]]:
    """`kind.field,kind.field` as a person writes it; empty for none. Raises Invalid."""
    found: dict[str, list[str]] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        kind, dot, name = part.rpartition(".")
        if not (dot and kind and name):
            raise Invalid(
                f"A mask is written kind.field, as deal.margin; {part[:60]!r} is not.",
                code="scope.mask",
            )
        found.setdefault(kind, []).append(name)
    return {kind: sorted(set(names)) for kind, names in found.items()}
