"""Entries of ledgers from several nodes: each counts once, whoever says it how often."""

import pytest

from appliance.base.ids import uuid7
from appliance.kernel.change import EntryOp
from appliance.kernel.context import Door
from appliance.write.refold import fold_early
from tests.sync.held import Peer
from tests.tenants import create
from tests.write.test_ledgers import MOVE

pytestmark = pytest.mark.anyio


async def add_ledger(tenant):
    move = {
        "sort": "balance", "at": "moved_at", "key": ["product", "warehouse"],
        "values": ["quantity"], "floor": True, "unless": "warehouse.allow_negative",
    }  # fmt: skip
    await tenant.add_kind("stock_move", MOVE, ledger=move)


@pytest.fixture
async def firm(tenant):
    await tenant.add_kind("product", [("name", "text")], home="shared")
    await tenant.add_kind("warehouse", [("name", "text"), ("allow_negative", "yes_no")])
    return tenant


async def sale_of(firm):
    made = await firm.apply(create("product", name="Lamp"), create("warehouse", name="Main"))
    product, warehouse = (str(o.id) for o in made.outcomes)
    return {
        "@unit": str(firm.units["north"]), "product": product, "warehouse": warehouse,
        "quantity": "5.000", "moved_at": "2026-11-20T10:00:00.000Z",
    }  # fmt: skip


async def stock(firm):
    sums = await firm.sql("SELECT sum(n1) FROM turnover WHERE tenant_id = $1", firm.id)
    facts = await firm.sql("SELECT count(*), sum(n1) FROM entry WHERE tenant_id = $1", firm.id)
    assert sums[0][0] == facts[0][1], "turnover is the sum of the entries"
    return facts[0][0], sums[0][0]


async def test_an_entry_counts_once_however_often_it_was_made(firm):
    """A till that a restored branch forgot says it again: the same entry under two origins."""
    await add_ledger(firm)
    fields, ctx, ident = await sale_of(firm), await firm.ctx(), uuid7()
    old, new = Peer(firm, ctx, origin=2), Peer(firm, ctx, origin=3)
    taken = await new.sends(new.writes(EntryOp.NEW, "stock_move", ident, fields=fields))
    assert not taken.parked
    first = await stock(firm)
    taken = await old.sends(old.writes(EntryOp.NEW, "stock_move", ident, fields=fields))
    assert await stock(firm) == first
    await old.sends(
        old.writes(EntryOp.PUT, "stock_move", ident, fields={"quantity": "9.000"}),
        old.writes(EntryOp.DEL, "stock_move", ident),
    )
    assert await stock(firm) == first, "a fact is not changed, whatever a node says"


async def test_an_entry_that_came_before_its_ledger_is_taken_up(firm):
    fields, ident = await sale_of(firm), uuid7()
    peer = Peer(firm, await firm.ctx())
    await peer.sends(peer.writes(EntryOp.NEW, "stock_move", ident, fields=fields))
    assert await stock(firm) == ("0", None)
    await add_ledger(firm)
    for _ in range(2):
        await fold_early(firm.db, await firm.ctx(door=Door.SYNC))
        assert await stock(firm) == ("1", "5000")
    assert not await firm.sql("SELECT 1 FROM early WHERE tenant_id = $1", firm.id)
