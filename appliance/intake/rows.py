"""The rows of a run as people look at them: by class, page by page, and as a workbook."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import msgspec
import xlsxwriter

from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.kernel.kind import Json

PAGE_MAX = 500
_PAGE = Statement(
    "SELECT no::text, sheet, line::text, key, sort, target::text, data, changes, faults "
    "FROM intake_row WHERE tenant_id = $1 AND run = $2 AND ($3::text IS NULL OR sort = $3) "
    "AND no > $4 ORDER BY intake_row.no LIMIT $5"
)
_DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")


class RowView(msgspec.Struct, frozen=True):
    """One row: where it stood, what it says, what it would change, what is wrong with it."""

    no: int
    sheet: str
    row: int
    key: str
    sort: str
    target: UUID | None
    values: dict[str, Json]
    changes: list[dict[str, Json]]
    faults: list[dict[str, Json]]


async def page(
    db: Database, tenant: UUID, run: UUID, *, sort: str | None, after: int, limit: int
) -> list[RowView]:
    """Rows in file order behind `after`, of one class or of all."""
    (rows,) = await db.read(tenant, (_PAGE, (tenant, run, sort, after, limit)))
    return [
        RowView(
            int(no or 0), (sheet or b"").decode(), int(line or 0), (key or b"").decode(),
            (kind or b"").decode(), UUID(target.decode()) if target else None,
            msgspec.json.decode(data or b"{}"), msgspec.json.decode(changes or b"[]"),
            msgspec.json.decode(faults or b"[]"),
        )
        for no, sheet, line, key, kind, target, data, changes, faults in rows
    ]  # fmt: skip


async def faulty(db: Database, tenant: UUID, run: UUID) -> AsyncIterator[RowView]:
    """All rows with faults, in file order."""
    last = -1
    while found := await page(db, tenant, run, sort="faulty", after=last, limit=PAGE_MAX):
        for row in found:
            yield row
        last = found[-1].no


async def write_report(db: Database, tenant: UUID, run: UUID, path: Path) -> None:
    """A workbook of what is wrong: each fault with its place, the cell it stands in marked."""
    book = xlsxwriter.Workbook(
        str(path), {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
    )
    bold, marked = book.add_format({"bold": True}), book.add_format({"bg_color": "#FFC7CE"})
    sheet = book.add_worksheet("Faults")
    for n, head in enumerate(
        ("Sheet", "Row", "Column", "Fault", "Expected", "Found", "Key", "Values")
    ):
        sheet.write_string(0, n, head, bold)
    line = 1
    async for row in faulty(db, tenant, run):
        said = "; ".join(f"{n}: {v}" for n, v in row.values.items() if v is not None)
        for fault in row.faults:
            place = fault.get("place")
            column = place.get("column", "") if isinstance(place, dict) else ""
            sheet.write_string(line, 0, _safe(row.sheet))
            sheet.write_number(line, 1, row.row)
            told = [
                column,
                fault.get("code"),
                fault.get("expected"),
                fault.get("found"),
                row.key,
                said,
            ]
            for n, value in enumerate(told, 2):
                sheet.write_string(line, n, _safe(value)[:32_000], marked if n == 3 else None)
            line += 1
    book.close()


def _safe(value: Json) -> str:
    """Text that no spreadsheet takes for a formula."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_DANGEROUS) else text
