"""Structured values and roll-ups."""

from __future__ import annotations

import re
from typing import ClassVar

import msgspec

from appliance.base import limits
from appliance.fields.base import Cell, DefinitionFault, FieldType, ValueFault
from appliance.fields.definition import check_common, check_named
from appliance.fields.texts import UNASSIGNABLE
from appliance.kernel.kind import FILLS, Field, Json

_DEPTH_MAX = 16
_REFUSED = re.compile(f"[\x00\ud800-\udfff{UNASSIGNABLE}]")


class JsonValue(FieldType):
    """Any JSON up to 64 KB and 16 levels; kept as it is, not filtered."""

    name: ClassVar[str] = "json"
    options: ClassVar[frozenset[str]] = frozenset({FILLS})

    def check_definition(self, field: Field) -> list[DefinitionFault]:
        return check_common(self, field, check_named(field, FILLS))

    def accept(self, field: Field, value: Json) -> Json:
        _walk(value, 0)
        if len(msgspec.json.encode(value)) > limits.JSON_FIELD_BYTES_MAX:
            raise ValueFault("too_long", f"At most {limits.JSON_FIELD_BYTES_MAX} bytes of JSON.")
        return value

    def text(self, field: Field, value: Json, locale: str) -> str:
        return msgspec.json.encode(value).decode()

    def cell(self, field: Field, value: Json) -> Cell:
        return msgspec.json.encode(value).decode()

    def json_schema(self, field: Field) -> dict[str, object]:
        return {}


def _walk(value: Json, depth: int) -> None:
    if depth > _DEPTH_MAX:
        raise ValueFault("too_deep", f"At most {_DEPTH_MAX} levels.")
    match value:
        case str():
            if not value.isprintable() and _REFUSED.search(value):
                raise ValueFault(
                    "character_refused", "A text holds a character that cannot be stored."
                )
        case dict():
            for key, inner in value.items():
                if not isinstance(key, str):
                    raise ValueFault("wrong_type", "Expected texts as keys of an object.")
                _walk(key, depth)
                _walk(inner, depth + 1)
        case list():
            for inner in value:
                _walk(inner, depth + 1)
        case bool() | None:
            pass
        case int():
            if abs(value) > 2**63:
                raise ValueFault("out_of_range", "Numbers in JSON go to 2^63; send text beyond.")
        case _:
            raise ValueFault(
                "float_refused", "Send decimals as text: a binary number is not exact."
            )


class Rollup(FieldType):
    """A sum or count over the records that refer here, computed when read, in the reader's rights.

    Options: `kind`, `via` (its reference field), `op` (count, sum), `field` (what is summed).
    """

    name: ClassVar[str] = "rollup"
    stored: ClassVar[bool] = False
    operators: ClassVar[frozenset[str]] = frozenset()
    options: ClassVar[frozenset[str]] = frozenset({"kind", "via", "op", "field"})
    aggregates: ClassVar[frozenset[str]] = frozenset()

    def check_definition(self, field: Field) -> list[DefinitionFault]:
        faults: list[DefinitionFault] = []
        for name in ("kind", "via"):
            if not isinstance(field.options.get(name), str):
                faults.append(DefinitionFault(f"/options/{name}", "required", "Expected a name."))
        op = field.options.get("op")
        if op not in ("count", "sum"):
            faults.append(DefinitionFault("/options/op", "op_unknown", "Expected count or sum."))
        if op == "sum" and not isinstance(field.options.get("field"), str):
            faults.append(
                DefinitionFault("/options/field", "required", "Say which field is summed.")
            )
        marks = {"required": field.required, "default": field.default is not None}
        faults += [
            DefinitionFault(f"/{name}", "not_possible", "A roll-up is computed, never entered.")
            for name, given in marks.items()
            if given
        ]
        return check_common(self, field, faults)

    def accept(self, field: Field, value: Json) -> Json:
        raise ValueFault("read_only", "A roll-up is computed; it cannot be written.")

    def json_schema(self, field: Field) -> dict[str, object]:
        return {"type": ["string", "integer"], "readOnly": True}
