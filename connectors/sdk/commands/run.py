"""`run KEY FILE [--constants k=v]`: what one input holds, counted, with every fault's place."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from connectors.sdk.commands.lines import Say, fault_line
from connectors.sdk.contract import Fault, Refused, Rows
from connectors.sdk.reading import Read, read_whole

FAULTS_SHOWN = 50


def run(system: str, path: Path, constants: dict[str, str], say: Say) -> int:
    """Read it; 1 when it is refused, 2 when it is held or rows of it are faulty."""
    entities: Counter[str] = Counter()
    faults: list[Fault] = []

    def take(frame: Rows) -> None:
        for row in frame.rows:
            entities[row.entity] += 1
            if len(faults) < FAULTS_SHOWN:
                faults.extend(row.faults)

    try:
        read = asyncio.run(read_whole(system, path, take, constants=constants))
    except Refused as refused:
        say(f"refused: {fault_line(refused.fault)}")
        return 1
    for line in _lines(read, entities, faults):
        say(line)
    return 2 if read.done.summary.holds or read.done.faulty else 0


def _lines(read: Read, entities: Counter[str], faults: list[Fault]) -> list[str]:
    saw, done = read.found.inspection, read.done
    lines = [f"format    {saw.format}", f"version   {saw.version or '-'}"]
    lines += [f"encoding  {saw.encoding or '-'}", f"sha256    {done.sha256}"]
    facts = {**saw.facts, **done.summary.facts}
    lines += [f"fact      {name} = {value}" for name, value in sorted(facts.items())]
    lines += [f"rows      {n:9,} {entity}" for entity, n in sorted(entities.items())]
    lines += [f"total     {name} = {value}" for name, value in sorted(done.summary.totals.items())]
    told = (*saw.warnings, *done.summary.warnings)
    lines += [f"warning   {fault_line(f)}" for f in told]
    lines += [f"hold      {fault_line(f)}" for f in done.summary.holds]
    lines += [f"faulty    {n:9,} {code}" for code, n in sorted(done.counts.items())]
    lines += [f"fault     {fault_line(f)}" for f in faults[:FAULTS_SHOWN]]
    rest = sum(done.counts.values()) - min(len(faults), FAULTS_SHOWN)
    return [*lines, f"          and {rest} more"] if rest > 0 else lines
