"""`nexus tenant …`: one tenant whole, with the bytes of its files where they are needed.

The content plane is asked through its door, so files need the node (or the plane's own machine) to
run; a tenant without files does not.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from uuid import UUID

from appliance import tenancy
from appliance.base.errors import ApplianceError
from appliance.base.settings import Settings
from appliance.cli.node import Opened, opened, read_node_settings, read_settings
from appliance.cli.plane import reached
from appliance.content import ContentPlane
from appliance.exchange.box import forget_here
from appliance.runtime.content import KEY_FILE
from appliance.sync.incarnation import note_restored

Work = Callable[[Opened], Awaitable[None]]
FileWork = Callable[[Opened, ContentPlane | None], Awaitable[int]]
_NAMED_MAX = 10


def _run(data: str | None, work: Work) -> None:
    async def go() -> None:
        async with opened(read_settings(data)) as node:
            await work(node)

    asyncio.run(go())


def _run_with_files(data: str | None, port: int | None, work: FileWork) -> int:
    async def go() -> int:
        settings = read_node_settings(data, port)
        async with _plane_of(settings) as plane, opened(settings) as node:
            return await work(node, plane)

    return asyncio.run(go())


@contextlib.asynccontextmanager
async def _plane_of(settings: Settings) -> AsyncIterator[ContentPlane | None]:
    """The plane's client, None on a node that never had one. Whether it answers is not asked."""
    key = settings.files.key_path
    if not (Path(key) if key else settings.data_dir / KEY_FILE).exists():
        yield None
        return
    async with reached(settings) as plane:
        yield plane


def _say_files(manifest: tenancy.Manifest) -> int:
    """What became of the bytes of files; 1 when some are missing."""
    files = manifest.files
    if files is None:
        print("The bytes of files are not in it: --without-files.")
        return 0
    if files.count:
        print(f"{files.count} files with {files.bytes} bytes are in it.")
    if files.rejected:
        print(f"{len(files.rejected)} files that were rejected are in it without their bytes.")
    if files.missing:
        print(
            f"{len(files.missing)} files are in it WITHOUT their bytes, which the content plane does "
            f"not have or cannot read: {_named(files.missing)}"
        )
    return 1 if files.missing else 0


async def _say_restored(node: Opened, manifest: tenancy.Manifest, *, resumed: bool) -> None:
    """What to expect of files that came back."""
    files = manifest.files
    if files is None:
        if count := await tenancy.count_files(node.servers, manifest.tenant):
            print(
                f"The archive is without the bytes of files: {count} files are here as records. "
                "Those whose bytes this node's content plane does not hold cannot be fetched."
            )
        return
    if files.count:
        print(
            f"{files.count} files with {files.bytes} bytes are back; each is served when it was "
            "scanned again and found clean" + ("." if resumed else ", after the tenant is resumed.")
        )
    if lost := (*files.missing, *files.rejected):
        print(f"{len(lost)} files have no bytes in the archive: {_named(lost)}")


def _named(idents: tuple[UUID, ...]) -> str:
    more = len(idents) - _NAMED_MAX
    return ", ".join(map(str, idents[:_NAMED_MAX])) + (f" and {more} more" if more > 0 else "")


def _progress(table: str, rows: int) -> None:
    print(f"\r  {table}: {rows} rows", end="\x1b[K", flush=True)


def list_(*, data: str | None = None) -> None:
    """All tenants, their state and where they live."""

    async def work(node: Opened) -> None:
        for tenant in await tenancy.list_tenants(node.servers):
            print(f"{tenant.slug:24} {tenant.state:10} {tenant.placement:20} {tenant.name}")

    _run(data, work)


def export_(
    tenant: str, file: Path, *, without_files: bool = False, data: str | None = None,
    port: int | None = None,
) -> int:  # fmt: skip
    """Write one tenant whole into a file; exit code 1 when it misses bytes of files."""

    async def work(node: Opened, plane: ContentPlane | None) -> int:
        found = await tenancy.find_tenant(node.servers, tenant)
        manifest = await tenancy.export_tenant(
            node.servers, found.id, file, plane=plane, with_files=not without_files,
            progress=_progress,
        )  # fmt: skip
        rows = sum(t.rows for t in manifest.tables.values())
        print(f"\rExported {tenant}: {rows} rows to {file}.\x1b[K")
        return _say_files(manifest)

    return _run_with_files(data, port, work)


def import_(
    file: Path, *, placement: str = "pool", slug: str | None = None, data: str | None = None,
    port: int | None = None,
) -> int:  # fmt: skip
    """Read a tenant from a file that was exported or backed up."""

    async def work(node: Opened, plane: ContentPlane | None) -> int:
        manifest = await tenancy.import_tenant(
            node.servers, file, placement, slug=slug, plane=plane, progress=_progress
        )
        print(f"\rImported {slug or manifest.slug}; every table fits by count and hash.\x1b[K")
        await _say_restored(node, manifest, resumed=True)
        return 0

    return _run_with_files(data, port, work)


