"""The way back from a change of a record of which the log has a part only.

A record that came to a node as a state has no history there from before. What a later change wrote
over may be known all the same: its base names the entries that it replaced, and those that are in
the log say their values. Where they are not, or where the record was somewhere that this node does
not look, nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from uuid import UUID

from msgspec import UNSET, UnsetType

from appliance.base.errors import Clash
from appliance.kernel.arrival import is_late
from appliance.kernel.change import Entry, EntryOp
from appliance.kernel.kind import Json, Kind
from appliance.kernel.record import OWNER, UNIT, RecordState
from appliance.kernel.registers import qualified
from appliance.kernel.replay import is_beyond
from appliance.kernel.stamps import EXISTS, Stamps
from appliance.write.command import Command, Op

BELOW = "change.below_floor"
BEYOND = "change.beyond_node"


class Unknown(Exception):
    """The log of this node does not say what stood there before."""


def refuse_beyond(entries: Iterable[Entry], holds: Callable[[UUID], bool]) -> None:
    """Raise Clash where entries of one change and record speak of what was done elsewhere."""
    entries = list(entries)
    told = [e for e in entries if is_late(e) and is_beyond(e, holds)]
    moves = [e for e in entries if not is_late(e) and _crosses(e, holds)]
    if moves:
        raise Clash(
            "This change took a record from one unit to another, of which this node holds only one. "
            "Take it back at the hub, or on a node that holds both units.",
            code=BEYOND,
        )
    if told and len(told) == len(entries):
        raise Clash(
            "This change was written in a unit that this node does not hold; what stood there before "
            "is not in its log. Take it back at the hub, or on a node that holds that unit too.",
            code=BEYOND,
        )


def _crosses(entry: Entry, holds: Callable[[UUID], bool]) -> bool:
    if entry.op is EntryOp.MOVE:
        return not holds(UUID(str(entry.body.ext["to"])))
    return entry.op is EntryOp.ARRIVE and not holds(UUID(str(entry.body.ext["from"])))


def refuse_below() -> Clash:
    """What to say where the log does not reach back far enough."""
    return Clash(
        "What stood there before is not in the log of this node: the record came here as a state, or "
        "its older entries were let go. Take it back where the log reaches further (the hub, when "
        "this is a branch), or change the record back by hand.",
        code=BELOW,
    )


def inverse_in_part(
    now: RecordState | None, kind: Kind | None, trail: Sequence[Entry], change_set: UUID
) -> Command | None:
    """The command that takes a change back; None where nothing is left to take back.

    `now` is the record as it stands, `trail` what the log has of it. Raises Unknown.
    """
    entries = [e for e in trail if e.change_set == change_set]
    if now is None or kind is None or kind.ledger is not None:
        raise Unknown
    if any(e.op not in (EntryOp.PUT, EntryOp.DEL, EntryOp.UNDEL) for e in entries):
        raise Unknown
    written: dict[str, Entry] = {}
    for entry in entries:
        for register in entry.body.base:
            written.setdefault(register, entry)
    version = str(_version(now, entries))
    if EXISTS in written:
        return _existence(now, entries, version)
    fields: dict[str, Json] = {}
    unit: UUID | None | UnsetType = UNSET
    owner: UUID | None | UnsetType = UNSET
    by_dot = {qualified(e.dot, e.stream): e for e in trail}
    for register, entry in written.items():
        for fid in _fids(kind, register):
            value = _before(by_dot, entry, register, fid)
            if fid == UNIT:
                unit = UUID(str(value)) if value is not None else None
            elif fid == OWNER:
                owner = UUID(str(value)) if value is not None else None
            elif (field := kind.by_fid.get(fid)) is not None and "formula" not in field.options:
                fields[field.name] = value
    fields |= _sets(now, kind, entries)
    return Command(
        op=Op.UPDATE, kind=kind.key, id=now.id, fields=fields, unit=unit, owner=owner,
        expect=version, restoring=True,
    )  # fmt: skip


def _existence(now: RecordState, entries: Sequence[Entry], version: str) -> Command | None:
    """Deleted and brought back are each other's way back; with anything else it is not told apart."""
    ops = {e.op for e in entries}
    if len(ops) > 1:
        raise Unknown
    is_gone = EntryOp.DEL in ops
    if is_gone != (now.deleted_at is not None):
        return None
    op = Op.RESTORE if is_gone else Op.DELETE
    return Command(op=op, kind=now.kind, id=now.id, expect=version)


def _version(now: RecordState, entries: Iterable[Entry]) -> Stamps:
    """The version that the change left: what somebody wrote over it since is a conflict."""
    stamps = now.stamps
    for entry in entries:
        dot = entry.dot if entry.stream == now.stream else qualified(entry.dot, entry.stream)
        stamps = stamps.with_(dot, entry.body.base)
    return stamps


def _fids(kind: Kind, register: str) -> list[str]:
    """The fields that a register's value is of; members of sets are told apart by themselves."""
    if "/" in register:
        return []
    return [f.fid for f in kind.registers().get(register, ())] or [register]


def _before(by_dot: dict[str, Entry], entry: Entry, register: str, fid: str) -> Json:
    """What an entry replaced. Raises Unknown where that is not in the log, or was several."""
    base = [qualified(dot, entry.stream) for dot in entry.body.base[register]]
    if len(base) != 1 or (before := by_dot.get(base[0])) is None:
        raise Unknown
    if before.op is not EntryOp.NEW and fid not in before.body.fields:
        raise Unknown
    return before.body.fields.get(fid)


def _sets(now: RecordState, kind: Kind, entries: Sequence[Entry]) -> dict[str, Json]:
    """Members go and come back; what others did with other members stays."""
    found: dict[str, set[str]] = {}
    for entry in reversed(entries):
        for fid, (added, removed) in entry.body.sets.items():
            held = now.data.get(fid)
            members = found.setdefault(
                fid, set(map(str, held)) if isinstance(held, list) else set()
            )
            found[fid] = (members - set(added)) | set(removed)
    return {kind.by_fid[f].name: [*sorted(m)] or None for f, m in found.items() if f in kind.by_fid}
