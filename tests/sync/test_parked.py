"""What could not be applied, or was not let in, waits for somebody: shown by rights, decided once."""

import pytest

from appliance.base.errors import Clash, Invalid, Refused
from appliance.kernel.profile import Profile
from appliance.meta import load_schema
from appliance.sync.deciding import What, decide
from appliance.sync.parked import count_parked, hold, list_parked, show_parked
from tests.sync.held import sale
from tests.tenants import only

pytestmark = pytest.mark.anyio


@pytest.fixture
async def firm(tenant):
    fields = [("title", "text"), {"name": "margin", "type": "text"}]
    await tenant.add_kind("deal", fields, display="title")
    return tenant


async def held(firm, **options):
    ctx = await firm.ctx()
    entries = sale(firm, ctx, **options)
    async with firm.db.transaction(firm.id) as tx:
        await hold(tx, ctx, firm.units[options.get("unit", "north")], 9, entries)
    return ctx, entries


async def test_what_is_held_twice_waits_once(firm):
    ctx, entries = await held(firm)
    async with firm.db.transaction(firm.id) as tx:
        await hold(tx, ctx, firm.units["north"], 9, entries)
    (found,) = await list_parked(firm.db, ctx)
    assert (found.origin, found.oseq, found.entries, found.is_held) == (9, 1, 1, True)
    assert found.reason == "late_write_after_revoke" and found.state == "waiting"
    assert await count_parked(firm.db, firm.id) == 1


async def test_it_is_shown_as_far_as_its_reader_may_see(firm):
    await held(firm, margin="canary")
    ctx = await firm.ctx()
    (found,) = await list_parked(firm.db, ctx)
    told = await show_parked(firm.db, ctx, found.id)
    assert told.changes[0].fields["margin"] == "canary" and told.changes[0].who_text == "Owner"
    assert told.steps[0]["op"] == "create" and told.steps[0]["fields"]["title"] == "Late"
    schema = await load_schema(firm.db, firm.id)
    narrow = only(schema, "deal", {"read": "all"}, {"title": "read"})
    told = await show_parked(firm.db, await firm.ctx(narrow), found.id)
    assert "canary" not in repr(told) and told.changes[0].fields["title"] == "Late"
    for blind in (only(schema, "deal", {"read": "unit"}, {"title": "read", "margin": "read"}),
                  Profile(id="", key="")):  # fmt: skip
        told = await show_parked(firm.db, await firm.ctx(blind, unit="south"), found.id)
        assert "canary" not in repr(told) and "Late" not in repr(told)
        assert not told.changes[0].is_readable and not told.steps


async def test_what_cannot_even_be_read_is_let_go_all_the_same(firm):
    await held(firm, **{"@unit": "nowhere"})
    ctx = await firm.ctx()
    (found,) = await list_parked(firm.db, ctx)
    told = await show_parked(firm.db, ctx, found.id)
    assert not told.changes[0].is_readable and not told.steps
    told = await decide(firm.db, ctx, found.id, What.SKIP, reason="made up")
    assert told.parked.state == "skipped"


async def test_a_skip_needs_a_reason_is_audited_and_final(firm):
    ctx, _ = await held(firm)
    (found,) = await list_parked(firm.db, ctx)
    for reason in ("", "  ", "x" * 501):
        with pytest.raises(Invalid):
            await decide(firm.db, ctx, found.id, What.SKIP, reason=reason)
    told = await decide(firm.db, ctx, found.id, What.SKIP, reason="Entered by hand.")
    assert (told.parked.state, told.parked.detail) == ("skipped", "Entered by hand.")
    assert told.parked.decided_by == ctx.actor and told.steps
    assert await firm.sql("SELECT 1 FROM audit WHERE action = 'sync.parked_skip'")
    for what in What:
        with pytest.raises(Clash):
            await decide(firm.db, ctx, found.id, what, reason="Again.")
    assert await list_parked(firm.db, ctx) == []


async def test_unknown(firm):
    ctx = await firm.ctx()
    with pytest.raises(Refused):
        await show_parked(firm.db, ctx, firm.id)
