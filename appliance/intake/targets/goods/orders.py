"""Orders that come back from an accounting system, and the money that stands under them.

An order that was told to it comes back under our own id, its customer and products too, so that id
means our record. Its lines have none: they are ours by what they are of, in their order. A state
goes forward only; what would take one of ours back is left out, and told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec

from appliance.db.columns import Column
from appliance.db.database import Database
from appliance.db.values import text_of
from appliance.db.wire import Statement
from appliance.intake.refs import Key, Known, kind_of, slot_of
from appliance.intake.targets.goods.words import Unknown, Words
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from connectors.sdk.contract import StagedRow

_STATES = ("new", "reserved", "shipped", "closed")
_CANCELLED = "cancelled"
# The words that our own orders are told with, and those of the systems that they come back from.
_WORDS = {
    "новый": "new", "новий": "new", "new": "new", "зарезервирован": "reserved",
    "отгружен": "shipped", "відвантажено": "shipped", "выполнен": "closed", "закрыт": "closed",
    "закрито": "closed", "отменён": _CANCELLED, "отменен": _CANCELLED, "скасовано": _CANCELLED,
}  # fmt: skip
# ХозОперация of CommerceML that is no order: goods and money that go by other documents.
_OTHERS = frozenset({
    "счет на оплату", "счёт на оплату", "счет-фактура", "счёт-фактура", "отпуск товара",
    "возврат товара", "передача товара на комиссию", "возврат комиссионного товара",
    "отчет о продажах комиссионного товара", "выплата наличных денег", "возврат наличных денег",
    "выплата безналичных денег", "возврат безналичных денег", "эквайринговая операция",
    "переоценка товаров", "передача прав", "прочие",
})  # fmt: skip
_decode = msgspec.json.Decoder(dict[str, Json]).decode


def is_order(values: Mapping[str, Any]) -> bool:
    """Whether a document is an order, and none that stands under one."""
    return (
        not values.get("parent_id") and str(values.get("operation") or "").casefold() not in _OTHERS
    )


def state_of(row: Mapping[str, Any], words: Words) -> str:
    """The state that a row says; empty when it says none that is one here."""
    if row.get("is_cancelled") or row.get("is_deleted"):
        return _CANCELLED
    said = str(row.get("status") or "")
    told = words.setting(f"status:{said}") or _WORDS.get(said.strip().casefold(), "")
    if told and told not in (*_STATES, _CANCELLED):
        raise Unknown("status", said)
    is_behind = told in _STATES and _STATES.index(told) < _STATES.index("shipped")
    return "shipped" if row.get("is_shipped") and (not told or is_behind) else told


def may_become(now: Json, told: str) -> bool:
    """Whether a state is told that an order here may go on to."""
    if now == told or now not in (*_STATES, _CANCELLED):
        return True
    if now == _CANCELLED:
        return False
    if told == _CANCELLED:
        return _STATES.index(str(now)) < _STATES.index("shipped")
    return _STATES.index(told) >= _STATES.index(str(now))


async def own_lines(
    db: Database, ctx: Ctx, rows: Sequence[StagedRow], known: Mapping[Key, Sequence[Known]]
) -> dict[Key, UUID]:
    """Lines of orders of ours that have no id at the source: the same place among the lines of the
    same thing. By key of the row; those that are known are left out.
    """
    wanted: dict[str, list[StagedRow]] = {}
    for row in rows:
        order = known.get(("order", str(row.values.get("order_id") or "")))
        is_new = row.entity == "order_line" and ("order_line", row.key) not in known
        if order and is_new and not row.faults:
            wanted.setdefault(str(order[0].id), []).append(row)
    if not wanted:
        return {}
    kind = kind_of(ctx, "order_line")
    statement = Statement(
        "SELECT id::text, data FROM record WHERE tenant_id = $1 AND kind = 'order_line' "
        f"AND deleted_at IS NULL AND {slot_of(kind, 'order')} = ANY($2::uuid[]) ORDER BY id"
    )
    orders = Column("uuid", [UUID(o) for o in sorted(wanted)])
    (answer,) = await db.read(ctx.tenant, (statement, (ctx.tenant, orders)))
    ours: dict[tuple[str, str], list[UUID]] = {}
    for ident, raw in answer:
        data = _decode(raw or b"{}")
        thing = data.get("variant") or data.get("product") or data.get("text") or ""
        ours.setdefault((str(data.get("order")), str(thing)), []).append(UUID(text_of(ident)))
    found: dict[Key, UUID] = {}
    for order_id, lines in wanted.items():
        for row in lines:
            place = int(number) if (number := row.key.rpartition("|")[2]).isdigit() else 1
            same = ours.get((order_id, _thing(row, known)), [])
            if place <= len(same):
                found[("order_line", row.key)] = same[place - 1]
    return found


def _thing(row: StagedRow, known: Mapping[Key, Sequence[Known]]) -> str:
    """What a line is of: the variant or product that is meant here, else its text."""
    names = (("variant", "variant_id"), ("product", "product_id"), ("variant", "product_id"))
    for kind, name in names:
        if found := known.get((kind, str(row.values.get(name) or ""))):
            return str(found[0].id)
    return str(row.values.get("name") or "")
