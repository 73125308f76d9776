"""Apply an approved plan through the one write path, block by block, each block exactly once.

A block's commands and its idempotency key follow from the run and the block alone, so a worker
that is killed goes on where it was; what the write path refuses stays behind as a faulty row.
"""

from __future__ import annotations

from hashlib import blake2b
from uuid import UUID, uuid5

import msgspec

from appliance.base.errors import Clash
from appliance.base.ids import uuid7
from appliance.db.columns import Column
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.intake.match import Catalogue, PriceType, price_types
from appliance.intake.plan import PRODUCT_FIELDS, fit
from appliance.intake.runs import IntakeRun, applied_call
from appliance.intake.stage import Change, Report
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from appliance.write import Applied, Command, Op, Rejected, Result, Unchanged, apply, undo

BLOCK = 1_500
# With the rows that this run was refused, as what they were: its blocks are the same each time.
_ROWS = Statement(
    "SELECT no::text, key, data, target::text, changes, coalesce(faults->0->>'was', sort) "
    "FROM intake_row WHERE tenant_id = $1 AND run = $2 AND no > $4 AND (sort = ANY($3::text[]) "
    "OR sort = 'faulty' AND faults->0->>'was' IS NOT NULL) ORDER BY intake_row.no LIMIT $5"
)
_REFUSED = Statement(
    "UPDATE intake_row r SET sort = 'faulty', faults = u.f::jsonb "
    "FROM unnest($3::bigint[], $4::text[]) AS u(n, f) "
    "WHERE r.tenant_id = $1 AND r.run = $2 AND r.no = u.n"
)
_MADE = Statement(
    "UPDATE intake_row r SET target = u.t FROM unnest($3::bigint[], $4::uuid[]) AS u(n, t) "
    "WHERE r.tenant_id = $1 AND r.run = $2 AND r.no = u.n"
)
_decode = msgspec.json.Decoder(dict[str, Json]).decode
_decode_changes = msgspec.json.Decoder(tuple[Change, ...]).decode


class Row(msgspec.Struct, frozen=True):
    """One planned row."""

    no: int
    key: str
    data: dict[str, Json]
    target: UUID | None
    changes: tuple[Change, ...]
    sort: str


async def apply_plan(
    db: Database, ctx: Ctx, run: IntakeRun, *, suspicious: bool, report: Report
) -> dict[str, int]:
    """Write the plan; counts of rows applied and refused. Raises what the write path raises."""
    sorts = ["new", "changed", *(["suspicious"] if suspicious else [])]
    types = await _make_types(db, ctx, run)
    catalogue = Catalogue(ctx, run.source)
    total = sum(run.counts.get(s, 0) for s in sorts)
    last, done, refused = -1, 0, 0
    while True:
        (page,) = await db.read(ctx.tenant, (_ROWS, (ctx.tenant, run.id, sorts, last, BLOCK)))
        rows = [_read(r) for r in page]
        if not rows:
            break
        commands, owners = _commands(run, rows, types, catalogue)
        result = await _write(db, ctx, run, f"apply:{rows[0].no}", commands)
        await _note_made(db, ctx, run, rows)
        refused += await _note_refused(db, ctx, run, result, owners)
        last, done = rows[-1].no, done + len(rows)
        await report(done, total)
    return {"applied": done - refused, "refused": refused}


async def revert_run(db: Database, ctx: Ctx, run: IntakeRun, report: Report) -> list[str]:
    """Take a run's change sets back, the last first; what somebody changed since is listed."""
    held: list[str] = []
    for n, change_set in enumerate(reversed(run.change_sets)):
        step = msgspec.structs.replace(ctx, request_id=uuid5(run.id, f"revert:{change_set}"))
        try:
            result = await undo(db, step, change_set)
        except Clash as clash:
            held.append(f"{change_set}: {clash.detail}")
            continue
        if not result.committed:
            held += [
                f"{o.id}: {'; '.join(f.detail for f in getattr(o, 'faults', ())) or 'changed since'}"
                for o in result.outcomes
                if not isinstance(o, Applied | Unchanged)
            ]
        await report(n + 1, len(run.change_sets))
    return held


def derived_id(run: UUID, name: str) -> UUID:
    """The id of what a run makes: a UUIDv7 of the run's millisecond, the same each time."""
    spread = blake2b(name.encode(), digest_size=10, key=run.bytes).digest()
    number = int.from_bytes(run.bytes[:6] + spread)
    number = number & ~(0xF << 76) | 0x7 << 76
    return UUID(int=number & ~(0x3 << 62) | 0x2 << 62)


async def _make_types(db: Database, ctx: Ctx, run: IntakeRun) -> dict[str, PriceType]:
    """The document of the run, and price types that the list has and the tenant has not."""
    known = await price_types(db, ctx)
    wanted: dict[str, tuple[str, str]] = {}
    for table in run.mapping.tables if run.mapping else ():
        for column in table.columns:
            key = column.options.get("price_type", "retail")
            if column.target == "price" and key not in known:
                wanted.setdefault(
                    key, (column.header or key, column.options.get("currency", "UAH"))
                )
    document: dict[str, Json] = {
        "title": run.file_name, "supplier": run.source, "state": "active", "file_hash": run.sha256,
    }  # fmt: skip
    commands = [_create("price_list", derived_id(run.id, "document"), document)]
    for key, (name, currency) in wanted.items():
        ident = derived_id(run.id, f"type:{key}")
        known[key] = PriceType(ident, key, currency)
        values: dict[str, Json] = {"key": key, "name": " ".join(name.split()), "currency": currency}
        commands.append(_create("price_type", ident, values))
    result = await _write(db, ctx, run, "document", commands)
    refused = [f.detail for o in result.outcomes if isinstance(o, Rejected) for f in o.faults]
    if refused:
        raise Clash(f"The price list cannot be written: {refused[0]}", code="intake.refused")
    return known


