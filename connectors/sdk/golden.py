"""Golden rows: what each small input in a system's `golden` folder is read as, line by line.

`<input>.rows.ndjson` beside an input holds what was found, every staged row, and the end; or the
refusal. They are written by `golden KEY --keep`, looked at by a person, and compared ever after.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from connectors.sdk.contract import Fault, Refused, Rows
from connectors.sdk.manifest import SYSTEMS
from connectors.sdk.reading import read_whole

SUFFIX = ".rows.ndjson"
_encode = msgspec.json.Encoder(order="deterministic").encode


class Head(msgspec.Struct, frozen=True, omit_defaults=True):
    """The first line: what the input is. Tables are proposals and change as they get better."""

    format: str
    version: str = ""
    encoding: str = ""
    facts: dict[str, str] = {}
    warnings: tuple[Fault, ...] = ()


class Refusal(msgspec.Struct, frozen=True):
    """The only line of an input that is refused."""

    refused: Fault


def golden_inputs(system: str) -> list[Path]:
    """The inputs of a system, in the order of their names."""
    folder = SYSTEMS / system / "golden"
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.endswith(SUFFIX))


def golden_path(given: Path) -> Path:
    """Where the rows of an input are kept."""
    return given.with_name(given.name + SUFFIX)


def write_rows(system: str, given: Path) -> bytes:
    """The lines of an input as it is read now."""
    lines: list[bytes] = []

    def take(frame: Rows) -> None:
        lines.extend(_encode(row) for row in frame.rows)

    try:
        read = asyncio.run(read_whole(system, given, take))
    except Refused as refused:
        return _encode(Refusal(refused.fault)) + b"\n"
    saw = read.found.inspection
    head = Head(saw.format, saw.version, saw.encoding, saw.facts, saw.warnings)
    # The hash is the input's own, and the input stands beside; what it cost is the machine's.
    end = msgspec.structs.replace(read.done, sha256="", used=msgspec.UNSET)
    return b"\n".join([_encode(head), *lines, _encode(end), b""])


def compare(system: str, given: Path) -> list[str]:
    """How an input is read otherwise than its golden rows say: empty when it is not."""
    kept = golden_path(given)
    if not kept.is_file():
        return [f"{given.name}: it has no golden rows; keep them with golden {system} --keep"]
    want, got = kept.read_bytes().splitlines(), write_rows(system, given).splitlines()
    for number, (a, b) in enumerate(zip(want, got, strict=False), 1):
        if a != b:
            return [f"{given.name}: line {number}: expected {_cut(a)}, read {_cut(b)}"]
    if len(want) != len(got):
        return [f"{given.name}: {len(want)} lines expected, {len(got)} read"]
    return []


def _cut(line: bytes) -> str:
    text = line.decode()
    return text if len(text) <= 400 else text[:400] + "…"
