"""What every field definition must fulfil, whatever its type."""

from __future__ import annotations

from appliance.fields.base import DefinitionFault, FieldType, ValueFault
from appliance.kernel.kind import Field, Policy

_LOCALES = frozenset({"en", "ru", "uk"})


def check_common(type_: FieldType, field: Field) -> list[DefinitionFault]:
    """Options known, marks possible for the type, default acceptable."""
    faults: list[DefinitionFault] = []

    def fault(pointer: str, code: str, detail: str) -> None:
        faults.append(DefinitionFault(pointer, code, detail))

    for name in sorted(field.options.keys() - type_.options):
        known = ", ".join(sorted(type_.options)) or "none"
        fault(f"/options/{name[:40]}", "option_unknown", f"A {type_.name} field knows: {known}.")
    if field.filterable and not type_.slot:
        fault("/filterable", "not_possible", f"A {type_.name} field cannot be filtered or sorted.")
    if field.searchable and not type_.searchable:
        fault("/searchable", "not_possible", f"A {type_.name} field is not searched.")
    if field.unique and type_.slot not in ("t", "n"):
        fault("/unique", "not_possible", f"A {type_.name} field cannot be unique.")
    if field.policy is Policy.SET and type_.slot != "link":
        fault("/policy", "not_possible", "The policy set is for fields with many values.")
    if field.group and type_.slot == "link":
        fault("/group", "not_possible", "A field with many values cannot be part of a merge group.")
    for pointer, labels in (("/labels", field.labels), ("/help", field.help)):
        if not labels.keys() <= _LOCALES or any(len(text) > 1_000 for text in labels.values()):
            fault(pointer, "labels_malformed", "Texts by language: en, ru, uk.")
    if field.default is not None:
        try:
            type_.accept(field, field.default)
        except ValueFault as bad:
            fault("/default", bad.code, bad.detail)
    return faults
