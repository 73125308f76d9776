"""Ports for servers of tests: two neighbours, outside the range that outgoing connections use."""

import random
import socket

# The kernel takes ports for connections from 32768 on; a node also listens on the next one.
LOWEST, HIGHEST = 20_000, 32_000


def free_port():
    """A port that nobody listens on, and neither on the one after it."""
    while True:
        port = random.SystemRandom().randrange(LOWEST, HIGHEST, 2)
        with socket.socket() as one, socket.socket() as next_one:
            try:
                one.bind(("127.0.0.1", port))
                next_one.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
