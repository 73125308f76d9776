"""Entries of a peer before they are applied: known ones, gaps, forks, the chain of hashes.

A dot that is known with another hash, or a chain that does not lead to the hash its author gave,
is a fork: two histories under one name, or a flipped byte. Its origin stops there; nothing is
guessed (research/sync 2.8, 2.9).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from appliance.base.errors import Clash
from appliance.kernel.change import GENESIS, Entry, Logged, chain_hash

# How far ahead of the receiver's clock an entry may claim to be (research/sync 2.3).
AHEAD_MS = 60_000
# In an entry's `ext`: fields that the hub kept from this node, so that its hash says nothing here.
STRIPPED = "stripped"
NOTHING: Mapping[int, bytes] = {}


class Forked(Clash):
    """One dot with two contents, or a broken chain: this origin needs a person."""

    code = "sync.forked"

    def __init__(self, origin: int, oseq: int) -> None:
        super().__init__(
            f"Entry {origin}.{oseq} of node {origin} is not what its chain says: the node was "
            "restored or copied, or its log was changed. It needs a new incarnation.",
            code="sync.forked",
        )
        self.origin = origin
        self.oseq = oseq


@dataclass(slots=True)
class Tip:
    """How far one origin of a stream is here."""

    oseq: int = 0
    hash: bytes = GENESIS


@dataclass(slots=True)
class Sifted:
    """What is new of a frame, with the hash of each as this node chains it."""

    fresh: list[Logged] = field(default_factory=list)
    known: int = 0
    gap: bool = False


def sift(
    entries: Sequence[Logged],
    tips: Mapping[int, Tip],
    log_key: bytes,
    now_ms: int | None,
    proved: Mapping[int, bytes] = NOTHING,
) -> Sifted:
    """Take out what is known, stop each origin at its first gap, check the chain of the rest.

    `now_ms` cuts clocks that are ahead of it (the hub's word); None takes the sender's. `proved`
    is from which hash on, by origin, those of the entries were computed here: where that is our
    own tip there is nothing left to compute. Raises Forked.
    """
    found = Sifted()
    ends = {origin: Tip(tip.oseq, tip.hash) for origin, tip in tips.items()}
    leads = {**proved}
    for logged in entries:
        entry = logged.entry
        tip = ends.get(entry.origin)
        if tip is None:
            tip = ends[entry.origin] = Tip()
        led = leads.pop(entry.origin, None)
        if led is not None and logged.hash:
            leads[entry.origin] = logged.hash
        if entry.oseq <= tip.oseq:
            if entry.oseq == tip.oseq and logged.hash and tip.hash not in (b"", logged.hash):
                raise Forked(entry.origin, entry.oseq)
            found.known += 1
            continue
        if entry.oseq != tip.oseq + 1:
            found.gap = True
            continue
        if (tip.oseq and not tip.hash) or (logged.hash and led == tip.hash):
            # Behind what was stripped the chain begins again where its sender states a hash.
            digest = logged.hash
        elif now_ms is None and not logged.hash and STRIPPED in entry.body.ext:
            digest = b""
        else:
            digest = chain_hash(log_key, tip.hash, entry)
            if logged.hash and digest != logged.hash:
                raise Forked(entry.origin, entry.oseq)
        tip.oseq, tip.hash = entry.oseq, digest
        found.fresh.append(
            Logged(entry=entry, hash=digest, ehlc=_cut(entry, logged, now_ms), parked=logged.parked)
        )
    return found


def _cut(entry: Entry, logged: Logged, now_ms: int | None) -> int:
    """What was cut once stays cut, by whichever way it comes."""
    if now_ms is None:
        return logged.ehlc
    return min(entry.hlc, logged.ehlc or entry.hlc, (now_ms + AHEAD_MS) << 16)


def transactions(fresh: Sequence[Logged]) -> list[list[Logged]]:
    """Entries of one transaction of one origin belong together."""
    found: list[list[Logged]] = []
    for logged in fresh:
        last = found[-1][-1].entry if found else None
        if last and (last.origin, last.tx) == (logged.entry.origin, logged.entry.tx):
            found[-1].append(logged)
        else:
            found.append([logged])
    return found
