"""Stage 1: one round trip that locks what the batch will touch and reads what it refers to.

Rows are locked in id order, so that two batches cannot deadlock; unique values are locked
before they are looked up, so that two offices cannot take one at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from uuid import UUID

import msgspec

from appliance.base.ids import uuid_of, uuid_read
from appliance.db.values import text_of
from appliance.db.wire import Call, Rows, Statement
from appliance.fields import type_of
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Field, Json, Kind
from appliance.kernel.record import RecordState
from appliance.kernel.stamps import Stamps
from appliance.write.command import Op
from appliance.write.draft import Draft

COLUMNS = (
    "id::text, kind, stream::text, unit_id::text, owner_id::text, number, data, stamps, "
    "(extract(epoch FROM created_at) * 1000)::bigint, created_by::text, "
    "(extract(epoch FROM updated_at) * 1000)::bigint, updated_by::text, "
    "(extract(epoch FROM deleted_at) * 1000)::bigint, deleted_by::text, open"
)
LOCK_ROWS = Statement(
    f"SELECT {COLUMNS} FROM record WHERE tenant_id = $1 AND id = ANY($2::uuid[]) "
    "ORDER BY id FOR UPDATE"
)
_READ_ROWS = Statement(
    f"SELECT {COLUMNS} FROM record WHERE tenant_id = $1 AND id = ANY($2::uuid[])"
)
# Entries of ledgers are not locked: they never change.
READ_ENTRIES = Statement(
    f"SELECT {COLUMNS} FROM entry WHERE tenant_id = $1 AND id = ANY($2::uuid[])"
)
_LOCK_VALUES = Statement(
    "SELECT pg_advisory_xact_lock(v) FROM (SELECT unnest($1::bigint[]) AS v ORDER BY 1) AS sorted"
)
CLAIMS = Statement(
    "SELECT w.kind, w.rule, w.value, c.record_id::text "
    "FROM unnest($2::text[], $3::text[], $4::text[]) AS w(kind, rule, value) "
    "CROSS JOIN LATERAL (SELECT o.record_id FROM unique_claim o WHERE o.tenant_id = $1 "
    "AND o.kind = w.kind AND o.rule = w.rule AND o.value = w.value OFFSET 0) AS c"
)
_BY_SLOT = "{slot} = ANY($3::uuid[])"
_BY_VALUE = "data->>'{fid}' = ANY($3::uuid[]::text[])"
_BY_LINK = (
    "id IN (SELECT record_id FROM record_link l WHERE l.tenant_id = $1 AND l.kind = $2 "
    "AND l.fid = '{fid}' AND l.value = ANY($3::uuid[]::text[]))"
)
_VALUE_LOCKS_MAX = 256

decode_data = msgspec.json.Decoder(dict[str, Json]).decode
Claim = tuple[str, str, str]


@dataclass(slots=True)
class Loaded:
    """What the first round trip found."""

    rows: dict[UUID, RecordState] = field(default_factory=dict)
    targets: dict[UUID, RecordState] = field(default_factory=dict)
    holders: dict[Claim, list[UUID]] = field(default_factory=dict)


def load_calls(ctx: Ctx, drafts: Sequence[Draft], *, lock: bool = True) -> list[Call]:
    """The statements of the round trip, in the order `read_loaded` takes their answers."""
    existing = {d.id for d in drafts if d.command.id is not None and not d.faults}
    documents = _documents(ctx, drafts, existing)
    existing -= documents
    claims = sorted({c for d in drafts for c in claims_of(d)})
    calls: list[Call] = []
    if claims:
        calls.append((_LOCK_VALUES, (_lock_keys(ctx.tenant, claims),)))
    for rows in filter(None, (documents, existing)):
        calls.append((LOCK_ROWS if lock else _READ_ROWS, (ctx.tenant, sorted(rows))))
    if targets := targets_of(drafts):
        calls.append((_READ_ROWS, (ctx.tenant, sorted(targets))))
    if entries := _entries_of(ctx, drafts):
        calls.append((READ_ENTRIES, (ctx.tenant, sorted(entries))))
    if claims:
        kinds, rules, values = zip(*claims, strict=True)
        calls.append((CLAIMS, (ctx.tenant, kinds, rules, values)))
    return calls


def _entries_of(ctx: Ctx, drafts: Sequence[Draft]) -> set[UUID]:
    """The entries a batch makes or points to: those with an id that somebody chose."""
    found: set[UUID] = set()
    for draft in drafts:
        if draft.kind is None:
            continue
        if draft.kind.ledger is not None:
            found.add(draft.id)
        for field_ in draft.kind.fields:
            value = draft.values.get(field_.fid) if field_.type.startswith("reference") else None
            target = ctx.schema.kind(str(field_.option("target"))) if value else None
            if target is not None and target.ledger is not None:
                found.update(map(uuid_of, references_in(field_, value)))
    return found


def read_loaded(drafts: Sequence[Draft], calls: Sequence[Call], answers: Sequence[Rows]) -> Loaded:
    """Answers of `load_calls` into states; each draft gets the state it will change."""
    found = Loaded()
    for (statement, _), rows in zip(calls, answers, strict=True):
        if statement is CLAIMS:
            for kind, rule, value, holder in rows:
                claim = (text_of(kind), text_of(rule), text_of(value))
                found.holders.setdefault(claim, []).append(UUID(text_of(holder)))
        elif statement is not _LOCK_VALUES:
            states = {s.id: s for s in map(read_state, rows)}
            # A row that is changed may be pointed to as well, and an entry be reversed.
            found.rows.update(states)
            found.targets.update(states)
    for draft in drafts:
        draft.before = found.rows.get(draft.id)
    return found


def targets_of(drafts: Sequence[Draft]) -> set[UUID]:
    """Every record that the batch's references point to."""
    return {
        uuid_of(target)
        for draft in drafts
        if draft.kind is not None
        for fid, value in draft.values.items()
        if (found := draft.kind.by_fid.get(fid)) is not None
        and found.type in ("reference", "references", "file")
        for target in references_in(found, value)
    }


