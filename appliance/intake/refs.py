"""External references: which record of ours a source means by an id of its own.

The one key that connectors match by: (system, kind, external id), the id compared exactly as it is
given. A reference to a record that is gone is told apart from none: nothing is made a second time
because somebody has deleted it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

import msgspec

from appliance.base import limits
from appliance.base.errors import Invalid
from appliance.base.ids import parse_uuid
from appliance.db.columns import Column
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json, Kind
from appliance.kernel.text import fold

KIND = "external_ref"
Key = tuple[str, str]
_LIVE = Statement(
    "SELECT id::text, data FROM record WHERE tenant_id = $1 AND id = ANY($2::uuid[]) "
    "AND deleted_at IS NULL"
)
# What was told to a source under our own id, because it had none, comes back under it.
_OWN = Statement(
    "SELECT kind, id::text, data FROM record WHERE tenant_id = $1 AND id = ANY($2::uuid[]) "
    "AND kind = ANY($3::text[]) AND deleted_at IS NULL"
)
OWN = ("customer", "order", "product", "variant")
_decode = msgspec.json.Decoder(dict[str, Json]).decode


class Known(msgspec.Struct, frozen=True):
    """What an external id means here: the record's id, and what it holds; None when it is gone."""

    id: UUID
    data: dict[str, Json] | None


class Refs:
    """The references of one source. Raises Invalid when the tenant has no such kind."""

    def __init__(self, db: Database, ctx: Ctx, system: str) -> None:
        self._db, self._ctx, self.system = db, ctx, system
        kind = kind_of(ctx, KIND)
        slots = {n: slot_of(kind, n) for n in ("external_id", "system", "record")}
        self._find = Statement(
            "SELECT data->>'local_kind', data->>'external_id', data->>'record' FROM record "
            "WHERE tenant_id = $1 AND kind = 'external_ref' AND deleted_at IS NULL "
            f"AND {slots['external_id']} = ANY($2::text[]) AND data->>'system' = $3"
        )
        self._of = Statement(
            "SELECT data->>'record', data->>'external_id' FROM record WHERE tenant_id = $1 "
            "AND kind = 'external_ref' "
            f"AND deleted_at IS NULL AND {slots['record']} = ANY($2::text[]) "
            "AND data->>'system' = $3"
        )
        self._all = Statement(
            "SELECT data->>'external_id', data->>'record' FROM record WHERE tenant_id = $1 "
            f"AND kind = 'external_ref' AND deleted_at IS NULL AND {slots['system']} = $2 "
            "AND data->>'local_kind' = $3 AND data->>'system' = $4"
        )

    async def find(self, keys: Iterable[Key]) -> dict[Key, list[Known]]:
        """What is known of (kind, external id); more than one record is for the caller to refuse."""
        wanted = set(keys)
        if not wanted:
            return {}
        folded = sorted({fold(ext)[: limits.TEXT_SLOT_CHARS_MAX] for _, ext in wanted})
        tenant = self._ctx.tenant
        call = (self._find, (tenant, Column("text", folded), self.system))
        (rows,) = await self._db.read(tenant, call)
        records: dict[Key, set[UUID]] = {}
        for kind, ext, record in rows:
            key = ((kind or b"").decode(), (ext or b"").decode())
            ident = parse_uuid((record or b"").decode())
            if key in wanted and ident is not None:
                records.setdefault(key, set()).add(ident)
        data = await self.read({i for found in records.values() for i in found})
        own = await self.own(wanted - records.keys())
        return own | {
            key: [Known(i, data.get(i)) for i in sorted(found)] for key, found in records.items()
        }

    async def own(self, keys: Iterable[Key]) -> dict[Key, list[Known]]:
        """Those that are the ids of our own records."""
        ids = {(k, e): i for k, e in keys if k in OWN and (i := parse_uuid(e)) is not None}
        if not ids:
            return {}
        args = (self._ctx.tenant, Column("uuid", sorted(set(ids.values()))), list(OWN))
        (rows,) = await self._db.read(self._ctx.tenant, (_OWN, args))
        data = {
            ((k or b"").decode(), UUID((i or b"").decode())): _decode(d or b"{}")
            for k, i, d in rows
        }
        return {key: [Known(i, data[key[0], i])] for key, i in ids.items() if (key[0], i) in data}

    async def read(self, ids: Iterable[UUID]) -> dict[UUID, dict[str, Json]]:
        """What live records hold, by id."""
        wanted = sorted(set(ids))
        if not wanted:
            return {}
        tenant = self._ctx.tenant
        (rows,) = await self._db.read(tenant, (_LIVE, (tenant, Column("uuid", wanted))))
        return {UUID((i or b"").decode()): _decode(d or b"{}") for i, d in rows}

    async def brought(self, ids: Iterable[UUID]) -> set[UUID]:
        """Those of some records that this source knows by an id of its own."""
        return set(await self.named(ids))

    async def named(self, ids: Iterable[UUID]) -> dict[UUID, list[str]]:
        """What this source calls some records; those that it does not know are left out."""
        wanted = [str(i) for i in set(ids)]
        if not wanted:
            return {}
        tenant = self._ctx.tenant
        (rows,) = await self._db.read(tenant, (self._of, (tenant, folded(wanted), self.system)))
        found: dict[UUID, list[str]] = {}
        for record, ext in rows:
            found.setdefault(UUID((record or b"").decode()), []).append((ext or b"").decode())
        return found

    async def all_of(self, kind: str) -> dict[str, UUID]:
        """Every external id of a kind that this source has ever brought."""
        tenant = self._ctx.tenant
        call = (self._all, (tenant, fold(self.system), kind, self.system))
        (rows,) = await self._db.read(tenant, call, timeout_ms=limits.EXPORT_TIMEOUT_MS)
        found = ((e, parse_uuid((r or b"").decode())) for e, r in rows)
        return {(ext or b"").decode(): ident for ext, ident in found if ident is not None}

    def values(self, kind: str, external_id: str, record: UUID) -> dict[str, Json]:
        """The fields of a new reference."""
        return {
            "system": self.system, "local_kind": kind, "external_id": external_id,
            "record": str(record),
        }  # fmt: skip


def kind_of(ctx: Ctx, key: str) -> Kind:
    """A kind that a target needs. Raises Invalid."""
    found = ctx.schema.kind(key)
    if found is None or not ctx.profile.sees(found):
        raise Invalid(
            f"This import needs the kind {key}; switch the module on, or ask for the right to read "
            "it.", code="intake.target_missing",
        )  # fmt: skip
    return found


def slot_of(kind: Kind, name: str) -> str:
    """The index slot of a field that a target looks up by. Raises Invalid."""
    field = kind.by_name.get(name)
    if field is None or not field.slot or not field.slot_ready:
        raise Invalid(
            f"This import needs {kind.key}.{name} as a filterable field.",
            code="intake.target_missing",
        )
    return field.slot


def folded(values: Sequence[str]) -> Column:
    """Texts as they stand in a slot."""
    return Column("text", sorted({fold(v)[: limits.TEXT_SLOT_CHARS_MAX] for v in values}))
