"""What asking every marketplace has in common: windows of time, lists that shift, cursors.

A window begins where the last look ended, less an overlap, because orders are written late and
clocks differ; a list that is paged by position is gone through again until a pass shows nothing
new. What comes twice is collapsed where it is read.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Protocol, TypeVar

import msgspec

from connectors.formats.captured import Head, Page
from connectors.sdk.retry import Trouble
from connectors.transports.api import Answer, Question, read_json
from connectors.transports.web import read_pairs

PAGES_MAX = 20_000
PASSES = 3
_STALE_MAX = 5
T = TypeVar("T")


class Shop(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the place of every marketplace says.

    `secrets_file`: lines `name = value`, read by its owner alone. `what` is asked for. `base`
    stands for another address than the system's own. `first_days`: how far the first look goes
    back; `overlap_h`: how far each next one goes back behind the last.
    """

    secrets_file: str
    what: tuple[str, ...] = ("orders",)
    base: str = ""
    allowed: tuple[str, ...] = ()
    ca_file: str = ""
    first_days: Annotated[float, msgspec.Meta(gt=0, le=365)] = 30.0
    overlap_h: Annotated[float, msgspec.Meta(ge=0, le=720)] = 48.0


def read_secrets(shop: Shop, *names: str) -> tuple[str, ...]:
    """Secrets by name from the shop's file. Raises Trouble saying what to do."""
    path = Path(shop.secrets_file)
    try:
        mode = path.stat().st_mode
        found = read_pairs(path, "=")
    except (OSError, UnicodeDecodeError) as error:
        text = f"the file of secrets {path.name} cannot be read: {error}"
        raise Trouble("secret-missing", text[:200], is_permanent=True) from None
    if stat.S_IMODE(mode) & 0o077:
        text = f"{path.name} can be read by others; chmod 600 it"
        raise Trouble("secret-open", text, is_permanent=True)
    if missing := [name for name in names if not found.get(name)]:
        text = f"{path.name} lacks the line `{missing[0]} = …`"
        raise Trouble("secret-missing", text, is_permanent=True)
    for value in found.values():
        if not value.isascii() or not value.isprintable():
            raise Trouble("secret-missing", f"{path.name} holds more than ASCII", is_permanent=True)
    return tuple(found[name] for name in names)


def windows(
    start: datetime, end: datetime, longest: timedelta
) -> Iterator[tuple[datetime, datetime]]:
    """From `start` to `end` in windows that are not longer than what is allowed."""
    while start < end:
        until = min(start + longest, end)
        yield start, until
        start = until


class Cursors:
    """What leads from page to page. A cursor that comes again would lead around for ever."""

    def __init__(self, call: str) -> None:
        self._call = call
        self._seen: set[str] = set()

    def check(self, cursor: str) -> str:
        """The cursor. Raises Trouble."""
        if cursor in self._seen or len(self._seen) >= PAGES_MAX:
            raise _loop(self._call)
        self._seen.add(cursor)
        return cursor


class Listed(msgspec.Struct, frozen=True):
    """One page of a list that is paged by position: its body, its ids, whether more may come."""

    body: msgspec.Raw
    ids: Sequence[str]
    has_more: bool


def sweep(call: str, read: Callable[[int], Listed]) -> Iterator[Page]:
    """Every page of such a list, read by its number from 0, until a pass shows nothing new.

    A list of one page is whole as it is. Raises Trouble where the pages lead around.
    """
    seen: set[str] = set()
    first_count = 0
    for tried in range(PASSES):
        number, fresh, stale = 0, 0, 0
        while True:
            listed = read(number)
            new = [i for i in listed.ids if i not in seen]
            seen.update(new)
            fresh += len(new)
            stale = 0 if new else stale + 1
            if new or not (tried or number):
                yield Page(call, listed.body)
            number += 1
            if not listed.has_more:
                break
            is_around = stale > _STALE_MAX if not tried else number > 2 * first_count + _STALE_MAX
            if is_around or number >= PAGES_MAX:
                raise _loop(call)
        first_count = first_count or number
        if number == 1 or (tried and not fresh):
            return


def _loop(call: str) -> Trouble:
    return Trouble("cursor-loop", f"the pages of {call} lead around and never end")


class Asks(Protocol):
    """Whoever asks questions: an Api, or several as one."""

    def ask(self, question: Question, read: Callable[[Answer], T]) -> T:
        """See api.Api.ask."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class Asker:
    """Pages of one shop; see transports.capture.Pages. Systems say what their questions are."""

    def __init__(
        self, system: str, shop: Shop, known: Mapping[str, str], api: Asks, *,
        about: Mapping[str, str],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        self.shop, self.known, self.api, self.now = shop, known, api, now
        what = ", ".join(shop.what)
        self._head = Head(system, {**about, "what": what})
        self._marks: dict[str, str] = {}
        if unknown := [w for w in shop.what if w not in self.questions()]:
            text = f"{system} has no {unknown[0]}; `what` is of {', '.join(self.questions())}"
            raise Trouble("place-wrong", text, is_permanent=True)

    def questions(self) -> Mapping[str, Callable[[], Iterator[Page]]]:
        """What may be asked for, and its pages."""
        raise NotImplementedError

    @property
    def head(self) -> Head:
        """See Pages."""
        return self._head

    def ask(self) -> Iterator[Page]:
        """See Pages."""
        for what in self.shop.what:
            yield from self.questions()[what]()

    def marks(self) -> dict[str, str]:
        """See Pages."""
        return self._marks

    def close(self) -> None:
        """See Pages."""
        self.api.close()

    def since(self, what: str, longest: timedelta) -> Iterator[tuple[datetime, datetime]]:
        """The windows that this look asks for; its end is noted as where the next one begins."""
        end = self.now()
        start = end - timedelta(days=self.shop.first_days)
        if (mark := self.known.get(what)) is not None:
            # A clock that was set back must not leave a gap.
            start = min(datetime.fromisoformat(mark), end) - timedelta(hours=self.shop.overlap_h)
        self._marks[what] = end.isoformat()
        return windows(start, end, longest)

    def get(self, question: Question, shape: type[T]) -> tuple[T, msgspec.Raw]:
        """An answer as a shape, and its body as it came. Raises Trouble."""
        return self.api.ask(question, lambda answer: (self.read(answer, shape), body_of(answer)))

    def read(self, answer: Answer, shape: type[T]) -> T:
        """An answer as a shape; systems that say no within a 200 look for that here."""
        return read_json(answer, shape)


def body_of(answer: Answer) -> msgspec.Raw:
    """The body of an answer that was read as JSON."""
    return msgspec.Raw(answer.body.removeprefix(b"\xef\xbb\xbf").strip())
