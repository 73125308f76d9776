"""`quality FOLDER…`: each file below, the connector that is recognised, and how it reads."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable
from decimal import Decimal
from pathlib import Path

import msgspec

from connectors.sdk.commands.lines import Say, table
from connectors.sdk.contract import Fault, Refused, Rows, StagedRow
from connectors.sdk.reading import Read, read_whole
from connectors.sdk.recognise import read_head, recognise
from connectors.systems import pain001

HEADER = ["file", "connector", "format", "version", "encoding", "counts", "totals", "faults", "columns"]  # fmt: skip
# What is added up of each entity; a sum stands for every currency (or none) by itself.
_SUMS = {
    "bank_line": "amount", "transfer": "amount", "price": "amount", "stock": "quantity",
    "order": "amount", "order_line": "amount", "payment": "amount",
}  # fmt: skip
_PAYMENTS = b"pain.001"
FAULTS_SHOWN = 6
Reader = Callable[[str, Path, Callable[[Rows], None]], Awaitable[Read]]


class Line(msgspec.Struct, frozen=True):
    """How one file is read: rows by entity, sums by entity and currency, faults by code, holds."""

    file: str
    connector: str = ""
    sure: float = 0
    format: str = ""
    version: str = ""
    encoding: str = ""
    counts: dict[str, int] = {}
    totals: dict[str, Decimal] = {}
    refused: str = ""
    holds: tuple[str, ...] = ()
    faults: dict[str, int] = {}
    warnings: tuple[str, ...] = ()
    columns: str = ""


def quality(folders: Iterable[Path], system: str, say: Say) -> int:
    """The table of every file; by `system` when one is named, else by the one that is recognised."""
    rows = [HEADER]
    for folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            line = asyncio.run(look(path, system=system))
            rows.append(_cells(msgspec.structs.replace(line, file=str(path.relative_to(folder)))))
    for text in table(rows, 64):
        say(text)
    return 0


async def look(path: Path, *, system: str = "", read: Reader = read_whole) -> Line:
    """How a file is read, by `read`: in a child of its own unless somebody knows the bytes."""
    head = read_head(path)
    claims = [(1.0, system)] if system else recognise(head, path.name)
    if not claims:
        return _payments(path) if _PAYMENTS in head else Line(path.name)
    sure, key = claims[0]
    seen = _Seen()
    try:
        found = await read(key, path, seen.take)
    except Refused as refused:
        return Line(path.name, key, sure, refused=refused.fault.code)
    saw, summary = found.found.inspection, found.done.summary
    return Line(
        path.name, key, sure, saw.format, saw.version, saw.encoding, dict(seen.counts),
        dict(seen.totals), "", _codes(summary.holds), found.done.counts,
        _codes((*saw.warnings, *summary.warnings)), _columns(found),
    )  # fmt: skip


class _Seen:
    """What is counted of the rows of one file."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.totals: defaultdict[str, Decimal] = defaultdict(Decimal)

    def take(self, frame: Rows) -> None:
        """Count a block."""
        for row in frame.rows:
            self.counts[row.entity.rpartition(".")[2]] += 1
            self._add(row)

    def _add(self, row: StagedRow) -> None:
        amount = row.values.get(_SUMS.get(row.entity, ""))
        if isinstance(amount, str) and amount:
            self.totals[f"{row.entity} {row.values.get('currency') or ''}".strip()] += Decimal(
                amount
            )


def _payments(path: Path) -> Line:
    """Orders to a bank are written here and only read back: they are staged as nothing."""
    try:
        told = pain001.read_batch(path)
    except Refused as refused:
        return Line(path.name, "pain001", 1.0, refused=refused.fault.code)
    totals: defaultdict[str, Decimal] = defaultdict(Decimal)
    for one in told.transfers:
        totals[f"transfer {one.currency}".strip()] += one.amount
    return Line(
        path.name, "pain001", 1.0, "pain.001", told.version, "", {"transfer": len(told.transfers)},
        dict(totals), faults=dict(Counter(f.code for f in told.faults)),
    )  # fmt: skip


def _codes(faults: Iterable[Fault]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(f.code for f in faults))


def _cells(line: Line) -> list[str]:
    if not line.connector:
        return [line.file, "-", "-", "", "", "", "", "nobody recognises it", ""]
    said = [f"refused: {line.refused}"] if line.refused else []
    said += [f"held: {code}" for code in line.holds]
    said += [f"{code} {n}" for code, n in Counter(line.faults).most_common(FAULTS_SHOWN)]
    said += [f"({code})" for code in line.warnings[:FAULTS_SHOWN]]
    return [
        line.file, line.connector if line.sure == 1 else f"{line.connector} {line.sure:.2f}",
        line.format or "-", line.version, " ".join(line.encoding.split()),
        ", ".join(f"{n} {e}" for e, n in sorted(line.counts.items())) or "0",
        ", ".join(f"{k} {v:f}" for k, v in sorted(line.totals.items())),
        ", ".join(said) or "none", line.columns,
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
