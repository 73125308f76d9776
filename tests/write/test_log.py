"""The log: idempotent, dense, chained, rebuildable, readable as history, undoable."""

import asyncio
import random

import pytest

from appliance.base.errors import Clash, Refused
from appliance.base.ids import uuid7
from appliance.write import history, rebuild, undo, verify_log
from tests.tenants import create, delete, only, restore, update

pytestmark = pytest.mark.anyio


@pytest.fixture
async def deals(tenant):
    await tenant.add_kind(
        "deal",
        [
            {"name": "title", "type": "text", "searchable": True, "required": True},
            ("amount", "money"),
            {"name": "code", "type": "text", "unique": True},
            {
                "name": "tags",
                "type": "multi_choice",
                "options": {"choices": [{"key": k} for k in "abcd"]},
            },
            {"name": "closes", "type": "date"},
            {"name": "parent", "type": "reference", "options": {"target": "deal"}},
        ],
    )
    return tenant


async def test_a_repeated_command_id_answers_with_the_stored_outcome(deals):
    key = uuid7()
    first = await deals.apply(create("deal", title="A"), command_id=key)
    again = await deals.apply(create("deal", title="A"), command_id=key)
    assert first.outcomes == again.outcomes
    assert await deals.sql("SELECT count(*) FROM record WHERE kind = 'deal'") == [["1"]]
    with pytest.raises(Clash):
        await deals.apply(create("deal", title="B"), command_id=key)
    key = uuid7()
    racing = await asyncio.gather(
        *(deals.apply(create("deal", title="R"), command_id=key) for _ in range(6))
    )
    assert len({r.outcomes[0].id for r in racing}) == 1


async def test_numbers_of_a_stream_are_dense_under_concurrency(deals):
    await asyncio.gather(*(deals.apply(create("deal", title=str(n))) for n in range(40)))
    rows = await deals.sql(
        "SELECT stream, max(seq) = count(*), max(oseq) = count(*) FROM change GROUP BY stream"
    )
    assert all(row[1:] == ["t", "t"] for row in rows)
    report = await verify_log(deals.db, deals.id)
    assert not report.faults
    assert report.entries >= 40


async def test_a_random_life_rebuilds_byte_for_byte(deals):
    dice, ids, alive = random.Random(7), [], set()
    for step in range(150):
        match dice.choice(["new", "new", "put", "put", "tags", "move", "del", "undel"]):
            case "new":
                parent = str(dice.choice(sorted(alive))) if alive else None
                made = await deals.apply(
                    create(
                        "deal",
                        title=f"T{step} ёж",
                        amount=f"{step}.10",
                        code=f"c{step}",
                        closes="2027-01-31",
                        parent=parent,
                    )
                )
                ids.append(made.outcomes[0].id)
                alive.add(ids[-1])
            case "put" if alive:
                await deals.apply(
                    update("deal", dice.choice(sorted(alive)), title=f"U{step}", amount=None)
                )
            case "tags" if alive:
                await deals.apply(
                    update(
                        "deal",
                        dice.choice(sorted(alive)),
                        tags=dice.sample("abcd", dice.randrange(4)) or None,
                    )
                )
            case "move" if alive:
                await deals.apply(
                    update(
                        "deal",
                        dice.choice(sorted(alive)),
                        unit=deals.units[dice.choice(["north", "south"])],
                    )
                )
            case "del" if alive:
                ident = dice.choice(sorted(alive))
                await deals.apply(delete("deal", ident))
                alive.discard(ident)
            case "undel":
                for ident in ids:
                    if ident not in alive and (await deals.apply(restore("deal", ident))).committed:
                        alive.add(ident)
                        break
    ctx = await deals.ctx()
    assert [d async for d in rebuild(deals.db, ctx)] == []
    assert not (await verify_log(deals.db, deals.id)).faults


async def test_rebuild_and_verify_find_a_flipped_byte(deals, as_owner):
    made = (await deals.apply(create("deal", title="A", amount="1.00"))).outcomes[0]
    await as_owner(deals, "UPDATE record SET n1 = n1 + 1 WHERE id = %s", made.id)
    ctx = await deals.ctx()
    found = [d async for d in rebuild(deals.db, ctx)]
    assert [(d.record_id, d.column) for d in found] == [(made.id, "n1")]
    await as_owner(
        deals,
        "UPDATE change SET body = set_byte(body, length(body) - 1, get_byte(body, length(body) - 1) # 1) WHERE record_id = %s",
        made.id,
    )
    report = await verify_log(deals.db, deals.id)
    assert any("cannot be read" in f.detail or "not what" in f.detail for f in report.faults)


async def test_the_application_role_cannot_rewrite_the_log(deals):
    await deals.apply(create("deal", title="A"))
    for text in ("UPDATE change SET op = 'del'", "DELETE FROM change"):
        with pytest.raises(Exception, match="refused a statement"):
            await deals.sql(text)


async def test_history_shows_who_changed_what_and_hides_what_is_hidden(deals):
    made = (await deals.apply(create("deal", title="A", amount="1.00"))).outcomes[0]
    await deals.apply(update("deal", made.id, amount="2.00"))
    await deals.apply(update("deal", made.id, title="B"))
    page = await history(deals.db, await deals.ctx(), "deal", made.id)
    assert [e.op for e in page.entries] == ["put", "put", "new"]
    assert page.entries[0].who_text == "Owner"
    step = page.entries[1].fields[0]
    assert (step.field, step.before, step.after) == ("amount", "1.00", "2.00")
    ctx = await deals.ctx()
    blind = await deals.ctx(only(ctx.schema, "deal", {"read": "all"}, {"title": "read"}))
    page = await history(deals.db, blind, "deal", made.id)
    assert "amount" not in str(page)
    assert [e.op for e in page.entries] == ["put", "new"]
    south = await deals.ctx(
        only(ctx.schema, "deal", {"read": "unit"}, {"title": "read"}), unit="south"
    )
    with pytest.raises(Refused):
        await history(deals.db, south, "deal", made.id)


async def test_undo_takes_a_change_set_back_and_can_be_undone(deals):
    made = (await deals.apply(create("deal", title="A", tags=["a"]))).outcomes[0]
    edit = await deals.apply(
        update("deal", made.id, title="B", tags=["b"]), create("deal", title="C")
    )
    back = await undo(deals.db, await deals.ctx(), edit.change_set)
    assert back.committed
    state = await deals.sql(
        "SELECT data->>'title', data->>'tags' FROM record WHERE deleted_at IS NULL AND kind = 'deal'"
    )
    assert state == [["A", '["a"]']]
    assert (await undo(deals.db, await deals.ctx(), back.change_set)).committed
    state = await deals.sql(
        "SELECT data->>'title' FROM record WHERE deleted_at IS NULL AND kind = 'deal' ORDER BY 1"
    )
    assert state == [["B"], ["C"]]


async def test_undo_never_overwrites_a_later_edit(deals):
    made = (await deals.apply(create("deal", title="A"))).outcomes[0]
    edit = await deals.apply(update("deal", made.id, title="B"))
    await deals.apply(update("deal", made.id, title="C"))
    back = await undo(deals.db, await deals.ctx(), edit.change_set)
    assert not back.committed
    assert back.outcomes[0].fields[0].theirs == "C"
