"""What of a site's entries a hub may apply: not the kind that an entry names decides, but the record
it would write and where that lives.

An entry is written under any id and any kind that its author likes, so both are compared with what
is here. A site writes records of streams that it holds, and what it still says of records that
have left them; it makes and moves records only where it may write; it decides about nothing that
was held back by these very rules; and it speaks for those who may act there (sync/acting). Whatever breaks one is kept for a person, in its place in the
chain, with its whole transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

import msgspec

from appliance.base.ids import parse_uuid, uuid_of, uuid_read
from appliance.db.columns import Column
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.kernel.change import Entry, EntryOp, Logged
from appliance.kernel.hold import Mask, make_mask
from appliance.kernel.kind import Kind
from appliance.kernel.record import GOT, UNIT
from appliance.sync.acting import NOBODY, find_pretence, find_strangers
from appliance.sync.nodes import list_nodes
from appliance.sync.scope import find_scope, reach_of, refuses
from appliance.write.log import home_stream
from appliance.write.sound import MALFORMED
from appliance.write.trail import NOT_PARKED

# First words of the reasons with which something is held back here.
VERDICTS = frozenset({"hub_only", "masked", "foreign"})

_RECORDS = Statement(
    "SELECT id::text, kind, stream::text FROM record WHERE tenant_id = $1 AND id = ANY($2::uuid[]) "
    "UNION ALL "
    "SELECT id::text, kind, stream::text FROM entry WHERE tenant_id = $1 AND id = ANY($2::uuid[])"
)
_WAITING = Statement(
    "SELECT id::text, stream::text, reason FROM parked WHERE tenant_id = $1 AND id = ANY($2::uuid[])"
)
# Where records were before: they were made there, or came there.
_PASSED = Statement(
    "SELECT DISTINCT record_id::text, stream::text FROM change WHERE tenant_id = $1 "
    f"AND record_id = ANY($2::uuid[]) AND op IN ('new', 'arrive') AND {NOT_PARKED}"
)


class Here(msgspec.Struct, frozen=True):
    """What this hub has of what the entries name: records with kind and stream, where those were
    that are elsewhere now, and parked transactions with stream and reason.
    """

    records: Mapping[UUID, tuple[str, UUID]]
    passed: frozenset[tuple[UUID, UUID]]
    parked: Mapping[UUID, tuple[UUID, str]]


class Judge(msgspec.Struct, frozen=True):
    """One site's rights in one tenant. `writable` are all streams that it may write.

    `origins` are those under which it speaks for its own people; while it gives back what its hub
    has lost, none.
    """

    tenant: UUID
    kinds: Mapping[str, Kind]
    mask: Mask
    writable: frozenset[UUID]
    node: UUID = NOBODY
    origins: frozenset[int] = frozenset()

    async def judge(self, db: Database, entries: Sequence[Logged]) -> list[Logged]:
        """Mark what the site may not write, and the whole of its transaction."""
        here = await self._look(db, [e.entry for e in entries])
        actors = {e.entry.actor for e in entries if e.entry.origin in self.origins} - {self.node}
        strangers = await find_strangers(db, self.tenant, self.writable, actors)
        refused: dict[tuple[int, int], str] = {}
        for logged in entries:
            why = refuses(self.mask, logged) or logged.parked or self._why(logged.entry, here)
            if not why and logged.entry.origin in self.origins:
                why = find_pretence(logged.entry, self.node, strangers)
            if why:
                refused.setdefault((logged.entry.origin, logged.entry.tx), why)
        if not refused:
            return list(entries)
        return [
            msgspec.structs.replace(e, parked=refused.get((e.entry.origin, e.entry.tx), ""))
            for e in entries
        ]

    async def _look(self, db: Database, entries: Sequence[Entry]) -> Here:
        ids = Column("uuid", [*{e.record_id.int: e.record_id for e in entries}.values()])
        asked = [(_RECORDS, (self.tenant, ids))]
        if any(e.op == EntryOp.DECIDE for e in entries):
            asked.append((_WAITING, (self.tenant, ids)))
        rows, *waiting = await db.read(self.tenant, *asked)
        records = {
            uuid_read(i): ((k or b"").decode(), uuid_of((s or b"").decode())) for i, k, s in rows
        }
        elsewhere = sorted(i for i, (_, s) in records.items() if s not in self.writable)
        passed: frozenset[tuple[UUID, UUID]] = frozenset()
        if elsewhere:
            (trails,) = await db.read(self.tenant, (_PASSED, (self.tenant, elsewhere)))
            passed = frozenset((UUID(i), UUID(s)) for i, s in map(_texts, trails))
        parked = {
            UUID(i): (UUID(s), reason) for rows in waiting for i, s, reason in map(_texts, rows)
        }
        return Here(records, passed, parked)

    def _why(self, entry: Entry, here: Here) -> str | None:
        """Why an entry is not applied; None when nothing speaks against it."""
        if entry.op == EntryOp.DECIDE:
            return _decided_here(entry, here)
        found = here.records.get(entry.record_id)
        if found is not None and not self._may_write(entry, found, here):
            return "foreign: the record is none of this node's"
        if entry.op == EntryOp.ARRIVE and GOT in entry.body.ext:
            return "foreign: only the hub tells what came through a former home"
        if entry.op == EntryOp.MOVE and self._stream(entry.body.ext.get("to")) is None:
            return "foreign: the record would go where this node may not write"
        if not self._is_at_home(entry):
            return "foreign: the record would not live in this stream"
        return None

    def _may_write(self, entry: Entry, found: tuple[str, UUID], here: Here) -> bool:
        kind, stream = found
        if kind != entry.kind:
            return False
        if stream in self.writable:
            return True
        came = entry.stream
        if entry.op == EntryOp.ARRIVE:
            held = self._stream(entry.body.ext.get("from"))
            if held is None:
                return False
            came = held
        return (entry.record_id, came) in here.passed

    def _is_at_home(self, entry: Entry) -> bool:
        """Whether the record belongs to the stream once the entry is applied; a kind that nobody
        knows here waits for its schema.
        """
        kind, fields = self.kinds.get(entry.kind), entry.body.fields
        makes = entry.op in (EntryOp.NEW, EntryOp.ARRIVE)
        if kind is None or not (makes or UNIT in fields):
            return True
        unit = fields.get(UNIT, entry.body.ext.get(UNIT))
        return home_stream(self.tenant, kind, _uuid(unit)) == entry.stream

    def _stream(self, said: object) -> UUID | None:
        """A stream that an entry names, if the site may write it."""
        found = _uuid(said)
        return found if found in self.writable else None


async def judge_of(db: Database, tenant: UUID, origin: int, kinds: Mapping[str, Kind]) -> Judge:
    """A judge of what a node made while it still held what its last scope says."""
    node = next((n for n in await list_nodes(db, tenant) if origin in n.origins), None)
    scope = await find_scope(db, node.id, tenant) if node is not None else None
    _, reach = await reach_of(db, tenant, scope.units if scope is not None else None)
    mask = make_mask(scope.masks if scope is not None else {}, kinds)
    ident, origins = (node.id, node.origins) if node is not None else (NOBODY, frozenset[int]())
    return Judge(tenant, kinds, mask, reach, ident, frozenset(origins))


def _decided_here(entry: Entry, here: Here) -> str | None:
    known = here.parked.get(entry.record_id)
    if known is None:
        return None
    stream, reason = known
    if stream != entry.stream or reason in VERDICTS or reason == MALFORMED:
        return "foreign: what the hub holds back is decided there"
    return None


def _uuid(value: object) -> UUID | None:
    return parse_uuid(value) if isinstance(value, str) else None


def _texts(row: Iterable[bytes | None]) -> tuple[str, ...]:
    return tuple((value or b"").decode() for value in row)
