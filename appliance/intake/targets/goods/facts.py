"""Prices and stock: what a row tells against what is in force, and what is there.

A price is a new entry when it differs from the one in force. Stock is told as a balance; what is
written is the movement that leads there from the balance at the moment of the run, so that what was
sold since stays sold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

from appliance.db.database import Database
from appliance.fields.base import ValueFault
from appliance.intake.refs import Known, kind_of
from appliance.intake.runs import IntakeRun
from appliance.intake.stage import Change, Judged
from appliance.intake.targets.goods.block import Block
from appliance.intake.targets.goods.fields import LINKS, canonical
from appliance.intake.targets.goods.finish import Seen
from appliance.intake.targets.goods.ledgers import Prices, balances_at, ledger_key, prices_at
from appliance.intake.targets.goods.words import Unknown, Words
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json, Kind
from connectors.sdk.contract import StagedRow

_LEDGERS = {"price": "price", "stock": "stock_move"}
_ZERO = Decimal(0)


def lookups_of(rows: Sequence[StagedRow]) -> list[StagedRow]:
    """The rows of a block that are entries of ledgers."""
    return [r for r in rows if r.entity in _LEDGERS and not r.faults]


class Facts:
    """Judges the entries of one block."""

    def __init__(self, ctx: Ctx, run: IntakeRun, words: Words, block: Block, seen: Seen) -> None:
        self._ctx, self._run, self._words, self._block = ctx, run, words, block
        self._seen = seen
        self._prices: Prices = {}
        self._balances: dict[UUID, Decimal] = {}

    async def load(self, db: Database, rows: Sequence[StagedRow]) -> None:
        """What is in force and there, of all that the block speaks of."""
        keys: dict[str, list[UUID]] = {"price": [], "stock": []}
        for row in rows:
            try:
                if key := self._key(row):
                    keys[row.entity].append(key)
            except (Unknown, ValueFault):
                continue
        asof = self._run.created_at
        self._prices = await prices_at(db, self._ctx, keys["price"], asof)
        if keys["stock"]:
            kind = kind_of(self._ctx, "stock_move")
            self._balances = await balances_at(db, self._ctx, kind, keys["stock"], asof)

    def judge(self, row: StagedRow, block: Block) -> Judged:
        """One price or one balance. Raises Unknown, ValueFault."""
        key = self._key(row, wanting=True)
        judge = self._judge_price if row.entity == "price" else self._judge_stock
        product = block.link("product", str(row.values.get("product_id")))
        return judge(row, key, product.id if product else None)

    def _judge_price(self, row: StagedRow, key: UUID | None, product: UUID | None) -> Judged:
        kind = kind_of(self._ctx, "price")
        amount = str(canonical(kind.by_name["price"], str(row.values["amount"])))
        price_type = str(row.values["price_type_id"])
        currency = self._currency(row, price_type)
        now, held = self._prices.get(key, (None, "")) if key else (None, "")
        wanted = Decimal(amount)
        if now == wanted and held == currency:
            return Judged("unchanged", product)
        before = f"{now:f}" if now is not None else None
        step = Change("price", before, amount, currency)
        if now is None:
            return Judged("new", product, (step,))
        factor = self._run.options.price_factor_max
        is_near = held != currency or not now or (wanted <= now * factor and now <= wanted * factor)
        return Judged("changed" if is_near else "suspicious", product, (step,))

    def _judge_stock(self, row: StagedRow, key: UUID | None, product: UUID | None) -> Judged:
        kind = kind_of(self._ctx, "stock_move")
        told = Decimal(str(canonical(kind.by_name["quantity"], str(row.values["quantity"]))))
        warehouse = self._warehouse(row)
        may_sink = bool(warehouse and (warehouse.data or {}).get("allow_negative"))
        if told < 0 and not may_sink:
            detail = "A balance of zero or more, or a warehouse that may go below zero."
            raise ValueFault("negative-stock", detail)
        now = self._balances.get(key, _ZERO) if key else _ZERO
        if now == told:
            return Judged("unchanged", product)
        sort = "changed" if now else "new"
        return Judged(sort, product, (Change("quantity", f"{now:f}", f"{told:f}"),))

    def _currency(self, row: StagedRow, price_type: str) -> str:
        if word := row.values.get("currency"):
            return self._words.currency(str(word))
        known = self._block.link("price_type", price_type)
        told = (known.data or {}).get("currency") if known else None
        return str(told or self._seen.currencies.get(price_type) or self._ctx.schema.currency)

    def _warehouse(self, row: StagedRow) -> Known | None:
        ext = row.values.get("warehouse_id")
        if ext:
            return self._block.link("warehouse", str(ext))
        ident = self._words.default_warehouse()
        return Known(ident, self._words.records.get(ident, {}))

    def _key(self, row: StagedRow, *, wanting: bool = False) -> UUID | None:
        """The ledger key; None while a part of it is only made by the run."""
        kind = kind_of(self._ctx, _LEDGERS[row.entity])
        values: dict[str, Json] = {}
        is_whole = True
        for name, (entity, ours) in LINKS[row.entity].items():
            ext = row.values.get(name)
            if not ext:
                continue
            found = self._block.link(entity, str(ext))
            if found is not None:
                values[ours] = str(found.id)
                continue
            is_whole = False
            if wanting:
                self._seen.want(entity, str(ext))
        if row.entity == "stock" and not row.values.get("warehouse_id"):
            values["warehouse"] = str(self._words.default_warehouse())
        if row.entity == "price":
            values |= scale_of(row.values, kind, self._words)
        return ledger_key(kind, values) if is_whole else None


def scale_of(row: Mapping[str, Any], kind: Kind, words: Words) -> dict[str, Json]:
    """What a price is for besides one base unit: a package, a quantity from which on it holds."""
    found: dict[str, Json] = {}
    if Decimal(str(row.get("factor") or 1)) != 1 and row.get("unit"):
        found["measure"] = words.unit(str(row["unit"]))
    if row.get("minimum_quantity"):
        field = kind.by_name["minimum_quantity"]
        found["minimum_quantity"] = canonical(field, str(row["minimum_quantity"]))
    return found
