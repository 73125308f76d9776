"""Kinds and fields that a peer defines: what the compiler of the schema can read, and no more.

A definition is read by every node of the tenant before anything else is. One that cannot be read,
or that asks for a million digits, would stop all of them, so it is judged like a local one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from appliance.base.errors import Invalid
from appliance.fields import TYPES
from appliance.fields.base import DefinitionFault
from appliance.kernel.change import Entry, EntryOp
from appliance.kernel.kind import Json
from appliance.kernel.ledger import Ledger
from appliance.kernel.number import is_pattern
from appliance.meta import build_field
from appliance.write.draft import Draft
from appliance.write.hooks import NAME

# What a definition keeps for good.
FIXED: Mapping[str, frozenset[str]] = {
    "sys.kind": frozenset({"key", "home", "ledger"}),
    "sys.field": frozenset({"kind", "name", "type", "fid"}),
}
# What two nodes that change a field at once may bring about without a fault of either.
_OF_SEVERAL = frozenset({"bounds_crossed"})
_FID = re.compile(r"[a-z][a-z0-9_]{0,39}(~[0-9]{1,10})?(\.[0-9]{1,6})?\Z")


class Unsound(Invalid):
    """An entry of a peer that says what cannot be stored."""

    code = "sync.entry_malformed"


def find_definition_flaw(entry: Entry) -> str:
    """What is wrong with the definition in an entry of a system kind, in words; empty when nothing
    is, or when only its whole record can say.
    """
    fields = entry.body.fields
    if entry.kind == "sys.kind":
        series = fields.get("series")
        if isinstance(series, str) and not is_pattern(series):
            return "A kind's series is no pattern of numbers."
        return _find_kind_flaw(fields) if entry.op == EntryOp.NEW else ""
    if entry.kind == "sys.field" and entry.op == EntryOp.NEW:
        name, fid = str(fields.get("name")), str(fields.get("fid") or fields.get("name"))
        if not NAME.match(name) or not _FID.match(fid):
            return "A field's name, or its id, is none."
        faults = _faults_of(fields)
        return f"A field's definition: {faults[0].detail}" if faults else ""
    return ""


def _find_kind_flaw(fields: Mapping[str, Json]) -> str:
    if not NAME.match(str(fields.get("key"))):
        return "A kind's key is none."
    try:
        if fields.get("ledger") is not None:
            msgspec.convert(fields["ledger"], Ledger)
    except msgspec.ValidationError:
        return "A kind's ledger cannot be read."
    return ""


def refuse_undefinable(drafts: Sequence[Draft]) -> None:
    """Raises Unsound for a field that has been changed into what no field can be."""
    for draft in drafts:
        if draft.command.kind != "sys.field" or draft.before is None or draft.after is None:
            continue
        changed = draft.values.keys()
        for fault in _faults_of(draft.after.data):
            what = fault.pointer.split("/")[1]
            if what in changed and what != "default" and fault.code not in _OF_SEVERAL:
                raise Unsound(f"A field's definition: {fault.detail}")


def _faults_of(values: Mapping[str, Json]) -> list[DefinitionFault]:
    field = build_field({k: v for k, v in values.items() if v is not None})
    return TYPES[field.type].check_definition(field) if field is not None else []
