"""A tenant's files in what is done with it whole: the rows are here, the bytes in the content plane.

Promises: an archive has all bytes that a row may still need, or names the file; what comes back is
judged anew by the plane and served on that word alone, so that rows may say `released` as they did:
nothing of them is lost, no arrow is drawn past its guards, and the log still fits the records.
Bytes of rejected files are in no archive, because nobody is ever given them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, suppress
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import msgspec

from appliance.base.clock import now
from appliance.base.errors import Invalid, Misconfigured, Refused, Unavailable
from appliance.content import ContentPlane
from appliance.db.placement import REFRESH_S
from appliance.tenancy import control
from appliance.tenancy.archive import Manifest, Piece, open_archive
from appliance.tenancy.blobs import BlobEnd, BlobStart, Fault
from appliance.tenancy.servers import Connection, Progress, Servers, connect, entered
from quarantine.contract import Policy, ScanJob, Verdict

GRACE_S = REFRESH_S + 1.0
# People's own files are looked at before what comes back, as with a rescan.
_PRIORITY = 5
_TRIES = 2
_AT_ONCE = 8
_PROGRESS_FILES = 100
_WITH_BYTES = "data->>'state' IN ('held', 'suspicious', 'released', 'restricted', 'recalled')"
_CARRIED = (
    "SELECT id, deleted_at IS NOT NULL FROM record WHERE tenant_id = %s AND kind = 'sys.file' "
    f"AND {_WITH_BYTES} ORDER BY id"
)
_PROMISED = (
    "SELECT id, (data->>'size')::bigint, data->>'sha256' FROM record WHERE tenant_id = %s AND "
    f"kind = 'sys.file' AND {_WITH_BYTES} AND deleted_at IS NULL ORDER BY id"
)
_ANY = "SELECT count(*) FROM record WHERE tenant_id = %s AND kind = 'sys.file'"
_STATES = (
    "SELECT id, data->>'name', data->>'state' FROM record WHERE tenant_id = %s AND "
    f"kind = 'sys.file' AND {_WITH_BYTES} AND deleted_at IS NULL ORDER BY id"
)
_FITTING = {
    "released": {Verdict.CLEAN},
    "restricted": {Verdict.CLEAN, Verdict.SUSPICIOUS},
    "suspicious": {Verdict.SUSPICIOUS},
    "recalled": set(Verdict),
}


class Carried(msgspec.Struct, frozen=True):
    """A file whose bytes go along. Those of a deleted one may be purged by now."""

    id: UUID
    is_deleted: bool


async def list_carried(conn: Connection, tenant: UUID) -> list[Carried]:
    """The files whose bytes an archive has to have; inside the tenant."""
    rows = await (await conn.execute(_CARRIED, (tenant,))).fetchall()
    return [Carried(UUID(str(row[0])), bool(row[1])) for row in rows]


async def count_files(servers: Servers, tenant: UUID) -> int:
    """How many files a tenant has records of, whatever their state."""
    found = await control.find_tenant(servers, str(tenant))
    async with connect(servers.dsn(found.target)) as conn, entered(conn, tenant):
        return await count_rows(conn, tenant)


async def count_rows(conn: Connection, tenant: UUID) -> int:
    """The same on an open connection inside the tenant."""
    row = await (await conn.execute(_ANY, (tenant,))).fetchone()
    return int(str(row[0])) if row else 0


async def require_plane(plane: ContentPlane | None, what: str, instead: str = "") -> ContentPlane:
    """The plane, when it answers. `what` says what needs it. Raises Misconfigured, Unavailable."""
    if plane is None:
        raise Misconfigured(
            f"{what}, and this node has no content plane: start it once with `nexus up`. Nothing "
            f"was done.{instead}"
        )
    try:
        await plane.status()
    except (Unavailable, Refused):
        raise Unavailable(
            f"{what}, and the content plane does not answer: start the node with `nexus up`, or say "
            f"with --port where it listens. Nothing was done.{instead}",
            dependency="content plane",
        ) from None
    return plane


async def read_files(
    plane: ContentPlane, tenant: UUID, files: list[Carried], progress: Progress | None = None
) -> AsyncGenerator[Piece, None]:
    """The bytes of files for an archive, one after the other. Raises Unavailable when the plane
    goes away meanwhile: what it has not then is not missing.
    """
    for number, file in enumerate(files, 1):
        for _ in range(_TRIES):
            end = None
            async with aclosing(_read_file(plane, tenant, file)) as pieces:
                async for piece in pieces:
                    end = piece
                    yield piece
            # Bytes that broke off are asked for once more; what was refused stays refused.
            if not isinstance(end, BlobEnd) or end.fault is not Fault.MISSING or not end.size:
                break
        if progress and (number % _PROGRESS_FILES == 0 or number == len(files)):
            progress("files", number)


async def _read_file(
    plane: ContentPlane, tenant: UUID, file: Carried
) -> AsyncGenerator[Piece, None]:
    digest, size, begun = sha256(), 0, False
    try:
        async with plane.copy(tenant, file.id) as (copied, pieces):
            policy = copied.policy
            begun = True
            yield BlobStart(file.id, copied.name, policy.extensions, policy.bytes_max)
            async for piece in pieces:
                digest.update(piece)
                size += len(piece)
                yield piece
            is_whole = (size, digest.hexdigest()) == (copied.size, copied.sha256)
    except Refused as refused:
        is_rejected = refused.code == "file.rejected"
        if file.is_deleted and not is_rejected:
            return
        yield BlobStart(file.id)
        yield BlobEnd(file.id, fault=Fault.REJECTED if is_rejected else Fault.MISSING)
        return
    except Unavailable:
        if not begun:
            raise
        # It broke off: the plane is away, which is raised, or these bytes are damaged.
        await plane.status()
        is_whole = False
    fault = None if is_whole else Fault.MISSING
    yield BlobEnd(file.id, size, digest.hexdigest(), fault)


def has_bytes(manifest: Manifest) -> bool:
    """Whether an archive has bytes of files."""
    return manifest.files is not None and manifest.files.count > 0


async def bring_files(
    plane: ContentPlane | None,
    manifest: Manifest,
    path: Path,
    fresh: list[UUID],
    progress: Progress | None = None,
) -> None:
    """Give the plane the bytes of an archive, if it has any; `fresh`: see `restore_files`."""
    if manifest.files is None or not has_bytes(manifest):
        return
    sums = manifest.files
    there = await require_plane(plane, f"{path.name} has the bytes of {sums.count} files")
    with open_archive(path) as archive:
        await restore_files(there, manifest.tenant, archive.read(), fresh=fresh, progress=progress)
        if archive.manifest != manifest:
            raise Invalid(
                f"{path.name} changed while it was read. No rows were written.",
                code="archive.mismatch",
            )


async def restore_files(
    plane: ContentPlane,
    tenant: UUID,
    pieces: Iterator[Piece],
    *,
    fresh: list[UUID],
    progress: Progress | None = None,
) -> int:
    """Give the plane all bytes of an open archive, each under a signed order; how many files.

    `fresh` is filled with those that it did not have, also when this breaks off; to repeat it
    changes nothing. Raises Unavailable, StorageFull, Refused, Invalid.
    """
    count = 0
    for piece in pieces:
        if isinstance(piece, BlobStart) and await _restore_file(
            plane, tenant, piece, pieces, fresh
        ):
            count += 1
            if progress and count % _PROGRESS_FILES == 0:
                progress("files", count)
    if progress:
        progress("files", count)
    return count


async def _restore_file(
    plane: ContentPlane, tenant: UUID, start: BlobStart, pieces: Iterator[Piece], fresh: list[UUID]
) -> bool:
    first = next(pieces)
    if isinstance(first, BlobEnd) and first.fault is not None:
        return False
    ends: list[BlobEnd] = []

    async def body() -> AsyncIterator[bytes]:
        piece = first
        while isinstance(piece, bytes):
            yield piece
            piece = next(pieces)
        assert isinstance(piece, BlobEnd), "the archive checks the order of its parts"
        ends.append(piece)
        if piece.fault is not None:
            raise _NotWhole

    job = ScanJob(start.id, tenant, start.name, _policy(start), now(), _PRIORITY)
    try:
        stored = await plane.restore(job, body())
    except _NotWhole:
        return False
    if not ends or (stored.size, stored.sha256) != (ends[0].size, ends[0].sha256):
        raise Invalid(
            f"File {start.id}: what the content plane stored is not what the archive has; the file "
            "changed while it was read. No rows were written.",
            code="archive.mismatch",
        )
    if stored.fresh:
        fresh.append(start.id)
    return True


class _NotWhole(Exception):
    """The archive itself says that these bytes broke off; the plane then keeps nothing of them."""


def _policy(start: BlobStart) -> Policy:
    """The checks are this program's own: an archive says only what its place took."""
    most = max(start.bytes_max, 1)
    policy = Policy(extensions=start.extensions, bytes_max=most)
    return msgspec.structs.replace(
        policy, unpacked_bytes_max=max(policy.unpacked_bytes_max, 2 * most)
    )


