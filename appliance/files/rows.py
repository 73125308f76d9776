"""One file as the node knows it: a `sys.file` record, read by its id, changed by guarded arrows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from appliance.audit import audit_calls
from appliance.base.errors import Clash, Refused
from appliance.base.ids import parse_uuid
from appliance.db.database import Database
from appliance.db.wire import Call, Rows, Statement
from appliance.files.states import ARROWS, FileState
from appliance.kernel.context import Ctx, Door
from appliance.kernel.kind import Json
from appliance.kernel.record import RecordState
from appliance.write import Applied, Command, Conflict, Op, Rejected, Result, apply
from appliance.write.load import COLUMNS, read_state
from quarantine.contract import Verdict

KIND = "sys.file"
_GET = Statement(
    f"SELECT {COLUMNS} FROM record WHERE tenant_id = $1 AND kind = 'sys.file' AND id = $2"
)
_OF_RECORD = Statement(
    f"SELECT {COLUMNS} FROM record WHERE tenant_id = $1 AND kind = 'sys.file' AND t6 = $2 "
    "AND deleted_at IS NULL ORDER BY id DESC LIMIT $3"
)
_IN_STATE = Statement(
    f"SELECT {COLUMNS} FROM record WHERE tenant_id = $1 AND kind = 'sys.file' AND t2 = $2 "
    "AND deleted_at IS NULL ORDER BY id DESC LIMIT $3"
)
_USED = Statement(
    "SELECT COALESCE(sum(n1), 0), COALESCE(sum(n1) FILTER (WHERE owner_id = $2), 0) FROM record "
    "WHERE tenant_id = $1 AND kind = 'sys.file' AND t2 <> ALL('{purged,expired}'::text[])"
)


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file without its bytes. `version` guards its next arrow."""

    id: UUID
    state: FileState
    name: str
    version: str
    unit: UUID | None
    owner: UUID | None
    created_at: datetime
    deleted_at: datetime | None
    reason: str = ""
    type: str = ""
    size: int = 0
    sha256: str = ""
    for_kind: str = ""
    for_record: UUID | None = None
    for_field: str = ""
    verdict: dict[str, Json] = {}
    judged_at: str = ""
    review: dict[str, Json] = {}

    @property
    def made_by(self) -> int:
        """The origin of the node that took it from a person."""
        return int(self.version.partition(".")[0])

    def is_held_by(self, origin: int) -> bool:
        """Whether it is this node's own verdict that holds it; one without a name is from before
        there were several nodes. Where a clean one came beside it, nobody's is.
        """
        is_own = self.verdict.get("node", origin) == origin
        return is_own and self.verdict.get("verdict") != Verdict.CLEAN


def why_not(file: File) -> str:
    """Why a file that is at rest and not released is not used."""
    return f"The file is {file.state}: {file.reason or 'it is not for use.'}"


def read_row(state: RecordState) -> File:
    """A record of the kind as a file."""
    data = state.data

    def text(name: str) -> str:
        value = data.get(name)
        return value if isinstance(value, str) else ""

    def tree(name: str) -> dict[str, Json]:
        value = data.get(name)
        return value if isinstance(value, dict) else {}

    size = data.get("size")
    return File(
        id=state.id, state=FileState(text("state")), name=text("name"), version=str(state.stamps),
        unit=state.unit, owner=state.owner, created_at=state.created_at,
        deleted_at=state.deleted_at, reason=text("reason"), type=text("type"),
        size=size if isinstance(size, int) else 0, sha256=text("sha256"),
        for_kind=text("for_kind"), for_record=parse_uuid(text("for_record")),
        for_field=text("for_field"), verdict=tree("verdict"), judged_at=text("judged_at"),
        review=tree("review"),
    )  # fmt: skip


async def find_file(db: Database, tenant: UUID, ident: UUID) -> File | None:
    """One file, deleted ones too; None when there is none."""
    (rows,) = await db.read(tenant, (_GET, (tenant, ident)))
    row = rows.first()
    return read_row(read_state(row)) if row else None


