"""One file, all engines, all leaves: the walk inside the child.

Every leaf is given its type, shown to each engine that wants it, and taken apart when it is a
container; its parts are leaves again. An engine that fails on any leaf has not looked at the whole
file: it gets no run, and the file an `engine.*` finding with verdict error.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from quarantine.containers.budget import Budget
from quarantine.contract import SEVERITY, EngineRun, Finding, Policy, Verdict
from quarantine.detection.detect import detect
from quarantine.engines.base import Engine, Leaf, Unscannable
from quarantine.engines.containers import ENGINE as CONTAINERS
from quarantine.sandbox.messages import FINDINGS_MAX, Answer

_DETAIL_CHARS_MAX = 500


class Inspection:
    """The engines at work on one file; used once."""

    def __init__(self, policy: Policy, engines: Sequence[Engine], scratch: Path) -> None:
        self._policy = policy
        self._engines = engines
        self._budget = Budget(policy, scratch)
        self._findings: list[Finding] = []
        self._failed: set[str] = set()
        self._seconds = dict.fromkeys((e.name for e in engines), 0.0)

    def inspect(self, path: Path, name: str, sha256: str = "") -> Answer:
        """What all engines say of the file at `path`, which its sender calls `name`."""
        leaf = Leaf(path, name, "", 0, detect(path, name), sha256=sha256)
        self._look(leaf)
        runs = tuple(
            EngineRun(e.name, e.version, getattr(e, "signatures", ""), self._seconds[e.name])
            for e in self._engines
            if e.name not in self._failed
        )
        return Answer(leaf.type, _worst_first(self._findings), runs)

    def _look(self, leaf: Leaf) -> None:
        for engine in self._engines:
            began = time.monotonic()
            try:
                if engine.wants(leaf):
                    self._findings.extend(engine.examine(leaf, self._policy))
            except Unscannable as reason:
                self._fail(engine, leaf, "engine.unscannable", str(reason))
            except Exception as error:  # noqa: BLE001 - an engine that breaks holds the file
                self._fail(engine, leaf, "engine.failed", f"It ended with {type(error).__name__}.")
            self._seconds[engine.name] += time.monotonic() - began
        if CONTAINERS in self._engines and CONTAINERS.wants(leaf):
            self._take_apart(leaf)

    def _take_apart(self, leaf: Leaf) -> None:
        try:
            for part in CONTAINERS.parts(leaf, self._budget):
                if isinstance(part, Finding):
                    self._findings.append(part)
                else:
                    self._look(part)
        except Unscannable as reason:
            self._fail(CONTAINERS, leaf, "engine.unscannable", str(reason))
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(CONTAINERS, leaf, "engine.failed", f"It ended with {type(error).__name__}.")

    def _fail(self, engine: Engine, leaf: Leaf, code: str, reason: str) -> None:
        self._failed.add(engine.name)
        sentence = f"The check {engine.name} could not look at all of it. {reason}"
        self._findings.append(Finding(engine.name, code, Verdict.ERROR, sentence, leaf.place))


def _worst_first(findings: list[Finding]) -> tuple[Finding, ...]:
    """The gravest findings, within the bound of an answer; none is dropped for a milder one."""
    ordered = sorted(findings, key=lambda f: -SEVERITY[f.verdict])[:FINDINGS_MAX]
    return tuple(
        Finding(f.engine, f.code, f.verdict, f.detail[:_DETAIL_CHARS_MAX], f.place[-500:])
        for f in ordered
    )
