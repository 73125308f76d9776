"""Record numbers for people: `DEAL-000123`, never a key, unique by series and node prefix.

A series pattern is text with `{n:6}` (the counter, zero-padded), `{node}` (the prefix of the
issuing node and a hyphen, empty on a solo node), `{yyyy}` and `{mm}` (branch time; the counter
restarts with each period that the pattern names). Two branches that number offline cannot
collide, because their prefixes differ (mission C7).
"""

from __future__ import annotations

import re
from datetime import datetime
from zoneinfo import ZoneInfo

_COUNTER = re.compile(r"\{n(?::\d)?\}")
_TOKEN = re.compile(r"\{(n(?::(\d))?|node|yyyy|mm)\}")


def series_pattern(key: str, series: str | None) -> str:
    """The pattern of a kind: its own, or its key in capitals. The node stands in it whether it was
    thought of or not: two branches count by themselves.
    """
    if series and _TOKEN.search(series):
        return series if "{node}" in series else _COUNTER.sub(r"{node}\g<0>", series, count=1)
    return f"{series or key.upper().replace('_', '-')}-{{node}}{{n:6}}"


def is_pattern(series: str) -> bool:
    """Whether a series text is acceptable: short, printable, with at most one counter."""
    counters = len(re.findall(r"\{n(?::\d)?\}", series))
    left = _TOKEN.sub("", series)
    return len(series) <= 40 and counters <= 1 and "{" not in left and left.isprintable()


def period_of(pattern: str, at: datetime, tz: str) -> str:
    """The counter's period: empty, a year or a month."""
    local = at.astimezone(ZoneInfo(tz))
    if "{mm}" in pattern:
        return f"{local:%Y-%m}"
    return f"{local:%Y}" if "{yyyy}" in pattern else ""


def format_number(pattern: str, n: int, node_prefix: str, at: datetime, tz: str) -> str:
    """The printed number for counter value `n`."""
    local = at.astimezone(ZoneInfo(tz))

    def fill(token: re.Match[str]) -> str:
        match token.group(1)[0]:
            case "y":
                return f"{local:%Y}"
            case "m":
                return f"{local:%m}"
            case _ if token.group(1) == "node":
                return f"{node_prefix}-" if node_prefix else ""
            case _:
                return str(n).zfill(int(token.group(2) or 1))

    return _TOKEN.sub(fill, pattern)
