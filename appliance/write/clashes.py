"""What records of several branches do to one another: one value twice, less than nothing in stock,
a reference to what is not there.

Applying a peer's entry cannot fail, so these are noted instead (research/sync 2.5), in the
transaction that brought the entries, set by set. Any later write may end one: whoever reads asks
`live_calls` which still stand, and `sweep` lets go of the rest. Two records with one value: the one
made first holds it, the others are noted. References: see dangling.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import lru_cache
from uuid import UUID

import msgspec

from appliance.base.clock import now
from appliance.db.database import Transaction
from appliance.db.wire import Call, Rows, Statement
from appliance.fields import type_of
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Kind
from appliance.kernel.ledger import LedgerSort
from appliance.write.balances import balance_fields, key_of
from appliance.write.dangling import DANGLING, DANGLING_KEPT, DANGLING_LIVE, note_dangling
from appliance.write.draft import Draft
from appliance.write.load import claims_in

UNIQUE, NEGATIVE = "unique", "negative_stock"
# Of very many records with one value as many are named.
_HOLDERS_NAMED = 20

# Sub-selects with a LIMIT are probes of an index, whatever the planner thinks of whole tables.
_UNIQUE_LIVE = (
    "coalesce((SELECT true FROM unique_claim m JOIN record r ON r.tenant_id = $1 "
    "AND r.id = m.record_id JOIN unique_claim o ON o.tenant_id = $1 AND o.kind = m.kind "
    "AND o.rule = m.rule AND o.value = m.value JOIN record h ON h.tenant_id = $1 "
    "AND h.id = o.record_id WHERE m.tenant_id = $1 AND m.record_id = c.record_id "
    "AND m.kind = c.kind AND m.rule = c.register "
    "AND (h.created_at, h.id) < (r.created_at, r.id) LIMIT 1), false)"
)
_LIVE = Statement(
    "SELECT c.record_id::text, c.sort, c.register FROM conflict c "
    "JOIN unnest($2::uuid[], $3::text[], $4::text[]) AS u(r, s, g) "
    "ON u.r = c.record_id AND u.s = c.sort AND u.g = c.register WHERE c.tenant_id = $1 AND "
    f"CASE c.sort WHEN 'unique' THEN {_UNIQUE_LIVE} ELSE {DANGLING_LIVE} END"
)
_SWEEP = Statement(
    "DELETE FROM conflict c WHERE c.tenant_id = $1 AND (c.sort = 'unique' "
    f"AND NOT {_UNIQUE_LIVE} OR c.sort = 'dangling_ref' AND NOT {DANGLING_KEPT})"
)
_END_UNIQUE = Statement(
    "DELETE FROM conflict c WHERE c.tenant_id = $1 AND c.sort = 'unique' "
    f"AND c.record_id = ANY($2::uuid[]) AND NOT {_UNIQUE_LIVE}"
)
_SHARED = Statement(
    "SELECT w.kind, w.rule, w.value FROM unnest($2::text[], $3::text[], $4::text[]) "
    "AS w(kind, rule, value) WHERE (SELECT true FROM unique_claim o WHERE o.tenant_id = $1 "
    "AND o.kind = w.kind AND o.rule = w.rule AND o.value = w.value OFFSET 1 LIMIT 1)"
)
_NOTE_UNIQUE = Statement(
    "WITH held AS (SELECT w.kind, w.rule, w.value, r.id, r.stream, row_number() OVER "
    "(PARTITION BY w.kind, w.rule, w.value ORDER BY r.created_at, r.id) AS place "
    "FROM unnest($3::text[], $4::text[], $5::text[]) AS w(kind, rule, value) "
    "CROSS JOIN LATERAL (SELECT c.record_id FROM unique_claim c WHERE c.tenant_id = $1 "
    "AND c.kind = w.kind AND c.rule = w.rule AND c.value = w.value OFFSET 0) AS c "
    "CROSS JOIN LATERAL (SELECT r.id, r.stream, r.created_at FROM record r "
    "WHERE r.tenant_id = $1 AND r.id = c.record_id AND r.deleted_at IS NULL OFFSET 0) AS r), "
    "named AS (SELECT kind, rule, value, "
    "jsonb_agg(jsonb_build_object('record', id) ORDER BY place) AS sides FROM held "
    f"WHERE place <= {_HOLDERS_NAMED} GROUP BY kind, rule, value) "
    "INSERT INTO conflict (tenant_id, record_id, sort, register, kind, stream, sides, since) "
    "SELECT $1, h.id, 'unique', h.rule, h.kind, h.stream, n.sides, $2 FROM held h "
    "JOIN named n USING (kind, rule, value) WHERE h.place > 1 "
    "ON CONFLICT (tenant_id, record_id, sort, register) DO UPDATE SET sides = EXCLUDED.sides"
)
_NOTE_NEGATIVE = Statement(
    "INSERT INTO conflict (tenant_id, record_id, sort, register, kind, stream, sides, since) "
    "SELECT $1, r, 'negative_stock', g, $2, s, v::jsonb, $3 "
    "FROM unnest($4::uuid[], $5::text[], $6::uuid[], $7::text[]) AS u(r, g, s, v) "
    "WHERE NOT EXISTS (SELECT FROM conflict o WHERE o.tenant_id = $1 AND o.kind = $2 "
    "AND o.sort = 'negative_stock' AND o.register = u.g AND o.stream = u.s AND o.record_id <> u.r) "
    "ON CONFLICT (tenant_id, record_id, sort, register) DO UPDATE SET sides = EXCLUDED.sides"
)
_SWEEP_NEGATIVE = (
    "DELETE FROM conflict c WHERE c.tenant_id = $1 AND c.kind = $2 AND c.sort = 'negative_stock' "
    "AND NOT EXISTS (SELECT FROM ({short}) AS n(id) WHERE n.id = c.record_id::text)"
)

Key = tuple[UUID, str, str, str]
"""A clash: record, sort, register, kind."""


async def note_clashes(
    tx: Transaction, ctx: Ctx, drafts: Sequence[Draft], *, is_whole: bool = True
) -> None:
    """Note the clashes that drafts which were just written have made, and end those they mended.

    Not `is_whole`: this node holds some units only, so that what a reference points to may well be
    elsewhere; it is awaited, and no fault. To be called behind the projection of the drafts.
    """
    written = [d for d in drafts if d.after is not None and d.kind is not None]
    await _note_unique(tx, ctx, [d for d in written if _claims(d)])
    await _note_negative(tx, ctx, written)
    await note_dangling(tx, ctx, written, is_whole=is_whole)


def live_calls(ctx: Ctx, keys: Iterable[Key]) -> list[Call]:
    """Ask which of noted clashes still stand; `read_live` takes the answers."""
    keys = list(keys)
    plain = [k[:3] for k in keys if k[1] in (UNIQUE, DANGLING)]
    calls: list[Call] = []
    if plain:
        calls.append((_LIVE, (ctx.tenant, *(list(c) for c in zip(*plain, strict=True)))))
    for kind in _floored(ctx, {k[3] for k in keys if k[1] == NEGATIVE}):
        entries = [k[0] for k in keys if k[1] == NEGATIVE and k[3] == kind.key]
        calls.append((_negative(ctx, kind), (ctx.tenant, kind.key, entries)))
    return calls


def read_live(answers: Sequence[Rows]) -> set[tuple[UUID, str, str]]:
    """The clashes that stand: record, sort, register."""
    found: set[tuple[UUID, str, str]] = set()
    for rows in answers:
        for n in range(len(rows)):
            record, sort, register = (str(v) for v in rows.values(n)[:3])
            found.add((UUID(record), sort, register))
    return found


async def sweep(tx: Transaction, ctx: Ctx) -> int:
    """Forget clashes that a later write has ended; how many."""
    calls: list[Call] = [(_SWEEP, (ctx.tenant,))]
    for kind in _floored(ctx, ctx.schema.kinds):
        short = _negative_text(ctx, kind, "ARRAY(SELECT o.record_id FROM conflict o "
            "WHERE o.tenant_id = $1 AND o.kind = $2 AND o.sort = 'negative_stock')", only_id=True)  # fmt: skip
        calls.append((Statement(_SWEEP_NEGATIVE.format(short=short)), (ctx.tenant, kind.key)))
    return sum(rows.affected for rows in await tx.run(*calls))


def _claims(draft: Draft) -> bool:
    """Whether a unique value came, went, or is somebody's again."""
    kind, before, after = draft.kind, draft.before, draft.after
    if kind is None or kind.ledger is not None or after is None:
        return False
    if before is None or (before.deleted_at is None) != (after.deleted_at is None):
        return any(f.unique for f in kind.fields)
    return any(f.unique and before.data.get(f.fid) != after.data.get(f.fid) for f in kind.fields)


