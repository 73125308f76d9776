"""What of a price list is here already: products by key, and the base prices in force of them.

Set-based and in the tenant's own rows. Matching is by our own number, by the source's key, then by our
SKU, then by barcode; never by name (research/connectors 12).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec

from appliance.base import limits
from appliance.base.errors import Invalid
from appliance.db.columns import Column
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json, Kind
from appliance.kernel.text import fold
from appliance.write.balances import key_of

_decode = msgspec.json.Decoder(dict[str, Json]).decode
IN_FORCE = Statement(
    "SELECT DISTINCT ON (key) key::text, data->>'price', data->>'currency' FROM entry "
    "WHERE tenant_id = $1 AND kind = 'price' AND key = ANY($2::uuid[]) AND at <= $3 "
    "AND reverses IS NULL AND (SELECT v.id FROM entry v WHERE v.tenant_id = $1 "
    "AND v.kind = 'price' AND v.reverses = entry.id LIMIT 1) IS NULL "
    "ORDER BY key, at DESC, id DESC"
)


class Product(msgspec.Struct, frozen=True):
    """A product that is here, and its base prices in force: by price type, amount and currency."""

    id: UUID
    data: dict[str, Json]
    prices: dict[UUID, tuple[Decimal | None, str]]


class PriceType(msgspec.Struct, frozen=True):
    """One price type by its key."""

    id: UUID
    key: str
    currency: str


class Catalogue:
    """Looks products up for one run. Raises Invalid when the tenant lacks the modules."""

    def __init__(self, ctx: Ctx, source: str) -> None:
        self._ctx = ctx
        self.source = source
        product, price = self.kind("product"), self.kind("price")
        slots = {n: _slot(product, n) for n in ("source_key", "sku", "barcode")}
        supplier = _slot(product, "supplier")
        self._price = price
        # One look-up by index for each key: an OR over them would read the whole kind.
        self._products = [
            Statement(
                "SELECT id::text, data, number FROM record WHERE tenant_id = $1 AND kind = 'product' "
                f"AND deleted_at IS NULL AND {slot} = ANY($2::text[])"
            )
            for slot in ("number", *slots.values())
        ]
        self._of_source = Statement(
            "SELECT id::text FROM record WHERE tenant_id = $1 AND kind = 'product' "
            f"AND deleted_at IS NULL AND {supplier} = $2"
        )

    def kind(self, key: str) -> Kind:
        """A kind that the target needs."""
        found = self._ctx.schema.kind(key)
        if found is None or not self._ctx.profile.sees(found):
            raise Invalid(
                f"A price list needs the kind {key}; switch the module on, or ask for the right to "
                "read it.", code="intake.target_missing",
            )  # fmt: skip
        return found

    async def find(
        self,
        db: Database,
        rows: Sequence[dict[str, Json]],
        keys: Sequence[str],
        *,
        types: Sequence[UUID],
        asof: datetime,
    ) -> list[list[Product]]:
        """For each row the products it may mean, the best way of matching alone.

        With their base prices of `types` in force at `asof`.
        """
        wanted = [
            [str(r["number"]) if r.get("number") else "" for r in rows],
            [fold(self.own_key(k)) for k in keys],
            [fold(str(r["sku"])) if r.get("sku") else "" for r in rows],
            [fold(str(r["barcode"])) if r.get("barcode") else "" for r in rows],
        ]
        calls = [
            (statement, (self._ctx.tenant, Column("text", sorted({v for v in values if v}))))
            for statement, values in zip(self._products, wanted, strict=True)
        ]
        data: dict[UUID, dict[str, Json]] = {}
        numbers: dict[UUID, str] = {}
        for answer in await db.read(self._ctx.tenant, *calls):
            for text, raw, number in answer:
                found_id = UUID((text or b"").decode())
                data[found_id] = _decode(raw or b"{}")
                numbers[found_id] = (number or b"").decode()
        prices = await self._prices_of(db, list(data), types, asof)
        by: dict[tuple[str, str], list[Product]] = {}
        for ident, values in data.items():
            found = Product(ident, values, prices.get(ident, {}))
            by.setdefault(("number", numbers[ident]), []).append(found)
            for name in ("source_key", "sku", "barcode"):
                if values.get(name):
                    by.setdefault((name, fold(str(values[name]))), []).append(found)
        return [
            (by.get(("number", n)) if n else None) or by.get(("source_key", o))
            or (by.get(("sku", s)) if s else None)
            or (by.get(("barcode", c)) if c else None) or []
            for n, o, s, c in zip(*wanted, strict=True)
        ]  # fmt: skip

    async def _prices_of(
        self, db: Database, products: Sequence[UUID], types: Sequence[UUID], asof: datetime
    ) -> dict[UUID, dict[UUID, tuple[Decimal | None, str]]]:
        """Base prices in force: one probe of the ledger's key for each product and type."""
        if not products or not types:
            return {}
        product, price_type = (self._price.by_name[n].fid for n in ("product", "price_type"))
        pairs = {
            key_of(self._price, {product: str(p), price_type: str(t)}): (p, t)
            for p in products
            for t in types
        }
        tenant = self._ctx.tenant
        (rows,) = await db.read(tenant, (IN_FORCE, (tenant, Column("uuid", list(pairs)), asof)))
        held: dict[UUID, dict[UUID, tuple[Decimal | None, str]]] = {}
        for key, amount, currency in rows:
            holder, type_ = pairs[UUID((key or b"").decode())]
            value = Decimal(amount.decode()) if amount else None
            held.setdefault(holder, {})[type_] = (value, (currency or b"").decode())
        return held

    async def of_source(self, db: Database) -> set[UUID]:
        """All products that this source has ever brought."""
        call = (self._of_source, (self._ctx.tenant, fold(self.source)))
        (rows,) = await db.read(self._ctx.tenant, call, timeout_ms=limits.EXPORT_TIMEOUT_MS)
        return {UUID((i or b"").decode()) for i in rows.column()}

    def own_key(self, key: str) -> str:
        """What a product of this source is known by."""
        return f"{self.source}:{key}"[:400]


async def price_types(db: Database, ctx: Ctx) -> dict[str, PriceType]:
    """The tenant's price types by key."""
    (rows,) = await db.read(
        ctx.tenant,
        (
            Statement(
                "SELECT id::text, data->>'key', data->>'currency' FROM record WHERE tenant_id = $1 "
                "AND kind = 'price_type' AND deleted_at IS NULL ORDER BY id"
            ),
            (ctx.tenant,),
        ),
    )
    found = [
        PriceType(UUID((i or b"").decode()), (k or b"").decode(), (c or b"").decode())
        for i, k, c in rows
    ]
    return {t.key: t for t in reversed(found)}


def _slot(kind: Kind, name: str) -> str:
    field = kind.by_name.get(name)
    if field is None or not field.slot or not field.slot_ready:
        raise Invalid(
            f"A price list needs {kind.key}.{name} as a filterable field.",
            code="intake.target_missing",
        )
    return field.slot
