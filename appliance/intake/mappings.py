"""Mappings that somebody confirmed: kept as records, proposed for files of the same layout.

A layout is known by its sheets and header texts, so a mapping that is found fits. One that is
named for another file is laid over it column by column, and what does not fit is said by name;
it is never used in silence.
"""

from __future__ import annotations

from uuid import UUID

import msgspec

from appliance.base import logs
from appliance.base.errors import Invalid, Refused
from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.db.wire import Rows, Statement
from appliance.intake.runs import IntakeRun
from appliance.kernel.context import Ctx, Door
from appliance.kernel.kind import Json
from appliance.write import Command, Op, apply
from connectors.sdk.contract import Inspection, Mapping

KIND = "sys.mapping"
_LIVE = "FROM record WHERE tenant_id = $1 AND kind = 'sys.mapping' AND deleted_at IS NULL"
_OF_LAYOUT = Statement(
    f"SELECT id::text, data {_LIVE} AND data->>'connector' = $2 AND data->>'fingerprint' = $3 "
    "ORDER BY updated_at DESC LIMIT 1"
)
_BY_NAME = Statement(
    f"SELECT id::text, data {_LIVE} AND data->>'connector' = $2 AND lower(data->>'name') = lower($3) "
    "ORDER BY updated_at DESC LIMIT 1"
)


class Saved(msgspec.Struct, frozen=True):
    """A kept mapping; `used` counts the imports that were approved with it."""

    id: UUID
    name: str
    mapping: Mapping
    used: int


async def find_saved(db: Database, tenant: UUID, connector: str, fingerprint: str) -> Saved | None:
    """The mapping that was confirmed for this layout last."""
    (rows,) = await db.read(tenant, (_OF_LAYOUT, (tenant, connector, fingerprint)))
    return _read(rows)


async def get_named(db: Database, tenant: UUID, connector: str, name: str) -> Saved:
    """A mapping by its name. Raises Refused."""
    (rows,) = await db.read(tenant, (_BY_NAME, (tenant, connector, name.strip())))
    found = _read(rows)
    if found is None:
        raise Refused(f"There is no mapping {name[:60]!r}.", code="intake.mapping_unknown")
    return found


def check_fits(mapping: Mapping, inspection: Inspection) -> None:
    """Refuse a mapping whose columns are not those of the file, by name. Raises Invalid."""
    sheets = {t.sheet: {c.letters: c.header for c in t.columns} for t in inspection.tables}
    wrong: list[str] = []
    for table in mapping.tables:
        headers = sheets.get(table.sheet)
        if headers is None:
            known = ", ".join(sheets) or "none"
            wrong.append(f"there is no sheet {table.sheet!r} (there are: {known})")
            continue
        for column in table.columns:
            found = headers.get(column.letters, "")
            if column.header and _normal(found) != _normal(column.header):
                here = f"it is {found!r} here" if found else "there is none here"
                wrong.append(f"column {column.letters} was {column.header!r}, {here}")
    if wrong:
        raise Invalid(
            f"The mapping does not fit this file: {'; '.join(wrong[:5])}.",
            code="intake.mapping_unfit",
        )


async def remember(db: Database, ctx: Ctx, run: IntakeRun) -> None:
    """Keep the mapping of an approved run, or count its use. `ctx` is that of the run."""
    mapping = run.mapping
    if mapping is None or not mapping.fingerprint or ctx.schema.kind(KIND) is None:
        return
    before = await find_saved(db, ctx.tenant, run.connector, mapping.fingerprint)
    values: dict[str, Json] = {
        "mapping": msgspec.json.decode(msgspec.json.encode(mapping)), "source": run.source,
        "last_used": run.created_at.isoformat(), "used": (before.used if before else 0) + 1,
    }  # fmt: skip
    if before is None:
        values |= {"name": run.source, "connector": run.connector,
                   "fingerprint": mapping.fingerprint}  # fmt: skip
        command = Command(op=Op.CREATE, kind=KIND, fields=values)
    else:
        command = Command(op=Op.UPDATE, kind=KIND, id=before.id, fields=values)
    own = msgspec.structs.replace(ctx, door=Door.SYSTEM, request_id=uuid7())
    result = await apply(db, own, [command])
    if not result.committed:
        # The import goes on: it is only the next one that has to be looked at again.
        logs.event("intake.mapping_not_kept", level="warning", run=run.id)


def _read(rows: Rows) -> Saved | None:
    row = rows.first()
    if row is None:
        return None
    data = msgspec.json.decode(row[1] or b"{}")
    mapping = msgspec.convert(data.get("mapping"), Mapping)
    return Saved(UUID((row[0] or b"").decode()), str(data.get("name")), mapping,
                 int(data.get("used") or 0))  # fmt: skip


def _normal(header: str) -> str:
    return " ".join(header.lower().split())
