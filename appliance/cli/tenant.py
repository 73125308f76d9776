"""`nexus tenant …`: one tenant whole."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from appliance import tenancy
from appliance.cli.node import Opened, opened, read_settings

Work = Callable[[Opened], Awaitable[None]]


def _run(data: str | None, work: Work) -> None:
    async def go() -> None:
        async with opened(read_settings(data)) as node:
            await work(node)

    asyncio.run(go())


def _progress(table: str, rows: int) -> None:
    print(f"\r  {table}: {rows} rows", end="\x1b[K", flush=True)


def list_(*, data: str | None = None) -> None:
    """All tenants, their state and where they live."""

    async def work(node: Opened) -> None:
        for tenant in await tenancy.list_tenants(node.servers):
            print(f"{tenant.slug:24} {tenant.state:10} {tenant.placement:20} {tenant.name}")

    _run(data, work)


def export_(tenant: str, file: Path, *, data: str | None = None) -> None:
    """Write one tenant whole into a file."""

    async def work(node: Opened) -> None:
        found = await tenancy.find_tenant(node.servers, tenant)
        manifest = await tenancy.export_tenant(node.servers, found.id, file, progress=_progress)
        rows = sum(t.rows for t in manifest.tables.values())
        print(f"\rExported {tenant}: {rows} rows to {file}.\x1b[K")

    _run(data, work)


def import_(
    file: Path, *, placement: str = "pool", slug: str | None = None, data: str | None = None
) -> None:
    """Read a tenant from a file that was exported or backed up."""

    async def work(node: Opened) -> None:
        manifest = await tenancy.import_tenant(
            node.servers, file, placement, slug=slug, progress=_progress
        )
        print(f"\rImported {slug or manifest.slug}; every table fits by count and hash.\x1b[K")

    _run(data, work)


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


def backup_(tenant: str, *, folder: Path, keep: int = 7, data: str | None = None) -> None:
    """Back a tenant up into a folder, verify it, keep the newest few."""

    async def work(node: Opened) -> None:
        found = await tenancy.find_tenant(node.servers, tenant)
        backup = await tenancy.backup_tenant(
            node.servers, found.id, folder, keep=keep, progress=_progress
        )
        print(f"\rBacked {tenant} up to {backup.path}.\x1b[K")

    _run(data, work)


def restore_(
    file: Path, *, placement: str | None = None, slug: str | None = None, replace: bool = False,
    data: str | None = None,
) -> None:  # fmt: skip
    """Restore a tenant; `--replace` overwrites one that was suspended."""

    async def work(node: Opened) -> None:
        manifest = await tenancy.restore_tenant(
            node.servers, file, placement, slug=slug, replace=replace, progress=_progress
        )
        print(f"\rRestored {slug or manifest.slug}; every table fits by count and hash.\x1b[K")

    _run(data, work)


def suspend_(tenant: str, *, data: str | None = None) -> None:
    """Nobody of the tenant gets in until it is resumed."""

    async def work(node: Opened) -> None:
        await tenancy.suspend(node.servers, (await tenancy.find_tenant(node.servers, tenant)).id)
        print(f"{tenant} is suspended.")

    _run(data, work)


def resume_(tenant: str, *, data: str | None = None) -> None:
    """Let a suspended tenant in again."""

    async def work(node: Opened) -> None:
        await tenancy.resume(node.servers, (await tenancy.find_tenant(node.servers, tenant)).id)
        print(f"{tenant} is active.")

    _run(data, work)


def drill_(file: Path, *, data: str | None = None) -> int:
    """Prove a backup: restore it into a database of its own, verify, drop that database."""
    result = 1

    async def work(node: Opened) -> None:
        nonlocal result
        drill = await tenancy.run_drill(node.servers, file, progress=_progress)
        print(f"\r{'The backup is good.' if drill.ok else chr(10).join(drill.faults)}\x1b[K")
        result = 0 if drill.ok else 1

    _run(data, work)
    return result
