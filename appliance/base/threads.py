"""How long one thread of a process keeps the others waiting."""

from __future__ import annotations

import sys

# Whoever waits for the interpreter gets it after this long. At the default of 5 ms a thread that
# packs frames or hashes a file delays each step of a request by as much, and a write has six.
TURN_S = 0.0005


def take_short_turns() -> None:
    """Let the event loop have the interpreter soon while another thread is computing."""
    sys.setswitchinterval(TURN_S)