def _floored(ctx: Ctx, keys: Iterable[str]) -> list[Kind]:
    """Those balance ledgers among kinds that may not sink below zero."""
    kinds = (ctx.schema.kinds.get(key) for key in sorted(keys))
    return [
        k for k in kinds
        if k and k.ledger and k.ledger.sort is LedgerSort.BALANCE and k.ledger.floor
        and balance_fields(k)[1]
    ]  # fmt: skip


async def _note_unique(tx: Transaction, ctx: Ctx, claiming: Sequence[Draft]) -> None:
    if not claiming:
        return
    ended: Call = (_END_UNIQUE, (ctx.tenant, [d.id for d in claiming]))
    claims = sorted(
        {
            claim
            for d in claiming
            if d.kind is not None and d.after is not None and d.after.deleted_at is None
            for claim in claims_in(d.kind, d.after.data)
        }
    )
    if not claims:
        await tx.run(ended)
        return
    _, rows = await tx.run(ended, (_SHARED, (ctx.tenant, *map(list, zip(*claims, strict=True)))))
    shared = [rows.values(n) for n in range(len(rows))]
    if shared:
        await tx.run((_NOTE_UNIQUE, (ctx.tenant, now(), *map(list, zip(*shared, strict=True)))))


async def _note_negative(tx: Transaction, ctx: Ctx, written: Sequence[Draft]) -> None:
    kinds = _floored(ctx, {d.command.kind for d in written})
    if not kinds:
        return
    asked: list[Call] = []
    for kind in kinds:
        # The last entry of each balance stands for it.
        entries = {
            key_of(kind, d.after.data): d.id
            for d in written
            if d.command.kind == kind.key and d.after is not None
        }
        asked.append((_negative(ctx, kind), (ctx.tenant, kind.key, list(entries.values()))))
    answers = await tx.run(*asked)
    calls: list[Call] = []
    for kind, rows in zip(kinds, answers, strict=True):
        if not len(rows):
            continue
        values = [rows.values(n) for n in range(len(rows))]
        sides = [_balance(kind, v[4:]) for v in values]
        places = ([v[0] for v in values], [v[2] for v in values], [v[3] for v in values])
        calls.append((_NOTE_NEGATIVE, (ctx.tenant, kind.key, now(), *places, sides)))
    if calls:
        await tx.run(*calls)


