"""`nexus doctor`: what is wrong with this node, in sentences.

Promises: `ok` is said of what was looked at and found well, of nothing else. A `warning` works, but
not as it should; a `fault` does not work. Exit code 1 when there is a fault.
"""

from __future__ import annotations

import asyncio
import shutil
from datetime import timedelta
from enum import StrEnum

import msgspec
import psycopg

from appliance.base.clock import now
from appliance.base.errors import ApplianceError, Misconfigured, Unavailable
from appliance.base.settings import Settings
from appliance.cli.node import opened, read_node_settings, services_of
from appliance.cli.plane import address_of, ask_status, reached
from appliance.runtime.clamd import ScannerState
from quarantine.contract import Status

DISK_FREE_MIN = 1 << 30
HELD_LONG_S = 600.0
SIGNATURES_OLD_DAYS = 7
NOTICES_MANY = 100
_BARS = {"ok": "ok  ", "warning": "WARN", "fault": "BAD "}


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    what: str
    level: Level
    sentence: str


def doctor(*, json: bool = False, data: str | None = None, port: int | None = None) -> int:
    """Look at disk, services, search, content plane and scanner; exit code 1 for a fault.

    Parameters
    ----------
    json: as JSON, for programs: what, level (ok, warning, fault), sentence.
    data: the data folder (NEXUS_DATA).
    port: where the node listens, if nexus.toml does not say it (NEXUS_PORT).
    """
    found = asyncio.run(_look(read_node_settings(data, port)))
    if json:
        print(msgspec.json.encode(found).decode())
    else:
        for finding in found:
            print(f"{_BARS[finding.level]} {finding.what}: {finding.sentence}")
    return 1 if any(f.level is Level.FAULT for f in found) else 0


async def _look(settings: Settings) -> list[Finding]:
    found = [_disk(settings)]
    is_running = _is_running(settings)
    scanner = ScannerState("", "")
    try:
        async with opened(settings) as node:
            tenants = node.db.routes.all()
            found.append(Finding("PostgreSQL", Level.OK, f"answers; {len(tenants)} tenants."))
            found.append(_search(node.endpoints.pool_owner_dsn))
            scanner = node.endpoints.scanner
    except ApplianceError as refused:
        found.append(Finding("Node", Level.FAULT, refused.detail))
    if is_running or settings.files.plane_url:
        return found + await look_at_content(settings, scanner)
    return [
        *found,
        Finding(
            "Content plane", Level.WARNING,
            "not looked at, because the node is not running; files and scanner neither. "
            "Start it: nexus up",
        ),
    ]  # fmt: skip


def _is_running(settings: Settings) -> bool:
    if not settings.data_dir.is_dir():
        return False
    supervisor = services_of(settings).supervisor
    try:
        supervisor.lock()
    except Misconfigured:
        return True
    except OSError:
        return False
    supervisor.unlock()
    return False


async def look_at_content(settings: Settings, scanner: ScannerState) -> list[Finding]:
    """The plane, its scanner, what it holds; `scanner` is what the node knew at its start."""
    found = []
    if not settings.files.plane_url:
        found.append(_content_disk(settings))
    try:
        async with reached(settings) as plane:
            status = await ask_status(settings, plane)
    except (Misconfigured, Unavailable) as refused:
        unknown = "unknown while the content plane does not answer; files that come are refused."
        return [
            Finding("Content plane", Level.FAULT, refused.detail),
            Finding("Scanner", Level.FAULT, unknown),
            *found,
        ]
    stored = f"{status.stored} contents in {_size(status.stored_bytes)}"
    return [
        Finding("Content plane", Level.OK, f"answers at {address_of(settings)}; {stored}."),
        describe_scanner(status, scanner),
        describe_held(status),
        describe_notices(status),
        *found,
    ]


def describe_scanner(status: Status, known: ScannerState) -> Finding:
    """What the canaries of the plane say of the scanner, with the age of its signatures."""
    sentence, dated = status.sentence, status.signatures_dated
    if status.scanner == "down":
        # Of a scanner that is not installed the node knows better what to do about it.
        why = known.sentence if known.state == "absent" else f"{sentence} Files stay held."
        return Finding("Scanner", Level.FAULT, why)
    if dated is None:
        level = Level.OK if status.scanner == "ready" else Level.WARNING
        return Finding("Scanner", level, sentence)
    age = now() - dated
    is_old = age > timedelta(days=SIGNATURES_OLD_DAYS)
    is_well = status.scanner == "ready" and not is_old
    more = "" if "days old" in sentence else f" They are {max(age.days, 0)} days old."
    return Finding("Scanner", Level.OK if is_well else Level.WARNING, sentence + more)


def describe_held(status: Status) -> Finding:
    """What waits for a verdict, and for how long."""
    if not status.held:
        return Finding("Held files", Level.OK, "none waits for its scan.")
    is_long = status.oldest_held_s > HELD_LONG_S
    more = " The reason of each: nexus file list --state held" if is_long else ""
    level = Level.WARNING if is_long else Level.OK
    waits = f"{status.held} wait, the oldest for {_age(status.oldest_held_s)}."
    return Finding("Held files", level, waits + more)


def describe_notices(status: Status) -> Finding:
    """Verdicts that the node has not taken over: many of them mean that no worker does."""
    if status.notices <= NOTICES_MANY:
        return Finding("Verdicts", Level.OK, f"{status.notices} on their way to the node.")
    return Finding(
        "Verdicts", Level.WARNING,
        f"{status.notices} wait for the node's worker, so files are held that are judged already; "
        "see log/worker.log.",
    )  # fmt: skip


def _disk(settings: Settings) -> Finding:
    folder = settings.data_dir
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    level = Level.OK if free > DISK_FREE_MIN else Level.FAULT
    return Finding("Disk", level, f"{free >> 20} MB free for {settings.data_dir}.")


def _content_disk(settings: Settings) -> Finding:
    """The folder of the plane may be a disk of its own; with a bucket it holds what comes in."""
    folder = settings.data_dir / "content"
    try:
        free = shutil.disk_usage(folder).free
    except OSError as bad:
        return Finding("Disk of files", Level.WARNING, f"{folder}: {bad.strerror}.")
    level = Level.OK if free > DISK_FREE_MIN else Level.FAULT
    return Finding("Disk of files", level, f"{free >> 20} MB free for {folder}.")


def _search(dsn: str) -> Finding:
    with psycopg.connect(dsn) as conn:
        row = conn.execute(
            "SELECT proleakproof FROM pg_proc WHERE oid = 'ts_match_vq(tsvector,tsquery)'::regprocedure"
        ).fetchone()
    if row and row[0]:
        return Finding("Search", Level.OK, "uses its index behind row-level security.")
    return Finding(
        "Search", Level.FAULT,
        "full-text search reads every record: as a superuser of each database run "
        "ALTER FUNCTION ts_match_vq(tsvector, tsquery) LEAKPROOF.",
    )  # fmt: skip


def _size(count: int) -> str:
    return f"{count / (1 << 20):.1f} MB"


def _age(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.0f} h"
