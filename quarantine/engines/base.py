"""What an engine is: a name, a version, what it looks at, and findings.

Engines run in a throw-away child without network and with bounded memory and time: an engine may
crash, hang or be taken over, and the file is then held, not released. An engine that finds nothing
and returns has thereby said: I looked at all of it. One that could not must raise `Unscannable`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import msgspec

from quarantine.contract import Finding, Policy


class Unscannable(Exception):
    """The engine could not look at all of it; the text says why and names no content."""


class Leaf(msgspec.Struct, frozen=True):
    """One file to look at: the upload itself, or a part of it that was unpacked beside it.

    `path` is the plaintext in the child's own folder, `name` the name that the sender or the
    container gives, `place` the path inside containers (empty for the upload), `depth` how many
    containers deep, `type` the MIME type that our detection gives, `inside` that of the container
    it lies in (empty for the upload), `sha256` its hash in hex, empty when nobody took it yet.
    `path` may be a link of /proc: open it, do not resolve it.
    """

    path: Path
    name: str
    place: str
    depth: int
    type: str
    inside: str = ""
    sha256: str = ""


class Engine(Protocol):
    """One check. `version` changes whenever its answers may change.

    An engine may have `warm()`, called once before the first file, to load what is loaded late: a
    file has a process of its own, and what is loaded there is loaded for every file again. It must
    start no thread. It may have `signatures`, the id of what it looks for.
    """

    name: str
    version: str

    def wants(self, leaf: Leaf) -> bool:
        """Whether this sort of file concerns the engine."""
        ...

    def examine(self, leaf: Leaf, policy: Policy) -> Iterable[Finding]:
        """What is wrong with it; nothing when all of it was seen and is fine. Raises Unscannable."""
        ...
