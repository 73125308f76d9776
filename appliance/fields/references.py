"""References to records, one or many, and to files. Targets are checked by the write path."""

from __future__ import annotations

import re
from typing import ClassVar

from appliance.base import limits
from appliance.base.ids import parse_uuid, uuid_of
from appliance.fields.base import (
    Cell,
    DefinitionFault,
    FieldType,
    SlotValue,
    StoredCheck,
    ValueFault,
)
from appliance.fields.choices import check_set
from appliance.fields.definition import check_common
from appliance.kernel.kind import BELONGS, MAKES, STEPS, Field, Json, Policy

_ENDING = re.compile(r"[a-z0-9]{1,10}")
_CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
_EXPECTED = "Expected the id of a record, a UUID in its canonical form."


def read_id(value: Json) -> str:
    """A canonical id. Raises ValueFault."""
    found = parse_uuid(value)
    if found is None:
        raise ValueFault("id_malformed", _EXPECTED)
    return str(found)


def check_id(value: Json) -> None:
    """Refuse what is not stored as an id."""
    if not (isinstance(value, str) and _CANONICAL.match(value)):
        raise ValueFault("id_malformed", _EXPECTED)


class Reference(FieldType):
    """One record of the kind `options.target`."""

    name: ClassVar[str] = "reference"
    slot: ClassVar[str] = "r"
    operators: ClassVar[frozenset[str]] = frozenset(
        {"is_null", "eq", "ne", "in", "not_in", "under"}
    )
    options: ClassVar[frozenset[str]] = frozenset({"target", STEPS, BELONGS, MAKES})
    aggregates: ClassVar[frozenset[str]] = frozenset({"count", "count_distinct"})

    def check_definition(self, field: Field) -> list[DefinitionFault]:
        target = field.options.get("target")
        if not isinstance(target, str) or not target:
            return [DefinitionFault("/options/target", "required", "Say which kind it refers to.")]
        for flag in (STEPS, BELONGS):
            if not isinstance(field.options.get(flag, False), bool):
                return [
                    DefinitionFault(f"/options/{flag}", "wrong_type", "Expected true or false.")
                ]
        makes = field.options.get(MAKES, {})
        if not isinstance(makes, dict) or not all(isinstance(v, str) for v in makes.values()):
            detail = "Expected the sources of the target's fields: {field: name}."
            return [DefinitionFault(f"/options/{MAKES}", "wrong_type", detail)]
        return check_common(self, field)

    def accept(self, field: Field, value: Json) -> Json:
        return read_id(value)

    def stored_check(self, field: Field) -> StoredCheck:
        return check_id

    def slot_value(self, field: Field, value: Json) -> SlotValue:
        return uuid_of(str(value))

    def operand(self, field: Field, value: Json) -> SlotValue:
        return uuid_of(read_id(value))

    def json_schema(self, field: Field) -> dict[str, object]:
        return {"type": "string", "format": "uuid"}


class References(Reference):
    """Many records of one kind: a set, merged member by member."""

    name: ClassVar[str] = "references"
    slot: ClassVar[str] = "link"
    operators: ClassVar[frozenset[str]] = frozenset({"is_null", "has_any", "has_all"})
    policy: ClassVar[Policy] = Policy.SET
    aggregates: ClassVar[frozenset[str]] = frozenset({"count"})

    def accept(self, field: Field, value: Json) -> Json:
        if not isinstance(value, list) or len(value) > limits.SET_MEMBERS_MAX:
            raise ValueFault(
                "wrong_type", f"Expected a list of at most {limits.SET_MEMBERS_MAX} ids."
            )
        found = sorted({read_id(v) for v in value})
        if not found:
            raise ValueFault("empty", "Expected at least one id; send null to clear the field.")
        return [*found]

    def stored_check(self, field: Field) -> StoredCheck:
        def check(value: Json) -> None:
            check_set(value)
            for member in self.members(field, value):
                check_id(member)

        return check

    def members(self, field: Field, value: Json) -> list[str]:
        return [str(v) for v in value] if isinstance(value, list) else []

    def slot_value(self, field: Field, value: Json) -> SlotValue:
        return None

    def operand(self, field: Field, value: Json) -> SlotValue:
        return read_id(value)

    def cell(self, field: Field, value: Json) -> Cell:
        return ", ".join(self.members(field, value))

    def json_schema(self, field: Field) -> dict[str, object]:
        return {"type": "array", "items": {"type": "string", "format": "uuid"}, "uniqueItems": True}


class File(FieldType):
    """An attachment by its id: a released one, brought by the writer or for this very record."""

    name: ClassVar[str] = "file"
    slot: ClassVar[str] = "r"
    operators: ClassVar[frozenset[str]] = frozenset({"is_null"})
    options: ClassVar[frozenset[str]] = frozenset({"extensions", "bytes_max"})

    def check_definition(self, field: Field) -> list[DefinitionFault]:
        faults: list[DefinitionFault] = []
        endings = field.options.get("extensions", [])
        if not isinstance(endings, list) or not all(
            isinstance(e, str) and _ENDING.fullmatch(e) for e in endings
        ):
            detail = "Expected a list of endings such as pdf, without a dot."
            faults.append(DefinitionFault("/options/extensions", "wrong_type", detail))
        most = field.options.get("bytes_max", 1)
        if not isinstance(most, int) or isinstance(most, bool) or most < 1:
            detail = "Expected a number of bytes."
            faults.append(DefinitionFault("/options/bytes_max", "wrong_type", detail))
        return check_common(self, field, faults)

    def accept(self, field: Field, value: Json) -> Json:
        return read_id(value)

    def stored_check(self, field: Field) -> StoredCheck:
        return check_id

    def slot_value(self, field: Field, value: Json) -> SlotValue:
        return uuid_of(str(value))

    def json_schema(self, field: Field) -> dict[str, object]:
        return {"type": "string", "format": "uuid"}
