"""A tenant out of a placement into a file, and back: export, import, restore.

Promises: an export is one snapshot of a tenant that may be at work; an archive is proven whole
before anything is written, and loading is one transaction; what is interrupted leaves neither a
tenant nor rows. A tenant that comes from a file starts with its sign-ins ended (API keys stay),
because a session that was revoked since must not come back to life. Bytes of files go to the
content plane before the rows that speak of them are there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from uuid import UUID

import psycopg

from appliance.base import logs
from appliance.base.clock import now
from appliance.base.errors import ApplianceError, Clash, Invalid, Refused
from appliance.content import ContentPlane
from appliance.db.migrate import PLACEMENT, read_scripts
from appliance.tenancy import control
from appliance.tenancy.archive import (
    Heading,
    Manifest,
    Piece,
    TableSum,
    open_archive,
    read_manifest,
    write_archive,
)
from appliance.tenancy.copy import (
    Part,
    TableEnd,
    delete_tenant,
    holds_tenant,
    read_tenant,
    write_tenant,
)
from appliance.tenancy.fence import (
    ARRIVING,
    LEAVING,
    await_writers,
    find_fence,
    lift_fence,
    raise_fence,
)
from appliance.tenancy.files import (
    GRACE_S,
    ask_for_verdicts,
    bring_files,
    forget_fresh,
    has_bytes,
    list_carried,
    read_files,
    require_plane,
)
from appliance.tenancy.servers import Connection, Progress, Servers, connect, entered, locked
from appliance.tenancy.tables import load_revision

_END_SESSIONS = (
    "UPDATE session SET ended_at = now(), ended_reason = 'restored' "
    "WHERE tenant_id = %s AND ended_at IS NULL AND sort <> 'api_key'"
)


async def export_tenant(
    servers: Servers,
    tenant: UUID,
    path: Path,
    *,
    node: str = "",
    plane: ContentPlane | None = None,
    with_files: bool = True,
    progress: Progress | None = None,
) -> Manifest:
    """Write a tenant to a file (mode 600). The tenant may be at work; the file is one moment.

    A tenant with files needs the plane to answer, unless their bytes are to be left out. Raises
    Misconfigured, Unavailable then, before anything is written.
    """
    async with connect(servers.control_dsn) as conn:
        found = await control.get_tenant(conn, tenant)
    async with contextlib.AsyncExitStack() as moment:
        source = await moment.enter_async_context(connect(servers.dsn(found.target)))
        await moment.enter_async_context(entered(source, tenant, snapshot=True))
        if not await holds_tenant(source, tenant):
            raise Refused(
                f"Placement {found.placement} holds no rows of tenant {found.slug}; if a move was "
                "interrupted run `nexus tenant settle`.",
                code="tenant.rows_missing",
            )
        files = await list_carried(source, tenant) if with_files else []
        if files:
            plane = await require_plane(
                plane, f"Tenant {found.slug} has {len(files)} files, whose bytes go along",
                " Without their bytes: --without-files.",
            )  # fmt: skip
        heading = Heading(
            schema_revision=await load_revision(source),
            tenant=tenant,
            slug=found.slug,
            name=found.name,
            node=node,
            created_at=now(),
        )

        async def parts() -> AsyncGenerator[Piece, None]:
            async with contextlib.aclosing(read_tenant(source, tenant, progress)) as rows:
                async for part in rows:
                    yield part
            # The bytes under an id never change: the database need not wait for them.
            await moment.aclose()
            if plane is not None and files:
                async with contextlib.aclosing(
                    read_files(plane, tenant, files, progress)
                ) as pieces:
                    async for piece in pieces:
                        yield piece

        async with contextlib.aclosing(parts()) as all_parts:
            manifest = await write_archive(path, heading, all_parts, with_files=with_files)
    logs.event("tenant.exported", tenant=tenant, rows=manifest.rows, bytes=path.stat().st_size)
    return manifest


async def import_tenant(
    servers: Servers,
    path: Path,
    placement_name: str,
    *,
    slug: str | None = None,
    plane: ContentPlane | None = None,
    progress: Progress | None = None,
    grace_s: float = GRACE_S,
) -> Manifest:
    """Bring a tenant that is not here, under its own id; `slug` renames it. Clash when it is.

    An archive with bytes of files needs the plane. Raises Misconfigured, Unavailable, Invalid.
    """
    manifest = await asyncio.to_thread(read_manifest, path)
    tenant = manifest.tenant
    fresh: list[UUID] = []
    async with locked(servers, tenant) as conn:
        made = await control.create_tenant(
            servers, slug or manifest.slug, manifest.name, placement_name, tenant=tenant
        )
        loaded = False
        try:
            async with connect(servers.dsn(made.target)) as target:
                await check_revision(target, manifest.schema_revision)
                await bring_files(plane, manifest, path, fresh, progress)
                async with entered(target, tenant):
                    await make_room(target, tenant)
                    with open_archive(path) as archive:
                        await load(target, manifest, archive.parts(), progress)
                    await raise_fence(target, tenant, ARRIVING)
                loaded = True
                await conn.execute(
                    "UPDATE tenant SET state = 'active' WHERE id = %s AND state = 'creating'",
                    (tenant,),
                )
                await lift_fence(target, tenant)
        except BaseException:
            if await _undo_import(servers, made, loaded=loaded):
                await _undo_files(plane, tenant, fresh)
            raise
    logs.event("tenant.imported", tenant=tenant, rows=manifest.rows)
    if plane is not None and has_bytes(manifest):
        # The import stands; what the plane says of it is taken over sooner by asking now.
        with contextlib.suppress(ApplianceError):
            await ask_for_verdicts(servers, tenant, plane, grace_s=grace_s)
    return manifest


async def restore_tenant(
    servers: Servers,
    path: Path,
    placement_name: str | None = None,
    *,
    slug: str | None = None,
    replace: bool = False,
    plane: ContentPlane | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Bring a tenant back. One that exists is replaced only with `replace`, suspended, in place.

    What the plane says of its files is taken over when it is resumed: `ask_for_verdicts`.
    """
    manifest = await asyncio.to_thread(read_manifest, path)
    try:
        found = await control.find_tenant(servers, str(manifest.tenant))
    except Refused:
        if placement_name is None:
            raise Invalid(
                "This tenant is not here; name the placement to restore it into.",
                code="placement.missing",
            ) from None
        return await import_tenant(
            servers, path, placement_name, slug=slug, plane=plane, progress=progress
        )
    if not replace:
        raise Clash(
            f"Tenant {found.slug} exists here; suspend it and repeat with --replace to put the "
            "archive in its place.",
            code="tenant.exists",
        )
    if placement_name not in (None, found.placement) or slug not in (None, found.slug):
        raise Invalid(
            f"A tenant is replaced where it is ({found.placement}) and under its name "
            f"({found.slug}); move or rename it in a step of its own.",
            code="tenant.replace",
        )
    await _replace(servers, manifest, path, plane, progress)
    return manifest