def _documents(ctx: Ctx, drafts: Sequence[Draft], existing: set[UUID]) -> set[UUID]:
    """What lines of the batch belong to, and what lines may belong to: locked before any line, so
    that a line cannot come to a document that is being moved to another unit, and none waits for
    the other in a circle.
    """
    found: set[UUID] = set()
    for draft in drafts:
        field = draft.kind.belonging if draft.kind is not None else None
        parent = draft.values.get(field.fid) if field is not None else None
        if isinstance(parent, str):
            found.add(uuid_of(parent))
    if len(existing) > 1:
        kinds = {str(f.option("target")) for k in ctx.schema.kinds.values() if (f := k.belonging)}
        found |= {d.id for d in drafts if d.id in existing and d.command.kind in kinds}
    return found


def points_at(field_: Field) -> str:
    """The condition that a field points to one of the records in $3; $1 tenant, $2 kind."""
    if type_of(field_.type).slot == "link":
        return _BY_LINK.format(fid=field_.fid)
    if field_.slot and field_.slot_ready:
        return _BY_SLOT.format(slot=field_.slot)
    return _BY_VALUE.format(fid=field_.fid)


def references_in(field_: Field, value: Json) -> list[str]:
    """The ids a canonical reference value holds."""
    if isinstance(value, str):
        return [value]
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []


def claims_of(draft: Draft) -> list[Claim]:
    """The unique values that a draft is about to take."""
    if draft.kind is None or draft.faults or draft.command.op is Op.DELETE:
        return []
    return claims_in(draft.kind, draft.values)


def claims_in(kind: Kind, data: dict[str, Json]) -> list[Claim]:
    """The unique values in a record's data, in the form they are compared in."""
    found: list[Claim] = []
    for field_ in kind.fields:
        value = data.get(field_.fid) if field_.unique else None
        if value is not None:
            slot = type_of(field_.type).slot_or_none(field_, value)
            if slot is not None:
                found.append((kind.key, field_.fid, str(slot)))
    return found


def _lock_keys(tenant: UUID, claims: Sequence[Claim]) -> list[int]:
    """Lock one key per value; a large batch locks its kinds' rules instead, a few keys in all.

    A single writer takes both, so that it also waits for a large batch.
    """
    rules = {_key(tenant, kind, rule, "") for kind, rule, _ in claims}
    if len(claims) > _VALUE_LOCKS_MAX:
        return sorted(rules)
    return sorted({_key(tenant, *claim) for claim in claims} | rules)


def _key(tenant: UUID, kind: str, rule: str, value: str) -> int:
    text = f"{kind}\0{rule}\0{value}".encode()
    digest = blake2b(text, digest_size=8, key=tenant.bytes).digest()
    return int.from_bytes(digest, "big", signed=True)


def read_state(row: Sequence[bytes | None]) -> RecordState:
    """One row of COLUMNS as a state."""
    return RecordState(
        id=uuid_read(row[0]),
        kind=text_of(row[1]),
        stream=uuid_of(text_of(row[2])),
        unit=_uuid(row[3]),
        owner=_uuid(row[4]),
        number=row[5].decode() if row[5] is not None else None,
        data=decode_data(row[6] or b"{}"),
        stamps=Stamps.read(text_of(row[7])),
        created_at=_moment(row[8]),
        created_by=uuid_of(text_of(row[9])),
        updated_at=_moment(row[10]),
        updated_by=uuid_of(text_of(row[11])),
        deleted_at=_moment(row[12]) if row[12] is not None else None,
        deleted_by=_uuid(row[13]),
        open=bytes.fromhex(row[14][2:].decode()) if row[14] is not None else None,
    )


def _uuid(value: bytes | None) -> UUID | None:
    return uuid_of(value.decode()) if value is not None else None


def _moment(value: bytes | None) -> datetime:
    return datetime.fromtimestamp(int(value or b"0") / 1000, UTC)
