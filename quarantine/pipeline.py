"""All checks on one file, and the one verdict that follows.

The engines inside run in the sandbox, those outside (the virus scanner, which has a process of its
own) beside it at the same time. Clean is a file only when every mandatory engine ran to its end
over it, none found anything, and the bytes that were looked at are those that came in: hashed
afterwards, or meanwhile where the kernel has sealed them against any change.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from quarantine.contract import SEVERITY, EngineRun, Finding, Policy, Report, Verdict
from quarantine.engines.base import Unscannable
from quarantine.engines.clam import ScannerDown
from quarantine.sandbox.parent import Sandbox
from quarantine.sandbox.plaintext import is_sealed

INSIDE = (
    "names",
    "types",
    "containers",
    "office",
    "pdf",
    "images",
    "markup",
    "rules",
    "denied",
)
"""The engines in the child, in this order; module `quarantine.engines.<name>`, its `ENGINE`."""

MODULES = tuple(f"quarantine.engines.{name}" for name in INSIDE)
OUTSIDE = ("clamd",)
DOWN = "scanner.down"
"""The code of a scanner that gave no word that counts: no fault of the file, ask again later."""
_UNKNOWN = "application/octet-stream"
_PIECE = 1024 * 1024


class Scanned(Protocol):
    """What an engine outside says when it ran to its end."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What it found."""
        ...

    @property
    def run(self) -> EngineRun:
        """That it ran; `engine` is the name it is registered under."""
        ...


class Outside(Protocol):
    """An engine with a process of its own, such as `quarantine.engines.clam.ClamScanner`."""

    async def scan(self, body: Path, size: int) -> Scanned:
        """All of the file. Raises when it could not look at all of it."""
        ...


class _Said(msgspec.Struct, frozen=True):
    findings: tuple[Finding, ...]
    runs: tuple[EngineRun, ...] = ()
    type: str = _UNKNOWN


class Pipeline:
    """The checks of this plane; `judge` is safe to call for several files at a time.

    `outside` are the engines beside the sandbox by name; `inside` and `mandatory` are for tests and
    for a plane without a scanner, which then holds every file.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        outside: Mapping[str, Outside],
        *,
        mandatory: Sequence[str] = (*INSIDE, *OUTSIDE),
    ) -> None:
        self._sandbox, self._outside = sandbox, dict(outside)
        self._mandatory = tuple(mandatory)

    async def renew(self) -> tuple[str, ...]:
        """Have the engines inside loaded anew before the next file; those that could not be.

        Raises Unscannable.
        """
        return (await self._sandbox.renew()).missing

    async def judge(
        self, path: Path, name: str, policy: Policy, *, sha256: str, size: int
    ) -> Report:
        """The report on the plaintext at `path`, which came in with this hash and size.

        Never raises for what is wrong with a file or an engine: that is the report's `error`.
        """
        before = _state(path)
        if size > policy.bytes_max:
            return Report(Verdict.REJECTED, sha256, size, _UNKNOWN, (_too_large(policy),))
        asked = (
            self._inside(path, name, policy, sha256),
            *(self._beside(key, engine, path, size) for key, engine in self._outside.items()),
        )
        said, measured = await asyncio.gather(asyncio.gather(*asked), _measure_sealed(path))
        if measured is None:
            measured = await asyncio.to_thread(_measure, path)
        type_ = said[0].type
        findings = [f for one in said for f in one.findings if not _is_mistaken(f, type_)]
        runs = tuple(run for one in said for run in one.runs)
        findings += self._missing(findings, runs)
        found_hash, found_size = measured
        if (found_hash, found_size) != (sha256, size) or _state(path) != before:
            findings.append(
                _error("pipeline", "blob.changed", "The bytes changed while they were checked.")
            )
        findings.sort(key=lambda f: -SEVERITY[f.verdict])
        verdict = findings[0].verdict if findings else Verdict.CLEAN
        return Report(verdict, found_hash, found_size, said[0].type, tuple(findings), runs)

    async def _inside(self, path: Path, name: str, policy: Policy, sha256: str) -> _Said:
        try:
            answer = await self._sandbox.inspect(path, name, policy, sha256=sha256)
        except Unscannable as reason:
            return _Said((_error("sandbox", "sandbox.failed", str(reason)),))
        return _Said(answer.findings, answer.engines, answer.type)

    async def _beside(self, name: str, engine: Outside, path: Path, size: int) -> _Said:
        try:
            scanned = await engine.scan(path, size)
        except Unscannable as reason:
            return _Said((_error(name, "engine.unscannable", str(reason)),))
        except ScannerDown as down:
            return _Said((_error(name, DOWN, str(down)),))
        except Exception as error:  # noqa: BLE001 - whatever broke, nothing was proved
            return _Said((_error(name, "engine.failed", str(error) or type(error).__name__),))
        if scanned.run.engine != name:
            return _Said((_error(name, "engine.failed", "It answers under another name."),))
        return _Said(tuple(scanned.findings), (scanned.run,))

    def _missing(self, findings: Sequence[Finding], runs: Sequence[EngineRun]) -> list[Finding]:
        """An error for each mandatory engine that neither ran nor said why not."""
        heard = {run.engine for run in runs}
        heard |= {f.engine for f in findings if f.verdict is Verdict.ERROR}
        return [
            _error(name, "engine.missing", f"The check {name} did not look at the file.")
            for name in self._mandatory
            if name not in heard
        ]


def _is_mistaken(finding: Finding, type_: str) -> bool:
    """The scanner takes a table that begins with the letters MZ for a program that is damaged."""
    return finding.code == "virus.broken" and type_.startswith("text/")


def _error(engine: str, code: str, sentence: str) -> Finding:
    return Finding(engine, code, Verdict.ERROR, sentence)


def _too_large(policy: Policy) -> Finding:
    sentence = f"The file has more than the {policy.bytes_max} bytes that are taken here."
    return Finding("pipeline", "file.too_large", Verdict.REJECTED, sentence)


def _state(path: Path) -> tuple[int, int, int, int]:
    """What tells that a file was written to, even when the old bytes were put back."""
    status = os.stat(path)  # noqa: PTH116 - the path may be a link of /proc
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


async def _measure_sealed(path: Path) -> tuple[str, int] | None:
    """Hash and size, when they are as good now as afterwards."""
    return await asyncio.to_thread(_measure, path) if is_sealed(path) else None


def _measure(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return digest.hexdigest(), file.tell()
