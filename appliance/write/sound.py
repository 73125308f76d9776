"""Whether what an entry of a peer says is anything that could have been written here.

A node accepts values by their fields' types before it writes them (write/validate). Whoever sends
entries may leave that out, so each is looked at again before it is folded: a value of another
form, a text without end, a name that is none would stand in the tables, and whatever reads it
later would fail. Only form and size are judged, never the bounds of a definition, which may have
been another when the value was accepted. What is wrong is parked with its whole transaction.

A field that is not known here (of a newer schema) is kept as it is, up to what any field may hold.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import msgspec

from appliance.base import limits
from appliance.base.ids import parse_uuid
from appliance.fields import type_of
from appliance.fields.base import StoredCheck, ValueFault
from appliance.fields.references import check_id
from appliance.fields.texts import clean
from appliance.kernel.arrival import BUT, OPEN
from appliance.kernel.beside import unpack
from appliance.kernel.change import Body, Entry, EntryOp, Logged
from appliance.kernel.kind import Field, Json, Kind
from appliance.kernel.record import NUMBER, OWNER, UNIT
from appliance.kernel.registers import WAS
from appliance.kernel.stamps import EXISTS, Stamps, is_register
from appliance.write.definitions import FIXED, Unsound, find_definition_flaw

# First word of the reason with which it is parked.
MALFORMED = "malformed"
# A record may hold values of fields that were removed, beside all that its kind has now.
_FIELDS_MAX = 4 * limits.FIELDS_PER_KIND_MAX
_DOT = re.compile(r"[0-9]{1,10}\.[0-9]{1,19}(@[0-9a-f]{32})?")
_SYSTEM = frozenset({UNIT, OWNER, NUMBER, EXISTS})
_JSON = type_of("json")
_ANY = Field(fid="", name="", type="json")


class _Checks(msgspec.Struct, frozen=True):
    """Of one kind: what its values must be, by field id; the names that are its own."""

    values: Mapping[str, StoredCheck]
    # Of sets, of one member.
    members: Mapping[str, StoredCheck]
    counted: Mapping[str, StoredCheck]
    names: frozenset[str]
    required: frozenset[str] = frozenset()
    fixed: frozenset[str] = frozenset()


def hold_unsound(kinds: Mapping[str, Kind], fresh: Sequence[Logged]) -> list[Logged]:
    """The entries, with the transactions marked as parked of which one entry is unsound."""
    bad: dict[tuple[int, int], str] = {}
    for logged in fresh:
        if not logged.parked and (flaw := find_flaw(kinds, logged.entry)):
            bad.setdefault((logged.entry.origin, logged.entry.tx), f"{MALFORMED}: {flaw}")
    if not bad:
        return list(fresh)
    return [
        msgspec.structs.replace(e, parked=e.parked or bad.get((e.entry.origin, e.entry.tx), ""))
        for e in fresh
    ]


def refuse_unsound(kinds: Mapping[str, Kind], entries: Sequence[Logged]) -> None:
    """Raises Unsound for the first entry that is."""
    for logged in entries:
        if flaw := find_flaw(kinds, logged.entry):
            raise Unsound(flaw)


def find_flaw(kinds: Mapping[str, Kind], entry: Entry) -> str:
    """What is wrong with an entry, in words; empty when nothing is."""
    if entry.op == EntryOp.DECIDE:
        return ""
    kind = kinds.get(entry.kind)
    checks = _checks_of(kind) if kind is not None else _UNKNOWN
    body, fid = entry.body, ""
    values = checks.values
    try:
        for fid, value in body.fields.items():
            if value is not None:
                (values.get(fid) or _check_any)(value)
        fid = ""
        _check_names(body, checks)
        if body.sets or body.deltas:
            _check_steps(body, checks)
        if body.ext:
            _check_extensions(entry, checks)
        if checks.required or checks.fixed:
            _check_system(entry, checks)
    except ValueFault as bad:
        return f"{fid[:80] or 'an entry'} of {entry.kind[:80]}: {bad.detail}"
    return find_definition_flaw(entry) if kind is not None and kind.system else ""


def _checks_of(kind: Kind) -> _Checks:
    found: _Checks | None = kind.__dict__.get("_sound")
    if found is None:
        found = kind.__dict__["_sound"] = _compile(kind)
    return found


def _compile(kind: Kind) -> _Checks:
    types = {f.fid: (f, type_of(f.type)) for f in kind.fields}
    values = {fid: type_.stored_check(field) for fid, (field, type_) in types.items()}
    registers = {f.register for f in kind.fields}
    return _Checks(
        {**values, **_COMMON},
        {fid: _of_member(values[fid]) for fid, (_, t) in types.items() if t.slot == "link"},
        {fid: type_of("number").stored_check(_ANY) for fid, (_, t) in types.items()
         if t.slot == "n" and t.bounded},
        frozenset({*values, *registers, *_SYSTEM}),
        frozenset(f.fid for f in kind.fields if f.required and kind.system),
        FIXED.get(kind.key, frozenset()),
    )  # fmt: skip


def _of_member(check: StoredCheck) -> StoredCheck:
    return lambda member: check([member])


def _check_names(body: Body, checks: _Checks) -> None:
    """Names become registers in a record's version, which has a form of its own."""
    named = {*body.fields, *body.base, *body.groups, *body.sets, *body.deltas}
    if len(named) > _FIELDS_MAX:
        raise ValueFault("too_many", f"At most {_FIELDS_MAX} fields in one entry.")
    if not named <= checks.names and not all(map(is_register, named - checks.names)):
        raise ValueFault("name_malformed", "Expected names of fields and registers.")


