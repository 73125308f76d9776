"""What a field type is: one class, one file, one registry entry.

Canonical value: what `record.data` holds, a JSON value (decimal as string, date `2026-11-20`,
moment RFC 3339 in UTC with milliseconds, uuid text, set as sorted list of text). Slot value: its
comparable projection in an index column, or in `record_link` for sets. Every type inherits the
suite tests/fields/suite.py.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import ClassVar, NoReturn
from uuid import UUID

import msgspec

from appliance.kernel.kind import Field, Json, Policy

SlotValue = None | str | int | datetime | UUID
Cell = None | str | bool | int | Decimal | datetime
StoredCheck = Callable[[Json], None]
# What a projection raises for a value of another form.
UNREADABLE = (ValueError, ArithmeticError, TypeError, AttributeError)


class ValueFault(Exception):
    """A value is not acceptable: `code` for programs, `detail` says what was expected."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class DefinitionFault(msgspec.Struct, frozen=True):
    """A field definition is not acceptable; `pointer` is below the field's JSON object."""

    pointer: str
    code: str
    detail: str


class FieldType:
    """Base of all types. Subclasses are stateless singletons in the registry.

    `slot`: "t" text folded, "n" bigint scaled, "d" timestamptz, "r" uuid, "link" for set members,
    "" when the type cannot be filtered.
    """

    name: ClassVar[str]
    slot: ClassVar[str] = ""
    operators: ClassVar[frozenset[str]] = frozenset({"is_null"})
    sortable: ClassVar[bool] = False
    searchable: ClassVar[bool] = False
    stored: ClassVar[bool] = True
    policy: ClassVar[Policy] = Policy.ASK
    options: ClassVar[frozenset[str]] = frozenset()
    # Whether `min` and `max`, and `pattern`, mean anything for the type.
    bounded: ClassVar[bool] = False
    patterned: ClassVar[bool] = False
    aggregates: ClassVar[frozenset[str]] = frozenset({"count"})

    def check_definition(self, field: Field) -> list[DefinitionFault]:
        """Faults of the field's options, default, min, max, pattern."""
        raise NotImplementedError

    def accept(self, field: Field, value: Json) -> Json:
        """The canonical form of a value from outside (never None). Raises ValueFault."""
        raise NotImplementedError

    def accept_held(self, field: Field, value: Json) -> Json:
        """As `accept`, for a value that the record may hold already: what was once allowed is."""
        return self.accept(field, value)

    def stored_check(self, field: Field) -> StoredCheck:
        """What refuses (ValueFault) a value that no definition of this type would have stored.

        Another node accepted the value, perhaps under another definition, so bounds, patterns and
        options play no role; form and size do. Never asked about None.
        """
        free, accept = self._unbounded(field), self.accept_held

        def check(value: Json) -> None:
            if accept(free, value) != value:
                refuse_form()

        return check

    def _unbounded(self, field: Field) -> Field:
        """The field without what its definition says of single values."""
        return msgspec.structs.replace(field, min=None, max=None, pattern=None)

    def slot_value(self, field: Field, value: Json) -> SlotValue:
        """The projection of a canonical value (never None) into its slot."""
        return None

    def slot_or_none(self, field: Field, value: Json) -> SlotValue:
        """The projection of a value that may have come before its field was known: what has another
        form is in no index.
        """
        try:
            return self.slot_value(field, value) if value is not None else None
        except UNREADABLE:
            return None

    def operand(self, field: Field, value: Json) -> SlotValue:
        """A query literal in the slot's domain: lenient where accept is strict (min, max,
        archived options play no role). Raises ValueFault.
        """
        return self.slot_value(field, self.accept(field, value))

    def members(self, field: Field, value: Json) -> list[str]:
        """Members of a set value for `record_link`; empty for scalars."""
        return []

    def search_text(self, field: Field, value: Json) -> str:
        """What full-text search finds of a canonical value."""
        return ""

    def from_slot(self, field: Field, slot: Decimal | str) -> Json:
        """A canonical value from an aggregated slot value (sum, min, max of `n`, `t`, `d`)."""
        return str(slot)

    def text(self, field: Field, value: Json, locale: str) -> str:
        """The display text of a canonical value in the reader's language."""
        return str(value)

    def cell(self, field: Field, value: Json) -> Cell:
        """The typed cell of an export; text of people never becomes a formula downstream."""
        return str(value)

    def mask(self, field: Field, value: Json) -> Json:
        """What a reader with mode `masked` gets instead of a canonical value."""
        return "•••"

    def json_schema(self, field: Field) -> dict[str, object]:
        """JSON Schema of the value in requests and answers."""
        return {"type": "string"}


def refuse_form() -> NoReturn:
    """Say that a value is not as values are stored."""
    raise ValueFault("not_canonical", "Expected the form in which such values are stored.")
