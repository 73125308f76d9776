"""How much to send at once and how long to stay away: what a site adapts to its link.

A question grows by steps while it takes less than its time and is halved when it takes longer or
is lost (AIMD), so that a link that breaks every few seconds still carries whole questions. Until
the first one that was too large it doubles. Failures are waited out with full jitter: two hundred
sites that lost one hub must not come back as one.
"""

from __future__ import annotations

import random

from appliance.sync.messages import ASK_BYTES_MAX, ASK_BYTES_MIN

AIM_S = 5.0
STEP = 64 * 1024
START = 64 * 1024
BACK_OFF_MAX_S = 300.0


class Pace:
    """The size of the next question, in bytes each way."""

    def __init__(self) -> None:
        self.size = START
        self._is_starting = True

    def note(self, carried: int, seconds: float) -> None:
        """A question with its answer came through; `carried` bytes in both directions."""
        if seconds > AIM_S:
            # As much as the link has shown it carries in that time, and never less than half.
            self._is_starting = False
            self.size = max(self.size // 2, int(carried * AIM_S / seconds), ASK_BYTES_MIN)
        elif carried >= self.size // 2:
            self.size = min(self.size * 2 if self._is_starting else self.size + STEP, ASK_BYTES_MAX)

    def lose(self) -> None:
        """A question was lost on its way."""
        self._is_starting = False
        self.size = max(self.size // 2, ASK_BYTES_MIN)


class BackOff:
    """How long to wait after failures in a row, in seconds."""

    def __init__(self) -> None:
        self.failures = 0

    def succeed(self) -> None:
        """The peer answered."""
        self.failures = 0

    def next_s(self, least_s: float = 0.0) -> float:
        """After one more failure; not less than what the peer asked for."""
        self.failures += 1
        top = min(BACK_OFF_MAX_S, 2.0 ** min(self.failures - 1, 16))
        return max(least_s, random.uniform(0, top))  # noqa: S311
