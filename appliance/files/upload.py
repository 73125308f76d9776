"""The one way in for bytes: of the API, of imports, of mail and of replication alike.

Promises: a file that was acknowledged is stored and will be judged, whatever is killed meanwhile;
an upload that broke leaves a file that is `expired`; nobody sends a hash instead of bytes.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterable
from uuid import UUID

import msgspec

from appliance.base.clock import now
from appliance.base.errors import ApplianceError, Clash, FieldFault, Invalid, Limited, TooLarge
from appliance.base.ids import uuid7
from appliance.base.settings import Files as Limits
from appliance.content import ContentPlane
from appliance.db.database import Database
from appliance.files.copies import here_call
from appliance.files.places import Place, Taking, check_place
from appliance.files.rows import File, bytes_used, create, find_file, move
from appliance.files.states import FileState
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from quarantine.contract import Policy, ScanJob, Stored
from quarantine.names import BadName, check_name

WAITS = "It waits for its scan."


async def begin(
    db: Database, ctx: Ctx, limits: Limits, *, name: str, place: Place, size: int | None = None
) -> tuple[File, ScanJob]:
    """A file that is about to come, and the job under which its bytes go to the plane.

    `size`, where it is known before, is counted as used from now on. Raises Invalid for a name or
    a type that is not taken there, TooLarge, Limited over a quota, Refused.
    """
    clean = _check_name(name)
    taking = await check_terms(db, ctx, limits, name=clean, place=place, size=size or 0)
    of_tenant, of_person = await bytes_used(db, ctx.tenant, ctx.actor)
    # Of a file whose size is not said one byte is enough to know that there is room.
    more = size or 1
    over = of_tenant + more > limits.tenant_bytes_max
    if over or of_person + more > limits.person_bytes_max:
        whose = "The company's" if over else "Your"
        raise Limited(
            f"{whose} space for files is used up; delete some, or have it raised.",
            code="file.quota", retry_after_s=3_600,
        )  # fmt: skip
    ident = uuid7()
    fields = {"name": clean, "for_kind": place.kind or None, "for_field": place.field or None,
              "for_record": str(place.record) if place.record else None}  # fmt: skip
    given: dict[str, Json] = {k: v for k, v in fields.items() if v is not None}
    if size is not None:
        given["size"] = size
    file = await create(db, ctx, ident, given, taking.unit)
    return file, ScanJob(ident, ctx.tenant, clean, policy_of(taking), now())


async def check_terms(
    db: Database, ctx: Ctx, limits: Limits, *, name: str, place: Place, size: int
) -> Taking:
    """Whether the actor may bring such a file there. Raises Refused, Forbidden, Invalid, TooLarge."""
    taking = await check_place(db, ctx, place, limits.bytes_max)
    _check_extension(name, taking)
    if size > taking.bytes_max:
        raise TooLarge(
            f"The file has {size} bytes; at most {taking.bytes_max} are taken there.",
            code="file.too_large",
        )
    return taking


async def receive(
    db: Database,
    ctx: Ctx,
    plane: ContentPlane,
    file: File,
    job: ScanJob,
    pieces: AsyncIterable[bytes],
) -> File:
    """Hand the bytes over; the file is held from then on. Raises TooLarge, Unavailable and others;
    the file is then `expired`.
    """
    try:
        stored = await plane.put(job, pieces)
    except BaseException:
        await expire(db, ctx, file, "The upload did not end.")
        raise
    return await hold(db, ctx, file, stored)


async def hold(db: Database, ctx: Ctx, file: File, stored: Stored) -> File:
    """Note that the bytes are there. The verdict may have come first: then that stands."""
    values: dict[str, Json] = {"sha256": stored.sha256, "size": stored.size, "reason": WAITS}
    with contextlib.suppress(Clash):
        also = [here_call(ctx.tenant, file.id)]
        await move(db, ctx, file, FileState.HELD, "file.received", values, also=also)
    found = await find_file(db, ctx.tenant, file.id)
    assert found is not None, "files are not removed"
    return found


async def expire(db: Database, ctx: Ctx, file: File, reason: str) -> None:
    """Say that nothing more will come, if that can be said now; the chore says it otherwise."""
    with contextlib.suppress(ApplianceError):
        await move(db, ctx, file, FileState.EXPIRED, "file.expired", {"reason": reason[:500]})


def job_of(file: File, tenant: UUID, *, priority: int) -> ScanJob:
    """A job that looks at a file again; the plane keeps the policy it came in with."""
    return ScanJob(file.id, tenant, file.name, Policy(), now(), priority)


def policy_of(taking: Taking) -> Policy:
    """The policy of the plane for what a place takes."""
    policy = Policy(extensions=taking.extensions, bytes_max=taking.bytes_max)
    # One part of an archive is never larger than what may come in as a whole.
    return msgspec.structs.replace(
        policy, unpacked_bytes_max=max(policy.unpacked_bytes_max, 2 * taking.bytes_max)
    )


def _check_name(name: str) -> str:
    try:
        return check_name(name)
    except BadName as bad:
        raise Invalid(str(bad), faults=(FieldFault("/name", "name_malformed", str(bad)),)) from None


def _check_extension(name: str, taking: Taking) -> None:
    ending = name.rpartition(".")[2].lower() if "." in name else ""
    if taking.extensions and ending not in taking.extensions:
        detail = f"Expected one of: {', '.join(taking.extensions)}."
        raise Invalid(detail, faults=(FieldFault("/name", "type_not_allowed", detail),))
