"""What of a stream goes to a peer: frames of whole transactions after its cursor, in our order.

A page is cut at every thousandth place of the stream, so that peers whose cursors differ soon ask
for the same pages; the frames of a page are made once and kept. Which origins are left out is
part of what they are kept under only where these origins wrote in the page: a site that wrote
nothing there gets the frames of all the others.

Whoever was given less than there is comes back for the rest, so the pages of the next question are
made while the peer takes those of this one: twice what it was given, for one peer at a time.

What is kept stays right: the log is never updated, the hub's cut of a clock comes with the entry,
and a page is kept with the place where the stream ended. A page with a parked transaction is made
anew each time, for that may be released.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast
from uuid import UUID
from weakref import WeakKeyDictionary, WeakValueDictionary

import msgspec

from appliance.base.errors import ApplianceError, Clash
from appliance.base.ids import uuid_of, uuid_read
from appliance.db.database import Database
from appliance.db.values import bytea_of, text_of
from appliance.db.wire import Row, Statement
from appliance.kernel.change import Entry, EntryOp, Logged, decode_body
from appliance.sync.frames import FRAME_ENTRIES, encode_frames

KEPT_BYTES_MAX = 24 << 20
AHEAD_BYTES_MAX = 4 << 20
# How far one look goes when only few of the entries on the way are wanted.
SPAN = 50_000
# More of them would keep the other requests of this process waiting.
_FEW = 50
_PLACE_BYTES = 500

HEAD = Statement("SELECT head, floor FROM stream WHERE tenant_id = $1 AND id = $2")
# Cuts and what is parked are looked up entry by entry: a node whose clock is ahead has a cut for
# each of its entries, and a join may read them all for every page.
PAGE = Statement(
    "SELECT c.seq, c.origin, c.oseq, c.tx, c.hlc, COALESCE((SELECT k.ehlc FROM clock_cut k "
    "WHERE k.tenant_id = c.tenant_id AND k.stream = c.stream AND k.origin = c.origin "
    "AND k.oseq = c.oseq), c.ehlc), c.actor::text, c.door, c.kind, c.record_id::text, c.op, "
    "c.schema_rev, c.change_set::text, c.body, c.hash, (SELECT CASE WHEN p.is_logged "
    "AND p.state <> 'released' AND c.oseq < p.oseq + p.entries THEN p.reason END FROM parked p "
    "WHERE p.tenant_id = c.tenant_id AND p.stream = c.stream AND p.origin = c.origin "
    "AND p.oseq <= c.oseq ORDER BY p.oseq DESC LIMIT 1), c.stream::text FROM change c "
    "WHERE c.tenant_id = $1 AND c.stream = $2 AND c.seq > $3 AND c.seq <= $4 "
    "AND ($5::bigint[] IS NULL OR c.origin = ANY($5::bigint[])) ORDER BY c.seq LIMIT $6"
)
# Below the floor, or below a snapshot's cut, it was kept.
BEFORE = Statement(
    "SELECT u.origin, COALESCE((SELECT c.hash FROM change c WHERE c.tenant_id = $1 "
    "AND c.stream = $2 AND c.origin = u.origin AND c.oseq = u.oseq), (SELECT b.hash "
    "FROM stream_base b WHERE b.tenant_id = $1 AND b.stream = $2 AND b.origin = u.origin "
    "AND b.oseq = u.oseq)) FROM unnest($3::bigint[], $4::bigint[]) AS u(origin, oseq)"
)
_SEQ, _ORIGIN, _OSEQ, _TX, _PARKED = 0, 1, 2, 3, 15
_OPS = {op.value: op for op in EntryOp}


class Batch(msgspec.Struct, frozen=True):
    """Frames for a peer. `upto` is our seq that they cover, what was left out included."""

    frames: list[bytes]
    upto: int
    more: bool


class Page(msgspec.Struct, frozen=True):
    """Frames of one part of a stream, each with the seq of its last entry.

    `upto` is where the part ends, `present` are the origins that wrote in it; `is_lasting` when it
    will be the same the next time.
    """

    frames: tuple[tuple[bytes, int], ...]
    upto: int
    present: frozenset[int]
    is_lasting: bool


class Veil(msgspec.Struct, frozen=True):
    """What a reader may not see: `strip` takes it out of an entry, `key` says which veil it is."""

    key: str
    strip: Callable[[Logged], Logged]


@dataclass(frozen=True, slots=True)
class Ask:
    """What a peer is to get of a stream: only `origins` if given, and never those of `without`."""

    tenant: UUID
    stream: UUID
    origins: frozenset[int] | None
    without: frozenset[int]
    veil: Veil | None


Place = tuple[UUID, UUID, int, int, str]


class Kept:
    """Pages of one database in the order they were last wanted."""

    def __init__(self) -> None:
        self._pages: OrderedDict[tuple[Place, frozenset[int]], Page] = OrderedDict()
        self._present: OrderedDict[Place, frozenset[int]] = OrderedDict()
        self._weight = 0
        self._locks: WeakValueDictionary[Place, asyncio.Lock] = WeakValueDictionary()
        self.ahead: asyncio.Task[None] | None = None

    def lock(self, place: Place) -> asyncio.Lock:
        """Whoever makes a page of this place, for others to wait for it."""
        return self._locks.setdefault(place, asyncio.Lock())

    def find(self, place: Place, without: frozenset[int]) -> Page | None:
        """A page that was made before, for this reader or for one to whom it reads alike."""
        present = self._present.get(place)
        if present is None:
            return None
        page = self._pages.get((place, present & without))
        if page is not None:
            self._pages.move_to_end((place, present & without))
        return page

    def keep(self, place: Place, without: frozenset[int], page: Page) -> None:
        """Remember a page, and forget those that were not wanted for longest."""
        self._present[place] = page.present
        key = (place, page.present & without)
        if (old := self._pages.pop(key, None)) is not None:
            self._weight -= _weight(old)
        self._pages[key] = page
        self._weight += _weight(page)
        while self._weight > KEPT_BYTES_MAX:
            (gone, _), last = self._pages.popitem(last=False)
            self._present.pop(gone, None)
            self._weight -= _weight(last)


_kept: WeakKeyDictionary[Database, Kept] = WeakKeyDictionary()


def forget_pages(db: Database) -> None:
    """The log is another than it was: this node was put back from a backup."""
    _kept.pop(db, None)


def _weight(page: Page) -> int:
    return _PLACE_BYTES + sum(len(data) for data, _ in page.frames)


async def read_after(
    db: Database,
    tenant: UUID,
    stream: UUID,
    after_seq: int,
    *,
    origins: frozenset[int] | None = None,
    without: frozenset[int] = frozenset(),
    max_bytes: int,
    veil: Veil | None = None,
    ahead: bool = False,
) -> Batch:
    """What follows `after_seq`: frames of `max_bytes` together, and one in any case. `ahead`: the
    peer will come back for the rest.

    Raises Clash (`sync.rebase`) when the log no longer reaches back so far, ApplianceError
    (`sync.hole`) when an entry is missing: a cursor never moves past what was not sent.
    """
    ask = Ask(tenant, stream, origins, without, veil)
    (rows,) = await db.read(tenant, (HEAD, (tenant, stream)))
    head, floor = (int(v or 0) for v in rows.first() or (b"0", b"0"))
    if after_seq < floor:
        raise Clash(
            f"The log of stream {stream} begins after {floor}, the peer stands at {after_seq}: it "
            "has to compare its records first.",
            code="sync.rebase",
        )
    frames, upto, size = list[bytes](), after_seq, 0
    while upto < head:
        page = await _find_page(db, ask, upto, head)
        for data, last in page.frames:
            if frames and size + len(data) > max_bytes:
                if ahead:
                    _read_ahead(db, ask, upto, min(size * 2, AHEAD_BYTES_MAX))
                return Batch(frames, upto, more=True)
            frames.append(data)
            size += len(data)
            upto = last
        upto = page.upto
    return Batch(frames, upto, more=False)


def _read_ahead(db: Database, ask: Ask, after: int, size: int) -> None:
    """Make the pages that are asked for next, unless some are being made."""
    kept = _kept.setdefault(db, Kept())
    if ask.origins is None and (kept.ahead is None or kept.ahead.done()):
        kept.ahead = asyncio.create_task(_make_ahead(db, ask, after, size))


async def _make_ahead(db: Database, ask: Ask, after: int, size: int) -> None:
    """What goes wrong is said to whoever asks for the page."""
    with contextlib.suppress(ApplianceError):
        (rows,) = await db.read(ask.tenant, (HEAD, (ask.tenant, ask.stream)))
        head = int((rows.first() or (b"0",))[0] or 0)
        while size > 0 and after < head:
            page = await _find_page(db, ask, after, head)
            size -= sum(len(data) for data, _ in page.frames)
            after = page.upto


async def _find_page(db: Database, ask: Ask, after: int, head: int) -> Page:
    """A page of those that are kept, or made now."""
    if ask.origins is not None:
        return await _make_page(db, ask, after, min(after + SPAN, head), head)
    end = min(after - after % FRAME_ENTRIES + FRAME_ENTRIES, head)
    kept = _kept.setdefault(db, Kept())
    place = (ask.tenant, ask.stream, after, end, ask.veil.key if ask.veil else "")
    async with kept.lock(place):
        page = kept.find(place, ask.without)
        if page is None:
            page = await _make_page(db, ask, after, end, head)
            if page.is_lasting:
                kept.keep(place, ask.without, page)
    return page


async def _make_page(db: Database, ask: Ask, after: int, end: int, head: int) -> Page:
    """The frames of (after, end], and of what the last transaction there has after it."""
    rows, upto = await _read_rows(db, ask, after, end, head)
    if ask.origins is None and len(rows) != upto - after:
        raise ApplianceError(
            f"The log of stream {ask.stream} lacks entries between {after} and {upto}; nothing of "
            "it is sent on. Verify the log and restore it from a backup.",
            code="sync.hole",
        )
    present = frozenset(int(row[_ORIGIN] or 0) for row in rows)
    wanted = [row for row in rows if int(row[_ORIGIN] or 0) not in ask.without]
    if not wanted:
        return Page((), upto, present, is_lasting=True)
    before = await _read_before(db, ask, wanted)
    if len(wanted) <= _FEW:
        frames = _encode(ask, wanted, before)
    else:
        frames = await asyncio.to_thread(_encode, ask, wanted, before)
    return Page(frames, upto, present, is_lasting=not any(row[_PARKED] for row in wanted))


async def _read_rows(
    db: Database, ask: Ask, after: int, end: int, head: int
) -> tuple[list[Row], int]:
    origins = sorted(ask.origins) if ask.origins is not None else None

    async def read(low: int, high: int) -> list[Row]:
        params = (ask.tenant, ask.stream, low, high, origins, FRAME_ENTRIES + 1)
        (found,) = await db.read(ask.tenant, (PAGE, params))
        return list(found) if len(found) <= _FEW else await asyncio.to_thread(list, found)

    found = await read(after, min(end + 1, head))
    if len(found) > FRAME_ENTRIES:
        end = min(end, _seq(found[FRAME_ENTRIES - 1]))
    rows = [row for row in found if _seq(row) <= end]
    rest = found[len(rows) :]
    while rows and rest:
        for row in rest:
            last = rows[-1]
            if _seq(row) != _seq(last) + 1 or _tx(row) != _tx(last):
                return rows, end
            rows.append(row)
            end = _seq(row)
        rest = await read(end, min(end + FRAME_ENTRIES, head))
    return rows, end


def _seq(row: Row) -> int:
    return int(row[_SEQ] or 0)


def _tx(row: Row) -> tuple[bytes | None, bytes | None]:
    return row[_ORIGIN], row[_TX]


async def _read_before(db: Database, ask: Ask, rows: Sequence[Row]) -> dict[int, bytes]:
    """The hash before the first entry of each origin, where the log still has that entry."""
    first: dict[int, int] = {}
    for row in rows:
        first.setdefault(int(row[_ORIGIN] or 0), int(row[_OSEQ] or 0))
    params = (ask.tenant, ask.stream, list(first), [oseq - 1 for oseq in first.values()])
    (found,) = await db.read(ask.tenant, (BEFORE, params))
    return {int(origin or 0): bytea_of(digest) for origin, digest in found if digest is not None}


def _encode(
    ask: Ask, rows: Sequence[Row], before: dict[int, bytes]
) -> tuple[tuple[bytes, int], ...]:
    logged = [_read_logged(row) for row in rows]
    shown = [ask.veil.strip(one) for one in logged] if ask.veil else logged
    made, done = list[tuple[bytes, int]](), 0
    for data, count in encode_frames(ask.stream, shown, before, [one.hash for one in logged]):
        done += count
        made.append((data, _seq(rows[done - 1])))
    return tuple(made)


def _read_logged(row: Row) -> Logged:
    (_, origin, oseq, tx, hlc, ehlc, actor, door, kind, record, op, rev, change_set, body, digest,
     parked, stream) = row  # fmt: skip
    name = text_of(op)
    entry = Entry(
        stream=uuid_of(text_of(stream)), origin=int(origin or 0), oseq=int(oseq or 0),
        tx=int(tx or 0), hlc=int(hlc or 0), actor=uuid_of(text_of(actor)), door=text_of(door),
        kind=text_of(kind), record_id=uuid_read(record), op=_OPS.get(name) or cast("EntryOp", name),
        schema_rev=int(rev or 0), change_set=uuid_of(text_of(change_set)),
        body=decode_body(bytea_of(body)),
    )  # fmt: skip
    return Logged(entry=entry, hash=bytea_of(digest), ehlc=int(ehlc or 0), parked=text_of(parked))
