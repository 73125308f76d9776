"""What of a price list is here already: products by key, and the base prices in force of them.

Set-based and in the tenant's own rows. Matching is by the source's key, then by our SKU, then by
barcode; never by name (research/connectors 12).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec

from appliance.base.errors import Invalid
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json, Kind
from appliance.kernel.text import fold

_decode = msgspec.json.Decoder(dict[str, Json]).decode
# A base price has none of these: it is for everybody, everywhere, in the base unit.
_SPECIAL = ("variant", "unit_scope", "customer", "contract")


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
        of, type_ = _slot(price, "product"), _slot(price, "price_type")
        base = " AND ".join(f"e.{_slot(price, n)} IS NULL" for n in _SPECIAL if n in price.by_name)
        self._products = Statement(
            "SELECT id::text, data FROM record WHERE tenant_id = $1 AND kind = 'product' "
            f"AND deleted_at IS NULL AND ({slots['source_key']} = ANY($2::text[]) "
            f"OR {slots['sku']} = ANY($3::text[]) OR {slots['barcode']} = ANY($4::text[]))"
        )
        self._prices = Statement(
            f"SELECT DISTINCT ON (e.key) e.{of}::text, e.{type_}::text, e.data->>'price', "
            "e.data->>'currency' FROM entry e WHERE e.tenant_id = $1 AND e.kind = 'price' "
            f"AND e.{of} = ANY($2::uuid[]) AND {base} AND NOT e.data ? 'measure' "
            "AND NOT e.data ? 'minimum_quantity' AND e.reverses IS NULL AND e.at <= $3 "
            "AND NOT EXISTS (SELECT 1 FROM entry v WHERE v.tenant_id = $1 AND v.kind = 'price' "
            "AND v.reverses = e.id) ORDER BY e.key, e.at DESC, e.id DESC"
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
        self, db: Database, rows: Sequence[dict[str, Json]], keys: Sequence[str], asof: datetime
    ) -> list[list[Product]]:
        """For each row the products it may mean, the best way of matching alone."""
        own = [fold(self.own_key(k)) for k in keys]
        skus = [fold(str(r["sku"])) if r.get("sku") else "" for r in rows]
        codes = [fold(str(r["barcode"])) if r.get("barcode") else "" for r in rows]
        tenant = self._ctx.tenant
        args = (tenant, own, [s for s in skus if s], [c for c in codes if c])
        (found,) = await db.read(tenant, (self._products, args))
        data = {UUID((i or b"").decode()): _decode(d or b"{}") for i, d in found}
        prices: dict[UUID, dict[UUID, tuple[Decimal | None, str]]] = {i: {} for i in data}
        if data:
            (held,) = await db.read(tenant, (self._prices, (tenant, list(data), asof)))
            for holder, type_, amount, currency in held:
                prices[UUID((holder or b"").decode())][UUID((type_ or b"").decode())] = (
                    Decimal(amount.decode()) if amount else None, (currency or b"").decode(),
                )  # fmt: skip
        by: dict[tuple[str, str], list[Product]] = {}
        for ident, values in data.items():
            product = Product(ident, values, prices[ident])
            for name in ("source_key", "sku", "barcode"):
                if values.get(name):
                    by.setdefault((name, fold(str(values[name]))), []).append(product)
        return [
            by.get(("source_key", o)) or (by.get(("sku", s)) if s else None)
            or (by.get(("barcode", c)) if c else None) or []
            for o, s, c in zip(own, skus, codes, strict=True)
        ]  # fmt: skip

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
