"""Who may have acted at a site: actor and door of an entry are the word of whoever sends it.

A person may have acted there whose memberships reach what the site writes, or ever have: what was
written before somebody was moved or left may come weeks later. The site itself acts as nobody, or
as the node. Everybody else's name in an entry of the site's own is not believed: a stolen site
signs for its own people, not for the director.
"""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

import msgspec

from appliance.access.load import read_ids
from appliance.db.database import Database
from appliance.db.values import bytea_of, text_of
from appliance.db.wire import Rows, Statement
from appliance.kernel.change import Entry, EntryOp, decode_body
from appliance.kernel.context import Door
from appliance.kernel.kind import Json
from appliance.sync.scope import units_below

# Through these doors something may have come at a site; `install` and `sync` are the hub's own.
DOORS = frozenset({Door.HTTP, Door.INTAKE, Door.FLOW, Door.SYSTEM})
NOBODY = UUID(int=0)
FILE = "sys.file"

_RIGHTS = Statement("SELECT rights_rev FROM tenant_state WHERE tenant_id = $1")
# Also those that have ended, or were taken back.
_MEMBERS = Statement("SELECT data FROM record WHERE tenant_id = $1 AND kind = 'sys.membership'")
_UNITS = Statement(
    "SELECT id::text, data->>'parent' FROM record WHERE tenant_id = $1 AND kind = 'sys.unit'"
)
_FORMER = Statement(
    "SELECT r.r1::text, c.op, c.body FROM record r JOIN change c ON c.tenant_id = $1 "
    "AND c.record_id = r.id WHERE r.tenant_id = $1 AND r.kind = 'sys.membership' "
    "AND r.r1 = ANY($2::uuid[])"
)
_KNOWN_MAX = 256
_known: dict[tuple[UUID, frozenset[UUID]], tuple[int, set[UUID]]] = {}


def find_pretence(entry: Entry, node: UUID, strangers: Collection[UUID]) -> str | None:
    """Why an entry is not what its node says of it; None when nothing speaks against it."""
    is_system = entry.door == Door.SYSTEM
    if entry.door not in DOORS:
        return f"foreign: nothing comes through the door {entry.door[:40]} at a site"
    if entry.kind == FILE and not is_system and entry.op in (EntryOp.NEW, EntryOp.PUT):
        return "foreign: files are written by nodes, not by hand"
    if is_system and (entry.kind == FILE or entry.actor in (NOBODY, node)):
        # What a node finds out about a file is said in the name of its owner.
        return None
    if entry.actor in strangers or entry.actor in (NOBODY, node):
        return f"foreign: {entry.actor} is nobody who may act at this node"
    return None


async def find_strangers(
    db: Database, tenant: UUID, held: frozenset[UUID], actors: Collection[UUID]
) -> frozenset[UUID]:
    """Those of some actors who never could act where a site writes: `held` are its streams, which
    are called as the units are.
    """
    (rows,) = await db.read(tenant, (_RIGHTS, (tenant,)))
    rev, found = int((rows.first() or (b"0",))[0] or 0), _known.get((tenant, held))
    if found is None or found[0] != rev:
        members, parents = await db.read(tenant, (_MEMBERS, (tenant,)), (_UNITS, (tenant,)))
        if len(_known) >= _KNOWN_MAX:
            _known.clear()
        found = _known[tenant, held] = (rev, _belonging(members, list(parents), held))
    here = found[1]
    others = sorted({*actors} - here - {NOBODY})
    if others:
        # Seldom, and each once: they may have belonged there before.
        former, parents = await db.read(tenant, (_FORMER, (tenant, others)), (_UNITS, (tenant,)))
        here |= _formerly(former, list(parents), held)
    return frozenset(others) - here


Parents = list[tuple[bytes | None, ...]]


def _belonging(members: Rows, parents: Parents, held: frozenset[UUID]) -> set[UUID]:
    found: set[UUID] = set()
    for (raw,) in members:
        data = msgspec.json.decode(raw or b"{}", type=dict[str, Json])
        (person,) = read_ids([data.get("person")]) or (None,)
        if person is not None and _reaches(data.get("units"), parents, held):
            found.add(person)
    return found


def _formerly(rows: Rows, parents: Parents, held: frozenset[UUID]) -> set[UUID]:
    """Of whom an entry of a membership ever named a unit of the site's, or all of them."""
    found: set[UUID] = set()
    for person, op, raw in rows:
        body = decode_body(bytea_of(raw))
        added, _ = body.sets.get("units", ((), ()))
        is_said = op == b"new" or "units" in body.fields
        said = body.fields.get("units") if is_said else [*added]
        if (said is None or said) and _reaches(said, parents, held):
            found.add(UUID(text_of(person)))
    return found


def _reaches(units: Json, parents: Parents, held: frozenset[UUID]) -> bool:
    named = read_ids(units)
    return not named or bool(units_below(parents, named) & held)
