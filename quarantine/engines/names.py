"""Names: of the upload as for every other way in, of parts as far as a reader could be misled."""

from __future__ import annotations

from collections.abc import Iterable

from quarantine.contract import Finding, Policy, Verdict
from quarantine.engines.base import Leaf
from quarantine.names import BadName, check_name


class Names:
    """Check 2, again: the way in may have forgotten it."""

    name = "names"
    version = "1"

    def wants(self, leaf: Leaf) -> bool:
        """Every leaf has a name."""
        return True

    def examine(self, leaf: Leaf, policy: Policy) -> Iterable[Finding]:
        """One finding for a bad name; that of a part is odd rather than hostile."""
        try:
            check_name(leaf.name)
        except BadName as bad:
            verdict = Verdict.SUSPICIOUS if leaf.depth else Verdict.REJECTED
            yield Finding(self.name, "name.bad", verdict, str(bad), leaf.place)


ENGINE = Names()
