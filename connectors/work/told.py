"""What a worker says of itself: one JSON line per event on stderr, no file content, no secret."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import msgspec


def tell(event: str, **more: str | int | float) -> None:
    """An event with its facts, texts cut short."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    facts = {k: v[:300] if isinstance(v, str) else v for k, v in more.items()}
    line = msgspec.json.encode({"at": at, "event": event, **facts})
    sys.stderr.write(line.decode() + "\n")
    sys.stderr.flush()