def _commands(
    run: IntakeRun, rows: list[Row], types: dict[str, PriceType], catalogue: Catalogue
) -> tuple[list[Command], list[Row]]:
    """The commands of a block, and the row that each belongs to."""
    commands: list[Command] = []
    owners: list[Row] = []
    document = str(derived_id(run.id, "document"))
    for row in rows:
        made = _of_row(run, row, types, catalogue, document)
        commands += made
        owners += [row] * len(made)
    return commands, owners


def _of_row(
    run: IntakeRun, row: Row, types: dict[str, PriceType], catalogue: Catalogue, document: str
) -> list[Command]:
    steps = {c.field: c.after for c in row.changes if c.field in PRODUCT_FIELDS.values()}
    found: list[Command] = []
    product = _product_id(run, row)
    if row.sort == "new":
        own: dict[str, Json] = {
            "supplier": run.source, "source_key": catalogue.own_key(row.key),
            "sku": row.data.get("sku"),
        }  # fmt: skip
        name = steps.get("name") or row.data.get("sku") or row.data.get("barcode")
        measure = row.data.get("unit")
        values = {**own, **steps, "name": name, "measure": measure or "pcs"}
        found.append(
            _create("product", product, {k: v for k, v in values.items() if v is not None})
        )
    elif steps:
        found.append(Command(op=Op.UPDATE, kind="product", id=product, fields=steps))
    moment = row.data.get("valid_from") or run.options.valid_from or run.created_at.isoformat()
    for change in row.changes:
        if change.field.startswith("price:"):
            values = {
                "product": str(product), "price_type": str(types[change.field[6:]].id),
                "price": change.after, "currency": change.currency, "valid_from": moment,
                "price_list": document,
            }  # fmt: skip
            ident = derived_id(run.id, f"{row.no}:{change.field}")
            found.append(_create("price", ident, values))
    return found


async def _write(
    db: Database, ctx: Ctx, run: IntakeRun, name: str, commands: list[Command]
) -> Result:
    step = msgspec.structs.replace(ctx, request_id=uuid7())
    result = await apply(
        db, step, commands, command_id=uuid5(run.id, name), atomic=False,
    )  # fmt: skip
    if result.committed and any(isinstance(o, Applied) for o in result.outcomes):
        async with db.transaction(ctx.tenant) as tx:
            await tx.run(applied_call(ctx.tenant, run.id, result.change_set), commit=True)
    return result


async def _note_made(db: Database, ctx: Ctx, run: IntakeRun, rows: list[Row]) -> None:
    """Rows of new products say which ones they have become."""
    made = {r.no: _product_id(run, r) for r in rows if r.sort == "new"}
    if made:
        columns = (Column("bigint", list(made)), Column("uuid", list(made.values())))
        async with db.transaction(ctx.tenant) as tx:
            await tx.run((_MADE, (ctx.tenant, run.id, *columns)), commit=True)


def _product_id(run: IntakeRun, row: Row) -> UUID:
    if row.target is not None and row.sort != "new":
        return row.target
    return derived_id(run.id, row.key or str(row.no))


async def _note_refused(
    db: Database, ctx: Ctx, run: IntakeRun, result: Result, owners: list[Row]
) -> int:
    """Rows of which something was refused: they say what and why, and which class they `was`."""
    bad: dict[int, list[dict[str, Json]]] = {}
    for owner, outcome in zip(owners, result.outcomes, strict=True):
        if isinstance(outcome, Applied | Unchanged):
            continue
        faults = getattr(outcome, "faults", ())
        said = [(f.code, f.detail, f.pointer) for f in faults]
        bad.setdefault(owner.no, []).extend(
            {"code": code, "expected": expected, "found": found, "was": owner.sort}
            for code, expected, found in said or [("conflict", "an unchanged record", "")]
        )
    if bad:
        columns = (
            Column("bigint", list(bad)),
            Column("text", [msgspec.json.encode(f).decode() for f in bad.values()]),
        )
        async with db.transaction(ctx.tenant) as tx:
            await tx.run((_REFUSED, (ctx.tenant, run.id, *columns)), commit=True)
    return len(bad)


def _create(kind: str, ident: UUID, values: dict[str, Json]) -> Command:
    return Command(op=Op.CREATE, kind=kind, id=ident, fields=values)


def _read(row: tuple[bytes | None, ...]) -> Row:
    return Row(
        int(row[0] or 0), (row[1] or b"").decode(), fit(_decode(row[2] or b"{}")),
        UUID(row[3].decode()) if row[3] else None, _decode_changes(row[4] or b"[]"),
        (row[5] or b"").decode(),
    )  # fmt: skip
