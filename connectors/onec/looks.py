"""One look at a base: which questions, and what of the answers is news.

Full: everything; what is absent is gone. Sweep: ids and versions of everything, and what has
changed whole. Window: documents of some days, prices of some days, balances. Catalogues have no
date of a change, so they are told by sweeps alone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

import msgspec

from connectors.formats.captured import Head, Page
from connectors.onec.client import Base
from connectors.onec.memory import Memory
from connectors.onec.published import check_published
from connectors.onec.sweep import Seen, Sweep, read_row
from connectors.systems.onec_odata.look import GONE, LOOK, PROFILE, SYSTEM, Look
from connectors.systems.onec_odata.profile import DOCUMENTS, LOOKUPS, REGISTERS, Map, Profile

# More changed objects than this are asked for by pages, not by their ids.
CHANGED_MAX = 2_000
_KEYS = ("Ref_Key", "DataVersion")
_encode = msgspec.json.encode
_Days = Annotated[int, msgspec.Meta(ge=1, le=3_660)]


class Windows(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far a look looks back, and how often it looks at everything. `days`: documents and
    prices of each look; `documents_days`: documents of a sweep and of a full look.
    """

    days: _Days = 7
    documents_days: _Days = 365
    sweep_every_s: Annotated[int, msgspec.Meta(ge=1)] = 86_400
    full_every_s: Annotated[int, msgspec.Meta(ge=3_600)] = 7 * 86_400


