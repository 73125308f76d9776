"""Bounds of what people type when they lend rights out: lengths and spans, as faults with a place."""

from __future__ import annotations

from appliance.base.errors import FieldFault, Invalid

TEXT_MAX = 200


def check_range(value: int, most: int, pointer: str) -> None:
    """A span of 1 to `most`. Raises Invalid."""
    if not 0 < value <= most:
        detail = f"Expected 1 to {most}."
        raise Invalid(detail, faults=(FieldFault(pointer, "out_of_range", detail),))


def check_text(value: str, pointer: str) -> None:
    """A text that says something. Raises Invalid."""
    if not 0 < len(value.strip()) <= TEXT_MAX:
        detail = f"Expected 1 to {TEXT_MAX} characters."
        raise Invalid(detail, faults=(FieldFault(pointer, "out_of_range", detail),))
