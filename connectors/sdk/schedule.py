"""When a source is looked at, and by when a file of it is expected: times of day where it is.

Pure: moments come in and go out aware, in UTC. A worker asks for its next look, the node whether a
file is overdue, both by the same reckoning.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

Clock = Annotated[str, msgspec.Meta(pattern="^([01][0-9]|2[0-3]):[0-5][0-9]$")]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
# Back over any weekend, and on to the next of the one day that is named.
_DAYS = 8


class Schedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`at`: times of day in `zone`; without any, every `every_s` seconds. `weekdays`: those alone.
    `jitter_s`: looks are spread over so many seconds. `expected_by`: without a new file that day
    by this time the source is overdue.
    """

    every_s: Annotated[float, msgspec.Meta(ge=1, le=31 * 86_400)] = 60.0
    at: Annotated[tuple[Clock, ...], msgspec.Meta(max_length=100)] = ()
    weekdays: Annotated[tuple[Weekday, ...], msgspec.Meta(max_length=7)] = ()
    zone: Annotated[str, msgspec.Meta(max_length=60)] = "UTC"
    jitter_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] | None = None
    expected_by: Clock | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for a zone that nobody knows."""
        _zone(self.zone)


def next_look(schedule: Schedule, last: datetime | None) -> datetime | None:
    """When to look after the look at `last`; None for at once: it was never looked at."""
    if last is None:
        return None
    if schedule.at:
        local = last.astimezone(_zone(schedule.zone))
        found = (
            moment
            for day in range(_DAYS)
            for moment in _times_of(schedule, local + timedelta(days=day))
            if moment > last
        )
        return next(found)
    due = last + timedelta(seconds=schedule.every_s)
    return due if _is_day(schedule, due) else _next_day(schedule, due)


def spread_s(schedule: Schedule) -> float:
    """Over how many seconds looks are spread."""
    if schedule.jitter_s is not None:
        return schedule.jitter_s
    return 30.0 if schedule.at else min(30.0, schedule.every_s / 10)


def overdue_since(
    schedule: Schedule, now: datetime, *, last_file: datetime | None, known_since: datetime
) -> datetime | None:
    """Since when a file is awaited in vain; None when none is expected, or it has come.

    A file of the day on which it was expected is in time for the node, also when it came late; one
    that is awaited from before the source was known is not asked for.
    """
    if schedule.expected_by is None:
        return None
    zone = _zone(schedule.zone)
    local = now.astimezone(zone)
    for back in range(_DAYS):
        day = local - timedelta(days=back)
        due = _moment(schedule.expected_by, day, zone)
        if due > now or not _is_day(schedule, due):
            continue
        has_come = last_file is not None and last_file >= _moment("00:00", day, zone)
        return None if has_come or known_since > due else due
    return None


def _times_of(schedule: Schedule, day: datetime) -> Iterator[datetime]:
    zone = _zone(schedule.zone)
    for clock in sorted(schedule.at):
        moment = _moment(clock, day, zone)
        if not schedule.weekdays or WEEKDAYS[day.weekday()] in schedule.weekdays:
            yield moment


def _next_day(schedule: Schedule, moment: datetime) -> datetime:
    zone = _zone(schedule.zone)
    local = moment.astimezone(zone)
    starts = (_moment("00:00", local + timedelta(days=day), zone) for day in range(1, _DAYS))
    return next(start for start in starts if _is_day(schedule, start))


def _is_day(schedule: Schedule, moment: datetime) -> bool:
    day = moment.astimezone(_zone(schedule.zone)).weekday()
    return not schedule.weekdays or WEEKDAYS[day] in schedule.weekdays


def _moment(clock: str, day: datetime, zone: ZoneInfo) -> datetime:
    """A time of day; one that a change of the clocks leaves out is that much later."""
    hours, minutes = clock.split(":")
    return datetime.combine(day.date(), time(int(hours), int(minutes)), zone).astimezone(UTC)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"there is no time zone {name!r}; expected one like Europe/Kyiv") from None
