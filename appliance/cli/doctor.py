"""`nexus doctor`: what is wrong with this node, in sentences."""

from __future__ import annotations

import asyncio
import shutil

import msgspec
import psycopg

from appliance.base.errors import ApplianceError
from appliance.base.settings import Settings
from appliance.cli.node import opened, read_settings

DISK_FREE_MIN = 1 << 30


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    what: str
    is_well: bool
    sentence: str


def doctor(*, json: bool = False, data: str | None = None) -> int:
    """Look at disk, services, schema and search; exit code 1 when something is wrong."""
    found = asyncio.run(_look(read_settings(data)))
    if json:
        print(msgspec.json.encode(found).decode())
    else:
        for finding in found:
            print(f"{'ok  ' if finding.is_well else 'BAD '} {finding.what}: {finding.sentence}")
    return 0 if all(f.is_well for f in found) else 1


async def _look(settings: Settings) -> list[Finding]:
    found = [_disk(settings)]
    try:
        async with opened(settings) as node:
            tenants = node.db.routes.all()
            found.append(Finding("PostgreSQL", True, f"answers; {len(tenants)} tenants."))
            found.append(_search(node.endpoints.pool_owner_dsn))
            scanner = node.endpoints.scanner
            # A node without a scanner works; what it means is said, and is no fault of the node.
            found.append(Finding("Scanner", True, scanner.sentence))
    except ApplianceError as refused:
        found.append(Finding("Node", False, refused.detail))
    return found


def _disk(settings: Settings) -> Finding:
    folder = settings.data_dir
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    return Finding("Disk", free > DISK_FREE_MIN, f"{free >> 20} MB free for {settings.data_dir}.")


def _search(dsn: str) -> Finding:
    with psycopg.connect(dsn) as conn:
        row = conn.execute(
            "SELECT proleakproof FROM pg_proc WHERE oid = 'ts_match_vq(tsvector,tsquery)'::regprocedure"
        ).fetchone()
    if row and row[0]:
        return Finding("Search", True, "uses its index behind row-level security.")
    return Finding(
        "Search", False,
        "full-text search reads every record: as a superuser of each database run "
        "ALTER FUNCTION ts_match_vq(tsvector, tsquery) LEAKPROOF.",
    )  # fmt: skip
