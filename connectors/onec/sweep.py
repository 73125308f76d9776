"""All rows of an object, page by page, while people work in the base.

1C has no cursor: a comparison of references is refused, and sorting by one sorts by what people see
of it, so a row that is renamed moves. A pass over the pages is believed when it was quiet: the same
count on every page, and no row twice. A row that has moved past us would have pushed another one
into our way again. A pass that was not quiet is made again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from connectors.onec.client import Base, Feed
from connectors.onec.memory import Memory
from connectors.sdk.retry import Trouble
from connectors.systems.onec_odata.profile import Map

TURNS_MAX = 3
_PAGE_MIN = 10
_decode_row = msgspec.json.Decoder(dict[str, Any]).decode


class Seen(msgspec.Struct, frozen=True):
    """A row as it came, and what tells it apart and says that it has changed."""

    key: str
    version: str
    raw: msgspec.Raw
    held: dict[str, Any]


class Sweep:
    """One object, swept. `turn`: the last pass; `is_quiet`: whether all of it was seen."""

    def __init__(
        self, base: Base, memory: Memory, entity: str, map_: Map, *,
        select: tuple[str, ...] = (), filter_: str = "",
    ) -> None:  # fmt: skip
        self._base, self._memory, self._entity, self._map = base, memory, entity, map_
        self._select = select or map_.properties
        self._filter = " and ".join(f for f in (map_.filter, filter_) if f)
        self._order = ",".join(map_.keys or ("Ref_Key",)) if map_.is_sorted else ""
        self._page = map_.page
        self.turn, self.is_quiet = 0, False

    def rows(self) -> Iterator[list[Seen]]:
        """Rows, each once, however often it is met. Raises Trouble."""
        for self.turn in range(1, TURNS_MAX + 1):
            counts: set[int | None] = set()
            came = different = at = 0
            while True:
                feed = self._ask(at)
                total = count_of(feed)
                counts.add(total)
                fresh = []
                for row in (read_row(raw, self._map) for raw in feed.value):
                    is_known = self._memory.was_met(self._entity, row.key)
                    different += self._memory.meet(self._entity, row.key, self.turn)
                    if not is_known:
                        fresh.append(row)
                came += len(feed.value)
                if fresh:
                    yield fresh
                at += len(feed.value)
                is_short = total is None and len(feed.value) < self._page
                if not feed.value or is_short or (total is not None and at >= total):
                    break
            self.is_quiet = len(counts) == 1 and came == different
            if self.is_quiet:
                return

    def _ask(self, at: int) -> Feed:
        """One page, smaller when 1C's rows are too large for an answer."""
        while True:
            try:
                return self._base.rows(
                    self._map.path, self._select, filter_=self._filter, order=self._order,
                    top=self._page, skip=at,
                )  # fmt: skip
            except Trouble as trouble:
                if trouble.code != "file-too-large" or self._page <= _PAGE_MIN:
                    raise
                self._page = max(_PAGE_MIN, self._page // 4)


def read_row(raw: msgspec.Raw, map_: Map) -> Seen:
    """What tells a row apart. Raises Trouble for what is none."""
    try:
        held = _decode_row(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Trouble("answer-unknown", f"{map_.object}: {error}"[:300], is_permanent=True) from None  # fmt: skip
    if not map_.keys:
        key, version = held.get("Ref_Key"), held.get("DataVersion")
        if not isinstance(key, str) or not isinstance(version, str):
            text = f"{map_.object}: a row without Ref_Key or DataVersion"
            raise Trouble("answer-unknown", text, is_permanent=True)
        return Seen(key, version, raw, held)
    key = "|".join(str(held.get(name) or "") for name in map_.keys)
    # An entry of a register has no version: what is told of it is.
    told = sorted({*map_.fields.values()} - {*map_.keys})
    return Seen(key, "|".join(str(held.get(name)) for name in told), raw, held)


def count_of(feed: Feed) -> int | None:
    """How many rows there are in all, where 1C says so. Raises Trouble."""
    try:
        return int(feed.count) if feed.count is not None else None
    except ValueError:
        raise Trouble("answer-unknown", "the count of rows is no number", is_permanent=True) from None  # fmt: skip
