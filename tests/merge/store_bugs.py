"""Known bugs of other systems, put into this process for as long as a test runs.

Each replaces one function of the product, or lets the exchange do things in the wrong order.
"""

import contextlib
from unittest.mock import patch

from appliance.kernel import registers, shown
from appliance.kernel.change import chain_hash
from appliance.write import incoming, receive
from appliance.write.known import NodeKnown

BUGS = ("ack_first", "cursor_first", "nodedupe", "nopend", "unchained", "delete_wins", "gaphead")
OF_WORLD = ("ack_first", "cursor_first")


def sifting(*, dedupe=True, chained=True, gapless=True):
    """`sift` with one of its promises broken."""

    def sift(entries, tips, log_key, now_ms, proved=None):
        found = incoming.Sifted()
        ends = {origin: incoming.Tip(tip.oseq, tip.hash) for origin, tip in tips.items()}
        for logged in entries:
            entry = logged.entry
            tip = ends.setdefault(entry.origin, incoming.Tip())
            if entry.oseq <= tip.oseq and dedupe:
                found.known += 1
                continue
            if entry.oseq > tip.oseq + 1 and gapless:
                found.gap = True
                continue
            digest = chain_hash(log_key, tip.hash, entry)
            if logged.hash and digest != logged.hash and chained:
                raise incoming.Forked(entry.origin, entry.oseq)
            tip.oseq, tip.hash = max(entry.oseq, tip.oseq), digest
            ehlc = incoming._cut(entry, logged, now_ms)
            found.fresh.append(
                incoming.Logged(entry=entry, hash=digest, ehlc=ehlc, parked=logged.parked)
            )
        return found

    return patch.object(receive, "sift", sift)


def _all_has_come():
    """Nobody remembers what was covered before it came."""
    found = contextlib.ExitStack()
    found.enter_context(patch.object(NodeKnown, "has", lambda self, dot: True))
    old = registers._put

    def put(record, register, dot, leaf, entry, has):
        old(record, register, dot, leaf, entry, lambda _: True)

    found.enter_context(patch.object(registers, "_put", put))
    return found


def _delete_wins():
    def existence(record):
        cell = record.cell(shown.EXISTS)
        return any(leaf.values.get(shown.EXISTS) is False for leaf in cell.values()), None

    return patch.object(shown, "_existence", existence)


@contextlib.contextmanager
def put_in(bug):
    """One bug for as long as the block lasts; what the world has to be told of it."""
    making = {
        "nodedupe": lambda: sifting(dedupe=False),
        "unchained": lambda: sifting(chained=False),
        "gaphead": lambda: sifting(gapless=False),
        "nopend": _all_has_come,
        "delete_wins": _delete_wins,
    }
    if bug in OF_WORLD:
        yield {bug: True}
        return
    with making[bug]():
        yield {}