def _check_steps(body: Body, checks: _Checks) -> None:
    """Members of sets and steps of counters: of fields that are such, or of unknown ones."""
    for fid, (added, removed) in body.sets.items():
        check = checks.members.get(fid)
        if check is None and fid in checks.names:
            raise ValueFault("wrong_type", f"{fid} is no set.")
        if len(added) + len(removed) > _MEMBERS_MAX:
            raise ValueFault("too_many", f"At most {_MEMBERS_MAX} members in one entry.")
        for member in (*added, *removed):
            if check is not None:
                check(member)
            if not is_register(f"{fid}/{member}"):
                raise ValueFault("name_malformed", "Expected members of a set.")
    for fid, delta in body.deltas.items():
        if fid in checks.names and fid not in checks.counted:
            raise ValueFault("wrong_type", f"{fid} is no number.")
        _check_number(delta)


_MEMBERS_MAX = 20 * limits.SET_MEMBERS_MAX


def _check_extensions(entry: Entry, checks: _Checks) -> None:
    was = entry.body.ext.get(WAS)
    for register, value in was.items() if isinstance(was, dict) else ():
        if register == EXISTS:
            _check_dots(value)
        elif not (value is None or isinstance(value, str)):
            raise ValueFault("wrong_type", "What a text replaced is a text.")
    if entry.op == EntryOp.ARRIVE:
        _check_arrival(entry, checks)


def _check_dots(said: Json) -> None:
    """Entries that are named by origin, number and stream (`write/pointing`, `kernel/arrival`)."""
    if not isinstance(said, list) or not all(
        isinstance(d, str) and _DOT.fullmatch(d) for d in said
    ):
        raise ValueFault("wrong_type", "Expected the names of entries.")


def _check_arrival(entry: Entry, checks: _Checks) -> None:
    """The state that a record brings from its former home."""
    ext = entry.body.ext
    data, stamps = ext.get("data"), ext.get("stamps")
    if not isinstance(data, dict) or not isinstance(stamps, str) or not Stamps.parse(stamps):
        raise ValueFault("wrong_type", "Expected the state of the record that arrives.")
    _check_values(data, checks)
    _check_values({f: ext.get(f) for f in (UNIT, OWNER)} | {NUMBER: ext.get("number")}, checks)
    for name in ("born", "touched", "deleted"):
        if (said := ext.get(name)) is not None or name != "deleted":
            _check_stamped(said)
    if (left := ext.get(BUT)) is not None:
        _check_dots(left)
    if (registers := ext.get(OPEN)) is None:
        return
    try:
        record = unpack(b64decode(str(registers), validate=True))
    except (msgspec.MsgspecError, ValueError, ArithmeticError):
        raise ValueFault("wrong_type", "Expected the registers of a record.") from None
    for cell in (record.born, *record.cells.values()):
        for leaf in cell.values():
            _check_values({f: v for f, v in leaf.values.items() if "/" not in f}, checks)
    if not all(map(is_register, [*record.cells, *record.pending])):
        raise ValueFault("name_malformed", "Expected names of registers.")


def _check_values(data: Mapping[str, Json], checks: _Checks) -> None:
    for fid, value in data.items():
        if fid not in checks.names and not is_register(fid):
            raise ValueFault("name_malformed", "Expected names of fields.")
        if value is not None and not (fid == EXISTS and isinstance(value, bool)):
            (checks.values.get(fid) or _check_any)(value)


def _check_stamped(said: Json) -> None:
    """Who did something and when: [moment, person]."""
    if isinstance(said, list) and len(said) == 2 and all(isinstance(v, str) for v in said):
        try:
            at = datetime.fromisoformat(str(said[0]))
        except ValueError:
            at = None
        if at is not None and at.tzinfo is not None and parse_uuid(said[1]) is not None:
            return
    raise ValueFault("wrong_type", "Expected a moment and who it was.")


def _check_system(entry: Entry, checks: _Checks) -> None:
    """The program reads its own kinds without asking whether what they need is there."""
    fields = entry.body.fields
    if entry.op == EntryOp.NEW:
        lacking = sorted(f for f in checks.required if fields.get(f) is None)
    else:
        lacking = sorted(f for f in checks.required if f in fields and fields[f] is None)
        if fixed := sorted(checks.fixed & fields.keys()):
            raise ValueFault("fixed", f"{', '.join(fixed)} never changes.")
    if lacking:
        raise ValueFault("required", f"{', '.join(lacking)} cannot be empty.")


def _check_number_text(value: Json) -> None:
    if len(clean(value)) > limits.TEXT_CHARS_MAX:
        raise ValueFault("too_long", f"At most {limits.TEXT_CHARS_MAX} characters.")


def _check_any(value: Json) -> None:
    """A value of a field that is not known here."""
    if isinstance(value, str) and len(value) <= limits.LONG_TEXT_CHARS_MAX:
        clean(value, long=True)
    else:
        _JSON.accept(_ANY, value)


_check_number: Callable[[Json], None] = type_of("number").stored_check(_ANY)
_COMMON: Mapping[str, StoredCheck] = {
    UNIT: check_id, OWNER: check_id, NUMBER: _check_number_text,
}  # fmt: skip
_UNKNOWN = _Checks(_COMMON, {}, {}, _SYSTEM)
