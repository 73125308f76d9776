"""Records that a template brings: units, what a trade cannot begin without, samples to look at.

A `sys.seed` record beside each says where it came from. Samples go again on demand: exactly those
that nobody has written since and that nothing else hangs on.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec

from appliance.base.errors import FieldFault, Invalid
from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.db.wire import Call, Rows, Statement
from appliance.install.snapshot import Seed, Snapshot
from appliance.install.template import RecordEntry, Template
from appliance.kernel.context import Ctx, UnitNode
from appliance.kernel.kind import Json, Schema
from appliance.write import Command, Op

_COUNTS = Statement(
    "SELECT kind, count(*) FROM record WHERE tenant_id = $1 AND deleted_at IS NULL "
    "AND NOT starts_with(kind, 'sys.') AND NOT id = ANY($2::uuid[]) GROUP BY kind "
    "UNION ALL SELECT kind, count(*) FROM entry WHERE tenant_id = $1 GROUP BY kind"
)
_IN_UNITS = Statement(
    "SELECT id::text, unit_id::text FROM record WHERE tenant_id = $1 AND deleted_at IS NULL "
    "AND unit_id = ANY($2::uuid[])"
)
_LINKED = Statement(
    "SELECT l.record_id::text, l.value FROM record_link l JOIN record r ON r.tenant_id = $1 "
    "AND r.id = l.record_id AND r.deleted_at IS NULL WHERE l.tenant_id = $1 AND l.kind = $2 "
    "AND l.fid = $3 AND l.value = ANY($4::text[])"
)


class Kept(msgspec.Struct, frozen=True):
    """A sample that stays, and why: `changed` since, `in_use` by a record that stays, or of a
    module that is `switched_off`.
    """

    key: str
    kind: str
    record: UUID
    why: str


class Removal(msgspec.Struct, frozen=True):
    """What is (or would be) removed, and what stays."""

    removed: list[str]
    kept: list[Kept]
    commands: list[Command] = []


def check_entries(template: Template, schema: Schema) -> None:
    """Refuse records that could never be taken back, by their place. Raises Invalid."""
    faults = []
    for entry in (*template.records, *template.samples):
        kind = schema.kinds.get(entry.kind)
        if kind is None or (kind.system and kind.key != "sys.unit"):
            faults.append(_fault(entry, "There is no such kind here."))
        elif kind.ledger is not None:
            faults.append(_fault(entry, "Entries of ledgers cannot be removed again."))
    if faults:
        raise Invalid(
            f"The template cannot be used: {faults[0].pointer}: {faults[0].detail}",
            code="template.malformed", faults=tuple(faults),
        )  # fmt: skip


def _fault(entry: RecordEntry, detail: str) -> FieldFault:
    return FieldFault(f"/records/{entry.key}", "template", detail)


def unit_commands(
    template: Template, tree: dict[UUID, UnitNode], *, samples: bool
) -> tuple[list[Command], dict[str, UUID]]:
    """Create the units that are not there by name; the first entry is the company itself."""
    root = next((n.id for n in tree.values() if n.parent is None), None)
    by_name = {n.name: n.id for n in tree.values()}
    ids: dict[str, UUID] = {}
    commands: list[Command] = []
    for place, unit in enumerate(template.units):
        known = root if place == 0 and root else by_name.get(unit.name)
        if known is not None:
            ids[unit.key] = known
        elif samples or not unit.sample:
            ids[unit.key] = uuid7()
            values: dict[str, Json] = {
                "name": unit.name, "sort": unit.sort, "code": unit.code, "tz": unit.tz,
                "currency": unit.currency, "prefix": unit.prefix,
                "parent": str(ids[unit.parent]) if unit.parent in ids else None,
            }  # fmt: skip
            commands.append(_create("sys.unit", values, ids[unit.key]))
            if unit.sample:
                commands.append(_seed(template, unit.key, "sys.unit", ids[unit.key], sample=True))
    return commands, ids


def record_commands(
    template: Template, snapshot: Snapshot, units: dict[str, UUID], *, samples: bool
) -> list[Command]:
    """Create the records that were not brought before, in file order: references point back."""
    known = {s.key: s.record for s in snapshot.seeds}
    ids = {**units, **{s.key: s.record for s in snapshot.seeds if s.live}}
    commands: list[Command] = []
    entries = [(e, False) for e in template.records]
    if samples:
        entries += [(e, True) for e in template.samples]
    for entry, _ in entries:
        ids.setdefault(entry.key, uuid7())
    for entry, removable in entries:
        if entry.key in known:
            continue
        fields = {name: _resolve(v, ids) for name, v in entry.fields.items()}
        unit = units.get(entry.unit) if entry.unit else None
        commands.append(
            Command(
                op=Op.CREATE,
                kind=entry.kind,
                id=ids[entry.key],
                fields={n: v for n, v in fields.items() if v is not None},
                unit=unit or msgspec.UNSET,
            )
        )
        commands.append(_seed(template, entry.key, entry.kind, ids[entry.key], sample=removable))
    return commands


def _resolve(value: Json, ids: dict[str, UUID]) -> Json:
    """Ids for `@key`; nothing for what is not there any more."""
    if isinstance(value, str) and value.startswith("@"):
        found = ids.get(value[1:])
        return str(found) if found else None
    return [_resolve(v, ids) for v in value] if isinstance(value, list) else value


def _seed(template: Template, key: str, kind: str, record: UUID, *, sample: bool) -> Command:
    origin: dict[str, Json] = {"template": template.name, "version": template.version, "key": key}
    values: dict[str, Json] = {
        "key": key, "kind": kind, "record": str(record), "removable": sample, "origin": origin,
    }  # fmt: skip
    return _create("sys.seed", values, None)


def _create(kind: str, values: dict[str, Json], ident: UUID | None) -> Command:
    given: dict[str, Json] = {name: v for name, v in values.items() if v is not None}
    return Command(op=Op.CREATE, kind=kind, id=ident, fields=given)


async def count_data(db: Database, tenant: UUID, snapshot: Snapshot) -> dict[str, int]:
    """Records by kind that somebody made or changed: what would be lost with the template."""
    brought = [s.record for s in snapshot.seeds if not s.touched]
    (rows,) = await db.read(tenant, (_COUNTS, (tenant, brought)))
    return {(kind or b"").decode(): int(count or 0) for kind, count in rows}


async def find_removal(db: Database, ctx: Ctx, seeds: Sequence[Seed]) -> Removal:
    """Which samples can go: untouched, and nothing that stays refers to them."""
    there = {s.record: s for s in seeds if s.live}
    going = {i: s for i, s in there.items() if s.removable and not s.touched}
    kept = [Kept(s.key, s.kind, s.record, "changed")
            for s in there.values() if s.removable and s.touched]  # fmt: skip
    off = {i: s for i, s in going.items() if ctx.schema.kind(s.kind) is None}
    kept += [Kept(s.key, s.kind, i, "switched_off") for i, s in off.items()]
    going = {i: s for i, s in going.items() if i not in off}
    links = await _links(db, ctx, going) if going else []
    while held := {to for source, to in links if to in going and source not in going}:
        kept += [Kept(going[i].key, going[i].kind, i, "in_use") for i in sorted(held)]
        going = {i: s for i, s in going.items() if i not in held}
    commands = [Command(op=Op.DELETE, kind=s.kind, id=i) for i, s in reversed(going.items())]
    return Removal([s.key for s in going.values()], kept, commands)


async def _links(db: Database, ctx: Ctx, seeds: dict[UUID, Seed]) -> list[tuple[UUID, UUID]]:
    """Who refers to these records: referring id, id. Every place is asked through its index."""
    by_kind: dict[str, list[UUID]] = {}
    for ident, seed in seeds.items():
        by_kind.setdefault(seed.kind, []).append(ident)
    calls: list[Call] = []
    for kind in ctx.schema.kinds.values():
        for field in kind.fields:
            targets = by_kind.get(str(field.option("target")), [])
            if not targets or kind.key == "sys.seed":
                continue
            if field.type == "reference" and field.slot:
                gone = "" if kind.ledger else " AND deleted_at IS NULL"
                text = (
                    f"SELECT id::text, {field.slot}::text FROM {kind.table} WHERE tenant_id = $1 "
                    f"AND kind = $2 AND {field.slot} = ANY($3::uuid[]){gone}"
                )
                calls.append((Statement(text), (ctx.tenant, kind.key, targets)))
            elif field.type == "references":
                texts = [str(t) for t in targets]
                calls.append((_LINKED, (ctx.tenant, kind.key, field.fid, texts)))
    if units := by_kind.get("sys.unit"):
        calls.append((_IN_UNITS, (ctx.tenant, units)))
    answers: list[Rows] = await db.read(ctx.tenant, *calls)
    return [
        (UUID((source or b"").decode()), UUID((to or b"").decode()))
        for rows in answers
        for source, to in rows
    ]
