"""Decimal texts: how money and quantities are read, scaled to an index and written back.

Money never passes a binary float: a JSON float is refused, because what the sender meant is lost
already. Rounding is ROUND_HALF_UP where a rule asks for it; reading never rounds.
"""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache

from babel.core import get_global
from babel.numbers import get_currency_precision

from appliance.base import limits

_TEXT = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,12})?\Z", re.ASCII)
SLOT_SCALE = 4


def parse_decimal(value: object) -> Decimal | None:
    """A plain decimal text or an integer; anything else (a float, an exponent) is None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return Decimal(value) if abs(value) < 10**limits.NUMBER_DIGITS_MAX else None
    if isinstance(value, str) and _TEXT.match(value):
        return Decimal(value)
    return None


def fits(value: Decimal, scale: int) -> bool:
    """Whether a value has at most `scale` fraction digits, trailing zeros apart."""
    exponent = value.normalize().as_tuple().exponent
    return isinstance(exponent, int) and -exponent <= scale


def format_decimal(value: Decimal, scale: int) -> str:
    """The canonical text with exactly `scale` fraction digits."""
    found = value.quantize(Decimal(1).scaleb(-scale), rounding=ROUND_HALF_UP)
    return f"{abs(found) if found == 0 else found:f}"


def to_slot(value: Decimal, scale: int) -> int | None:
    """The value as a bigint scaled by 10^scale; None when it does not fit."""
    scaled = int(value.scaleb(scale).to_integral_value(ROUND_HALF_UP))
    return scaled if -(2**63) <= scaled < 2**63 else None


@lru_cache(maxsize=300)
def currency_digits(code: str) -> int:
    """Minor digits of an ISO 4217 currency."""
    return int(get_currency_precision(code))


@lru_cache(maxsize=1)
def currencies() -> frozenset[str]:
    """The currency codes known to CLDR."""
    return frozenset(str(code) for code in get_global("all_currencies"))
