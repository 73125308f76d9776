"""Relative dates as half-open periods of days, from one moment and one time zone."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from appliance.base import limits
from appliance.kernel.kind import Json

_DAYS = re.compile(r"(last|next)_([0-9]{1,5})_days\Z")
NAMES = (
    "today", "yesterday", "tomorrow", "this_week", "last_week", "next_week", "this_month",
    "last_month", "next_month", "this_quarter", "last_quarter", "next_quarter", "this_year",
    "last_year", "next_year",
)  # fmt: skip


def period_days(value: Json, asof: datetime, tz: str) -> tuple[date, date] | None:
    """First day and the day after the last; None when `value` names no period.

    `last_30_days` ends with today, `next_30_days` begins with it. Weeks begin on Monday.
    """
    today = asof.astimezone(ZoneInfo(tz)).date()
    if isinstance(value, dict) and len(value) == 1:
        ((key, count),) = value.items()
        if (
            key in ("last_days", "next_days")
            and isinstance(count, int)
            and not isinstance(count, bool)
        ):
            return _around(today, key[:4], count)
        return None
    if not isinstance(value, str):
        return None
    if found := _DAYS.match(value):
        return _around(today, found.group(1), int(found.group(2)))
    if value not in NAMES:
        return None
    if value in ("today", "yesterday", "tomorrow"):
        first = today + timedelta(days={"today": 0, "yesterday": -1, "tomorrow": 1}[value])
        return first, first + timedelta(days=1)
    shift, _, unit = value.partition("_")
    step = {"this": 0, "last": -1, "next": 1}[shift]
    if unit == "week":
        first = today - timedelta(days=today.weekday()) + timedelta(weeks=step)
        return first, first + timedelta(weeks=1)
    months = {"month": 1, "quarter": 3, "year": 12}[unit]
    first = _month(today, (today.month - 1) // months * months - (today.month - 1) + months * step)
    return first, _month(first, months)


def _around(today: date, side: str, count: int) -> tuple[date, date] | None:
    if not 0 < count <= limits.RELATIVE_DAYS_MAX:
        return None
    if side == "last":
        return today - timedelta(days=count - 1), today + timedelta(days=1)
    return today, today + timedelta(days=count)


def _month(day: date, shift: int) -> date:
    """The first day of the month `shift` months away."""
    months = day.year * 12 + day.month - 1 + shift
    return date(months // 12, months % 12 + 1, 1)


def day_start(day: date, tz: str | None) -> datetime:
    """Midnight of a day: of the zone for moments, of UTC for plain dates."""
    zone = ZoneInfo(tz) if tz else UTC
    return datetime.combine(day, time(), zone).astimezone(UTC)
