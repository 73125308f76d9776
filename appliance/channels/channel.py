"""A sales channel as it is set up: which prices, which stock, which limits (kind sales_channel)."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from uuid import UUID

import msgspec

from appliance.base.errors import Refused
from appliance.base.ids import parse_uuid
from appliance.channels.look import Row, look_all, look_by
from appliance.db.database import Database
from appliance.kernel.context import Ctx
from appliance.read.guard import READ

KIND = "sales_channel"
_NAMES = (
    "name", "system", "source", "link_by", "active", "dry_run", "price_type", "branch", "currency",
    "price_min", "price_change_max", "shrink_max", "warehouses", "buffer_units", "buffer_percent",
    "cap", "language", "shop_name", "company", "shop_url", "offer_url", "merchant", "store",
    "categories",
)  # fmt: skip


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """One channel. Limits are None where there is none; shares are in per cent."""

    id: UUID
    name: str
    system: str
    source: str
    by_sku: bool
    active: bool
    dry_run: bool
    price_type: UUID | None
    branch: UUID | None
    currency: str
    price_min: Decimal | None
    price_change_max: Decimal | None
    shrink_max: Decimal | None
    warehouses: tuple[UUID, ...]
    buffer_units: Decimal
    buffer_percent: Decimal
    cap: Decimal | None
    language: str
    categories: Mapping[str, str]
    texts: Mapping[str, str]

    @property
    def digits(self) -> int:
        """Digits of its prices: Kaspi takes whole tenge."""
        return 0 if self.system == "kaspi" else 2


async def read_channels(db: Database, ctx: Ctx) -> list[Channel]:
    """The channels that the reader sees, by name."""
    look = look_all(ctx, KIND, _NAMES)
    if look is None:
        return []
    (rows,) = await db.read(ctx.tenant, look.call)
    return sorted(map(_channel, look.read(rows)), key=lambda c: (c.name.casefold(), c.id))


async def read_channel(db: Database, ctx: Ctx, ident: UUID) -> Channel:
    """One channel. Raises Refused, alike for unknown and forbidden."""
    look = look_by(ctx, KIND, _NAMES, "id", [ident], actions=READ)
    rows = look.read((await db.read(ctx.tenant, look.call))[0]) if look else []
    if not rows:
        raise Refused("There is no such channel for you.", code="channel.unknown")
    return _channel(rows[0])


def _channel(row: Row) -> Channel:
    return Channel(
        id=UUID(row["id"]), name=row["name"], system=row["system"], source=row["source"],
        by_sku=row["link_by"] == "sku", active=row["active"] != "false",
        # What the reader may not know is taken for the careful answer.
        dry_run=row["dry_run"] != "false", price_type=parse_uuid(row["price_type"]),
        branch=parse_uuid(row["branch"]), currency=row["currency"],
        price_min=_limit(row["price_min"]), price_change_max=_limit(row["price_change_max"]),
        shrink_max=_limit(row["shrink_max"]),
        warehouses=tuple(UUID(w) for w in _list(row["warehouses"])),
        buffer_units=_limit(row["buffer_units"]) or Decimal(0),
        buffer_percent=_limit(row["buffer_percent"]) or Decimal(0), cap=_limit(row["cap"]),
        language=row["language"], categories=_pairs(row["categories"]),
        texts={n: row[n] for n in ("shop_name", "company", "shop_url", "offer_url", "merchant", "store")},
    )  # fmt: skip


def _limit(text: str) -> Decimal | None:
    return Decimal(text) if text else None


def _list(text: str) -> list[str]:
    return msgspec.json.decode(text, type=list[str]) if text else []


def _pairs(text: str) -> dict[str, str]:
    """Category by category; anything but text and numbers is none."""
    found = msgspec.json.decode(text) if text else {}
    if not isinstance(found, dict):
        return {}
    return {str(k).strip().casefold(): str(v) for k, v in found.items() if isinstance(v, str | int)}
