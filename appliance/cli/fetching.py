"""A released file onto this machine's disk, by the rules of a download.

Promises: only bytes that the plane calls clean now, judged anew first where a download would; the
audit says who was let in before the first byte and who has it before the file bears its name; the
name is taken when all bytes are there and are those that were judged, and nothing is overwritten.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

from appliance.audit import audit_calls
from appliance.base.errors import Clash, Invalid, StorageFull, Unavailable
from appliance.content import ContentPlane
from appliance.db.database import Database
from appliance.files.rows import File
from appliance.files.states import FileState
from appliance.files.tickets import check_downloadable, make_current
from appliance.kernel.context import Ctx

_DOOR = "command line"


async def fetch(
    db: Database, ctx: Ctx, plane: ContentPlane, file: File, out: Path | None, *,
    report: Callable[[int], object],
) -> Path:  # fmt: skip
    """Where it is now. `report` is told of bytes as they come.

    Raises Clash while the file is not released, Invalid for a place that cannot be written,
    Unavailable, StorageFull.
    """
    check_downloadable(ctx, file)
    if file.state is FileState.RESTRICTED:
        raise Clash(
            "This file is not clean, two reviewers let it out: it is downloaded with a ticket, "
            "through the API.",
            code="file.restricted",
        )
    file = await make_current(db, ctx, plane, file)
    target = _target(out, file.name)
    await _audit(db, ctx, "file.ticket_issued", file, {"ticket": _DOOR})
    draft = target.with_name(f".{secrets.token_hex(8)}.part")
    digest, count = sha256(), 0
    try:
        with _opened(draft) as descriptor:
            async for piece in plane.read(ctx.tenant, file.id):
                digest.update(piece)
                count += len(piece)
                await asyncio.to_thread(_write, descriptor, piece)
                report(len(piece))
            await asyncio.to_thread(os.fsync, descriptor)
        whole = (digest.hexdigest(), count) == (file.sha256, file.size)
        await _audit(db, ctx, "file.downloaded", file, {"bytes": count, "whole": whole})
        count = 0
        if not whole:
            raise Unavailable(
                f"What came of {file.name} is not what was judged; nothing was kept. Repeat.",
                dependency="content plane",
            )
        _name(draft, target)
    finally:
        draft.unlink(missing_ok=True)
        if count:
            # It broke on the way: some of it was sent.
            await _audit(db, ctx, "file.downloaded", file, {"bytes": count, "whole": False})
    return target


async def _audit(db: Database, ctx: Ctx, action: str, file: File, more: dict[str, object]) -> None:
    event = audit_calls(
        ctx.tenant, action, actor=ctx.actor, subject=file.id, request_id=ctx.request_id,
        details={**more, "door": _DOOR},
    )  # fmt: skip
    async with db.transaction(ctx.tenant) as tx:
        await tx.run(*event, commit=True)


def _target(out: Path | None, name: str) -> Path:
    target = out or Path(name)
    if target.is_dir():
        target = target / name
    if os.path.lexists(target):
        raise Invalid(f"{target} is there already; say another place with --out.")
    if not target.parent.is_dir():
        raise Invalid(f"There is no folder {target.parent}.")
    return target


@contextlib.contextmanager
def _opened(draft: Path) -> Iterator[int]:
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(draft, flags, 0o600)
    except OSError as bad:
        raise Invalid(f"Nothing can be written in {draft.parent}: {bad.strerror}.") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write(descriptor: int, piece: bytes) -> None:
    left = memoryview(piece)
    try:
        while left:
            left = left[os.write(descriptor, left) :]
    except OSError as bad:
        raise StorageFull(
            f"The file cannot be written: {bad.strerror}.", dependency="disk"
        ) from None


def _name(draft: Path, target: Path) -> None:
    """A link, not a rename: what somebody put there meanwhile stays. Some disks have no links."""
    try:
        try:
            os.link(draft, target, follow_symlinks=False)
        except PermissionError:
            if os.path.lexists(target):
                raise FileExistsError from None
            draft.rename(target)
    except FileExistsError:
        raise Invalid(f"{target} is there already; say another place with --out.") from None
    except OSError as bad:
        raise Invalid(f"{target} cannot be written: {bad.strerror}.") from None
