"""Dead letters of imports: one list of files that were not taken and of files that cannot be read.

A file that its worker could not fetch, or that the node did not take, is a row of `intake_lost`; one
that was taken is a run that failed, and is that run here. Both are tried again or put aside under
one id, and leave the list by themselves once they succeed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from appliance.audit import audit_calls
from appliance.base.errors import Clash, Refused
from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.db.values import text_of
from appliance.db.wire import Call, Row, Statement
from appliance.intake import runs
from appliance.intake.mappings import find_saved
from appliance.intake.runs import IntakeRun
from appliance.kernel.context import Ctx
from connectors.sdk.contract import Mapping

LIST_MAX = 200
# Whose it is, or anybody's for those who approve.
_SEEN = "(created_by = $2 OR $3::boolean)"
_LIST = Statement(
    "SELECT id::text, source_key, source, connector, name, code, detail, tries, wish <> '', NULL, "
    "'fetch', to_char(failed_at, 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') FROM intake_lost "
    f"WHERE tenant_id = $1 AND state = 'open' AND {_SEEN} AND ($4 = '' OR source_key = $4) "
    "AND ($5::uuid IS NULL OR id < $5) UNION ALL "
    "SELECT id::text, source_key, source, connector, file_name, '', detail, 1, false, id::text, "
    "CASE WHEN started_at IS NULL THEN 'check' ELSE 'read' END, "
    'to_char(updated_at, \'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"\') FROM intake_run '
    f"WHERE tenant_id = $1 AND state = 'failed' AND dismissed_at IS NULL AND {_SEEN} "
    "AND ($4 = '' OR source_key = $4) AND ($5::uuid IS NULL OR id < $5) "
    "ORDER BY 1 DESC LIMIT $6"
)
_LOST = Statement(
    "SELECT source_key FROM intake_lost WHERE tenant_id = $1 AND id = $4 AND state = 'open' "
    f"AND {_SEEN}"
)
_GIVEN = Statement(
    "UPDATE intake_lost SET state = 'given', wish = '' WHERE tenant_id = $1 AND source_key = $2 "
    "AND name = $3 AND state = 'open'"
)
_HAS_SOURCE = Statement("SELECT 1 FROM intake_source WHERE tenant_id = $1 AND key = $2")
_WISH = Statement(
    "UPDATE intake_lost SET wish = $3, asked = asked + 1, note = $4, "
    "state = CASE WHEN $3 = 'dismiss' THEN 'dismissed' ELSE state END "
    "WHERE tenant_id = $1 AND id = $2"
)
_PROMPT = Statement("UPDATE intake_source SET look = look + 1 WHERE tenant_id = $1 AND key = $2")
_FETCH_AGAIN = Statement(
    "INSERT INTO intake_lost (tenant_id, id, source_key, name, source, connector, code, detail, "
    "failed_at, wish, asked, created_by, units) SELECT r.tenant_id, $3, r.source_key, r.file_name, "
    "r.source, r.connector, 'not-released', r.detail, r.updated_at, 'replay', 1, r.created_by, "
    "r.units FROM intake_run r WHERE r.tenant_id = $1 AND r.id = $2 "
    "ON CONFLICT (tenant_id, source_key, name) DO UPDATE SET state = 'open', wish = 'replay', "
    "asked = intake_lost.asked + 1, code = excluded.code, detail = excluded.detail, note = ''"
)
_DISMISS_RUN = Statement(
    "UPDATE intake_run SET dismissed_at = now(), dismissed_by = $3, note = $4 "
    "WHERE tenant_id = $1 AND id = $2 AND state = 'failed' AND dismissed_at IS NULL"
)
_CODE = re.compile("^([a-z][a-z0-9]*(?:-[a-z0-9]+)+|unmapped|truncated)(?: at .*)?: expected ")


class Letter(msgspec.Struct, frozen=True):
    """A file that failed for good. `stage`: `fetch` (not brought here), `check` (not let pass),
    `read` (not understood; `detail` names the place). `is_asked`: its worker is to fetch it again.
    """

    id: UUID
    source_key: str
    source: str
    connector: str
    name: str
    stage: Literal["fetch", "check", "read"]
    code: str
    detail: str
    tries: int
    is_asked: bool
    run: UUID | None
    failed_at: datetime


async def list_letters(
    db: Database, ctx: Ctx, *, source: str = "", before: UUID | None = None, limit: int = 50
) -> list[Letter]:
    """Newest first; those of others only for people who approve imports."""
    args = (*_who(ctx), source, before, limit)
    (rows,) = await db.read(ctx.tenant, (_LIST, args))
    return [_letter(row) for row in rows]


def given_call(tenant: UUID, source_key: str, name: str) -> Call:
    """A file of a source has arrived: whoever failed at it before, it is no dead letter now."""
    return _GIVEN, (tenant, source_key, name)


async def find_lost(db: Database, ctx: Ctx, ident: UUID) -> str | None:
    """The key of the source of a file that was not taken; None when this is no such letter."""
    (rows,) = await db.read(ctx.tenant, (_LOST, (*_who(ctx), ident)))
    row = rows.first()
    return text_of(row[0]) if row is not None else None


async def find_failed(db: Database, ctx: Ctx, ident: UUID) -> IntakeRun:
    """The failed run of a letter. Raises Refused."""
    run = await runs.get_run(db, ctx.tenant, ident)
    is_seen = run.created_by == ctx.actor or ctx.profile.may("import.approve")
    if not is_seen or run.state != "failed" or run.dismissed_at is not None:
        raise Refused("There is no such dead letter for you.", code="letter.unknown")
    return run


async def ask_again(db: Database, ctx: Ctx, ident: UUID, key: str) -> None:
    """Have a file fetched again by its worker. Raises Clash when no worker knows the source."""
    await _check_source(db, ctx.tenant, key)
    await _run(
        db, ctx, "letter.replayed", ident, (_WISH, (ctx.tenant, ident, "replay", "")),
        (_PROMPT, (ctx.tenant, key)),
    )  # fmt: skip


async def dismiss_lost(db: Database, ctx: Ctx, ident: UUID, key: str, *, note: str) -> None:
    """Put a file aside; its worker moves it to `failed` where it may."""
    await _run(
        db, ctx, "letter.dismissed", ident, (_WISH, (ctx.tenant, ident, "dismiss", note)),
        (_PROMPT, (ctx.tenant, key)),
    )  # fmt: skip


async def dismiss_run(db: Database, ctx: Ctx, run: IntakeRun, note: str) -> None:
    """Put a failed run aside."""
    call = (_DISMISS_RUN, (ctx.tenant, run.id, ctx.actor, note))
    await _run(db, ctx, "letter.dismissed", run.id, call)


async def begin_anew(
    db: Database, ctx: Ctx, run: IntakeRun, *, refusal: str | None, mapping: Mapping | None = None
) -> bool:
    """Try a failed run again; whether its plan has to be asked for now.

    It is read anew, under a mapping that is given or that was confirmed since for its layout. Where
    its file is not for use (`refusal` says why), its worker fetches it again, as another run.
    Raises Clash.
    """
    if refusal is not None:
        if not run.source_key:
            raise Clash(f"{refusal} Bring it again.", code="intake.file_unusable")
        await _fetch_anew(db, ctx, run)
        return False
    tenant = ctx.tenant
    if mapping is None and run.mapping is not None:
        saved = await find_saved(db, tenant, run.connector, run.mapping.fingerprint)
        mapping = saved.mapping if saved is not None else None
    await runs.move(db, tenant, run.id, ["failed"], "received")
    calls: list[Call] = [runs.set_call(tenant, run.id, "job_id", None)]
    if mapping is not None:
        calls.append(runs.set_call(tenant, run.id, "mapping", mapping))
    await _run(db, ctx, "letter.replayed", run.id, *calls)
    return True


async def _fetch_anew(db: Database, ctx: Ctx, run: IntakeRun) -> None:
    await _check_source(db, ctx.tenant, run.source_key)
    await _run(
        db, ctx, "letter.replayed", run.id, (_FETCH_AGAIN, (ctx.tenant, run.id, uuid7())),
        (_DISMISS_RUN, (ctx.tenant, run.id, ctx.actor, "fetched again")),
        (_PROMPT, (ctx.tenant, run.source_key)),
    )  # fmt: skip


async def _run(db: Database, ctx: Ctx, action: str, subject: UUID, *calls: Call) -> None:
    event = audit_calls(
        ctx.tenant, action, actor=ctx.actor, subject=subject, request_id=ctx.request_id
    )
    async with db.transaction(ctx.tenant) as tx:
        await tx.run(*calls, *event, commit=True)


async def _check_source(db: Database, tenant: UUID, key: str) -> None:
    (rows,) = await db.read(tenant, (_HAS_SOURCE, (tenant, key)))
    if rows.first() is None:
        text = "No worker looks at the source of this file any more; bring the file by hand."
        raise Clash(text, code="source.unknown")


def _who(ctx: Ctx) -> tuple[UUID, UUID, bool]:
    return ctx.tenant, ctx.actor, ctx.profile.may("import.approve")


def _letter(row: Row) -> Letter:
    texts: Sequence[str] = [text_of(v) for v in row]
    code = texts[5]
    if not code and (found := _CODE.match(texts[6])):
        code = found.group(1)
    stage: Literal["fetch", "check", "read"] = "read"
    if texts[10] in ("fetch", "check"):
        stage = "fetch" if texts[10] == "fetch" else "check"
    return Letter(
        UUID(texts[0]), texts[1], texts[2], texts[3], texts[4], stage, code, texts[6],
        int(texts[7]), row[8] == b"t", UUID(texts[9]) if texts[9] else None,
        datetime.fromisoformat(texts[11]),
    )  # fmt: skip
