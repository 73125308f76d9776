"""Backups of one tenant by time in a folder, each proven by reading it again.

Promises: an older backup is removed only after the new one was read back whole and misses no bytes
of a file; nothing is ever removed that this module did not name itself.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from uuid import UUID

import msgspec

from appliance.base.clock import now
from appliance.base.errors import Invalid
from appliance.content import ContentPlane
from appliance.tenancy import control
from appliance.tenancy.archive import Manifest, read_manifest
from appliance.tenancy.servers import Progress, Servers
from appliance.tenancy.transfer import export_tenant

SUFFIX = ".nxt"
KEEP_DEFAULT = 7


class Backup(msgspec.Struct, frozen=True):
    """A backup that was made, and the older ones that went."""

    path: Path
    manifest: Manifest
    removed: tuple[Path, ...]


async def backup_tenant(
    servers: Servers,
    tenant: UUID,
    folder: Path,
    *,
    keep: int = KEEP_DEFAULT,
    node: str = "",
    plane: ContentPlane | None = None,
    with_files: bool = True,
    progress: Progress | None = None,
) -> Backup:
    """Export into `folder` as `slug-YYYYMMDDTHHMMSSZ.nxt`, read it back, keep the newest `keep`.

    One that misses bytes which an older one may have takes none of those away.
    """
    if keep < 1:
        raise Invalid(f"A backup keeps at least 1 file, not {keep}.")
    found = await control.find_tenant(servers, str(tenant))
    await asyncio.to_thread(folder.mkdir, 0o700, True, True)
    path = folder / f"{found.slug}-{now():%Y%m%dT%H%M%SZ}{SUFFIX}"
    while path.exists():
        await asyncio.sleep(0.2)
        path = folder / f"{found.slug}-{now():%Y%m%dT%H%M%SZ}{SUFFIX}"
    written = await export_tenant(
        servers, tenant, path, node=node, plane=plane, with_files=with_files, progress=progress
    )
    manifest = await asyncio.to_thread(read_manifest, path)
    if manifest != written:
        raise Invalid(
            f"{path.name} does not read back as it was written; the older backups were kept. "
            "Check the disk.",
            code="archive.mismatch",
        )
    is_short = manifest.files is not None and bool(manifest.files.missing)
    removed = [] if is_short else list_backups(folder, found.slug)[:-keep]
    for old in removed:
        old.unlink(missing_ok=True)
    return Backup(path, manifest, tuple(removed))


def list_backups(folder: Path, slug: str) -> list[Path]:
    """The backups of one tenant, oldest first."""
    name = re.compile(rf"{re.escape(slug)}-\d{{8}}T\d{{6}}Z{re.escape(SUFFIX)}")
    return sorted(path for path in folder.iterdir() if name.fullmatch(path.name))
