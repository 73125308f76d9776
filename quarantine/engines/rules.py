"""Our YARA-X rules over the bytes of every file, from packs whose signature verified.

YARA-X holds the interpreter's lock for a whole scan, so this engine is for the throw-away child;
the time limit is the library's own. A rule's meta says what a match means.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Iterable
from functools import cached_property

import yara_x

from quarantine.contract import Finding, Policy, Verdict
from quarantine.engines.base import Leaf, Unscannable
from quarantine.rules.compiled import compile_packs
from quarantine.rules.pack import PackError, SignedPack, ids_of, load_configured

MATCHES_MAX = 50


class RulesEngine:
    """All rules of all packs, compiled once, at first use (about 50 ms)."""

    name = "rules"

    def __init__(self, packs: list[SignedPack] | None = None) -> None:
        self._given = packs

    @cached_property
    def packs(self) -> list[SignedPack]:
        """The packs that count; raises PackError when one does not verify."""
        return load_configured() if self._given is None else self._given

    @cached_property
    def compiled(self) -> yara_x.Rules:
        """Raises PackError: one bad rule and nothing is scanned, so that nothing passes."""
        return compile_packs(self.packs)

    @property
    def signatures(self) -> str:
        """Which packs: a report names them, and a new one asks for a rescan."""
        return ids_of(self.packs)

    @property
    def version(self) -> str:
        """Library and packs. Asking for it compiles the rules, before the first file comes."""
        count = sum(1 for _ in self.compiled)
        return f"yara-x {importlib.metadata.version('yara-x')}; {count} rules; {self.signatures}"

    def warm(self) -> None:
        """Compile now: each file has a process of its own, which would compile again."""
        _ = self.compiled

    def wants(self, leaf: Leaf) -> bool:
        """Everything."""
        return True

    def examine(self, leaf: Leaf, policy: Policy) -> Iterable[Finding]:
        """One finding for each rule that matches; Unscannable when time runs out."""
        try:
            scanner = yara_x.Scanner(self.compiled)
        except PackError as fault:
            raise Unscannable(str(fault)) from fault
        scanner.set_timeout(max(1, math.ceil(policy.seconds_max)))
        scanner.max_matches_per_pattern(MATCHES_MAX)
        try:
            results = scanner.scan_file(str(leaf.path))
        except yara_x.TimeoutError as fault:
            raise Unscannable("The rules took longer than the policy allows.") from fault
        except yara_x.ScanError as fault:
            raise Unscannable("The rules could not be applied to all of the file.") from fault
        for rule in results.matching_rules:
            meta = dict(rule.metadata)
            yield Finding(
                self.name, meta["code"], Verdict(meta["verdict"]), meta["detail"], leaf.place
            )


ENGINE = RulesEngine()
