"""Clashes of branches are noted when entries come, and end with whatever mends them."""

import msgspec
import pytest

from appliance.base.ids import uuid7
from appliance.kernel.ledger import entry_key
from appliance.write import Command, Op
from appliance.write.clashes import live_calls, note_clashes, read_live, sweep
from appliance.write.draft import Draft
from appliance.write.reproject import reproject_kind
from appliance.write.load import READ_ENTRIES, _READ_ROWS, read_state
from tests.tenants import create, delete, restore, update
from tests.write.test_ledgers import MOVE

pytestmark = pytest.mark.anyio
CONFLICTS = (
    "SELECT record_id::text, sort, register, kind, sides FROM conflict WHERE tenant_id = $1 "
    "ORDER BY since, record_id"
)


@pytest.fixture
async def firm(tenant):
    await tenant.add_kind(
        "customer",
        [
            {"name": "name", "type": "text"},
            {"name": "phone", "type": "text", "unique": True},
        ],
        display="name",
    )
    await tenant.add_kind(
        "deal",
        [
            {"name": "title", "type": "text"},
            {"name": "customer", "type": "reference", "options": {"target": "customer"}},
            {"name": "others", "type": "references", "options": {"target": "customer"}},
        ],
    )
    await tenant.add_kind("product", [("name", "text")], home="shared")
    await tenant.add_kind("warehouse", [("name", "text"), ("allow_negative", "yes_no")])
    move = {
        "sort": "balance", "at": "moved_at", "key": ["product", "warehouse"],
        "values": ["quantity"], "floor": True, "unless": "warehouse.allow_negative",
    }  # fmt: skip
    await tenant.add_kind("stock_move", MOVE, ledger=move)
    return tenant


async def nothing(done, total):
    """Nobody waits for how far it is."""


async def made(tenant, *commands, **options):
    result = await tenant.apply(*commands, **options)
    assert result.committed, result
    return [o.id for o in result.outcomes]


async def states(tenant, *ids):
    """Records and entries as the write path reads them."""
    rows, entries = await tenant.db.read(
        tenant.id, (_READ_ROWS, (tenant.id, list(ids))), (READ_ENTRIES, (tenant.id, list(ids)))
    )
    return {s.id: s for s in map(read_state, [*rows, *entries])}


async def note(tenant, *ids, before=None, **options):
    """As receiving does when entries of these records have come."""
    ctx = await tenant.ctx()
    drafts = []
    for ident, state in (await states(tenant, *ids)).items():
        command = Command(op=Op.UPDATE, kind=state.kind, id=ident)
        drafts.append(
            Draft(0, command, ident, kind=ctx.schema.kinds[state.kind], after=state,
                  before=(before or {}).get(ident))
        )  # fmt: skip
    async with tenant.db.transaction(tenant.id) as tx:
        await note_clashes(tx, ctx, drafts, **options)


async def noted(tenant, sort=None):
    rows = await tenant.sql(CONFLICTS, tenant.id)
    return [tuple(r[:4]) for r in rows if sort in (None, r[1])]


async def standing(tenant):
    keys = [(r[0], r[1], r[2], r[3]) for r in await noted(tenant)]
    calls = live_calls(await tenant.ctx(), keys)
    return read_live(await tenant.db.read(tenant.id, *calls)) if calls else set()


async def set_phone(tenant, as_owner, ident, phone):
    """What a peer's entry would leave: nobody refuses it."""
    await as_owner(
        tenant.id,
        "UPDATE record SET data = data || jsonb_build_object('phone', %s::text) WHERE id = %s",
        phone, ident,
    )  # fmt: skip
    await as_owner(
        tenant.id, "UPDATE unique_claim SET value = %s WHERE record_id = %s", phone, ident
    )