def move_(tenant: str, *, to: str, data: str | None = None) -> None:
    """Move a tenant to another placement; `--to dedicated` makes its own database."""

    async def work(node: Opened) -> None:
        found = await tenancy.find_tenant(node.servers, tenant)
        target = to
        if to == "dedicated":
            target = (await tenancy.create_dedicated(node.servers, found.slug)).name
        moved = await tenancy.move_tenant(node.servers, found.id, target, progress=_progress)
        print(f"\rMoved {tenant} from {moved.source} to {moved.target}.\x1b[K")

    _run(data, work)


def backup_(
    tenant: str, *, folder: Path, keep: int = 7, without_files: bool = False,
    data: str | None = None, port: int | None = None,
) -> int:  # fmt: skip
    """Back a tenant up into a folder, verify it, keep the newest few; exit code 1 when it misses
    bytes of files, and then all older ones are kept.
    """

    async def work(node: Opened, plane: ContentPlane | None) -> int:
        found = await tenancy.find_tenant(node.servers, tenant)
        backup = await tenancy.backup_tenant(
            node.servers, found.id, folder, keep=keep, plane=plane,
            with_files=not without_files, progress=_progress,
        )  # fmt: skip
        print(f"\rBacked {tenant} up to {backup.path}.\x1b[K")
        return _say_files(backup.manifest)

    return _run_with_files(data, port, work)


def restore_(
    file: Path, *, placement: str | None = None, slug: str | None = None, replace: bool = False,
    data: str | None = None, port: int | None = None,
) -> int:  # fmt: skip
    """Restore a tenant; `--replace` overwrites one that was suspended."""

    async def work(node: Opened, plane: ContentPlane | None) -> int:
        manifest = await tenancy.restore_tenant(
            node.servers, file, placement, slug=slug, replace=replace, plane=plane,
            progress=_progress,
        )  # fmt: skip
        print(f"\rRestored {slug or manifest.slug}; every table fits by count and hash.\x1b[K")
        if await note_restored(node.db, manifest.tenant):
            print("Its sites offer again what this copy lacks, as they come by.")
        state = (await tenancy.find_tenant(node.servers, str(manifest.tenant))).state
        await _say_restored(node, manifest, resumed=state == "active")
        return 0

    return _run_with_files(data, port, work)


def suspend_(tenant: str, *, data: str | None = None) -> None:
    """Nobody of the tenant gets in until it is resumed."""

    async def work(node: Opened) -> None:
        await tenancy.suspend(node.servers, (await tenancy.find_tenant(node.servers, tenant)).id)
        print(f"{tenant} is suspended.")

    _run(data, work)


def resume_(tenant: str, *, data: str | None = None, port: int | None = None) -> int:
    """Let a suspended tenant in again, and take over what was judged of its files meanwhile."""

    async def work(node: Opened, plane: ContentPlane | None) -> int:
        found = await tenancy.find_tenant(node.servers, tenant)
        await tenancy.resume(node.servers, found.id)
        print(f"{tenant} is active.")
        if plane is not None and await tenancy.count_files(node.servers, found.id):
            try:
                await tenancy.ask_for_verdicts(node.servers, found.id, plane)
            except ApplianceError as away:
                print(f"What was judged of its files meanwhile comes later: {away.detail}")
        return 0

    return _run_with_files(data, port, work)


def close_(tenant: str, *, data: str | None = None) -> None:
    """End a tenant for good; nobody gets in again. What it has stays until `erase`."""

    async def work(node: Opened) -> None:
        found = await tenancy.find_tenant(node.servers, tenant)
        await tenancy.close_tenant(node.servers, found.id)
        print(f"{tenant} is closed. To erase it: nexus tenant erase {tenant} --confirm {tenant}")

    _run(data, work)


def erase_(
    tenant: str, *, confirm: str, data: str | None = None, port: int | None = None
) -> int:  # fmt: skip
    """Erase a closed tenant, rows and files; `--confirm` repeats its short name."""

    async def work(node: Opened, plane: ContentPlane | None) -> int:
        found = await tenancy.find_tenant(node.servers, tenant)
        gone = await tenancy.erase_tenant(
            node.servers, found.id, confirm, plane=plane,
            forget_here=partial(forget_here, node.settings.data_dir),
        )  # fmt: skip
        print(f"Erased {found.slug} ({found.id}): {gone.rows} rows.")
        print(
            f"The content plane forgot its key and {gone.files} files with {gone.bytes} bytes."
            if gone.asked
            else "It had no files; the content plane was not asked."
        )
        return 0

    return _run_with_files(data, port, work)


def drill_(file: Path, *, data: str | None = None) -> int:
    """Prove a backup: restore it into a database of its own, verify, drop that database."""
    result = 1

    async def work(node: Opened) -> None:
        nonlocal result
        drill = await tenancy.run_drill(node.servers, file, progress=_progress)
        print(f"\r{'The backup is good.' if drill.ok else chr(10).join(drill.faults)}\x1b[K")
        if drill.records_only:
            print(f"{drill.records_only} files are in it as records, without their bytes.")
        elif drill.ok and drill.manifest and drill.manifest.files:
            files = drill.manifest.files
            print(f"{files.count} files with {files.bytes} bytes are in it and fit their records.")
        result = 0 if drill.ok else 1

    _run(data, work)
    return result
