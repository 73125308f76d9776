"""A child that reads many inputs in turn and says how each was answered; for the hostile suite.

One process for all of them: what one input leaves behind must not harm the next, and a hundred
inputs take seconds. `trial SYSTEM FILE…` prints one hostile.Outcome as JSON for each.
"""

from __future__ import annotations

import hashlib
import resource
import sys
from pathlib import Path

import msgspec

from connectors.sdk.contract import Connector, Fault, Mapping, Refused, Rows, StagedRow, Summary
from connectors.sdk.hostile import Outcome
from connectors.sdk.manifest import faults_of, read_manifest, read_vocabulary
from connectors.sdk.recognise import load_connector, read_head
from connectors.sdk.usage import read_peak

_MEMORY = 2 << 30
_encode = msgspec.json.Encoder(order="deterministic").encode


def main() -> int:
    """Read every input that is named."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    system, *paths = sys.argv[1:]
    connector = load_connector(system)
    for path in paths:
        sys.stdout.buffer.write(_encode(_try(system, connector, Path(path))) + b"\n")
        sys.stdout.buffer.flush()
    return 0


def _try(system: str, connector: Connector, path: Path) -> Outcome:
    seen = _Seen(system)
    refused = crash = ""
    try:
        recognises = getattr(connector, "recognises", None)
        if recognises is not None and not 0 <= recognises(read_head(path), path.name) <= 1:
            crash = "a recognition beyond 0 to 1"
        source = connector.open(path)
        found = source.inspect({})
        seen.flags += len(found.inspection.warnings)
        settings = {**read_manifest(system).settings, **found.proposal.constants}
        mapping: Mapping = msgspec.structs.replace(found.proposal, constants=settings)
        for frame in source.read(mapping):
            if isinstance(frame, Rows):
                seen.take(frame.rows)
            elif isinstance(frame, Summary):
                seen.flags += len(frame.holds) + len(frame.warnings)
    except Refused as error:
        refused = error.fault.code
        crash = _fault_in(error.fault)
    except MemoryError:
        refused = "too-large"
    except Exception as error:  # noqa: BLE001 - that nothing else is raised is what is tried
        crash = f"{type(error).__name__}: {str(error)[:200]}"
    return Outcome(
        path.name, refused, crash or seen.wrong, seen.rows, seen.flags,
        seen.figures.hexdigest(), read_peak(),
    )  # fmt: skip


class _Seen:
    """What is counted of the rows of one input."""

    def __init__(self, system: str) -> None:
        self._vocabulary = read_vocabulary(read_manifest(system).entities)
        self.rows = self.flags = 0
        self.wrong = ""
        self.figures = hashlib.sha256()

    def take(self, rows: tuple[StagedRow, ...]) -> None:
        """Count a block."""
        for row in rows:
            self.rows += 1
            self.flags += len(row.faults)
            fields = self._vocabulary[row.entity].fields if row.entity in self._vocabulary else {}
            figures = {
                name: value for name, value in row.values.items()
                if fields.get(name) == "decimal" or name.startswith("price:")
            }  # fmt: skip
            self.figures.update(_encode([row.entity, figures]))
            unlike = faults_of(row, self._vocabulary)
            if unlike and not self.wrong:
                self.wrong = f"a row that is not of its vocabulary: {unlike[0]}"


def _fault_in(fault: Fault) -> str:
    return "" if fault.code and fault.expected else f"a refusal without words: {fault!r}"


if __name__ == "__main__":
    sys.exit(main())
