"""What a worker says of a look at a base, in the first and the last page of its capture."""

from __future__ import annotations

import msgspec

SYSTEM = "onec_odata"
# Pages that are no answers.
PROFILE, LOOK = "profile", "look"
# Behind the name of an entity: what was told before, and 1C has no more.
GONE = ":gone"


class Look(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a look was. `mode`: full, sweep (what has changed) or window. `whole`: the entities of
    which everything is in the capture. `left_out`: those that a setting leaves out. `restless`:
    those that changed while they were swept, so that nothing of them is taken for gone. `own`:
    orders that were written from here and are not read back.
    """

    mode: str
    whole: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    restless: tuple[str, ...] = ()
    own: int = 0
