"""The seven stages on a real database: what is acknowledged is in the log and in the tables."""

import asyncio
from uuid import uuid4 as _any_uuid  # noqa: TID251 - an id that nobody has

import pytest

from appliance.base.errors import TooLarge
from appliance.base.ids import uuid7
from appliance.write import Applied, Rejected, Unchanged, check
from tests.tenants import create, delete, only, restore, update

pytestmark = pytest.mark.anyio

DEAL = [
    {"name": "title", "type": "text", "required": True, "searchable": True},
    ("amount", "money"),
    ("stage", "choice"),
    {"name": "code", "type": "text", "unique": True},
    {
        "name": "tags",
        "type": "multi_choice",
        "options": {"choices": [{"key": "a"}, {"key": "b"}, {"key": "c"}]},
    },
]
DEAL[2] = {
    "name": "stage",
    "type": "choice",
    "default": "new",
    "options": {"choices": [{"key": "new"}, {"key": "won"}]},
}


@pytest.fixture
async def deals(tenant):
    await tenant.add_kind("deal", DEAL)
    return tenant


async def test_create_update_delete_restore(deals):
    made = (await deals.apply(create("deal", title="A", amount="10.00"))).outcomes[0]
    assert isinstance(made, Applied)
    assert made.number == "DEAL-000001"
    changed = (await deals.apply(update("deal", made.id, made.version, amount="12.50"))).outcomes[0]
    assert changed.version.startswith(made.version + ";amount=")
    same = (await deals.apply(update("deal", made.id, amount="12.50"))).outcomes[0]
    assert isinstance(same, Unchanged)
    await deals.apply(delete("deal", made.id))
    gone = (await deals.apply(update("deal", made.id, amount="1.00"))).outcomes[0]
    assert isinstance(gone, Rejected)
    assert gone.http_status == 404
    await deals.apply(restore("deal", made.id))
    rows = await deals.sql("SELECT data->>'amount', deleted_at FROM record WHERE id = $1", made.id)
    assert rows == [["12.50", None]]
    ops = await deals.sql("SELECT op FROM change WHERE record_id = $1 ORDER BY seq", made.id)
    assert [op for (op,) in ops] == ["new", "put", "del", "undel"]


async def test_all_faults_come_at_once_with_their_places(deals):
    result = await deals.apply(
        create("deal", amount="x", stage="nope", ghost=1),
        create("deal", title="ok"),
        create("nokind"),
    )
    assert not result.committed
    places = {f.pointer: f.code for f in result.outcomes[0].faults}
    assert {"/fields/title", "/fields/amount", "/fields/stage", "/fields/ghost"} == set(places)
    assert places["/fields/ghost"] == "unknown_field"
    assert result.outcomes[2].http_status == 404
    assert await deals.sql("SELECT count(*) FROM record WHERE kind = 'deal'") == [["0"]]


async def test_not_atomic_writes_the_good_ones(deals):
    result = await deals.apply(create("deal", title="ok"), create("deal"), atomic=False)
    assert [type(o) for o in result.outcomes] == [Applied, Rejected]
    assert await deals.sql("SELECT count(*) FROM record WHERE kind = 'deal'") == [["1"]]


async def test_what_points_to_a_refused_record_is_refused_with_it(deals):
    """Step by step: the second is refused late, the third hangs on it, the fourth on the third."""
    await deals.add_kind("step", [
        {"name": "code", "type": "text", "unique": True},
        {"name": "after", "type": "reference", "options": {"target": "step"}},
    ])  # fmt: skip
    await deals.apply(create("step", code="taken"))
    ids = [uuid7() for _ in range(4)]
    result = await deals.apply(
        create("step", ids[3], code="d", after=str(ids[2])), create("step", ids[0], code="a"),
        create("step", ids[2], code="c", after=str(ids[1])), create("step", ids[1], code="taken"),
        atomic=False,
    )  # fmt: skip
    assert [type(o) for o in result.outcomes] == [Rejected, Applied, Rejected, Rejected]
    assert [o.faults[0].code for o in result.outcomes if isinstance(o, Rejected)] == [
        "reference_unknown", "reference_unknown", "taken",
    ]  # fmt: skip
    assert await deals.sql("SELECT count(*) FROM record WHERE kind = 'step'") == [["2"]]


async def test_unique_values_are_refused_also_between_racing_writers(deals):
    first = (await deals.apply(create("deal", title="A", code="X-1"))).outcomes[0]
    taken = (await deals.apply(create("deal", title="B", code="x-1"))).outcomes[0]
    assert taken.faults[0].code == "taken"
    twins = await deals.apply(
        create("deal", title="B", code="Y"), create("deal", title="C", code="Y")
    )
    assert not twins.committed
    results = await asyncio.gather(
        *(deals.apply(create("deal", title=str(n), code="race")) for n in range(8))
    )
    assert sum(r.committed for r in results) == 1
    await deals.apply(delete("deal", first.id))
    assert (await deals.apply(create("deal", title="D", code="X-1"))).committed
    back = await deals.apply(restore("deal", first.id))
    assert back.outcomes[0].faults[0].code == "taken"


async def test_parallel_creates_have_unique_numbers(deals):
    results = await asyncio.gather(*(deals.apply(create("deal", title=str(n))) for n in range(50)))
    numbers = {r.outcomes[0].number for r in results}
    assert len(numbers) == 50


async def test_ten_thousand_in_one_call_and_not_one_more(deals):
    result = await deals.apply(
        *(create("deal", title=f"T{n}", amount=f"{n}.00") for n in range(10_000))
    )
    assert result.committed
    assert await deals.sql(
        "SELECT count(*), count(DISTINCT number) FROM record WHERE kind = 'deal'"
    ) == [["10000"] * 2]
    with pytest.raises(TooLarge):
        await deals.apply(*(create("deal", title="x") for _ in range(10_001)))