async def files_of(db: Database, tenant: UUID, record: UUID, most: int) -> list[File]:
    """The files of a record, newest first."""
    (rows,) = await db.read(tenant, (_OF_RECORD, (tenant, _text_slot(record), most)))
    return [read_row(read_state(row)) for row in rows]


async def files_in(db: Database, tenant: UUID, state: FileState, most: int) -> list[File]:
    """The files in a state, newest first."""
    (rows,) = await db.read(tenant, (_IN_STATE, (tenant, state.value, most)))
    return [read_row(read_state(row)) for row in rows]


async def bytes_used(db: Database, tenant: UUID, person: UUID) -> tuple[int, int]:
    """How many bytes the tenant keeps, and how many of them one person brought."""
    (rows,) = await db.read(tenant, (_USED, (tenant, person)))
    row = rows.first() or (b"0", b"0")
    return int(row[0] or 0), int(row[1] or 0)


def _text_slot(ident: UUID) -> str:
    return str(ident)


class _Audited:
    """Audit rows in the transaction of the arrow; see write.Echo."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = calls

    def calls(self, result: Result) -> Sequence[Call]:
        """The rows, when something was written."""
        return self._calls if isinstance(result.outcomes[0], Applied) else ()

    def take(self, answers: Sequence[Rows]) -> None:
        """Nothing to read back."""


def as_system(ctx: Ctx) -> Ctx:
    """The same person, through the door of the node: files are nobody's to write."""
    return msgspec.structs.replace(ctx, door=Door.SYSTEM)


async def move(
    db: Database,
    ctx: Ctx,
    file: File,
    to: FileState,
    action: str,
    values: dict[str, Json] | None = None,
    *,
    also: Sequence[Call] = (),
) -> None:
    """One arrow, guarded by the state it starts from, with its audit row in one transaction, and
    `also` what else is noted in it.

    Raises Clash when the file has moved meanwhile or no such arrow exists.
    """
    if to is not file.state and to not in ARROWS[file.state]:
        raise Clash(f"A file that is {file.state} cannot become {to}.", code="file.state")
    fields: dict[str, Json] = {"state": to.value, **(values or {})}
    command = Command(op=Op.UPDATE, kind=KIND, id=file.id, fields=fields, expect=file.version)
    event = audit_calls(
        ctx.tenant, action, actor=ctx.actor, subject=file.id, request_id=ctx.request_id,
        details={"from": file.state.value, "to": to.value},
    )  # fmt: skip
    result = await apply(db, as_system(ctx), [command], echo=_Audited([*event, *also]))
    outcome = result.outcomes[0]
    if isinstance(outcome, Conflict):
        raise Clash("This file has moved on meanwhile; look again.", code="file.state")
    if not result.committed:
        raise Refused("There is no such file for you.", code="file.unknown")


async def create(
    db: Database, ctx: Ctx, ident: UUID, fields: dict[str, Json], unit: UUID | None
) -> File:
    """A new file that is being received. Raises Refused."""
    command = Command(
        op=Op.CREATE, kind=KIND, id=ident, unit=unit, owner=ctx.actor,
        fields={**fields, "state": FileState.RECEIVING.value},
    )  # fmt: skip
    event = audit_calls(
        ctx.tenant, "file.begun", actor=ctx.actor, subject=ident, request_id=ctx.request_id
    )
    result = await apply(db, as_system(ctx), [command], echo=_Audited(event))
    found = await find_file(db, ctx.tenant, ident) if result.committed else None
    if found is None:
        for outcome in result.outcomes:
            if isinstance(outcome, Rejected) and outcome.faults[0].code != "id_taken":
                fault = outcome.faults[0]
                raise Clash(fault.detail, code=f"file.{fault.code}")
        raise Clash("This id is taken.", code="file.id_taken")
    return found
