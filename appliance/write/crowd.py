"""A frame in parts, where others write to the same stream while a peer is being caught up with.

Whoever writes to a stream waits for its counter, which is held from the log's rows to the commit:
for a frame of a thousand entries that is twenty milliseconds, which people feel. So where somebody
else was seen to write, a frame is taken in parts of whole transactions, each with a commit of its
own; where nobody does, in one.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from appliance.kernel.change import Logged
from appliance.write.incoming import transactions

# Entries of a part, unless one transaction has more.
PART = 200
STAYS_S = 5.0
_KNOWN_MAX = 1_000

_seen: OrderedDict[tuple[UUID, UUID], float] = OrderedDict()


class Part(NamedTuple):
    """Some entries, and from which hash on, by origin, those of them were computed here."""

    entries: Sequence[Logged]
    proved: Mapping[int, bytes]


def note_other(tenant: UUID, stream: UUID) -> None:
    """Somebody else wrote to a stream while a frame was being taken."""
    place = (tenant, stream)
    _seen.pop(place, None)
    _seen[place] = time.monotonic()
    if len(_seen) > _KNOWN_MAX:
        _seen.popitem(last=False)


def is_shared(tenant: UUID, stream: UUID) -> bool:
    """Whether others have just been writing to a stream."""
    return time.monotonic() - _seen.get((tenant, stream), -STAYS_S) < STAYS_S


def parts_of(
    entries: Sequence[Logged], proved: Mapping[int, bytes], *, most: int = PART
) -> list[Part]:
    """Whole transactions, about `most` entries together."""
    found: list[Part] = []
    part: list[Logged] = []
    for whole in transactions(entries):
        if part and len(part) + len(whole) > most:
            found.append(Part(part, proved))
            proved, part = _after(proved, part), []
        part += whole
    return [*found, Part(part, proved)] if part else found


def _after(proved: Mapping[int, bytes], part: Sequence[Logged]) -> dict[int, bytes]:
    """The hashes that the next part begins from; an origin ends with an entry that has none."""
    left = dict(proved)
    for logged in part:
        origin = logged.entry.origin
        if origin in left:
            if logged.hash:
                left[origin] = logged.hash
            else:
                del left[origin]
    return left
