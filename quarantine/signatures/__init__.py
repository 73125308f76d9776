"""Our own signatures, which a scanner always has: the makers' test file and a test pattern.

They prove that a scanner is awake. They know no virus: see `docs/scanner.md`. The node adds one more
to each set that it loads, which names the set: asked to scan `PROBE`, a scanner tells which it has.
"""

from __future__ import annotations

PROBE = b"nexus: which signatures are loaded?\n"
