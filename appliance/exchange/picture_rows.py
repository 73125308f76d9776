"""What a run says of pictures, row by row, and the files that hang on records already."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec

from appliance.base.ids import uuid7
from appliance.db.columns import Column
from appliance.db.database import Database
from appliance.db.values import text_of
from appliance.db.wire import Statement
from appliance.files.rows import KIND, File, as_system, read_row
from appliance.intake.targets.goods.fields import is_link
from appliance.kernel.context import Ctx
from appliance.write import Applied, Command, Op, apply
from appliance.write.load import COLUMNS, read_state

PAGE = 200
_BEARERS = Statement(
    "SELECT no::text, entity, key, target::text, data->>'images' FROM intake_row "
    "WHERE tenant_id = $1 AND run = $2 AND no > $3 AND entity IN ('product', 'variant') "
    "AND target IS NOT NULL AND sort <> 'gone' AND (sort <> 'faulty' "
    "OR faults->0->>'code' = 'picture-refused') AND (NOT $4 OR data->>'images' IS NOT NULL) "
    "ORDER BY intake_row.no LIMIT $5"
)
_FILES = Statement(
    f"SELECT {COLUMNS} FROM record WHERE tenant_id = $1 AND kind = 'sys.file' "
    "AND t6 = ANY($2::text[]) AND deleted_at IS NULL ORDER BY id"
)
# Once for a picture: the row is then read again with what it was before.
_REFUSE = Statement(
    "UPDATE intake_row SET sort = 'faulty', faults = faults || jsonb_build_object("
    "'code', 'picture-refused', 'expected', 'a picture that may be kept', 'found', $4::text, "
    "'was', coalesce(faults->0->>'was', sort), "
    "'place', jsonb_build_object('sheet', sheet, 'row', line, 'column', $5::text)) "
    "WHERE tenant_id = $1 AND run = $2 AND no = $3 AND NOT faults @> jsonb_build_array("
    "jsonb_build_object('code', 'picture-refused', 'place', jsonb_build_object('column', $5::text)))"
)
# Pictures are no part of the plan: the row says afterwards what they have become.
_NAME = Statement(
    "UPDATE intake_row SET changes = changes || jsonb_build_object('field', 'image', "
    "'from', $4::text, 'to', $5::text) WHERE tenant_id = $1 AND run = $2 AND no = $3 "
    "AND NOT changes @> jsonb_build_array(jsonb_build_object('to', $5::text))"
)
_BROUGHT = Statement(
    "SELECT c->>'to' FROM intake_row, jsonb_array_elements(changes) AS c WHERE tenant_id = $1 "
    "AND run = $2 AND entity IN ('product', 'variant') AND c->>'field' = 'image'"
)


class Bearer(msgspec.Struct, frozen=True):
    """A row whose record may have pictures; `names`: those of the package, addresses left out."""

    no: int
    entity: str
    key: str
    record: UUID
    names: tuple[str, ...]


async def read_bearers(
    db: Database, tenant: UUID, run: UUID, *, after: int, images_only: bool
) -> list[Bearer]:
    """The next rows of a run, in file order."""
    (rows,) = await db.read(tenant, (_BEARERS, (tenant, run, after, images_only, PAGE)))
    return [
        Bearer(
            int(no or 0), text_of(entity), text_of(key), UUID(text_of(target)),
            tuple(n for n in dict.fromkeys(text_of(images).split("\n")) if n and not is_link(n)),
        )
        for no, entity, key, target, images in rows
    ]  # fmt: skip


async def files_of_records(
    db: Database, tenant: UUID, records: Sequence[UUID]
) -> dict[UUID, list[File]]:
    """The files that hang on records, the oldest first."""
    (rows,) = await db.read(tenant, (_FILES, (tenant, Column("text", [str(r) for r in records]))))
    found: dict[UUID, list[File]] = {}
    for file in (read_row(read_state(row)) for row in rows):
        assert file.for_record is not None, "asked for by it"
        found.setdefault(file.for_record, []).append(file)
    return found


async def mark_refused(
    db: Database, tenant: UUID, run: UUID, no: int, name: str, said: str
) -> None:
    """Put a row at fault for a picture of it. Again is fine."""
    async with db.transaction(tenant) as tx:
        await tx.run((_REFUSE, (tenant, run, no, f"{name}: {said}"[:400], name)), commit=True)


async def note_files(
    db: Database, tenant: UUID, run: UUID, pictures: Sequence[tuple[int, str, UUID]]
) -> None:
    """Note in rows (by number) which files their pictures have become."""
    calls = [(_NAME, (tenant, run, no, name, str(file))) for no, name, file in pictures]
    async with db.transaction(tenant) as tx:
        await tx.run(*calls, commit=True)


async def read_brought(db: Database, tenant: UUID, run: UUID) -> list[UUID]:
    """The files that a run has brought."""
    (rows,) = await db.read(tenant, (_BROUGHT, (tenant, run)))
    return [UUID(text_of(raw)) for raw in rows.column()]


async def delete_files(db: Database, ctx: Ctx, ids: Sequence[UUID]) -> int:
    """Take files away; how many were there. Their bytes go in a month."""
    if not ids:
        return 0
    commands = [Command(op=Op.DELETE, kind=KIND, id=i) for i in ids]
    step = msgspec.structs.replace(as_system(ctx), request_id=uuid7())
    result = await apply(db, step, commands, atomic=False)
    return sum(isinstance(o, Applied) for o in result.outcomes)
