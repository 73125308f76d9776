"""How many exchanges a hub works on at once: some for each tenant, some in all, and no queue.

One that finds no lane is told when to come back. It is the asker who waits, with what it has to
say safe in its own database; here nothing is kept for it.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from uuid import UUID

from appliance.base.errors import Unavailable

RETRY_S = (1, 4)


class Lanes:
    """The bounds of one process."""

    def __init__(self, *, per_tenant: int = 3, in_all: int = 6) -> None:
        self._per_tenant = per_tenant
        self._in_all = in_all
        self._busy: dict[UUID, int] = {}
        self._all = 0

    @contextlib.contextmanager
    def enter(self, tenant: UUID) -> Iterator[int]:
        """A lane for as long as the block lasts; how many are in use. Raises Unavailable."""
        busy = self._busy.get(tenant, 0)
        if busy >= self._per_tenant or self._all >= self._in_all:
            raise Unavailable(
                "The hub is at work on as many exchanges as it takes at once; ask again.",
                dependency="hub", code="sync.busy", retry_after_s=random.randint(*RETRY_S),  # noqa: S311
            )  # fmt: skip
        self._busy[tenant] = busy + 1
        self._all += 1
        try:
            yield self._all
        finally:
            self._all -= 1
            self._busy[tenant] -= 1
            if not self._busy[tenant]:
                del self._busy[tenant]
