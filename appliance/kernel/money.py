"""Decimal texts: how money and quantities are read, scaled to an index and written back.

Money never passes a binary float: a JSON float is refused, because what the sender meant is lost
already. Rounding is ROUND_HALF_UP where a rule asks for it; reading never rounds. A scaled value
is the integer value * 10^scale, below 10^18 so that it fits a bigint.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Context, Decimal
from functools import lru_cache

from babel.core import get_global
from babel.numbers import get_currency_precision

from appliance.base import limits

_TEXT = re.compile(r"(-?[0-9]{1,30})(?:\.([0-9]{1,12}))?\Z")
# Wider than any value that is read and any sum of them: nothing is rounded on the way.
_WIDE = Context(prec=60)
SLOT_SCALE = 4
SCALED_MAX = 10**limits.NUMBER_DIGITS_MAX - 1


def parse_decimal(value: object) -> Decimal | None:
    """A plain decimal text or an integer; anything else (a float, an exponent) is None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return Decimal(value) if abs(value) < 10**limits.NUMBER_DIGITS_MAX else None
    if isinstance(value, str) and _TEXT.match(value):
        return Decimal(value)
    return None


def split_decimal(text: str) -> tuple[str, str] | None:
    """Whole digits with their sign and fraction digits without trailing zeros.

    None when the text is not a plain decimal.
    """
    found = _TEXT.match(text)
    if found is None:
        return None
    whole, fraction = found.groups()
    return whole, fraction.rstrip("0") if fraction else ""


def format_scaled(scaled: int, scale: int) -> str:
    """The canonical text of a scaled value: exactly `scale` fraction digits, no minus zero."""
    if scale == 0:
        return str(scaled)
    digits = str(abs(scaled)).rjust(scale + 1, "0")
    return f"{'-' if scaled < 0 else ''}{digits[:-scale]}.{digits[-scale:]}"


@lru_cache(maxsize=4_096)
def scale_bound(text: str, scale: int, *, upper: bool) -> int:
    """A field's `min` or `max` as the last scaled value inside it."""
    mode = ROUND_FLOOR if upper else ROUND_CEILING
    return int(Decimal(text).scaleb(scale, _WIDE).to_integral_value(mode))


def format_decimal(value: Decimal, scale: int) -> str:
    """The canonical text with exactly `scale` fraction digits."""
    scaled = value.scaleb(scale, _WIDE).to_integral_value(ROUND_HALF_UP, _WIDE)
    return format_scaled(int(scaled), scale)


def to_slot(value: Decimal, scale: int) -> int | None:
    """The value as a bigint scaled by 10^scale; None when it does not fit."""
    scaled = int(value.scaleb(scale, _WIDE).to_integral_value(ROUND_HALF_UP, _WIDE))
    return scaled if -(2**63) <= scaled < 2**63 else None


def unscale(scaled: Decimal, scale: int) -> Decimal:
    """The value behind a scaled one, also a sum or an average of many."""
    return scaled.scaleb(-scale, _WIDE)


@lru_cache(maxsize=300)
def currency_digits(code: str) -> int:
    """Minor digits of an ISO 4217 currency."""
    return int(get_currency_precision(code))


@lru_cache(maxsize=1)
def currencies() -> frozenset[str]:
    """The currency codes known to CLDR."""
    return frozenset(str(code) for code in get_global("all_currencies"))
