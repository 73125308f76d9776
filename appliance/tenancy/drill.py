"""Restore drill: a backup is worth what a restore of it shows.

Promises: the restore runs in a scratch database made for it under a name nobody else uses, and
only that database is dropped afterwards; live tenants are not touched, and no content plane is:
the bytes of files are hashed and held against what the restored records say of them. A fault of the
backup is in the report; a server that does not answer is raised, because then nothing was shown.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from uuid import UUID

import msgspec

from appliance.base import logs
from appliance.base.errors import ApplianceError, Unavailable
from appliance.base.ids import uuid7
from appliance.db import migrate
from appliance.db.database import Transaction, bound
from appliance.db.wire import Wire
from appliance.tenancy.archive import Manifest, open_archive, read_manifest
from appliance.tenancy.blobs import BlobEnd
from appliance.tenancy.files import compare_files, count_rows
from appliance.tenancy.servers import (
    Progress,
    Servers,
    connect,
    drop_database,
    ensure_database,
    entered,
)
from appliance.tenancy.transfer import check_revision, load

SCRATCH_PREFIX = "nexus_drill_"

# Faults found in the chains of one tenant, in words; empty when all is well.
Verify = Callable[[Transaction, UUID], Awaitable[Sequence[str]]]


class Drill(msgspec.Struct, frozen=True):
    """What a drill showed. `manifest` is None when the file could not be read whole;
    `records_only` counts files of an archive that was made without bytes of files.
    """

    manifest: Manifest | None
    faults: tuple[str, ...]
    duration_ms: int
    records_only: int = 0

    @property
    def ok(self) -> bool:
        """Whether the backup can be relied on."""
        return not self.faults


async def run_drill(
    servers: Servers,
    path: Path,
    *,
    verify: Verify | None = None,
    progress: Progress | None = None,
) -> Drill:
    """Restore `path` into a scratch database, check counts, hashes and chains, drop it."""
    began = time.monotonic()
    manifest: Manifest | None = None
    faults: list[str] = []
    records_only = 0
    try:
        manifest = await asyncio.to_thread(read_manifest, path)
        found, records_only = await _rehearse(servers, path, manifest, verify, progress)
        faults += found
    except Unavailable:
        raise
    except ApplianceError as error:
        faults.append(error.detail)
    took = int((time.monotonic() - began) * 1000)
    logs.event(
        "backup.drilled",
        level="error" if faults else "info",
        tenant=manifest.tenant if manifest else None,
        outcome="failed" if faults else "done",
        count=len(faults),
        duration_ms=took,
    )
    return Drill(manifest, tuple(faults), took, records_only)


async def _rehearse(
    servers: Servers,
    path: Path,
    manifest: Manifest,
    verify: Verify | None,
    progress: Progress | None,
) -> tuple[Sequence[str], int]:
    # The random tail makes the name ours alone: what is dropped below was made here.
    scratch = SCRATCH_PREFIX + uuid7().hex
    try:
        await ensure_database(servers, scratch)
        await asyncio.to_thread(migrate.upgrade, servers.dsn(scratch), migrate.PLACEMENT)
        async with connect(servers.dsn(scratch)) as conn:
            await check_revision(conn, manifest.schema_revision)
            async with entered(conn, manifest.tenant):
                ends: dict[UUID, BlobEnd] = {}
                with open_archive(path) as archive:
                    parts = archive.parts(lambda end: ends.update({end.id: end}))
                    await load(conn, manifest, parts, progress)
                has_files = manifest.files is not None
                records_only = 0 if has_files else await count_rows(conn, manifest.tenant)
                faults = await compare_files(conn, manifest.tenant, ends) if has_files else []
            if verify is not None:
                async with bound(Wire(conn), manifest.tenant) as tx:
                    faults += await verify(tx, manifest.tenant)
            return faults, records_only
    finally:
        await drop_database(servers, scratch)
