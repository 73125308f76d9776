"""What points to a record, and by which entries: what a deletion says that its author has seen.

Whoever deletes a record names, of each author and stream, the last entry that made something point
to it here (`ext.was` of the register `!`). An author's entries come in order, so a reference of an
entry behind that one was not known to who deleted, on whatever node and whenever one asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from uuid import UUID

import msgspec

from appliance.base.ids import uuid_of
from appliance.db.database import Transaction
from appliance.db.wire import Call, Statement
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Field, Json, Kind, Policy
from appliance.kernel.registers import Leaf, qualified
from appliance.kernel.stamps import EXISTS, Stamps
from appliance.write.command import Op
from appliance.write.draft import Draft
from appliance.write.load import points_at, references_in

# Deleted ones too: they may be restored, and were seen like the others.
_HELD = (
    "(SELECT id, stream, stamps, data->'{fid}' AS value FROM {table} WHERE tenant_id = $1 "
    "AND kind = $2 AND {points}) AS r CROSS JOIN LATERAL jsonb_array_elements_text(CASE "
    "jsonb_typeof(r.value) WHEN 'array' THEN r.value ELSE jsonb_build_array(r.value) END) AS m(t) "
    "CROSS JOIN LATERAL unnest(string_to_array(coalesce((SELECT split_part(p, '=', 2) "
    "FROM unnest(string_to_array(r.stamps, ';')) AS s(p) WHERE split_part(p, '=', 1) = {register} "
    "LIMIT 1), split_part(r.stamps, ';', 1)), '+')) AS d(dot) "
    "WHERE m.t = ANY($3::uuid[]::text[])"
)
_STREAM = "coalesce(nullif(split_part(d.dot, '@', 2), ''), replace(r.stream::text, '-', ''))"
_OSEQ = "split_part(split_part(d.dot, '@', 1), '.', 2)::bigint"
_LAST = (
    f"SELECT m.t, split_part(d.dot, '.', 1) || '.' || max({_OSEQ}) || '@' || {_STREAM} "
    f"FROM {_HELD} GROUP BY m.t, split_part(d.dot, '.', 1), {_STREAM} ORDER BY 1, 2"
)
# What its deleter had not seen, and what is noted already and may have been seen by another one.
_UNSEEN = (
    "SELECT DISTINCT r.id::text, r.stream::text, r.stamps, r.value, EXISTS (SELECT FROM conflict c "
    "WHERE c.tenant_id = $1 AND c.record_id = r.id AND c.sort = 'dangling_ref' "
    f"AND c.register = '{{fid}}') FROM {_HELD} AND ({_OSEQ} > coalesce(($4::jsonb->m.t->"
    f"({_STREAM})->>split_part(d.dot, '.', 1))::bigint, 0) OR EXISTS (SELECT FROM conflict c "
    "WHERE c.tenant_id = $1 AND c.record_id = r.id AND c.sort = 'dangling_ref' "
    "AND c.register = '{fid}'))"
)
# Of what is deleted here, all that points to it is known.
_SEEN_ALL = (
    Statement(
        "DELETE FROM conflict c WHERE c.tenant_id = $1 AND c.sort = 'dangling_ref' AND NOT EXISTS "
        "(SELECT FROM jsonb_array_elements(c.sides) AS s(one) "
        "WHERE NOT (s.one->>'target')::uuid = ANY($2::uuid[]))"
    ),
    Statement(
        "UPDATE conflict c SET sides = (SELECT jsonb_agg(s.one) FROM jsonb_array_elements(c.sides) "
        "AS s(one) WHERE NOT (s.one->>'target')::uuid = ANY($2::uuid[])) WHERE c.tenant_id = $1 "
        "AND c.sort = 'dangling_ref' AND EXISTS (SELECT FROM jsonb_array_elements(c.sides) "
        "AS s(one) WHERE (s.one->>'target')::uuid = ANY($2::uuid[]))"
    ),
)

Seen = dict[str, dict[str, int]]
"""By stream (hex) and origin, up to which entry references were known."""


class Pointer(msgspec.Struct, frozen=True):
    """A field of a record that points somewhere: `dots` are its live ones by target, qualified."""

    record: UUID
    fid: str
    kind: str
    stream: UUID
    dots: dict[UUID, tuple[str, ...]]


def pointer_of(record: UUID, stream: UUID, stamps: Stamps, kind: Kind, field: Field, value: Json) -> Pointer:  # fmt: skip
    """What a field's value points to, and since which entries."""
    dots = {
        uuid_of(text): tuple(
            qualified(dot, stream) for dot in stamps.of(_register(field, text))
        )
        for text in references_in(field, value)
    }  # fmt: skip
    return Pointer(record, field.fid, kind.key, stream, dots)


