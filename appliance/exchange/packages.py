"""What became of each file that a client asked to be imported: taken over, then one intake run.

A row is asked for by the client again and again (`progress`) until its run has been read whole.
The bytes go through the content plane like any other file; the run waits for its verdict.
"""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import msgspec

from appliance.access.acting import act_as
from appliance.base.errors import ApplianceError, Refused
from appliance.base.settings import Files as Limits
from appliance.content import ContentPlane
from appliance.db.database import Database
from appliance.db.values import text_of
from appliance.db.wire import Call, Statement
from appliance.exchange.box import Box, Drop, read_drop
from appliance.files import upload
from appliance.files.places import Place
from appliance.files.rows import File
from appliance.intake import runs
from appliance.kernel.context import Ctx, Door
from quarantine.names import BadName, check_name

_COLUMNS = "id::text, name, state, detail, run::text, job_id::text"
_FIND = Statement(
    f"SELECT {_COLUMNS} FROM exchange_package WHERE tenant_id = $1 AND session_id = $2 "
    "AND sort = $3 AND (name = $4 OR lower(name) LIKE '%.zip') "
    "ORDER BY name = $4 DESC, id DESC LIMIT 1"
)
_GET = Statement(
    "SELECT session_id::text, sort, name, source, state, actor::text, profile_id::text, "
    "array_to_json(units)::text FROM exchange_package WHERE tenant_id = $1 AND id = $2"
)
_BEGIN = Statement(
    "INSERT INTO exchange_package (tenant_id, session_id, sort, name, id, source, actor, "
    "profile_id, units) SELECT $1, $2, $3, $4, $5, s.label, $6, $7, $8::uuid[] FROM session s "
    "WHERE s.tenant_id = $1 AND s.id = $2 ON CONFLICT (tenant_id, session_id, sort, name) "
    "DO UPDATE SET id = EXCLUDED.id, source = EXCLUDED.source, actor = EXCLUDED.actor, "
    "profile_id = EXCLUDED.profile_id, units = EXCLUDED.units, state = 'taking', detail = '', "
    "run = NULL, job_id = NULL, created_at = now()"
)
_SET_JOB = Statement("UPDATE exchange_package SET job_id = $3 WHERE tenant_id = $1 AND id = $2")
_TAKEN = Statement(
    "UPDATE exchange_package SET state = 'taken', run = $3 WHERE tenant_id = $1 AND id = $2"
)
_FAILED = Statement(
    "UPDATE exchange_package SET state = 'failed', detail = $3 WHERE tenant_id = $1 AND id = $2"
)
_FORGET = Statement(
    "DELETE FROM exchange_package WHERE tenant_id = $1 AND session_id = $2 AND sort = $3 "
    "AND state <> 'taking'"
)
_TAKING = Statement(
    "SELECT 1 FROM exchange_package WHERE tenant_id = $1 AND session_id = $2 AND sort = $3 "
    "AND state = 'taking' LIMIT 1"
)


class Package(msgspec.Struct, frozen=True):
    """One file that was asked to be imported. States: taking, taken (it has a run), failed."""

    id: UUID
    name: str
    state: str
    detail: str
    run: UUID | None
    job: UUID | None


async def find_package(db: Database, ctx: Ctx, sort: str, name: str) -> Package | None:
    """What became of this name, or else of the last archive, which held it."""
    (rows,) = await db.read(ctx.tenant, (_FIND, (ctx.tenant, ctx.session, sort, name)))
    row = rows.first()
    if row is None:
        return None
    ident, name, state, detail, run, job = (text_of(v) for v in row)
    return Package(
        UUID(ident), name, state, detail, UUID(run) if run else None, UUID(job) if job else None
    )


async def is_taking(db: Database, ctx: Ctx, sort: str) -> bool:
    """Whether something of this exchange is being taken over just now."""
    (rows,) = await db.read(ctx.tenant, (_TAKING, (ctx.tenant, ctx.session, sort)))
    return rows.first() is not None


def begin_call(ctx: Ctx, sort: str, drop: Drop, ident: UUID) -> Call:
    """Note that a file is to be taken over in the name of who asks."""
    profile, units = UUID(ctx.profile.id), sorted(ctx.units)
    return _BEGIN, (ctx.tenant, ctx.session, sort, drop.name, ident, ctx.actor, profile, units)


def job_call(tenant: UUID, ident: UUID, job: UUID) -> Call:
    """Note who takes it over."""
    return _SET_JOB, (tenant, ident, job)


def forget_call(ctx: Ctx, sort: str) -> Call:
    """A client that begins anew asks for nothing of before."""
    return _FORGET, (ctx.tenant, ctx.session, sort)


async def take_over(
    db: Database,
    tenant: UUID,
    ident: UUID,
    *,
    plane: ContentPlane,
    limits: Limits,
    data_dir: Path,
    origin: int,
) -> tuple[runs.IntakeRun, File] | None:
    """Give a file to the content plane and make its run; None when there is nothing to do.

    Raises Unavailable while a dependency is down; what is refused ends the package and says why.
    """
    (rows,) = await db.read(tenant, (_GET, (tenant, ident)))
    row = rows.first()
    if row is None:
        return None
    session, sort, name, source, state, actor, profile, units = (text_of(v) for v in row)
    if state != "taking":
        return None
    box = Box(data_dir, tenant, UUID(session), sort)
    drop = next((d for d in box.drops() if d.name == name), None)
    try:
        if drop is None:
            raise Refused("What was sent is no longer here; send it again.")
        own = frozenset(UUID(u) for u in msgspec.json.decode(units or "[]", type=list[str]))
        ctx = await act_as(
            db, tenant, UUID(actor), UUID(profile), own, origin=origin, door=Door.INTAKE
        )
        file, job = await upload.begin(
            db, ctx, limits, name=_file_name(drop), place=Place(), size=None
        )
        held = await upload.receive(db, ctx, plane, file, job, read_drop(drop))
    except ApplianceError as error:
        if error.status >= 500:
            raise
        async with db.transaction(tenant) as tx:
            await tx.run((_FAILED, (tenant, ident, error.detail[:500])), commit=True)
        return None
    new = runs.NewRun(
        connector="commerceml", source=source.strip() or "1C", file_name=_file_name(drop),
        sha256=held.sha256, size=held.size, blob=held.id,
    )  # fmt: skip
    run = runs.new_id()
    async with db.transaction(tenant) as tx:
        await tx.run(runs.insert_call(ctx, run, new), (_TAKEN, (tenant, ident, run)), commit=True)
    box.remove(drop)
    return await runs.get_run(db, tenant, run), held


def _file_name(drop: Drop) -> str:
    """The last step of the name that the client gave, where that is a name that files may have."""
    last = drop.name.replace("\\", "/").rpartition("/")[2]
    try:
        return check_name(last)
    except BadName:
        return "package.zip" if drop.is_archive else "package.xml"