def _balance(kind: Kind, sums: Sequence[str | None]) -> str:
    """The balance that is too low, by field id, as the sides of a clash."""
    values: dict[str, str] = {}
    for field, amount in zip(balance_fields(kind)[1], sums, strict=True):
        type_ = type_of(field.type)
        value = Decimal(amount or 0) / 10 ** type_.slot_scale(field)  # type: ignore[attr-defined]
        values[field.fid] = f"{value:.{type_.scale(field)}f}"  # type: ignore[attr-defined]
    return msgspec.json.encode([{"values": values}]).decode()


def _negative(ctx: Ctx, kind: Kind) -> Statement:
    return Statement(_negative_text(ctx, kind, "$3::uuid[]"))


def _negative_text(ctx: Ctx, kind: Kind, ids: str, *, only_id: bool = False) -> str:
    """Of given entries one for each key and stream that is below zero now, with its balances."""
    assert kind.ledger is not None, "ledgers only"
    reference, _, flag = kind.ledger.unless.partition(".")
    field = kind.by_name.get(reference)
    target = ctx.schema.kind(str(field.option("target"))) if field else None
    lifting = target.by_name.get(flag) if target else None
    lift = (field.fid, lifting.fid) if field and lifting else ("", "")
    slots = tuple(str(f.slot) for f in balance_fields(kind)[1])
    return _negative_sql(slots, lift, ids, only_id=only_id)


@lru_cache(maxsize=200)
def _negative_sql(slots: tuple[str, ...], lift: tuple[str, str], ids: str, *, only_id: bool) -> str:
    sums = ", ".join(f"coalesce(sum(t.{slot}), 0)::bigint AS v{n}" for n, slot in enumerate(slots))
    low = " OR ".join(f"b.v{n} < 0" for n in range(len(slots)))
    head = "e.id::text"
    if not only_id:
        head += f", '{NEGATIVE}', e.key::text, e.stream::text, "
        head += ", ".join(f"b.v{n}" for n in range(len(slots)))
    lifted = ""
    if lift[0]:
        lifted = (
            " AND NOT EXISTS (SELECT FROM record l WHERE l.tenant_id = $1 AND l.id = "
            f"(e.data->>'{lift[0]}')::uuid AND l.data->>'{lift[1]}' = 'true')"
        )
    distinct = "" if only_id else "DISTINCT ON (e.key, e.stream) "
    order = "" if only_id else " ORDER BY e.key, e.stream, e.at DESC, e.id DESC"
    return (
        f"SELECT {distinct}{head} FROM unnest({ids}) AS u(id) CROSS JOIN LATERAL (SELECT o.id, o.key, "
        "o.stream, o.at, o.data FROM entry o WHERE o.tenant_id = $1 AND o.id = u.id AND o.kind = $2 "
        f"OFFSET 0) AS e CROSS JOIN LATERAL (SELECT {sums} FROM turnover t WHERE t.tenant_id = $1 "
        f"AND t.kind = $2 AND t.key = e.key) AS b WHERE ({low}){lifted}{order}"
    )