async def test_rows_out_of_scope_read_as_unknown(deals):
    made = (await deals.apply(create("deal", title="A"))).outcomes[0]
    ctx = await deals.ctx()
    profile = only(
        ctx.schema, "deal", {"read": "unit", "update": "unit", "create": "unit"}, {"title": "write"}
    )
    south = await deals.ctx(profile, unit="south")
    refused = (await deals.apply(update("deal", made.id, title="B"), ctx=south)).outcomes[0]
    unknown = (await deals.apply(update("deal", uuid7(), title="B"), ctx=south)).outcomes[0]
    assert refused.faults == unknown.faults
    north = await deals.ctx(profile)
    away = (
        await deals.apply(update("deal", made.id, unit=deals.units["south"]), ctx=north)
    ).outcomes[0]
    assert away.faults[0].code == "out_of_scope"
    denied = (await deals.apply(delete("deal", made.id), ctx=north)).outcomes[0]
    assert denied.http_status == 403


async def test_fields_need_the_write_mode(deals):
    ctx = await deals.ctx()
    profile = only(
        ctx.schema, "deal", {"read": "all", "create": "all"}, {"title": "write", "amount": "read"}
    )
    north = await deals.ctx(profile)
    result = await deals.apply(create("deal", title="A", amount="1.00", stage="won"), ctx=north)
    assert {f.pointer: f.code for f in result.outcomes[0].faults} == {
        "/fields/amount": "read_only", "/fields/stage": "unknown_field",
    }  # fmt: skip


async def test_references_point_only_to_what_the_actor_may_read(deals):
    await deals.add_kind(
        "task",
        [("subject", "text"), {"name": "deal", "type": "reference", "options": {"target": "deal"}}],
    )
    made = (await deals.apply(create("deal", title="A"))).outcomes[0]
    ctx = await deals.ctx()
    profile = only(
        ctx.schema, "task", {"read": "all", "create": "all"}, {"subject": "write", "deal": "write"}
    )
    blind = await deals.ctx(profile)
    one = (await deals.apply(create("task", deal=str(made.id)), ctx=blind)).outcomes[0]
    two = (await deals.apply(create("task", deal=str(_any_uuid())), ctx=blind)).outcomes[0]
    assert one.faults == two.faults
    assert one.faults[0].code == "reference_unknown"
    both = await deals.apply(
        create("deal", ident := uuid7(), title="new"), create("task", deal=str(ident))
    )
    assert both.committed


async def test_moving_to_another_unit_moves_the_stream(deals):
    made = (await deals.apply(create("deal", title="A"))).outcomes[0]
    moved = (
        await deals.apply(update("deal", made.id, made.version, unit=deals.units["south"]))
    ).outcomes[0]
    assert isinstance(moved, Applied)
    north = deals.units["north"].hex
    assert moved.version.startswith(f"{made.version}@{north}")
    again = (await deals.apply(update("deal", made.id, made.version, title="B"))).outcomes[0]
    assert isinstance(again, Applied), "the old base is still valid for a field nobody touched"
    ops = await deals.sql(
        "SELECT op, stream FROM change WHERE record_id = $1 ORDER BY hlc", made.id
    )
    assert [op for op, _ in ops] == ["new", "move", "arrive", "put"]


async def test_check_saves_nothing(deals):
    ctx = await deals.ctx()
    good, bad = await check(deals.db, ctx, [create("deal", title="A"), create("deal")])
    assert isinstance(good, Applied)
    assert bad.faults[0].pointer == "/fields/title"
    assert await deals.sql("SELECT count(*) FROM record WHERE kind = 'deal'") == [["0"]]


async def test_outbox_row_is_in_the_same_transaction(deals):
    before = int((await deals.sql("SELECT count(*) FROM outbox"))[0][0])
    result = await deals.apply(create("deal", title="A"))
    assert result.effects[0].topic == "changes"
    refused = await deals.apply(create("deal"))
    assert not refused.committed
    assert int((await deals.sql("SELECT count(*) FROM outbox"))[0][0]) == before + 1


async def test_computed_fields_follow_their_operands(tenant):
    line = [
        ("quantity", "number"),
        {"name": "price", "type": "number", "options": {"scale": 6}},
        {"name": "net", "type": "money", "options": {"formula": "quantity * price"}},
        {"name": "gross", "type": "money", "options": {"formula": "net * 1.2"}},
    ]
    await tenant.add_kind("line", line)
    made = (await tenant.apply(create("line", quantity="3", price="0.335"))).outcomes[0]
    held = "SELECT data->>'net', data->>'gross' FROM record WHERE id = $1"
    assert await tenant.sql(held, made.id) == [["1.01", "1.21"]]
    told = (await tenant.apply(create("line", quantity="3", net="9.00"))).outcomes[0]
    assert [f.code for f in told.faults] == ["computed"]
    await tenant.apply(update("line", made.id, quantity="4"))
    assert await tenant.sql(held, made.id) == [["1.34", "1.61"]]
    await tenant.apply(update("line", made.id, price=None))
    assert await tenant.sql(held, made.id) == [[None, None]]
    last = (
        await tenant.sql(
            "SELECT change_set::text FROM change WHERE kind = 'line' ORDER BY seq DESC LIMIT 1"
        )
    )[0][0]
    from uuid import UUID

    from appliance.write import undo

    assert (await undo(tenant.db, await tenant.ctx(), UUID(last))).committed
    assert await tenant.sql(held, made.id) == [["1.34", "1.61"]]