async def _replace(
    servers: Servers,
    manifest: Manifest,
    path: Path,
    plane: ContentPlane | None,
    progress: Progress | None,
) -> None:
    tenant = manifest.tenant
    async with locked(servers, tenant) as conn:
        found = await control.get_tenant(conn, tenant)
        if found.state != "suspended":
            raise Clash(
                f"Tenant {found.slug} is {found.state}; suspend it before its rows are replaced.",
                code="tenant.state",
            )
        async with connect(servers.dsn(found.target)) as target:
            await check_revision(target, manifest.schema_revision)
            # They stay whatever comes after: a row of today may be the one that misses them.
            await bring_files(plane, manifest, path, [], progress)
            async with entered(target, tenant):
                await raise_fence(target, tenant, LEAVING)
            try:
                await await_writers(target)
                async with entered(target, tenant):
                    await delete_tenant(target, tenant)
                    with open_archive(path) as archive:
                        await load(target, manifest, archive.parts(), progress)
            finally:
                await _lift_again(servers, found)
    logs.event("tenant.replaced", tenant=tenant, rows=manifest.rows)


async def load(
    conn: Connection,
    manifest: Manifest,
    parts: AsyncIterator[Part],
    progress: Progress | None = None,
) -> dict[str, TableEnd]:
    """Load and verify against the manifest, then end sign-ins; inside the caller's transaction."""
    ends = await write_tenant(conn, manifest.tenant, parts, progress)
    for name, end in ends.items():
        said = manifest.tables.get(name)
        if said != TableSum(end.rows, end.sha256):
            raise Invalid(
                f"Table {name}: the file changed while it was read; expected "
                f"{said.rows if said else 0} rows. Nothing was written.",
                code="archive.mismatch",
            )
    await conn.execute(_END_SESSIONS, (manifest.tenant,))
    return ends


