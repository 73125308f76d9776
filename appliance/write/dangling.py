"""References to what is not there: what was deleted elsewhere meanwhile, or has not come yet.

A reference is wrong only when its author cannot have known: it was written after the target was
deleted elsewhere, by a clock that never runs behind what its author had seen, so work done in order
is never noted. What has not come is awaited (`pending_ref`); on a node that holds everything that
is noted too, until it comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from appliance.base.clock import hlc_moment, now
from appliance.base.ids import uuid_of
from appliance.db.columns import Column
from appliance.db.database import Transaction
from appliance.db.wire import Call, Param, Statement
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Field, Json, Kind
from appliance.kernel.ledger import REVERSES
from appliance.write.draft import Draft
from appliance.write.load import points_at, references_in
from appliance.write.trail import read_trail

DANGLING = "dangling_ref"
_POINTING_MAX = 1_000

# Of a row c of `conflict`: it still points there, and there is nothing.
DANGLING_LIVE = (
    "EXISTS (SELECT FROM jsonb_array_elements(c.sides) AS side(one), LATERAL ("
    "SELECT r.data FROM record r WHERE r.tenant_id = $1 AND r.id = c.record_id "
    "AND r.deleted_at IS NULL UNION ALL SELECT e.data FROM entry e WHERE e.tenant_id = $1 "
    "AND e.id = c.record_id AND NOT EXISTS (SELECT FROM entry v WHERE v.tenant_id = $1 "
    "AND v.kind = c.kind AND v.reverses = e.id)) AS held "
    "WHERE held.data->c.register ? (side.one->>'target') "
    "AND NOT EXISTS (SELECT FROM record t WHERE t.tenant_id = $1 "
    "AND t.id = (side.one->>'target')::uuid AND t.deleted_at IS NULL) "
    "AND NOT EXISTS (SELECT FROM entry t WHERE t.tenant_id = $1 "
    "AND t.id = (side.one->>'target')::uuid))"
)
_ABSENT = {
    "record": Statement(
        "SELECT u.id::text, t.deleted_at::text FROM unnest($2::uuid[]) AS u(id) LEFT JOIN record t "
        "ON t.tenant_id = $1 AND t.id = u.id WHERE t.id IS NULL OR t.deleted_at IS NOT NULL"
    ),
    "entry": Statement(
        "SELECT u.id::text, NULL FROM unnest($2::uuid[]) AS u(id) LEFT JOIN entry t "
        "ON t.tenant_id = $1 AND t.id = u.id WHERE t.id IS NULL"
    ),
}
_AWAIT = Statement(
    "INSERT INTO pending_ref (tenant_id, target, record_id, fid) SELECT $1, t, r, f "
    "FROM unnest($2::uuid[], $3::uuid[], $4::text[]) AS u(t, r, f) ON CONFLICT DO NOTHING"
)
_ARRIVED = Statement(
    "WITH came AS (DELETE FROM pending_ref WHERE tenant_id = $1 AND target = ANY($2::uuid[]) "
    "RETURNING record_id) DELETE FROM conflict c WHERE c.tenant_id = $1 "
    "AND c.sort = 'dangling_ref' AND c.record_id IN (SELECT record_id FROM came) "
    f"AND NOT {DANGLING_LIVE}"
)
_NOTE_DANGLING = Statement(
    "INSERT INTO conflict AS c (tenant_id, record_id, sort, register, kind, stream, sides, since) "
    "SELECT $1, r, 'dangling_ref', f, k, s, jsonb_agg(jsonb_build_object('target', t)), $2 "
    "FROM unnest($3::uuid[], $4::text[], $5::text[], $6::uuid[], $7::uuid[]) AS u(r, f, k, s, t) "
    "GROUP BY r, f, k, s ON CONFLICT (tenant_id, record_id, sort, register) DO UPDATE SET sides = "
    "(SELECT jsonb_agg(DISTINCT e) FROM jsonb_array_elements(c.sides || EXCLUDED.sides) AS e)"
)
_POINTING = (
    "SELECT id::text, stream::text, data->'{fid}' FROM {table} WHERE tenant_id = $1 AND kind = $2 "
    "AND deleted_at IS NULL AND {points} AND updated_at > $4 LIMIT $5"
)


class _Ref(msgspec.Struct, frozen=True):
    """A record points to something with a field."""

    record: UUID
    fid: str
    kind: str
    stream: UUID
    target: UUID


async def note_dangling(
    tx: Transaction, ctx: Ctx, written: Sequence[Draft], *, is_whole: bool
) -> None:
    """Await and note what drafts point to in vain, and end what their coming has mended."""
    born = [d.id for d in written if d.before is None]
    calls: list[Call] = [(_ARRIVED, (ctx.tenant, Column("uuid", born)))] if born else []
    refs = [ref for d in written for ref in _references(d)]
    asked: dict[str, set[UUID]] = {}
    for ref, table in ((r, _table_of(ctx, r)) for r in refs):
        asked.setdefault(table, set()).add(ref.target)
    calls += [(_ABSENT[t], (ctx.tenant, sorted(ids))) for t, ids in sorted(asked.items())]
    if not calls and not any(_is_deleted(d) for d in written):
        return
    answers = await tx.run(*calls) if calls else []
    absent = {
        UUID((i or b"").decode()): datetime.fromisoformat(at.decode()) if at else None
        for rows in answers[1 if born else 0 :]
        for i, at in rows
    }
    missing = [r for r in refs if r.target in absent and absent[r.target] is None]
    late = [r for r in refs if absent.get(r.target) is not None]
    gone = {i: at for i, at in absent.items() if at is not None}
    late += await _pointing(tx, ctx, written, gone)
    late = await _written_after(tx, ctx, late, gone, written)
    wrong = [*late, *(missing if is_whole else ())]
    notes: list[Call] = []
    if missing:
        columns: list[list[Param]] = [
            [r.target for r in missing], [r.record for r in missing], [r.fid for r in missing],
        ]  # fmt: skip
        notes.append((_AWAIT, (ctx.tenant, *columns)))
    if wrong:
        rows = [(r.record, r.fid, r.kind, r.stream, r.target) for r in wrong]
        notes.append((_NOTE_DANGLING, (ctx.tenant, now(), *map(list, zip(*rows, strict=True)))))
    if notes:
        await tx.run(*notes)


def _references(draft: Draft) -> Iterable[_Ref]:
    """What a draft points to that it did not point to before."""
    kind, before, after = draft.kind, draft.before, draft.after
    assert kind is not None and after is not None, "only what was written is looked at"
    if after.deleted_at is not None or (after.data.get(REVERSES) and kind.ledger is not None):
        return
    for field in _reference_fields(kind):
        value = after.data.get(field.fid)
        if value is None or (before is not None and before.data.get(field.fid) == value):
            continue
        for text in references_in(field, value):
            yield _Ref(draft.id, field.fid, kind.key, after.stream, uuid_of(text))


def _reference_fields(kind: Kind) -> tuple[Field, ...]:
    found: tuple[Field, ...] | None = kind.__dict__.get("_references")
    if found is None:
        found = tuple(f for f in kind.fields if f.type in ("reference", "references"))
        kind.__dict__["_references"] = found
    return found


def _table_of(ctx: Ctx, ref: _Ref) -> str:
    field = ctx.schema.kinds[ref.kind].by_fid[ref.fid]
    target = ctx.schema.kinds.get(str(field.option("target")))
    return target.table if target is not None else "record"


def _is_deleted(draft: Draft) -> bool:
    before, after = draft.before, draft.after
    was = before is not None and before.deleted_at is not None
    return after is not None and after.deleted_at is not None and not was


async def _pointing(
    tx: Transaction, ctx: Ctx, written: Sequence[Draft], gone: dict[UUID, datetime]
) -> list[_Ref]:
    """What points to the records that were just deleted and was written to since."""
    by_kind: dict[str, list[UUID]] = {}
    for draft in written:
        if _is_deleted(draft) and draft.after is not None and draft.after.deleted_at is not None:
            by_kind.setdefault(draft.command.kind, []).append(draft.id)
            gone[draft.id] = draft.after.deleted_at
    asked = [
        (kind, field, by_kind[str(field.option("target"))])
        for kind in ctx.schema.kinds.values()
        for field in _reference_fields(kind)
        if field.option("target") in by_kind
    ]
    if not asked:
        return []
    calls: list[Call] = []
    for kind, field, ids in asked:
        text = _POINTING.format(fid=field.fid, table=kind.table, points=points_at(field))
        first = min(gone[i] for i in ids)
        calls.append((Statement(text), (ctx.tenant, kind.key, ids, first, _POINTING_MAX)))
    found: list[_Ref] = []
    for (kind, field, ids), rows in zip(asked, await tx.run(*calls), strict=True):
        for record, stream, value in (rows.values(n) for n in range(len(rows))):
            held: Json = msgspec.json.decode(value or "null")
            found += [
                _Ref(UUID(record), field.fid, kind.key, UUID(stream), target)
                for target in map(uuid_of, references_in(field, held))
                if target in ids
            ]
    return found


async def _written_after(
    tx: Transaction,
    ctx: Ctx,
    refs: Sequence[_Ref],
    gone: dict[UUID, datetime],
    written: Sequence[Draft],
) -> list[_Ref]:
    """Those references that were written after their target was deleted elsewhere.

    What has just come may not stand in the log yet.
    """
    if not refs:
        return []
    come = {d.id: d.entries for d in written}
    trails = await read_trail(tx, ctx.tenant, sorted({r.record for r in refs}))
    return [
        ref
        for ref in dict.fromkeys(refs)
        if any(
            hlc_moment(entry.hlc) > gone[ref.target]
            and (
                str(ref.target) in _texts(entry.body.fields.get(ref.fid))
                or str(ref.target) in entry.body.sets.get(ref.fid, ([], []))[0]
            )
            for entry in (*trails[ref.record], *come.get(ref.record, ()))
        )
    ]


def _texts(value: Json) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []
