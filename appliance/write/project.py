"""Stage 6: the record row, its index slots, links, claims and search text, from the state.

Everything written here is a pure function of the state and the kind; `rebuild` calls the same
functions over the log and must arrive at the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import msgspec

from appliance.db.columns import Column
from appliance.db.wire import Call, Param, Statement
from appliance.fields import type_of
from appliance.fields.base import UNREADABLE
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Field, Kind
from appliance.kernel.query import search_scope_lexeme
from appliance.kernel.record import RecordState
from appliance.kernel.text import searchable
from appliance.write.balances import key_of, turnover_calls
from appliance.write.draft import Draft
from appliance.write.load import claims_in
from appliance.write.waiting import waiting_calls

_encode = msgspec.json.Encoder(order="sorted").encode

# Name and array type of the columns that every kind has; slots of the kind follow.
FIXED: tuple[tuple[str, str], ...] = (
    ("id", "uuid"), ("kind", "text"), ("stream", "uuid"), ("unit_id", "uuid"),
    ("owner_id", "uuid"), ("number", "text"), ("data", "text"), ("stamps", "text"),
    ("created_at", "timestamptz"), ("created_by", "uuid"), ("updated_at", "timestamptz"),
    ("updated_by", "uuid"), ("deleted_at", "timestamptz"), ("deleted_by", "uuid"),
    ("open", "bytea"),
)  # fmt: skip
# By first letter; a ledger's `at` and `reverses` are slots too.
_SLOT_TYPES = {"t": "text", "n": "bigint", "d": "timestamptz", "r": "uuid", "a": "timestamptz"}
_KEY = ("key", "uuid")
# When it was created is another moment when a clock is cut, or when two nodes created it.
_BORN = frozenset({"id", "kind"})
# Of an entry only the projection moves; the database refuses the rest.
_FACTS = frozenset({*(name for name, _ in FIXED), "key", "at", "reverses"})

_DROP_LINKS = Statement(
    "DELETE FROM record_link WHERE tenant_id = $1 AND record_id = ANY($2::uuid[])"
)
_ADD_LINKS = Statement(
    "INSERT INTO record_link (tenant_id, kind, fid, value, record_id) SELECT $1, k, f, v, r "
    "FROM unnest($2::text[], $3::text[], $4::text[], $5::uuid[]) AS u(k, f, v, r)"
)
_DROP_CLAIMS = Statement(
    "DELETE FROM unique_claim WHERE tenant_id = $1 AND record_id = ANY($2::uuid[])"
)
_ADD_CLAIMS = Statement(
    "INSERT INTO unique_claim (tenant_id, kind, rule, value, record_id) SELECT $1, k, f, v, r "
    "FROM unnest($2::text[], $3::text[], $4::text[], $5::uuid[]) AS u(k, f, v, r)"
)


def slots_of(kind: Kind) -> list[tuple[str, str]]:
    """The slot columns a kind uses, with their array types, in column order; a ledger's key too."""
    used = sorted({f.slot for f in kind.fields if f.slot and f.slot != "link"})
    slots = [(slot, _SLOT_TYPES[slot[0]]) for slot in used]
    return [*slots, _KEY] if kind.ledger else slots


def project_calls(ctx: Ctx, drafts: Sequence[Draft]) -> list[Call]:
    """The statements that bring rows, links and claims to the drafts' states."""
    calls: list[Call] = []
    by_kind: dict[tuple[str, bool], list[Draft]] = {}
    for draft in drafts:
        by_kind.setdefault((draft.command.kind, draft.before is None), []).append(draft)
    for (_, is_new), group in by_kind.items():
        kind = group[0].kind
        assert kind is not None, "open drafts have a kind"
        states = [d.after for d in group if d.after is not None]
        words = is_new or _touches(group, kind, lambda f: f.searchable)
        calls.append(row_call(ctx, kind, states, insert=is_new, words=words))
        calls += turnover_calls(ctx, kind, states)
        if is_new or _touches(group, kind, lambda f: f.slot == "link"):
            calls += link_calls(ctx, kind, states, drop=not is_new)
        if is_new or _touches(group, kind, lambda f: f.unique):
            calls += claim_calls(ctx, kind, states, drop=not is_new)
    return [*calls, *waiting_calls(ctx, drafts)]


def _touches(group: Sequence[Draft], kind: Kind, matters: Callable[[Field], bool]) -> bool:
    """Whether an update could move links, claims or words at all; a frame may edit and
    delete at once.
    """
    watched = {f.fid for f in kind.fields if matters(f)}
    return bool(watched) and any(
        d.after is None or not d.values or not watched.isdisjoint(d.values) or _comes_or_goes(d)
        for d in group
    )


def _comes_or_goes(draft: Draft) -> bool:
    before, after = draft.before, draft.after
    return not before or not after or (before.deleted_at is None) != (after.deleted_at is None)


