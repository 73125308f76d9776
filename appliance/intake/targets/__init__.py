"""Which target a run has: by the vocabulary that its connector stages rows in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from appliance.db.database import Database
from appliance.intake.runs import IntakeRun
from appliance.intake.target import Target
from appliance.intake.targets.bank import Bank
from appliance.intake.targets.goods import Goods
from appliance.intake.targets.price_list import PriceLists
from appliance.kernel.context import Ctx
from connectors.sdk.manifest import list_systems, read_manifest

PRICE_LIST, GOODS = "price_list", "goods"
_TARGETS: dict[str, Callable[[Database, Ctx, IntakeRun], Awaitable[Target]]] = {
    "bank": Bank.open,
    GOODS: Goods.open,
}


def known_connectors() -> list[str]:
    """What files may be read by."""
    return sorted({PRICE_LIST, *list_systems()})


async def open_target(db: Database, ctx: Ctx, run: IntakeRun) -> Target:
    """The target of a run. Raises Invalid when the tenant lacks the kinds it needs."""
    vocabulary = vocabulary_of(run.connector)
    opening = _TARGETS.get(vocabulary, PriceLists.open)
    return await opening(db, ctx, run)


def vocabulary_of(connector: str) -> str:
    """The name of the vocabulary that a connector speaks."""
    return read_manifest(connector).entities if connector in list_systems() else PRICE_LIST
