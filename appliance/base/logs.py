"""JSON lines with allow-listed keys only: what is not on the list is not logged.

Promises: no secret and no personal data reaches a sink, because values are ids, counts, codes
and durations under keys that are declared here; control, bidi and line-separator characters
are escaped; every line is one line. `bind` adds the request's ids to every line of a task.
A line that cannot be written costs no work: it is counted, and the log says so when it can.
"""

from __future__ import annotations

import contextvars
import logging
import re
import sys
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any, TextIO

import msgspec
import structlog

ALLOWED = frozenset(
    """
    action actor attempt auth batch bytes cause change_set code connector cost count dependency
    door duration_ms engine error_type event field field_count file_id free_mb from_state group
    health host_port incident job job_kind kind kinds level limit line lost method name node
    outcome origin path pid placement port profile queue reason record records request_id role
    route rows rss_mb run schema_rev seq series service session signal source state status
    stream tenant time to_state topic tx unit units uptime_s user_agent_hash version waited_ms
    worker
    """.split()
)
VALUE_CHARS_MAX = 1_024
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

_bound: contextvars.ContextVar[dict[str, object] | None] = contextvars.ContextVar(
    "log_bound", default=None
)


def bind(**keys: object) -> contextvars.Token[dict[str, object] | None]:
    """Add keys (request_id, tenant, …) to every line logged by this task."""
    return _bound.set({**(_bound.get() or {}), **keys})


def unbind(token: contextvars.Token[dict[str, object] | None]) -> None:
    """Forget what the matching `bind` added."""
    _bound.reset(token)


def sanitize(value: object) -> object:
    """Numbers pass; all else becomes bounded text without characters that can forge a line."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = str(value)[:VALUE_CHARS_MAX]
    return _UNSAFE.sub(lambda m: f"\\u{ord(m.group()):04x}", text)


def _allow(_: Any, __: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    lost = sorted(k for k in entry if k not in ALLOWED)
    kept: dict[str, Any] = {k: sanitize(v) for k, v in entry.items() if k in ALLOWED}
    if lost:
        kept["lost"] = ",".join(lost)
    return kept


def _render(_: Any, __: str, entry: MutableMapping[str, Any]) -> str:
    return msgspec.json.encode(entry).decode()


def configure(stream: TextIO | None = None, *, level: str = "info") -> None:
    """Send every line, ours and the libraries', to `stream` (default stderr)."""
    sink = stream or sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            _allow,
            _render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sink),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_LibraryHandler()], level=logging.WARNING, force=True)


@dataclass(slots=True)
class _Lost:
    """Lines that were not written: since the last notice, and in all."""

    waiting: int = 0
    total: int = 0


_lost = _Lost()


class _LibraryHandler(logging.Handler):
    """Library lines keep their place and level; their text may hold anything, so it is dropped."""

    def emit(self, record: logging.LogRecord) -> None:
        event(
            "library.line_logged",
            level=record.levelname.lower(),
            source=record.name,
            line=record.lineno,
            error_type=record.exc_info[0].__name__
            if record.exc_info and record.exc_info[0]
            else None,
        )


def event(name: str, *, level: str = "info", **keys: object) -> None:
    """One line: a static `area.noun_verbed` name and allow-listed keys.

    Info: a fact an operator may count. Warning: look this week. Error: someone is paged.
    """
    clean = {k: v for k, v in keys.items() if v is not None}
    if _write(level, name, {**(_bound.get() or {}), **clean}):
        if waiting := _lost.waiting:
            # Said once the disk has room again, so that nobody takes the gap for quiet.
            _lost.waiting = 0
            if not _write("warning", "log.lines_lost", {"count": waiting}):
                _lost.waiting = waiting
    else:
        _lost.waiting += 1
        _lost.total += 1


def lost_lines() -> int:
    """How many lines of this process could not be written since it started."""
    return _lost.total


def _write(level: str, name: str, keys: dict[str, object]) -> bool:
    """False when the sink takes nothing: a full disk must not stop what the line tells of."""
    try:
        getattr(structlog.get_logger(), level)(name, **keys)
    except (OSError, ValueError):
        return False
    return True
