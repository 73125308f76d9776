"""A file that comes in parts over a weak link: begin, go on, finish, give up.

Nothing of it is remembered here: its name, size, place and owner stand in its `sys.file`, its bytes
and offset in the plane, and what it may be is asked anew at its end. So a restart of this process
ends no upload, and rights that were taken meanwhile do.

Promises: only who began it goes on; what is acknowledged at last is `held` and will be judged; an
upload that nobody goes on with for `UPLOAD_S` is `expired`.
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from datetime import datetime
from uuid import UUID

import msgspec

from appliance.base.clock import now
from appliance.base.errors import (
    Clash,
    Forbidden,
    Invalid,
    Refused,
    TooLarge,
)
from appliance.base.settings import Files as Limits
from appliance.content import LOST, ContentPlane
from appliance.db.database import Database
from appliance.files import upload
from appliance.files.places import Place
from appliance.files.rows import File, find_file, move
from appliance.files.states import FileState
from appliance.kernel.context import Ctx
from quarantine.contract import ScanJob

_OVER = frozenset({FileState.EXPIRED, FileState.PURGED})
SILENT = "Nothing came for an hour."


class Door(msgspec.Struct, frozen=True):
    """What an upload goes through: the tenant's database as a person, the limits, the plane."""

    db: Database
    ctx: Ctx
    limits: Limits
    plane: ContentPlane


class Standing(msgspec.Struct, frozen=True):
    """How far an upload is. At its end it has no `expires_at`, and is a file like any other."""

    file: File
    offset: int
    expires_at: datetime | None = None

    @property
    def is_whole(self) -> bool:
        """All bytes are in the plane; the file may still have to be finished."""
        return self.offset == self.file.size


async def begin(door: Door, *, name: str, size: int, place: Place, sha256: str = "") -> Standing:
    """An upload of `size` bytes, more than none. Raises what `upload.begin` raises, Unavailable."""
    file, job = await upload.begin(
        door.db, door.ctx, door.limits, name=name, place=place, size=size
    )
    try:
        arrived = await door.plane.begin(job, size, sha256)
    except BaseException:
        await upload.expire(door.db, door.ctx, file, "The upload could not begin.")
        raise
    return Standing(file, arrived.offset, arrived.expires_at)


async def find_own(db: Database, ctx: Ctx, ident: UUID) -> File:
    """An upload that the actor began and that goes on or was finished. Raises Refused."""
    file = await find_file(db, ctx.tenant, ident)
    # Of a file that comes in one piece the size is not known until it is there.
    if file is None or file.owner != ctx.actor or file.deleted_at is not None or not file.size:
        raise Refused("There is no such upload for you.", code="upload.unknown")
    if file.state in _OVER:
        raise _gone()
    if file.state is FileState.RECEIVING and file.made_by != ctx.origin:
        raise Refused("This upload goes on at the node where it began.", code="upload.elsewhere")
    return file


async def look(door: Door, file: File) -> Standing:
    """Where to go on; what is whole is finished. Raises Refused when the plane gave it up, Locked."""
    if file.state is not FileState.RECEIVING:
        return Standing(file, file.size)
    try:
        arrived = await door.plane.progress(_job(door, file))
    except Refused as refused:
        raise await _lost(door, file, refused) from None
    return Standing(file, arrived.offset, arrived.expires_at)


async def take(
    door: Door, file: File, offset: int, pieces: AsyncIterable[bytes], crc32: int | None
) -> Standing:
    """One part. Raises Clash, Spoiled, Locked, TooLarge, Refused, Unavailable."""
    if file.state is not FileState.RECEIVING:
        if offset != file.size:
            raise Clash(
                f"This upload is whole with {file.size} bytes.",
                code="upload.offset", offset=file.size,
            )  # fmt: skip
        return Standing(file, file.size)
    try:
        arrived = await door.plane.append(_job(door, file), offset, pieces, crc32)
    except Refused as refused:
        raise await _lost(door, file, refused) from None
    return Standing(file, arrived.offset, arrived.expires_at)


async def finish(door: Door, file: File) -> File:
    """Make it a file that is held; again is fine. Its place, its name and its size are checked as
    they would be now: what may not come any more is `expired`.

    Raises Refused, Forbidden, Invalid, TooLarge; Clash `file.changed` when it is not what its
    SHA-256 said; Locked, Unavailable, StorageFull, after which it can be repeated.
    """
    if file.state is not FileState.RECEIVING:
        return file
    place = Place(file.for_kind, file.for_record, file.for_field)
    try:
        taking = await upload.check_terms(
            door.db, door.ctx, door.limits, name=file.name, place=place, size=file.size
        )
    except (Refused, Forbidden, Invalid, TooLarge) as refused:
        await give_up(door, file, refused.detail)
        raise
    job = ScanJob(file.id, door.ctx.tenant, file.name, upload.policy_of(taking), now())
    try:
        stored = await door.plane.finish(job)
    except Refused as refused:
        raise await _lost(door, file, refused) from None
    except Clash as clash:
        if clash.code == "file.changed":
            await upload.expire(door.db, door.ctx, file, clash.detail)
        raise
    held = await upload.hold(door.db, door.ctx, file, stored)
    if held.state in _OVER:
        # It was given up while the plane made a blob of it.
        await door.plane.give_up(door.ctx.tenant, file.id)
        raise _gone()
    return held


async def give_up(door: Door, file: File, reason: str = "It was given up.") -> None:
    """End an upload; its bytes go. Raises Clash when it is a file already, Unavailable."""
    await move(door.db, door.ctx, file, FileState.EXPIRED, "file.expired", {"reason": reason[:500]})
    await door.plane.give_up(door.ctx.tenant, file.id)


def _job(door: Door, file: File) -> ScanJob:
    return upload.job_of(file, door.ctx.tenant, priority=0)


async def _lost(door: Door, file: File, refused: Refused) -> Refused:
    """When the plane has given it up, so does the node; any other refusal stays what it is."""
    if refused.code != LOST:
        return refused
    await upload.expire(door.db, door.ctx, file, SILENT)
    return _gone()


def _gone() -> Refused:
    return Refused(
        "This upload has ended: it was given up, or nothing came for an hour. Begin it anew.",
        code="upload.ended",
    )
