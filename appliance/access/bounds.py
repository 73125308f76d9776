"""Bounds of lending rights out: lengths and spans as faults with a place, and who never lends."""

from __future__ import annotations

from appliance.base.errors import FieldFault, Forbidden, Invalid
from appliance.kernel.context import Ctx

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


def check_not_staff(ctx: Ctx) -> None:
    """Platform staff make no way in that would outlast the grant they came by. Raises Forbidden."""
    if ctx.staff_grant is not None:
        raise Forbidden(
            "Platform staff let nobody in: ask somebody of the tenant to do this.",
            code="staff.lends_nothing",
        )