async def check_revision(conn: Connection, expected: str) -> None:
    """Refuse rows of another schema. Raises Invalid."""
    found = await load_revision(conn)
    if found == expected:
        return
    # Revisions are numbered in their order; one this program does not know is a later one.
    if expected < found and expected in {
        s.revision for s in read_scripts(PLACEMENT).walk_revisions()
    }:
        advice = (
            "Rows of an older schema are not converted on the way in. Import the archive with the "
            "Nexus version that wrote it, into an empty data folder; start this version over that "
            "folder, which upgrades it; export the tenant again and import that file here"
        )
    else:
        advice = "They come from a newer Nexus: upgrade this node to that version and try again"
    raise Invalid(
        f"The rows have schema revision {expected}, this placement has {found}; expected the "
        f"same. {advice}. Nothing was written.",
        code="archive.revision",
    )


async def make_room(conn: Connection, tenant: UUID) -> None:
    """Clear what an interrupted move or import left; Clash when rows stand here in their own right."""
    if await find_fence(conn, tenant) is not None:
        await delete_tenant(conn, tenant)
    elif await holds_tenant(conn, tenant):
        raise Clash(
            f"The placement holds rows of tenant {tenant} that no route leads to; nothing was "
            "written. Look at them before you remove them.",
            code="tenant.rows_unrouted",
        )


async def _undo_import(servers: Servers, made: control.Tenant, *, loaded: bool) -> bool:
    """Whether nothing of it is left; an import that was complete already stays."""
    try:
        async with connect(servers.dsn(made.target)) as target, entered(target, made.id):
            is_arriving = await find_fence(target, made.id) == ARRIVING
            if is_arriving:
                await delete_tenant(target, made.id)
                await target.execute("DELETE FROM tenant_fence WHERE tenant_id = %s", (made.id,))
        if loaded and not is_arriving:
            return False  # The fence is lifted already: the import is complete.
        async with connect(servers.control_dsn) as conn:
            await conn.execute(
                "DELETE FROM tenant WHERE id = %s AND state IN ('creating', 'active')", (made.id,)
            )
    except (ApplianceError, psycopg.Error) as error:
        logs.event(
            "tenant.undo_failed", level="error", tenant=made.id, error_type=type(error).__name__
        )
        return False
    return True


async def _undo_files(plane: ContentPlane | None, tenant: UUID, fresh: list[UUID]) -> None:
    """What stays when this fails too is taken for its own when the import is repeated."""
    if plane is None or not fresh:
        return
    try:
        await forget_fresh(plane, tenant, fresh)
    except ApplianceError as error:
        logs.event(
            "tenant.undo_failed", level="error", tenant=tenant, error_type=type(error).__name__
        )


async def _lift_again(servers: Servers, found: control.Tenant) -> None:
    with contextlib.suppress(ApplianceError):
        async with connect(servers.dsn(found.target)) as target:
            await lift_fence(target, found.id)