async def forget_fresh(plane: ContentPlane, tenant: UUID, fresh: list[UUID]) -> None:
    """Take back what `restore_files` brought, for an import that did not end."""
    for ident in fresh:
        await plane.purge(tenant, ident)


async def ask_for_verdicts(
    servers: Servers, tenant: UUID, plane: ContentPlane, *, grace_s: float = GRACE_S
) -> int:
    """Have the plane say again what does not fit the rows of an active tenant; how many files.

    What it judges while nobody gets in is not taken over: the worker knows of no such tenant.
    `grace_s` lets all processes see that it is back. Raises Unavailable.
    """
    found = await control.find_tenant(servers, str(tenant))
    await asyncio.sleep(grace_s)
    async with connect(servers.dsn(found.target)) as conn, entered(conn, tenant):
        rows = await (await conn.execute(_STATES, (tenant,))).fetchall()
    gate = asyncio.Semaphore(_AT_ONCE)

    async def ask(ident: UUID, name: str, state: str) -> bool:
        async with gate:
            with suppress(Refused):
                verdict = (await plane.look(tenant, ident)).verdict
                if verdict is not None and verdict not in _FITTING.get(state, set()):
                    await plane.scan(ScanJob(ident, tenant, name, Policy(), now(), _PRIORITY))
                    return True
            return False

    asked = [ask(UUID(str(i)), str(name), str(state)) for i, name, state in rows]
    return sum(await asyncio.gather(*asked))


async def compare_files(conn: Connection, tenant: UUID, ends: dict[UUID, BlobEnd]) -> list[str]:
    """What rows promise and an archive does not hold, in words; inside the tenant."""
    faults = []
    rows = await (await conn.execute(_PROMISED, (tenant,))).fetchall()
    for found, size, digest in rows:
        end = ends.get(UUID(str(found)))
        if end is None or end.fault is Fault.MISSING:
            faults.append(f"File {found}: its bytes are not in the backup.")
        elif end.fault is None and (end.size, end.sha256) != (size, digest):
            faults.append(
                f"File {found}: its record says {size} bytes with SHA-256 {digest}; the backup has "
                f"{end.size} bytes with {end.sha256}."
            )
    return faults
