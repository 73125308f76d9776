"""A firm that sells through a channel: prices, two warehouses, products with and without variants."""

from uuid import UUID

from appliance.channels.channel import read_channel
from appliance.channels.groups import read_groups
from appliance.channels.offers import Scan, check_open, read_offers
from appliance.kernel.context import Door
from tests.install.firm import make_firm
from tests.tenants import create, everything, update


class Seller:
    """The firm, and its channel `main`."""

    def __init__(self, db, firm):
        self.db, self.firm, self.at = db, firm, {}

    async def make(self, kind, **fields):
        unit = self.firm.units["head"] if kind in ("stock_move", "reservation", "deal") else None
        more = {"unit": unit} if unit else {}
        made = await self.firm.apply(
            create(kind, **more, **fields), ctx=await self.firm.ctx(unit="head", door=Door.HTTP)
        )
        assert made.committed, made
        return str(made.outcomes[0].id)

    async def change(self, kind, ident, **fields):
        made = await self.firm.apply(update(kind, UUID(ident), **fields), ctx=await self.ctx())
        assert made.committed, made

    async def ctx(self, profile=None, **more):
        return await self.firm.ctx(profile, unit="head", **more)

    async def start(self, **channel):
        rows = await self.firm.sql(
            "SELECT data->>'key', id::text FROM record WHERE kind = 'price_type' AND deleted_at IS NULL"
        )
        self.types = dict(rows)
        self.north, self.south = [await self.make("warehouse", name=n) for n in ("North", "South")]
        self.channel = await self.make("sales_channel", **{
            "name": "Main", "system": "yml", "source": "shop", "price_type": self.types["retail"],
            "currency": "UAH", "warehouses": [self.north, self.south], "dry_run": False,
            "shop_name": "Shop", "company": "Firm", "shop_url": "https://shop.example",
            "offer_url": "https://shop.example/{sku}", "merchant": "M1", "store": "PP1", **channel,
        })  # fmt: skip
        return self

    async def product(self, name, sku, price="120", stock=None, *, ref=True, **more):
        ident = await self.make("product", name=name, **{"sku": sku, "category": "Tea", **more})
        if price is not None:
            await self.price(ident, price)
        for place, amount in (stock or {}).items():
            await self.move(ident, place, amount)
        if ref:
            await self.refer(ident, f"m-{sku}")
        return ident

    async def price(self, product, price, type_="retail", **more):
        return await self.make(
            "price",
            product=product,
            price_type=self.types[type_],
            price=price,
            currency="UAH",
            **more,
        )

    async def move(self, product, place, amount, **more):
        await self.make(
            "stock_move", product=product, warehouse=place, quantity=amount, reason="count", **more
        )

    async def refer(self, record, sku, kind="product", system="shop"):
        await self.make(
            "external_ref", system=system, local_kind=kind, external_id=sku, record=record
        )

    async def scan(self, ctx=None, *, note=True, digits=2):
        ctx = ctx or await self.ctx()
        channel = await read_channel(self.db, ctx, UUID(self.channel))
        check_open(ctx, channel)
        groups = await read_groups(self.db, ctx, channel)
        scan = Scan(channel, groups, digits, note)
        return {o.sku: o async for block in read_offers(self.db, ctx, scan) for o in block}


async def seller(db, dsns, **channel):
    return await Seller(db, await make_firm(db, dsns, "multi_branch_sales")).start(**channel)


__all__ = ["Seller", "everything", "seller"]