def row_call(
    ctx: Ctx, kind: Kind, states: Sequence[RecordState], *, insert: bool, words: bool = True
) -> Call:
    """One INSERT or UPDATE for all rows of one kind; without `words` search stays as it is."""
    slots = slots_of(kind)
    searches = words and any(f.searchable for f in kind.fields)
    statement = _row_statement(kind.table, tuple(slots), searches=searches, insert=insert)
    read_slots = _slot_reader(kind, slots)
    rows = [
        (
            s.id, s.kind, s.stream, s.unit, s.owner, s.number, _encode(s.data).decode(),
            str(s.stamps), s.created_at, s.created_by, s.updated_at, s.updated_by, s.deleted_at,
            s.deleted_by, s.open, *read_slots(s), *((search_text(kind, s),) if searches else ()),
        )
        for s in states
    ]  # fmt: skip
    types = [type_ for _, type_ in (*FIXED, *slots)] + ["text"] * searches
    columns = [Column(t, values) for t, values in zip(types, zip(*rows, strict=True), strict=True)]
    extra = (search_scope_lexeme(ctx.tenant, kind.key),) if searches else ()
    return statement, (ctx.tenant, *columns, *extra)


@lru_cache(maxsize=2_000)
def _row_statement(
    table: str, slots: tuple[tuple[str, str], ...], *, searches: bool, insert: bool
) -> Statement:
    names = [*FIXED, *slots, *([("words", "text")] if searches else [])]
    arrays = ", ".join(f"${n}::{type_}[]" for n, (_, type_) in enumerate(names, 2))
    aliases = ", ".join(name for name, _ in names)
    source = f"unnest({arrays}) AS u({aliases})"
    vector = f"to_tsvector('nexus', u.words) || array_to_tsvector(ARRAY[${len(names) + 2}::text])"
    columns = [name for name, _ in (*FIXED, *slots)]
    values = [f"u.{name}::jsonb" if name == "data" else f"u.{name}" for name in columns]
    if searches:
        columns, values = [*columns, "search"], [*values, vector]
    rows = (
        f"INSERT INTO {table} (tenant_id, {', '.join(columns)}) "
        f"SELECT $1, {', '.join(values)} FROM {source}"
    )
    if insert:
        return Statement(rows)
    if table == "record":
        # By its key, whatever the planner thinks: of a table that was never analysed it expects one
        # row for a tenant, and an UPDATE … FROM reads all of them and compares each with each. The
        # rows are there: whoever writes them has locked them.
        steps = ", ".join(f"{c} = EXCLUDED.{c}" for c in columns if c not in _BORN)
        return Statement(f"{rows} ON CONFLICT (tenant_id, id) DO UPDATE SET {steps}")
    kept = _FACTS
    steps = ", ".join(f"{c} = {v}" for c, v in zip(columns, values, strict=True) if c not in kept)
    return Statement(
        f"UPDATE {table} AS o SET {steps} FROM {source} WHERE o.tenant_id = $1 AND o.id = u.id"
    )


def _slot_reader(
    kind: Kind, slots: Sequence[tuple[str, str]]
) -> Callable[[RecordState], list[Param]]:
    """How to get the comparable projection of a state, one value per slot column of its kind."""
    fields = {f.slot: (f.fid, f, type_of(f.type).slot_value) for f in kind.fields if f.slot}
    plan = [fields[slot] for slot, _ in slots if slot != "key"]
    with_key = kind.ledger is not None

    def read(state: RecordState) -> list[Param]:
        data = state.data
        try:
            found: list[Param] = [
                slot_value(field, value) if (value := data.get(fid)) is not None else None
                for fid, field, slot_value in plan
            ]
        except UNREADABLE:
            found = [type_of(f.type).slot_or_none(f, data.get(fid)) for fid, f, _ in plan]
        return [*found, key_of(kind, data)] if with_key else found

    return read


def search_text(kind: Kind, state: RecordState) -> str:
    """What full-text search finds the record by: its searchable fields and its number."""
    parts = [state.number or ""]
    for field in kind.fields:
        value = state.data.get(field.fid) if field.searchable else None
        if value is not None:
            parts.append(type_of(field.type).search_text(field, value))
    return searchable(" \n".join(filter(None, parts)))


def link_calls(ctx: Ctx, kind: Kind, states: Sequence[RecordState], *, drop: bool) -> list[Call]:
    """Members of set-valued fields, replaced as a whole."""
    fields = [f for f in kind.fields if f.slot == "link"]
    if not fields:
        return []
    rows = [
        (kind.key, f.fid, member, s.id)
        for s in states
        for f in fields
        if s.data.get(f.fid) is not None
        for member in type_of(f.type).members(f, s.data[f.fid])
    ]
    return _replace(ctx, states, rows, (_DROP_LINKS, _ADD_LINKS), drop=drop)


def claim_calls(ctx: Ctx, kind: Kind, states: Sequence[RecordState], *, drop: bool) -> list[Call]:
    """Unique values held by live records, replaced as a whole."""
    if not any(f.unique for f in kind.fields):
        return []
    rows = [
        (*claim, s.id) for s in states if s.deleted_at is None for claim in claims_in(kind, s.data)
    ]
    return _replace(ctx, states, rows, (_DROP_CLAIMS, _ADD_CLAIMS), drop=drop)


def _replace(
    ctx: Ctx,
    states: Sequence[RecordState],
    rows: Sequence[tuple[Param, ...]],
    statements: tuple[Statement, Statement],
    *,
    drop: bool,
) -> list[Call]:
    calls: list[Call] = []
    if drop:
        calls.append((statements[0], (ctx.tenant, [s.id for s in states])))
    if rows:
        kinds, fids, values, holders = zip(*rows, strict=True)
        named = (Column("text", column) for column in (kinds, fids, values))
        calls.append((statements[1], (ctx.tenant, *named, Column("uuid", holders))))
    return calls
