"""Choice and multi-choice: keys of declared options, with labels by language."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from appliance.base import limits
from appliance.fields.base import (
    Cell,
    DefinitionFault,
    FieldType,
    SlotValue,
    StoredCheck,
    ValueFault,
    refuse_form,
)
from appliance.fields.definition import are_labels, check_common
from appliance.kernel.kind import CONVERTED, Field, Json, Policy, label_of

_KEY = re.compile(r"[a-z0-9][a-z0-9_]{0,39}\Z")
_KNOWN = frozenset({"key", "labels", "archived", "color"})
_COLOR = re.compile(r"#?[A-Za-z0-9-]{1,40}\Z")
# Declared options by the identity of their list; the list is kept, so its identity stays taken.
_compiled: dict[int, tuple[list[Json], dict[str, dict[str, Json]]]] = {}
_COMPILED_MAX = 4_096
_MERGED_MAX = 10_000


class Choice(FieldType):
    """One of `options.choices`: [{key, labels, archived?}]. Archived ones stay readable."""

    name: ClassVar[str] = "choice"
    slot: ClassVar[str] = "t"
    operators: ClassVar[frozenset[str]] = frozenset({"is_null", "eq", "ne", "in", "not_in"})
    sortable: ClassVar[bool] = True
    searchable: ClassVar[bool] = True
    options: ClassVar[frozenset[str]] = frozenset({"choices", CONVERTED})
    aggregates: ClassVar[frozenset[str]] = frozenset({"count", "count_distinct"})

    def check_definition(self, field: Field) -> list[DefinitionFault]:
        faults = check_choices(field)
        if CONVERTED in field.options and field.options[CONVERTED] not in [*choices(field)]:
            detail = "Expected the key of one of the choices."
            faults.append(DefinitionFault(f"/options/{CONVERTED}", "choice_unknown", detail))
        return check_common(self, field, faults)

    def accept(self, field: Field, value: Json) -> Json:
        return self._one(field, value, live=True)

    def accept_held(self, field: Field, value: Json) -> Json:
        return self._one(field, value, live=False)

    def stored_check(self, field: Field) -> StoredCheck:
        # The kinds of the program itself have no other choices than it knows.
        known = choices(field) if field.system else None

        def check(value: Json) -> None:
            if not (isinstance(value, str) and _KEY.match(value)):
                raise ValueFault("choice_unknown", "Expected the key of a choice.")
            if known is not None and value not in known:
                raise ValueFault("choice_unknown", f"This program knows no choice {value}.")

        return check

    @staticmethod
    def _one(field: Field, value: Json, *, live: bool) -> str:
        found = choices(field).get(value) if isinstance(value, str) else None
        if found is None or (live and found.get("archived") is True):
            known = ", ".join(k for k, c in choices(field).items() if c.get("archived") is not True)
            raise ValueFault("choice_unknown", f"Expected one of: {known[:300]}.")
        return str(value)

    def slot_value(self, field: Field, value: Json) -> SlotValue:
        return str(value)

    def operand(self, field: Field, value: Json) -> SlotValue:
        return self._one(field, value, live=False)

    def search_text(self, field: Field, value: Json) -> str:
        labels = choices(field).get(str(value), {}).get("labels")
        return " ".join(map(str, labels.values())) if isinstance(labels, dict) else str(value)

    def text(self, field: Field, value: Json, locale: str) -> str:
        labels = choices(field).get(str(value), {}).get("labels")
        found = {k: str(v) for k, v in labels.items()} if isinstance(labels, dict) else {}
        return label_of(found, locale, str(value))

    def json_schema(self, field: Field) -> dict[str, object]:
        return {"type": "string", "enum": list(choices(field))}


class MultiChoice(Choice):
    """Any of the declared options: a set, merged member by member."""

    name: ClassVar[str] = "multi_choice"
    slot: ClassVar[str] = "link"
    operators: ClassVar[frozenset[str]] = frozenset({"is_null", "has_any", "has_all"})
    sortable: ClassVar[bool] = False
    policy: ClassVar[Policy] = Policy.SET
    aggregates: ClassVar[frozenset[str]] = frozenset({"count"})

    def accept(self, field: Field, value: Json) -> Json:
        return self._several(field, value, live=True)

    def accept_held(self, field: Field, value: Json) -> Json:
        return self._several(field, value, live=False)

    def stored_check(self, field: Field) -> StoredCheck:
        one = super().stored_check(field)

        def check(value: Json) -> None:
            check_set(value)
            for member in self.members(field, value):
                one(member)

        return check

    def _several(self, field: Field, value: Json, *, live: bool) -> Json:
        if not isinstance(value, list) or len(value) > limits.SET_MEMBERS_MAX:
            raise ValueFault("wrong_type", "Expected a list of options.")
        known = {self._one(field, v, live=live) for v in value}
        if not known:
            raise ValueFault("empty", "Expected at least one option; send null to clear the field.")
        return [*sorted(known)]

    def members(self, field: Field, value: Json) -> list[str]:
        return [str(v) for v in value] if isinstance(value, list) else []

    def slot_value(self, field: Field, value: Json) -> SlotValue:
        return None

    def search_text(self, field: Field, value: Json) -> str:
        return " ".join(
            super(MultiChoice, self).search_text(field, v) for v in self.members(field, value)
        )

    def text(self, field: Field, value: Json, locale: str) -> str:
        found = (
            super(MultiChoice, self).text(field, v, locale) for v in self.members(field, value)
        )
        return ", ".join(found)

    def cell(self, field: Field, value: Json) -> Cell:
        return ", ".join(self.members(field, value))

    def json_schema(self, field: Field) -> dict[str, object]:
        return {"type": "array", "items": super().json_schema(field), "uniqueItems": True}


def check_set(value: Json) -> None:
    """Refuse what is not stored as a set: texts, each once, in order. Merged ones grow beyond what
    one command may say.
    """
    if not isinstance(value, list) or not 0 < len(value) <= _MERGED_MAX:
        raise ValueFault("wrong_type", f"Expected a list of 1 to {_MERGED_MAX} members.")
    if not all(isinstance(member, str) for member in value):
        raise ValueFault("wrong_type", "Expected a list of texts.")
    if value != sorted({str(member) for member in value}):
        refuse_form()


def choices(field: Field) -> Mapping[str, dict[str, Json]]:
    """The declared options by key, in their order."""
    given = field.options.get("choices")
    if not isinstance(given, list):
        return {}
    kept = _compiled.get(id(given))
    if kept is not None and kept[0] is given:
        return kept[1]
    found = {str(c["key"]): c for c in given if isinstance(c, dict) and "key" in c}
    if len(_compiled) >= _COMPILED_MAX:
        _compiled.clear()
    _compiled[id(given)] = (given, found)
    return found


def check_choices(field: Field) -> list[DefinitionFault]:
    """Faults of `options.choices`, each entry by its place."""
    given = field.options.get("choices")
    if not isinstance(given, list) or not 0 < len(given) <= limits.IN_LIST_MAX:
        detail = f'Expected 1 to {limits.IN_LIST_MAX} entries like [{{"key": "new"}}].'
        return [DefinitionFault("/options/choices", "required", detail)]
    faults: list[DefinitionFault] = []
    seen: set[str] = set()
    for place, entry in enumerate(given):
        detail = _find_flaw(entry, seen)
        if detail:
            pointer = f"/options/choices/{place}"
            faults.append(DefinitionFault(pointer, "choice_malformed", detail))
    return faults


def _find_flaw(entry: Json, seen: set[str]) -> str:
    """What is wrong with one entry, or nothing; its key is added to those `seen`."""
    if not isinstance(entry, dict) or not entry.keys() <= _KNOWN:
        return "Expected {key, labels?, archived?, color?}."
    key, color = entry.get("key"), entry.get("color", "")
    if not (isinstance(key, str) and _KEY.match(key)):
        return "Expected a key of up to 40 of a-z, 0-9 and _."
    if key in seen:
        return f"The key {key} is there already."
    seen.add(key)
    if not are_labels(entry.get("labels", {})):
        return "Expected labels by language: en, ru, uk."
    if not isinstance(entry.get("archived", False), bool):
        return "Expected archived to be true or false."
    if color and not (isinstance(color, str) and _COLOR.match(color)):
        return "Expected color to be a name or a code like #3366cc."
    return ""
