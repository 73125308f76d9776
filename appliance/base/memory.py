"""How often the garbage collector looks for circles in a long-running process."""

from __future__ import annotations

import gc

# New objects before a look. A page or a batch makes tens of thousands that die without it;
# at the default of 700 a batch of 10 000 records spends a quarter of its time being looked at.
YOUNG, MIDDLE, OLD = 50_000, 20, 50


def collect_seldom() -> None:
    """Leave what was loaded at start alone, and look at the rest less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
