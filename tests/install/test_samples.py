"""Samples go again, exactly the untouched ones; a published template installs as what it was."""

from uuid import UUID

import pytest

from appliance.access.compile import compile_profile
from appliance.access.shipped import shipped
from appliance.install import (
    install,
    parse,
    publish,
    read,
    remove_samples,
    take_snapshot,
    template_names,
    write_toml,
)
from appliance.install.bundle import build
from appliance.kernel.profile import Mode
from tests.install.firm import ask, installing, make_firm, one, two
from tests.tenants import create, update

pytestmark = pytest.mark.anyio


async def test_exactly_the_untouched_samples_are_removed(db, dsns):
    firm = await make_firm(db, dsns, "multi_branch_sales")
    ctx = await firm.ctx(unit="head")
    customers = {r["fields"]["name"]: r for r in await ask(firm, {"from": "customer"})}
    oak, harbour = customers["Oakwood Furniture"], customers["Harbour Supplies"]
    changed = await firm.apply(
        update("customer", UUID(oak["id"]), oak["version"], city="Lviv"), ctx=ctx
    )
    mine = await firm.apply(
        create("deal", title="Real", customer=harbour["id"], unit=firm.units["south"]), ctx=ctx
    )
    assert changed.committed and mine.committed
    looked = await remove_samples(db, await installing(firm), dry_run=True)
    done = await remove_samples(db, await installing(firm))
    assert looked == done
    assert {(k.key, k.why) for k in done.kept} == {
        ("oakwood", "changed"), ("harbour", "in_use"), ("south", "in_use"),
    }  # fmt: skip
    left = {r["fields"]["name"] for r in await ask(firm, {"from": "customer"})}
    assert left == {"Oakwood Furniture", "Harbour Supplies"}
    assert [r["fields"]["title"] for r in await ask(firm, {"from": "deal"})] == ["Real"]
    assert [r["fields"]["name"] for r in await ask(firm, {"from": "warehouse"})] == []
    # What a trade cannot begin without is no sample.
    assert len(await ask(firm, {"from": "stage"})) == 6
    again = await remove_samples(db, await installing(firm))
    assert again.removed == []


async def test_removed_samples_do_not_come_back_with_an_upgrade(db, dsns):
    firm = await make_firm(db, dsns, "blank")
    await install(db, await installing(firm), one())
    await remove_samples(db, await installing(firm))
    await install(db, await installing(firm), two())
    names = {r["fields"]["name"] for r in await ask(firm, {"from": "member"})}
    assert names == {"Founder", "Keeper"}


def spelled(bundle):
    """All items, but for modules' order of naming."""
    return {(i.sort, i.key): i.values for i in bundle.items}


@pytest.mark.parametrize("name", template_names())
async def test_a_published_template_installs_as_what_it_was(db, dsns, name):
    firm = await make_firm(db, dsns, name)
    text = write_toml(await publish(db, await installing(firm), name, "9.9"))
    made = parse(text)
    assert spelled(build(made)) == spelled(build(read(name)))
    other = await make_firm(db, dsns, "blank")
    await install(db, await installing(other), made)
    mine, theirs = await take_snapshot(db, firm.id), await take_snapshot(db, other.id)
    assert {k: h.item.values for k, h in mine.held.items()} == {
        k: h.item.values for k, h in theirs.held.items()
    }
    kept = sorted(s.key for s in mine.seeds if not s.removable)
    assert sorted(s.key for s in theirs.seeds) == kept


async def test_what_a_tenant_built_is_published_too(db, dsns):
    firm = await make_firm(db, dsns, "corporate")
    firm.units["north"] = firm.units["office"]
    await firm.add_kind(
        "car", [("plate", "text"), ("owner_of", "text")], labels={"en": 'Cars \x7f "x"'}
    )
    await firm.apply(create("article_section", name="Ours"), ctx=await firm.ctx(unit="head"))
    grant = (await take_snapshot(db, firm.id)).held[("grant", "viewer/project")]
    await firm.apply(
        update("sys.grant", grant.id, grant.version, actions={"read": "own"}),
        ctx=await firm.ctx(unit="head"),
    )
    made = parse(write_toml(await publish(db, await installing(firm), "ours", "1")))
    other = await make_firm(db, dsns, "blank")
    await install(db, await installing(other), made)
    held = (await take_snapshot(db, other.id)).held
    assert held[("kind", "car")].item.values["labels"] == {"en": 'Cars \x7f "x"'}
    assert held[("grant", "viewer/project")].item.values["actions"] == {"read": "own"}
    sections = {r["fields"]["name"] for r in await ask(other, {"from": "article_section"})}
    assert "Ours" in sections and len(sections) == 4


async def rights(firm):
    """Compiled profiles by key, as the tenant's own grants say."""
    snapshot = await take_snapshot(firm.db, firm.id)
    found = {}
    for held in snapshot.live("profile"):
        grants = [
            g.item.values
            for g in snapshot.live("grant")
            if g.item.values["profile"] == held.item.key
        ]
        found[held.item.key] = compile_profile("", held.item.values, grants, 1)
    return found


async def test_who_may_what_in_a_hospital(db, dsns):
    firm = await make_firm(db, dsns, "hospital")
    found = await rights(firm)
    for key in (
        "admin",
        "receptionist",
        "viewer",
        "salesperson",
        "bookkeeper",
        "finance",
        "dispatcher",
    ):
        grant = found[key].grant("medical_record")
        assert not grant.actions and not grant.fields, key
        assert found[key].grant("patient").fields.get("blood_group", Mode.HIDDEN) < Mode.WRITE
    assert found["doctor"].grant("medical_record").fields["diagnosis"] is Mode.WRITE
    assert found["nurse"].grant("medical_record").fields["diagnosis"] is Mode.READ
    assert found["receptionist"].grant("patient").fields["blood_group"] is Mode.HIDDEN
    assert found["doctor"].scope("invoice", "read").kind == "none"


async def test_who_may_what_in_trade(db, dsns):
    firm = await make_firm(db, dsns, "multi_branch_sales")
    found = await rights(firm)
    may = {(p, k, a): found[p].scope(k, a).kind.value for p in found
           for k in ("stock_move", "deal", "invoice", "price", "product", "reservation")
           for a in ("read", "create", "update")}  # fmt: skip
    assert may["storekeeper", "stock_move", "create"] == "unit"
    assert may["storekeeper", "deal", "read"] == "none"
    assert may["storekeeper", "price", "read"] == "none"
    assert may["salesperson", "stock_move", "create"] == "none"
    assert may["salesperson", "reservation", "create"] == "unit"
    assert may["salesperson", "deal", "update"] == "own"
    assert may["salesperson", "price", "create"] == "none"
    assert may["finance", "invoice", "create"] == "all"
    assert may["purchaser", "product", "update"] == "all"
    assert may["purchaser", "price", "read"] == "all"
    assert may["tech", "invoice", "read"] == "none"
    assert set(shipped()) <= set(found)
