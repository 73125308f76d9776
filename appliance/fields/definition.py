"""What every field definition must fulfil, whatever its type."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.fields.base import DefinitionFault, FieldType, ValueFault
from appliance.kernel.kind import Field, Json, Policy

LOCALES = frozenset({"en", "ru", "uk"})
_LABEL_CHARS_MAX = 1_000
_NAME_CHARS_MAX = 40
# Types on which a merge policy has a meaning; the others are open to every type.
_POLICY_TYPES: dict[Policy, frozenset[str]] = {
    Policy.OR: frozenset({"yes_no"}),
    Policy.AND: frozenset({"yes_no"}),
    Policy.MAX: frozenset({"number", "integer", "money", "quantity", "date", "moment"}),
    Policy.MIN: frozenset({"number", "integer", "money", "quantity", "date", "moment"}),
    Policy.COUNTER: frozenset({"number", "integer", "money", "quantity"}),
    Policy.TEXT3: frozenset({"text", "long_text"}),
    Policy.SET: frozenset({"multi_choice", "references"}),
}


def check_common(
    type_: FieldType, field: Field, own: Sequence[DefinitionFault] = ()
) -> list[DefinitionFault]:
    """The type's `own` faults and those of any field: options known, marks possible, default good.

    The default is tried last and only on a definition without other faults, so that `accept`
    never meets bounds or options that cannot be read.
    """
    faults = [*own, *_check_marks(type_, field)]

    def fault(pointer: str, code: str, detail: str) -> None:
        faults.append(DefinitionFault(pointer, code, detail))

    for name in sorted(field.options.keys() - type_.options):
        known = ", ".join(sorted(type_.options)) or "none"
        token = name[:40].replace("~", "~0").replace("/", "~1")
        fault(f"/options/{token}", "option_unknown", f"A {type_.name} field knows: {known}.")
    policed = _POLICY_TYPES.get(field.policy)
    if policed is not None and type_.name not in policed:
        detail = f"The policy {field.policy} is for: {', '.join(sorted(policed))}."
        fault("/policy", "not_possible", detail)
    if field.group and type_.slot == "link":
        fault("/group", "not_possible", "A field with many values cannot be part of a merge group.")
    for pointer, labels in (("/labels", field.labels), ("/help", field.help)):
        if not are_labels(labels):
            fault(pointer, "labels_malformed", "Expected texts by language: en, ru, uk.")
    if field.default is not None and not faults:
        try:
            type_.accept(field, field.default)
        except ValueFault as bad:
            fault("/default", bad.code, bad.detail)
    return faults


def are_labels(value: Json | dict[str, str]) -> bool:
    """Whether a value is texts by the languages that are known here."""
    return (
        isinstance(value, dict)
        and value.keys() <= LOCALES
        and all(isinstance(v, str) and len(v) <= _LABEL_CHARS_MAX for v in value.values())
    )


def _check_marks(type_: FieldType, field: Field) -> list[DefinitionFault]:
    """Filterable, searchable, unique, min, max, pattern: only where the type has them."""
    name = type_.name
    marks = (
        ("/filterable", field.filterable and not type_.slot, "cannot be filtered or sorted"),
        ("/searchable", field.searchable and not type_.searchable, "is not searched"),
        (
            "/unique",
            field.unique and (type_.slot not in ("t", "n") or name == "yes_no"),
            "cannot be unique",
        ),
        ("/min", field.min is not None and not type_.bounded, "has no least value"),
        ("/max", field.max is not None and not type_.bounded, "has no greatest value"),
        ("/pattern", field.pattern is not None and not type_.patterned, "takes no pattern"),
    )
    return [
        DefinitionFault(pointer, "not_possible", f"A {name} field {what}.")
        for pointer, wrong, what in marks
        if wrong
    ]


def check_named(field: Field, option: str) -> list[DefinitionFault]:
    """An option that names another field of the kind."""
    named = field.options.get(option, "name")
    if isinstance(named, str) and 0 < len(named) <= _NAME_CHARS_MAX:
        return []
    return [DefinitionFault(f"/options/{option}", "wrong_type", "Expected the name of a field.")]