class Looks:
    """The Pages of transports.capture. `now`: seconds since 1970."""

    def __init__(
        self, base: Base, memory: Memory, profile: Profile, *, name: str,
        left_out: tuple[str, ...] = (), windows: Windows | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._base, self._memory = base, memory
        self._profile = profile.without(left_out)
        self._left_out, self._windows, self._now = left_out, windows or Windows(), now
        self._head = Head(SYSTEM, {"base": name, "profile": profile.key})
        self._walk: Iterator[Page] | None = None
        self._waiting: list[Page] = []
        self._whole: list[str] = []
        self._restless: list[str] = []
        self._own = 0
        self._has_news = False

    @property
    def head(self) -> Head:
        """See transports.capture.Pages."""
        return self._head

    def has_news(self) -> bool:
        """Begin a look, as far as the first row that is news. Raises Trouble."""
        self._memory.begin()
        self._whole, self._restless, self._own = [], [], 0
        self._has_news = False
        self._walk = self._pages()
        self._waiting = []
        for page in self._walk:
            self._waiting.append(page)
            if self._has_news:
                break
        return self._has_news

    def ask(self) -> Iterator[Page]:
        """See transports.capture.Pages; a second time is a look of its own."""
        if self._walk is None:
            self.has_news()
        walk, self._walk = self._walk, None
        yield from self._waiting
        yield from walk or ()

    def marks(self) -> dict[str, str]:
        """The look was handed over: only now is it remembered."""
        self._memory.keep()
        return {}

    def close(self) -> None:
        """See transports.capture.Pages."""
        with contextlib.suppress(Exception):
            self._memory.close()
        self._base.close()

    def _pages(self) -> Iterator[Page]:
        mode = self._mode()
        if mode == "full":
            check_published(self._base, self._profile)
        yield Page(PROFILE, msgspec.Raw(_encode(self._profile)))
        for entity, map_ in self._profile.entity.items():
            yield from self._tell(mode, entity, map_)
        self._note(mode)
        look = Look(
            mode=mode, whole=tuple(self._whole), left_out=self._left_out,
            restless=tuple(self._restless), own=self._own,
        )  # fmt: skip
        yield Page(LOOK, msgspec.Raw(_encode(look)))

    def _mode(self) -> str:
        """What is due. A row that vanished in a sweep makes the next look a full one."""
        windows, now, memory = self._windows, self._now(), self._memory
        asked_by = _encode(self._profile).decode()
        full, swept = (float(memory.mark(n) or 0) for n in ("full", "sweep"))
        # With other names or other entities nothing is known of what was told.
        if not full or now - full >= windows.full_every_s or memory.mark("profile") != asked_by:
            return "full"
        if memory.mark("gone"):
            return "full"
        return "sweep" if now - swept >= windows.sweep_every_s else "window"

    def _note(self, mode: str) -> None:
        now, windows = self._now(), self._windows
        if mode == "full":
            # Of a base that was not at rest nothing is known to be gone: that is tried again sooner.
            sooner = windows.full_every_s - windows.sweep_every_s if self._restless else 0
            self._memory.set_mark("full", str(now - max(0, sooner)))
            self._memory.set_mark("gone", "")
            self._memory.set_mark("profile", _encode(self._profile).decode())
        if mode != "window":
            self._memory.set_mark("sweep", str(now))

    def _tell(self, mode: str, entity: str, map_: Map) -> Iterator[Page]:
        if entity in REGISTERS:
            yield from self._register(mode, entity, map_)
        elif entity in DOCUMENTS:
            yield from self._documents(mode, entity, map_)
        elif mode == "full":
            yield from self._all(entity, map_)
        else:
            if mode == "sweep":
                yield from self._changed(entity, map_)
            # What others are read by is told with them, whether it has changed or not.
            yield from _as_pages(entity, self._kept(entity), map_.page)

    def _kept(self, entity: str) -> list[bytes]:
        found = []
        for raw in self._memory.kept(entity):
            row = read_row(msgspec.Raw(raw), self._profile.entity[entity])
            if not self._memory.was_met(f"{entity}:told", row.key):
                found.append(raw)
        return found

    def _all(self, entity: str, map_: Map) -> Iterator[Page]:
        """Everything of a catalogue."""
        sweep = Sweep(self._base, self._memory, entity, map_)
        for rows in sweep.rows():
            yield self._page(entity, map_, rows)
        if sweep.is_quiet:
            self._whole.append(entity)
            self._memory.forget(entity, self._memory.vanished(entity, sweep.turn))
        else:
            self._restless.append(entity)

    def _changed(self, entity: str, map_: Map) -> Iterator[Page]:
        """What of a catalogue has another version than was told."""
        sweep = Sweep(self._base, self._memory, entity, map_, select=_KEYS)
        changed = []
        for rows in sweep.rows():
            changed += [r.key for r in rows if self._memory.version(entity, r.key) != r.version]
        if not sweep.is_quiet:
            self._restless.append(entity)
        elif self._memory.vanished(entity, sweep.turn):
            self._memory.set_mark("gone", "yes")
        if len(changed) > CHANGED_MAX:
            yield from self._changed_by_pages(entity, map_)
            return
        for raws in self._base.batches(map_.path, map_.properties, changed):
            if raws:
                yield self._page(entity, map_, [read_row(raw, map_) for raw in raws])

    def _changed_by_pages(self, entity: str, map_: Map) -> Iterator[Page]:
        own = f"{entity}:pages"
        for rows in Sweep(self._base, self._memory, own, map_).rows():
            news = [r for r in rows if self._memory.version(entity, r.key) != r.version]
            if news:
                yield self._page(entity, map_, news)

    def _documents(self, mode: str, entity: str, map_: Map) -> Iterator[Page]:
        """Documents of some days that have another version than was told."""
        windows = self._windows
        days = windows.days if mode == "window" else windows.documents_days
        date = map_.fields.get("date", "Date")
        since = f"{date} ge datetime'{self._since(days)}'"
        for rows in Sweep(self._base, self._memory, entity, map_, filter_=since).rows():
            self._own += sum(is_own(r.key) for r in rows)
            news = [
                r for r in rows
                if not is_own(r.key)
                and (mode == "full" or self._memory.version(entity, r.key) != r.version)
            ]  # fmt: skip
            if news:
                yield self._page(entity, map_, news)

    def _register(self, mode: str, entity: str, map_: Map) -> Iterator[Page]:
        """Entries that differ from what was told; balances that 1C has no more are told as gone."""
        filter_ = ""
        if mode == "window" and entity == "price":
            filter_ = f"Period ge datetime'{self._since(self._windows.days)}'"
        sweep = Sweep(self._base, self._memory, entity, map_, filter_=filter_)
        for rows in sweep.rows():
            news = [
                r for r in rows
                if mode == "full" or self._memory.version(entity, r.key) != r.version
            ]  # fmt: skip
            if news:
                yield self._page(entity, map_, news)
        if not sweep.is_quiet:
            self._restless.append(entity)
        elif not filter_:
            gone = self._memory.vanished(entity, sweep.turn)
            self._memory.forget(entity, gone)
            # A balance of nothing has no row; a price that is taken back stays what it was.
            if entity == "stock" and gone:
                told = [_encode(dict(zip(map_.keys, k.split("|"), strict=True))) for k in gone]
                self._has_news = True
                yield from _as_pages(entity + GONE, told, map_.page)

    def _page(self, entity: str, map_: Map, rows: Sequence[Seen]) -> Page:
        """Rows that are told now; what others are read by is kept whole."""
        self._has_news = True
        for row in rows:
            kept = bytes(row.raw) if _is_kept(self._profile, entity, map_, row) else None
            self._memory.see(entity, row.key, row.version, kept)
            self._memory.meet(f"{entity}:told", row.key, 1)
        return next(_as_pages(entity, [bytes(r.raw) for r in rows], len(rows)))

    def _since(self, days: int) -> str:
        # 1C counts in the local time of its server: a day more covers every zone.
        day = datetime.fromtimestamp(self._now(), UTC) - timedelta(days=days + 1)
        return f"{day:%Y-%m-%d}T00:00:00"


def is_own(key: str) -> bool:
    """Whether an id was given by a node: those are of version 7, 1C makes others."""
    try:
        return UUID(key).version == 7
    except ValueError:
        return False


def _is_kept(profile: Profile, entity: str, map_: Map, row: Seen) -> bool:
    if entity in LOOKUPS:
        return True
    sort = str(row.held.get(map_.fields.get("owner_type", "")) or "").rpartition(".")[2]
    product = profile.entity.get("product")
    # Of a kind of product: its variants are made where an entry names them.
    return entity == "variant" and bool(sort) and product is not None and sort != product.object


def _as_pages(entity: str, raws: Sequence[bytes], most: int) -> Iterator[Page]:
    for start in range(0, len(raws), max(1, most)):
        body = b'{"value":[' + b",".join(raws[start : start + most]) + b"]}"
        yield Page(entity, msgspec.Raw(body))
