"""`quality FOLDER`: each file of a folder, the connector that is recognised, and how it reads."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from connectors.sdk.commands.lines import Say, table
from connectors.sdk.contract import Refused, Rows
from connectors.sdk.reading import Read, read_whole
from connectors.sdk.recognise import read_head, recognise

HEADER = ["file", "connector", "format", "rows", "totals", "faults and holds", "columns"]


def quality(folder: Path, system: str, say: Say) -> int:
    """The table; every file by `system` when one is named, else by the one that is recognised."""
    files = sorted(p for p in folder.iterdir() if p.is_file())
    for line in table([HEADER, *[_row(path, system) for path in files]], 48):
        say(line)
    return 0


def _row(path: Path, system: str) -> list[str]:
    claims = [(1.0, system)] if system else recognise(read_head(path), path.name)
    if not claims:
        return [path.name, "-", "-", "", "", "nobody recognises it", ""]
    strength, key = claims[0]
    named = key if strength == 1 else f"{key} {strength:.2f}"
    entities: Counter[str] = Counter()

    def take(frame: Rows) -> None:
        entities.update(row.entity for row in frame.rows)

    try:
        read = asyncio.run(read_whole(key, path, take))
    except Refused as refused:
        return [path.name, named, "-", "", "", f"refused: {refused.fault.code}", ""]
    saw, summary = read.found.inspection, read.done.summary
    said = [f"held: {f.code}" for f in summary.holds]
    said += [f"{code} {n}" for code, n in Counter(read.done.counts).most_common(4)]
    said += [f"({f.code})" for f in (*saw.warnings, *summary.warnings)[:4]]
    return [
        path.name, named, " ".join(t for t in (saw.format, saw.version, saw.encoding) if t),
        ", ".join(f"{n} {e.rpartition('.')[2]}" for e, n in sorted(entities.items())) or "0",
        ", ".join(f"{k} {v}" for k, v in sorted(summary.totals.items())),
        ", ".join(said) or "none", _columns(read),
    ]  # fmt: skip


def _columns(read: Read) -> str:
    """What the columns of tables are taken for."""
    said = []
    for table_ in read.found.proposal.tables:
        for column in table_.columns:
            options = [column.options.get(n, "") for n in ("price_type", "currency")]
            shown = ":" + " ".join(o for o in options if o) if any(options) else ""
            said.append(f"{column.letters}={column.target}{shown}")
    return " ".join(said)
