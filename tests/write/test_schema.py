"""Kinds and fields as data: at once, without a migration, and never half indexed."""

from uuid import UUID

import pytest

from appliance.kernel.context import Door
from appliance.meta import load_schema
from appliance.write import Applied, reproject_kind
from tests.tenants import create, delete, update

pytestmark = pytest.mark.anyio


async def test_a_new_field_is_there_on_the_next_call_and_writes_no_data(tenant):
    await tenant.add_kind("deal", [("title", "text")])
    await tenant.apply(*(create("deal", title=str(n)) for n in range(100)))
    before = await tenant.sql(
        "SELECT count(*), max(xmin::text::bigint) FROM record WHERE kind = 'deal'"
    )
    result = await tenant.apply(
        create("sys.field", kind="deal", name="amount", type="money", filterable=True)
    )
    assert isinstance(result.outcomes[0], Applied)
    assert before == await tenant.sql(
        "SELECT count(*), max(xmin::text::bigint) FROM record WHERE kind = 'deal'"
    )
    schema = await load_schema(tenant.db, tenant.id)
    assert schema.kinds["deal"].by_name["amount"].slot == "n1"
    assert (await tenant.apply(create("deal", title="x", amount="5.00"))).committed


async def test_bad_definitions_are_refused_with_their_places(tenant):
    await tenant.add_kind("deal", [("title", "text")])
    for values, pointer in [
        ({"name": "title", "type": "text"}, "/fields/name"),
        ({"name": "Bad Name", "type": "text"}, "/fields/name"),
        ({"name": "id", "type": "text"}, "/fields/name"),
        ({"name": "x", "type": "spaceship"}, "/fields/type"),
        ({"name": "x", "type": "json", "filterable": True}, "/fields/filterable"),
        ({"name": "x", "type": "money", "default": "many"}, "/fields/default"),
    ]:
        result = await tenant.apply(create("sys.field", kind="deal", **values))
        assert not result.committed, values
        assert result.outcomes[0].faults[0].pointer.startswith(pointer), result.outcomes[0]


async def test_a_field_made_filterable_later_waits_for_its_index(tenant):
    await tenant.add_kind("deal", [{"name": "city", "type": "text", "filterable": False}])
    await tenant.apply(*(create("deal", city=f"C{n}") for n in range(30)))
    (field,) = await tenant.sql(
        "SELECT id FROM record WHERE kind = 'sys.field' AND data->>'name' = 'city'"
    )
    result = await tenant.apply(update("sys.field", UUID(field[0]), filterable=True))
    assert "job.reproject" in {e.topic for e in result.effects}
    schema = await load_schema(tenant.db, tenant.id)
    assert not schema.kinds["deal"].by_name["city"].slot_ready
    seen = []

    async def progress(done, total):
        seen.append((done, total))

    ctx = await tenant.ctx(door=Door.SYSTEM)
    await reproject_kind(tenant.db, ctx, "deal", progress)
    schema = await load_schema(tenant.db, tenant.id)
    assert schema.kinds["deal"].by_name["city"].slot_ready
    assert await tenant.sql(
        "SELECT count(*) FROM record WHERE kind = 'deal' AND t1 IS NOT NULL"
    ) == [["30"]]
    assert seen[-1] == (30, 30)


async def test_a_deleted_field_frees_its_slot_and_its_name_gets_a_new_id(tenant):
    await tenant.add_kind("deal", [("city", "text")])
    await tenant.apply(create("deal", city="K"))
    (field,) = await tenant.sql(
        "SELECT id FROM record WHERE kind = 'sys.field' AND data->>'name' = 'city'"
    )
    await tenant.apply(delete("sys.field", UUID(field[0])))

    async def progress(done, total):
        pass

    await reproject_kind(tenant.db, await tenant.ctx(door=Door.SYSTEM), "deal", progress)
    assert await tenant.sql("SELECT count(*) FROM slot WHERE kind = 'deal'") == [["0"]]
    assert (
        await tenant.apply(
            create("sys.field", kind="deal", name="city", type="integer", filterable=True)
        )
    ).committed
    schema = await load_schema(tenant.db, tenant.id)
    assert schema.kinds["deal"].by_name["city"].fid == "city~1.1"
    assert (await tenant.apply(create("deal", city=5))).committed


async def test_slots_run_out_with_a_sentence(tenant):
    await tenant.add_kind("wide", [(f"d{n}", "date") for n in range(6)])
    result = await tenant.apply(
        create("sys.field", kind="wide", name="d7", type="date", filterable=True)
    )
    assert not result.committed
    assert result.outcomes[0].faults[0].code == "slots_exhausted"
