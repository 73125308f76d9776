"""What a channel may be told there is: never more than can be sold, less what is kept back.

Warehouses count one by one: what one is short of (its receipt is not booked yet) is not taken from
what lies in another, and never adds. The rest is whole pieces, because channels count pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import ROUND_FLOOR, Decimal
from uuid import UUID

from appliance.base.errors import Forbidden
from appliance.channels.channel import Channel
from appliance.channels.look import EXPORT, open_fields, open_kind
from appliance.db.columns import Column
from appliance.db.wire import Call, Rows
from appliance.fields import type_of
from appliance.kernel.context import Ctx
from appliance.kernel.money import unscale
from appliance.read.ledger import balance_table
from appliance.read.sql import Sql

# A product or its variant, in a warehouse.
Key = tuple[str, str, str]
_KEY = ("product", "variant", "warehouse")
_ZERO = Decimal(0)


def sellable(
    free: Iterable[Decimal], *, units: Decimal, percent: Decimal, cap: Decimal | None
) -> Decimal:
    """What is told of stock that is free in each warehouse: less `units` and `percent` of it,
    rounded down to whole pieces, at most `cap`, never below zero.
    """
    there = sum((max(f, _ZERO) for f in free), _ZERO)
    left = there - units - there * percent / 100
    if cap is not None:
        left = min(left, cap)
    return max(_ZERO, left.to_integral_value(ROUND_FLOOR))


class Stock:
    """The stock of one block: calls that go with others, and what they say."""

    def __init__(self, ctx: Ctx, channel: Channel, products: Sequence[UUID]) -> None:
        """Raises Forbidden where movements or promises are not for the reader: a number without
        them would sell what is not there.
        """
        self._channel = channel
        self._free: dict[tuple[str, str], dict[str, Decimal]] = {}
        self.calls: list[Call] = []
        self._scales: list[tuple[int, int]] = []
        if not channel.warehouses:
            return
        for ledger, sign in (("stock_move", 1), ("reservation", -1)):
            if ctx.schema.kind(ledger) is None:
                continue
            kind = open_kind(ctx, ledger)
            fields = open_fields(ctx, kind) if kind is not None else {}
            if kind is None or not {*_KEY, "quantity"} <= fields.keys():
                raise Forbidden("Your profile may not export stock, so no channel is given any.")
            sql = Sql()
            sql.shared("tenant", ctx.tenant, "uuid")
            table = balance_table(ctx, sql, kind, ctx.at, EXPORT)
            product, variant, place = (f"a.{fields[n].slot}" for n in _KEY)
            text = (
                f"SELECT {product}::text, {variant}::text, {place}::text, "
                f"sum(a.{fields['quantity'].slot})::text FROM {table.source} WHERE "
                f"{product} = ANY({sql.value(Column('uuid', list(products)), 'uuid[]')}) AND "
                f"{place} = ANY({sql.value(Column('uuid', list(channel.warehouses)), 'uuid[]')}) "
                "GROUP BY 1, 2, 3"
            )
            self.calls.append(sql.finish(text))
            number = type_of(fields["quantity"].type)
            self._scales.append((sign, number.slot_scale(fields["quantity"])))  # type: ignore[attr-defined]

    def read(self, answers: Sequence[Rows]) -> None:
        """Take the answers of the calls, in their order."""
        for (sign, scale), rows in zip(self._scales, answers, strict=True):
            for product, variant, place, total in rows:
                key = ((product or b"").decode(), (variant or b"").decode())
                free = self._free.setdefault(key, {})
                amount = unscale(Decimal((total or b"0").decode()), scale)
                where = (place or b"").decode()
                free[where] = free.get(where, _ZERO) + sign * amount

    def told(self, product: str, variant: str, units: Decimal | None) -> Decimal:
        """What the channel is told; `units`: what is kept back of this item alone."""
        channel = self._channel
        return sellable(
            self._free.get((product, variant), {}).values(),
            units=channel.buffer_units if units is None else units,
            percent=channel.buffer_percent, cap=channel.cap,
        )  # fmt: skip