def reference_fields(kind: Kind) -> tuple[Field, ...]:
    """The fields of a kind that point to records."""
    found: tuple[Field, ...] | None = kind.__dict__.get("_references")
    if found is None:
        found = tuple(f for f in kind.fields if f.type in ("reference", "references"))
        kind.__dict__["_references"] = found
    return found


def _register(field: Field, target: str) -> str:
    return f"{field.fid}/{target}" if field.policy is Policy.SET else field.register


def _fields_to(ctx: Ctx, targets: Mapping[str, Sequence[UUID]]) -> Iterator[tuple[Kind, Field, list[UUID]]]:  # fmt: skip
    """Which fields of which kinds may point to records of some kinds."""
    for kind in ctx.schema.kinds.values():
        for field in reference_fields(kind):
            if ids := targets.get(str(field.option("target"))):
                yield kind, field, list(ids)


def _text(template: str, kind: Kind, field: Field) -> Statement:
    name = field.register
    register = f"'{field.fid}/' || m.t" if field.policy is Policy.SET else f"'{name}'"
    return Statement(
        template.format(fid=field.fid, table=kind.table, points=points_at(field), register=register)
    )


async def note_seen(tx: Transaction, ctx: Ctx, drafts: Sequence[Draft]) -> None:
    """Let deletions say which references to their records are known here; none dangles by them."""
    deleted = {d.id: d for d in drafts if d.command.op is Op.DELETE and d.kind is not None}
    if not deleted:
        return
    by_kind: dict[str, list[UUID]] = {}
    for draft in deleted.values():
        draft.pointing = []
        by_kind.setdefault(draft.command.kind, []).append(draft.id)
    calls: list[Call] = [
        (_text(_LAST, kind, field), (ctx.tenant, kind.key, ids))
        for kind, field, ids in _fields_to(ctx, by_kind)
    ]
    ends: list[Call] = [(statement, (ctx.tenant, sorted(deleted))) for statement in _SEEN_ALL]
    for rows in (await tx.run(*ends, *calls))[len(ends) :]:
        for target, dot in (rows.values(n) for n in range(len(rows))):
            pointing = deleted[uuid_of(str(target))].pointing
            assert pointing is not None, "set above"
            pointing.append(str(dot))


def seen_by(leaves: Iterable[Leaf]) -> Seen | None:
    """What the authors of deletions knew together; None when nobody says (an older program)."""
    found: Seen | None = None
    for told in (leaf.was.get(EXISTS) for leaf in leaves):
        if not isinstance(told, list):
            continue
        found = {} if found is None else found
        for dot in told:
            name, _, stream = str(dot).partition("@")
            origin, _, oseq = name.partition(".")
            if oseq.isdecimal():
                last = found.setdefault(stream, {})
                last[origin] = max(last.get(origin, 0), int(oseq))
    return found


def is_unseen(dots: Iterable[str], seen: Seen) -> bool:
    """Whether one of these entries was not known."""
    for dot in dots:
        name, _, stream = dot.partition("@")
        origin, _, oseq = name.partition(".")
        if int(oseq) > seen.get(stream, {}).get(origin, 0):
            return True
    return False


async def read_unseen(
    tx: Transaction, ctx: Ctx, gone: Mapping[str, Sequence[UUID]], seen: Mapping[UUID, Seen]
) -> list[tuple[Pointer, bool]]:
    """What points to deleted records (by kind) by entries that their deleters had not seen, and
    what is noted as such; whether it is.
    """
    asked = list(_fields_to(ctx, gone))
    if not asked:
        return []
    known = msgspec.json.encode({str(i): s for i, s in seen.items()}).decode()
    calls: list[Call] = [
        (_text(_UNSEEN, kind, field), (ctx.tenant, kind.key, ids, known))
        for kind, field, ids in asked
    ]
    found: list[tuple[Pointer, bool]] = []
    for (kind, field, _), rows in zip(asked, await tx.run(*calls), strict=True):
        for ident, stream, text, value, is_noted in (rows.values(n) for n in range(len(rows))):
            stamps = Stamps.parse(str(text))
            assert stamps is not None, "stamps of our own tables"
            held: Json = msgspec.json.decode(value or "null")
            pointer = pointer_of(UUID(ident), UUID(stream), stamps, kind, field, held)
            found.append((pointer, is_noted == "t"))
    return found
