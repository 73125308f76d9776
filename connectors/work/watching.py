"""Sources by the clock: looked at when they are due, when somebody asks, and by this worker alone.

A source waits until the node says that this worker holds it. It stands still while people pause it,
and after permanent trouble until they say go on; it holds up no other one.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from connectors.sdk.retry import Trouble, retry
from connectors.sdk.wire import FileWish, SourceTold, SourceWish
from connectors.work.address import describe, hide
from connectors.work.lane import Lane
from connectors.work.looking import carry_out, look
from connectors.work.node import Node
from connectors.work.settings import Source
from connectors.work.standing import read_standing, write_standing
from connectors.work.told import tell

# The wall clock may be set anew: nothing is slept through at one go.
_NAP_S = 5.0
_random = random.SystemRandom()
Now = Callable[[], datetime]


def utc_now() -> datetime:
    """The present moment."""
    return datetime.now(UTC)


class Watched:
    """A source of this process. `news` is rung when the node should hear of something."""

    def __init__(
        self, source: Source, data: Path, news: asyncio.Event, *, now: Now = utc_now
    ) -> None:
        self.source, self.lane, self.news = source, Lane(), news
        self.standing = read_standing(data, source.key)
        self.wake = asyncio.Event()
        self._data, self._now = data, now
        self._wish: SourceWish | None = None
        self._held_until = 0.0
        self._is_looking = False
        self._files: list[FileWish] = []

    def tell(self) -> SourceTold:
        """How it stands, for the node."""
        s, source = self.standing, self.source
        place, address = describe(source.place)
        return SourceTold(
            key=source.key, connector=source.connector, name=source.name, place=place[:60],
            address=address[:300], schedule=source.schedule, is_looking=self._is_looking,
            is_stopped=s.is_stopped, last_look_at=s.last_look_at, last_good_at=s.last_good_at,
            last_file_at=s.last_file_at, next_look_at=None if s.is_stopped else s.next_look_at,
            failures=s.failures, code=s.code[:60], detail=s.detail[:300], looks=s.looks,
            files=s.files, bytes=s.bytes, faults=s.faults, heard_look=s.heard_look,
            heard_resume=s.heard_resume, ended=s.to_tell(),
        )  # fmt: skip

    def hear(self, wish: SourceWish, lease_s: int, told: SourceTold) -> None:
        """What the node wants, after it has heard `told`."""
        if wish.held_by and (self._wish is None or self._wish.held_by != wish.held_by):
            tell("source.held", source=self.source.key, by=wish.held_by)
        self._wish = wish
        self._held_until = time.monotonic() + lease_s if wish.is_yours else 0.0
        if wish.is_yours:
            # What others say of a source is not kept.
            self.standing.note_heard(told.ended)
            self._files = self.standing.new_wishes(wish)
            if self.standing.take_wish(wish, self._now()):
                self.wake.set()
        write_standing(self._data, self.source.key, self.standing)

    def may_look(self) -> bool:
        """Whether it is ours, and nobody has stopped it."""
        is_paused = self._wish is None or self._wish.is_paused
        is_held = time.monotonic() < self._held_until
        return is_held and not is_paused and not self.standing.is_stopped

    def wait_s(self) -> float:
        """Seconds until a look is due; 0 when it is."""
        due = self.standing.next_look_at
        if due is None:
            return 0.0
        return max(0.0, (due - self._now()).total_seconds())

    async def visit(self, node: Node) -> None:
        """Carry out what people want of its files, and look. How it went is kept."""
        self._is_looking = True
        trouble: Trouble | None = None
        try:
            await retry(lambda: self._visit(node), self.source.retry)
        except Trouble as error:
            trouble = Trouble(
                error.code, hide(self.source.place, error.detail), after_s=error.after_s,
                is_permanent=error.is_permanent,
            )  # fmt: skip
            tell("source.failed", source=self.source.key, code=error.code, detail=error.detail,
                 permanent=int(error.is_permanent))  # fmt: skip
        finally:
            self._is_looking = False
        schedule, spread = self.source.schedule, _random.random()
        self.standing.note_look(schedule, self._now(), trouble, spread=spread)
        write_standing(self._data, self.source.key, self.standing)
        self.news.set()

    async def _visit(self, node: Node) -> None:
        named = {"lane": self.lane, "standing": self.standing}
        while self._files:
            await carry_out(node, self.source, self._data, self._files[:1], **named)  # type: ignore[arg-type]
            self._files = self._files[1:]
        await look(node, self.source, self._data, **named)  # type: ignore[arg-type]


async def watch(node: Node, watched: Watched) -> None:
    """Look whenever it is due. Only a cancel ends it."""
    while True:
        watched.wake.clear()
        wait = watched.wait_s()
        if not wait and watched.may_look():
            await watched.visit(node)
            continue
        try:
            async with asyncio.timeout(min(wait, _NAP_S) or _NAP_S):
                await watched.wake.wait()
        except TimeoutError:
            continue


async def look_twice(node: Node, watched: Watched, *, settle_s: float) -> None:
    """Whatever its schedule says, so that what is new is seen twice; for a worker that then ends."""
    for turn in range(2):
        if watched.may_look():
            if turn:
                await asyncio.sleep(settle_s)
            await watched.visit(node)
