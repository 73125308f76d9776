"""One class per field type; adding a type is one class and one line here."""

from collections.abc import Mapping

from appliance.fields.base import FieldType
from appliance.fields.choices import Choice, MultiChoice
from appliance.fields.numbers import Integer, Money, Number, Quantity, YesNo
from appliance.fields.others import JsonValue, Rollup
from appliance.fields.references import File, Reference, References
from appliance.fields.texts import Email, LongText, Phone, Text, Url
from appliance.fields.times import Date, Moment

TYPES: Mapping[str, FieldType] = {
    cls.name: cls()
    for cls in (
        Text, LongText, Email, Phone, Url,
        Number, Integer, Money, Quantity, YesNo,
        Date, Moment, Choice, MultiChoice,
        Reference, References, File, JsonValue, Rollup,
    )
}  # fmt: skip


def type_of(name: str) -> FieldType:
    """The type by its name. KeyError: the schema was checked when it was written."""
    return TYPES[name]