class TestUnique:
    async def test_the_later_record_is_noted_and_both_are_named(self, firm, as_owner):
        a, b, c = await made(
            firm,
            create("customer", name="A", phone="1"),
            create("customer", name="B", phone="2"),
            create("customer", name="C", phone="3"),
        )
        held = (await firm.sql("SELECT value FROM unique_claim WHERE record_id = $1", a))[0][0]
        await set_phone(firm, as_owner, b, held)
        await note(firm, b)
        found = await firm.sql(CONFLICTS, firm.id)
        assert [r[:4] for r in found] == [[str(b), "unique", "phone", "customer"]]
        assert str(a) in found[0][4] and str(b) in found[0][4] and str(c) not in found[0][4]
        await note(firm, a, b)
        assert len(await noted(firm)) == 1, "noting again changes nothing"

    async def test_whichever_comes_first_the_older_one_holds_the_value(self, firm, as_owner):
        a, b = await made(
            firm,
            create("customer", name="A", phone="1"),
            create("customer", name="B", phone="2"),
        )
        held = (await firm.sql("SELECT value FROM unique_claim WHERE record_id = $1", b))[0][0]
        await set_phone(firm, as_owner, a, held)
        await note(firm, a)
        assert [r[0] for r in await noted(firm)] == [str(b)]

    @pytest.mark.parametrize("mend", ["change", "delete", "delete_holder"])
    async def test_it_ends_with_any_later_write(self, firm, as_owner, mend):
        a, b = await made(
            firm,
            create("customer", name="A", phone="1"),
            create("customer", name="B", phone="2"),
        )
        held = (await firm.sql("SELECT value FROM unique_claim WHERE record_id = $1", a))[0][0]
        await set_phone(firm, as_owner, b, held)
        await note(firm, b)
        assert len(await standing(firm)) == 1
        command = {
            "change": update("customer", b, phone="9"), "delete": delete("customer", b),
            "delete_holder": delete("customer", a),
        }[mend]  # fmt: skip
        await made(firm, command)
        assert not await standing(firm)
        async with firm.db.transaction(firm.id) as tx:
            assert await sweep(tx, await firm.ctx()) == 1
        assert not await noted(firm)

    async def test_nothing_is_asked_where_nothing_is_unique(self, firm):
        (deal,) = await made(firm, create("deal", title="x"))
        await note(firm, deal)
        assert not await noted(firm)


class TestNegative:
    async def moved(self, firm, quantity, product, warehouse):
        (ident,) = await made(
            firm,
            create("stock_move", product=str(product), warehouse=str(warehouse), quantity=quantity),
        )
        return ident

    async def sunk(self, firm, as_owner, **options):
        """A peer's sale of more than there is."""
        product, warehouse = await made(
            firm, create("product", name="Bolt"), create("warehouse", name="Main", **options)
        )
        entry = await self.moved(firm, "2", product, warehouse)
        await as_owner(firm.id, "UPDATE turnover SET n1 = n1 - 5000 WHERE kind = 'stock_move'")
        return product, warehouse, entry

    async def test_a_balance_below_zero_is_noted_with_what_it_is(self, firm, as_owner):
        product, warehouse, entry = await self.sunk(firm, as_owner)
        await note(firm, entry)
        key = entry_key([str(product), str(warehouse)])
        (row,) = await firm.sql(CONFLICTS, firm.id)
        assert row[:4] == [str(entry), "negative_stock", str(key), "stock_move"]
        assert '"-3' in row[4]
        assert len(await standing(firm)) == 1

    async def test_it_ends_when_enough_has_come(self, firm, as_owner):
        product, warehouse, entry = await self.sunk(firm, as_owner)
        await note(firm, entry)
        await self.moved(firm, "4", product, warehouse)
        assert not await standing(firm)
        async with firm.db.transaction(firm.id) as tx:
            assert await sweep(tx, await firm.ctx()) == 1

    async def test_one_key_of_one_unit_is_noted_once(self, firm, as_owner):
        product, warehouse, entry = await self.sunk(firm, as_owner)
        await as_owner(firm.id, "UPDATE turnover SET n1 = n1 + 5000 WHERE kind = 'stock_move'")
        second = await self.moved(firm, "-1", product, warehouse)
        await as_owner(firm.id, "UPDATE turnover SET n1 = n1 - 5000 WHERE kind = 'stock_move'")
        await note(firm, entry)
        await note(firm, second)
        assert len(await noted(firm)) == 1

    async def test_where_less_than_nothing_is_allowed_nothing_is_noted(self, firm, as_owner):
        _, _, entry = await self.sunk(firm, as_owner, allow_negative=True)
        await note(firm, entry)
        assert not await noted(firm)


