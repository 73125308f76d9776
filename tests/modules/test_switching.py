"""A module switched off is gone for its tenant and nobody else; switched on, all of it is back."""

import pytest

from appliance.base.errors import Clash, Invalid, Refused
from appliance.install import (
    disable,
    enable,
    find_impact,
    install,
    list_modules,
    read,
    roll_back,
    take_snapshot,
)
from appliance.meta import load_schema
from tests.install.firm import ask, installing, make_firm, one, records, two
from tests.tenants import create, only, update

pytestmark = pytest.mark.anyio


async def states(firm):
    return {m.key: m.state for m in await list_modules(firm.db, await installing(firm))}


async def test_off_is_gone_and_on_is_back_and_the_neighbour_sees_nothing(db, dsns):
    firm = await make_firm(db, dsns, "multi_branch_sales")
    neighbour = await make_firm(db, dsns, "multi_branch_sales")
    before = await records(firm)
    deals = await ask(firm, {"from": "deal", "sort": ["number"]})
    impact = await find_impact(db, await installing(firm), "sales")
    assert {k.key: k.records for k in impact.kinds}["deal"] == 3
    assert "open_deals" in impact.views and impact.dashboards == ["sales"]
    assert impact.workflows == ["deal_won_task", "lead_unanswered"]
    assert "salesperson" in impact.profiles and "storekeeper" in impact.profiles
    assert ("task", "deal", "deal") in {(r.kind, r.field, r.target) for r in impact.references}
    assert impact.blocked_by == []
    ctx = await firm.ctx(unit="head")
    assert (await disable(db, ctx, "sales")).state == "off"
    assert (await states(firm))["sales"] == "off"
    schema = await load_schema(db, firm.id)
    assert schema.kind("deal") is None and schema.kind("customer") is not None
    with pytest.raises(Invalid):
        await ask(firm, {"from": "deal"})
    refused = await firm.apply(create("deal", title="x"), ctx=await firm.ctx(unit="head"))
    assert not refused.committed
    # What pointed there still shows, the records of other modules are whole.
    (task,) = await ask(firm, {"from": "task"})
    assert task["fields"]["title"] == "Measure the showroom"
    assert len(await ask(firm, {"from": "customer"})) == 3
    assert len(await ask(neighbour, {"from": "deal"})) == 3
    await enable(db, await firm.ctx(unit="head"), "sales", install=await installing(firm))
    assert await ask(firm, {"from": "deal", "sort": ["number"]}) == deals
    after = await records(firm)
    same = {i for i, r in before.items() if r[0] not in ("sys.kind", "sys.module")}
    assert {i: after[i] for i in same} == {i: before[i] for i in same}


async def test_what_others_need_is_not_switched_off(db, dsns):
    firm = await make_firm(db, dsns, "multi_branch_sales")
    ctx = await firm.ctx(unit="head")
    with pytest.raises(Clash, match="channels, pricing, sales, stock need the module catalogue"):
        await disable(db, ctx, "catalogue")
    for key in ("channels", "sales", "pricing", "stock", "catalogue"):
        await disable(db, await firm.ctx(unit="head"), key)
    assert (await states(firm))["catalogue"] == "off"
    assert (await find_impact(db, await installing(firm), "sales")).brings == [
        "pricing",
        "catalogue",
    ]
    await enable(db, await firm.ctx(unit="head"), "sales", install=await installing(firm))
    found = await states(firm)
    assert (found["sales"], found["pricing"], found["catalogue"], found["stock"]) == (
        "on", "on", "on", "off",
    )  # fmt: skip


async def test_a_kind_that_was_off_before_stays_off(db, dsns):
    firm = await make_firm(db, dsns, "corporate")
    lead = (await take_snapshot(db, firm.id)).held[("kind", "milestone")]

    await firm.apply(update("sys.kind", lead.id, lead.version, enabled=False),
                     ctx=await firm.ctx(unit="head"))  # fmt: skip
    await disable(db, await firm.ctx(unit="head"), "projects")
    await enable(db, await firm.ctx(unit="head"), "projects", install=await installing(firm))
    schema = await load_schema(db, firm.id)
    assert schema.kind("project") is not None and schema.kind("milestone") is None


async def test_what_an_upgrade_adds_to_a_module_that_is_off_comes_when_it_is_on(db, dsns):
    firm = await make_firm(db, dsns, "blank")
    await install(db, await installing(firm), one())
    await disable(db, await firm.ctx(unit="head"), "club")
    await install(db, await installing(firm), two())
    schema = await load_schema(db, firm.id)
    assert "visit" in schema.kinds and schema.kind("visit") is None
    await enable(db, await firm.ctx(unit="head"), "club", install=await installing(firm))
    schema = await load_schema(db, firm.id)
    assert schema.kind("visit") and schema.kind("member")
    brought = await install(db, await installing(firm), two())
    assert (brought.counts, brought.records) == ({}, 1)
    assert (await install(db, await installing(firm), two())).change_set is None


async def test_a_shipped_module_is_installed_when_it_is_switched_on(db, dsns):
    firm = await make_firm(db, dsns, "corporate")
    assert (await states(firm))["stock"] == "available"
    impact = await find_impact(db, await installing(firm), "stock")
    assert (impact.state, impact.brings) == ("available", ["catalogue"])
    done = await enable(db, await firm.ctx(unit="head"), "stock", install=await installing(firm))
    assert done.state == "on" and "storekeeper" in done.profiles
    assert (await states(firm))["catalogue"] == "on"
    made = await firm.apply(create("warehouse", name="W"), ctx=await firm.ctx(unit="head"))
    assert made.committed
    again = await install(db, await installing(firm), read("corporate"))
    assert (again.change_set, again.counts) == (None, {})
    with pytest.raises(Clash, match="warehouse 1"):
        await roll_back(db, await installing(firm))
    with pytest.raises(Refused):
        await find_impact(db, await installing(firm), "no such")


async def test_counts_and_kinds_are_for_who_may_read_them(db, dsns):
    firm = await make_firm(db, dsns, "hospital")
    schema = await load_schema(db, firm.id)
    seller = only(schema, "patient", {"read": "unit"}, {"name": "read"})
    ctx = await firm.ctx(seller, unit="head")
    assert [(m.key, m.kinds) for m in await list_modules(db, ctx)] == [("clinic", ["patient"])]
    counts = {k.key: k.records for k in (await find_impact(db, ctx, "clinic")).kinds}
    assert counts["patient"] is None and counts["medical_record"] is None
    await disable(db, await firm.ctx(unit="head"), "clinic")
    events = await firm.sql(
        "SELECT action, subject FROM audit WHERE tenant_id = $1 ORDER BY id", firm.id
    )
    assert ["module.disabled", "clinic"] in events
    assert [e[0] for e in events].count("template.installed") == 1