class TestDangling:
    async def test_what_has_not_come_is_awaited_and_ends_when_it_comes(self, firm, as_owner):
        customer, deal = await made(
            firm, create("customer", uuid7(), name="A"), create("deal", title="x")
        )
        ghost = uuid7()
        await as_owner(
            firm.id,
            "UPDATE record SET data = data || jsonb_build_object('customer', %s::text) "
            "WHERE id = %s",
            str(ghost), deal,
        )  # fmt: skip
        await note(firm, deal)
        assert await noted(firm) == [(str(deal), "dangling_ref", "customer", "deal")]
        assert len(await standing(firm)) == 1
        waiting = await firm.sql(
            "SELECT target::text FROM pending_ref WHERE tenant_id = $1", firm.id
        )
        assert waiting == [[str(ghost)]]
        await as_owner(firm.id, "UPDATE record SET id = %s WHERE id = %s", ghost, customer)
        assert not await standing(firm)
        await note(firm, ghost)
        assert not await noted(firm)
        assert not await firm.sql("SELECT 1 FROM pending_ref WHERE tenant_id = $1", firm.id)

    async def test_a_node_that_holds_some_units_only_awaits_in_silence(self, firm, as_owner):
        (deal,) = await made(firm, create("deal", title="x"))
        await as_owner(
            firm.id,
            "UPDATE record SET data = data || jsonb_build_object('customer', %s::text) "
            "WHERE id = %s",
            str(uuid7()), deal,
        )  # fmt: skip
        await note(firm, deal, is_whole=False)
        assert not await noted(firm)
        assert await firm.sql("SELECT 1 FROM pending_ref WHERE tenant_id = $1", firm.id)

    async def pointed(self, firm, as_owner, field):
        """A deal that points to a customer whose deleter had not seen that."""
        customer, other, deal = await made(
            firm, create("customer", name="A"), create("customer", name="B"), create("deal", title="x")
        )  # fmt: skip
        before = await states(firm, customer)
        await made(firm, delete("customer", customer))
        value = str(customer) if field == "customer" else [str(customer)]
        await as_owner(
            firm.id, "UPDATE record SET data = data || jsonb_build_object(%s::text, %s::jsonb) "
            "WHERE id = %s", field, msgspec.json.encode(value).decode(), deal,
        )  # fmt: skip
        await reproject_kind(firm.db, await firm.ctx(), "deal", nothing)
        return customer, other, deal, before

    @pytest.mark.parametrize("field", ["customer", "others"])
    @pytest.mark.parametrize("first", ["reference", "deletion"])
    async def test_a_reference_to_what_was_deleted_elsewhere(self, firm, as_owner, first, field):
        customer, _, deal, before = await self.pointed(firm, as_owner, field)
        if first == "deletion":
            await note(firm, deal)
        else:
            await note(firm, customer, before=before)
        assert await noted(firm) == [(str(deal), "dangling_ref", field, "deal")]
        await made(firm, restore("customer", customer))
        assert not await standing(firm)

    @pytest.mark.parametrize("field", ["customer", "others"])
    async def test_another_target_ends_it(self, firm, as_owner, field):
        _, other, deal, _ = await self.pointed(firm, as_owner, field)
        await note(firm, deal)
        assert [r[2] for r in await noted(firm)] == [field]
        await made(
            firm,
            update("deal", deal, **{field: str(other) if field == "customer" else [str(other)]}),
        )
        assert not await standing(firm)

    async def test_a_deletion_after_the_reference_is_no_fault(self, firm):
        (customer,) = await made(firm, create("customer", name="A"))
        (deal,) = await made(firm, create("deal", title="x", customer=str(customer)))
        before = await states(firm, customer)
        await made(firm, delete("customer", customer))
        # Later edits of other fields, and both orders of coming, make no difference.
        await made(firm, update("deal", deal, title="y"))
        await note(firm, customer, deal, before=before)
        await note(firm, deal)
        assert not await noted(firm)
