"""From one version to the next: what a tenant changed survives, what both changed is listed."""

from uuid import UUID

import msgspec

import pytest

from appliance.base.errors import Clash, Invalid
from appliance.install import Options, install, parse, preview, read, roll_back, take_snapshot
from appliance.install.merge import Merge
from appliance.meta import load_schema
from tests.install.firm import ONE, TWO, ask, installing, make_firm, one, records, two
from tests.tenants import create, delete, update

pytestmark = pytest.mark.anyio


async def club(db, dsns):
    """A tenant on the first version of the club."""
    firm = await make_firm(db, dsns, "blank")
    done = await install(db, await installing(firm), one())
    firm.units.update(done.units)
    return firm


async def change(firm, sort, key, **fields):
    held = (await take_snapshot(firm.db, firm.id)).held[(sort, key)]
    result = await firm.apply(update(f"sys.{sort}", held.id, held.version, **fields),
                              ctx=await firm.ctx(unit="head"))  # fmt: skip
    assert result.committed, result


async def test_what_the_tenant_changed_survives_and_conflicts_are_listed(db, dsns):
    firm = await club(db, dsns)
    # Ours alone, theirs alone, both in different places, both in one place.
    await change(firm, "field", "member.level", labels={"en": "Rank"},
                 options={"choices": [{"key": "new", "labels": {"en": "New"}},
                                      {"key": "old", "labels": {"en": "Old"}},
                                      {"key": "ours", "labels": {"en": "Ours"}}]})  # fmt: skip
    await change(firm, "field", "member.city", labels={"en": "Place"})
    await change(firm, "field", "member.name", labels={"en": "Name", "ru": "ФИО"})
    seen = await install(db, await installing(firm), two(), Options(dry_run=True))
    assert seen.change_set is None
    assert [(c.at, c.ours, c.theirs, c.choice) for c in seen.conflicts] == [
        ("field/member.city#labels.en", "Place", "Town", "keep")
    ]
    done = await install(db, await installing(firm), two())
    assert (done.was, done.version) == ("club@1.0", "1.1")
    kind = (await load_schema(db, firm.id)).kinds["member"]
    name, level, city = (kind.by_name[n] for n in ("name", "level", "city"))
    assert name.labels == {"en": "Full name", "ru": "ФИО"} and name.searchable
    assert level.labels == {"en": "Rank"}
    assert [c["key"] for c in level.options["choices"]] == ["new", "old", "honorary", "ours"]
    assert city.labels == {"en": "Place"}
    assert kind.series == "M-{n:4}"
    keys = {v["fields"]["key"] for v in await ask(firm, {"from": "sys.view"})}
    assert keys == {"members"}
    names = {r["fields"]["name"] for r in await ask(firm, {"from": "member"})}
    assert names == {"Founder", "Guest", "Visitor", "Keeper"}
    again = await install(db, await installing(firm), two())
    assert (again.change_set, again.counts, again.conflicts) == (None, {}, [])


async def test_a_choice_takes_the_templates_side_at_one_place(db, dsns):
    firm = await club(db, dsns)
    await change(firm, "field", "member.city", labels={"en": "Place"})
    await change(firm, "view", "members", query={"from": "member", "select": ["city"]})
    changed = TWO.replace('select = ["name", "level"]', 'select = ["level"]')
    chosen = Options(choices={"field/member.city#labels.en": "take"})
    done = await install(db, await installing(firm), parse(changed), chosen)
    assert {c.at: c.choice for c in done.conflicts} == {
        "field/member.city#labels.en": "take", "view/members#query": "keep",
    }  # fmt: skip
    held = (await take_snapshot(db, firm.id)).held
    assert held[("field", "member.city")].item.values["labels"] == {"en": "Town"}
    assert held[("view", "members")].item.values["query"]["select"] == ["city"]


async def test_what_the_tenant_deleted_stays_deleted_unless_taken(db, dsns):
    firm = await club(db, dsns)
    snapshot = await take_snapshot(db, firm.id)

    field = snapshot.held[("field", "member.city")]
    assert (
        await firm.apply(delete("sys.field", field.id), ctx=await firm.ctx(unit="head"))
    ).committed
    done = await install(db, await installing(firm), two())
    assert [(c.at, c.ours, c.choice) for c in done.conflicts] == [
        ("field/member.city#", None, "keep")
    ]
    assert "city" not in (await load_schema(db, firm.id)).kinds["member"].by_name


async def test_what_can_never_change_is_refused_by_name(db, dsns):
    firm = await club(db, dsns)
    turned = TWO.replace('{ name = "city", type = "text"', '{ name = "city", type = "long_text"')
    done = await install(db, await installing(firm), parse(turned), Options(rest="take"))
    assert [(c.at, c.fixed, c.choice) for c in done.conflicts if c.path == "type"] == [
        ("field/member.city#type", True, "keep")
    ]


async def test_rollback_leaves_everything_as_it_was(db, dsns):
    firm = await club(db, dsns)
    await change(firm, "field", "member.city", labels={"en": "Place"})
    before = await records(firm)
    await install(db, await installing(firm), two(), Options(rest="take"))
    assert await records(firm) != before
    await roll_back(db, await installing(firm))
    assert await records(firm) == before
    done = await install(db, await installing(firm), two())
    assert done.version == "1.1" and "visit" in (await load_schema(db, firm.id)).kinds


async def test_rollback_refuses_when_records_would_vanish_or_places_were_changed(db, dsns):
    firm = await club(db, dsns)
    with pytest.raises(Clash, match="no upgrade"):
        fresh = await make_firm(db, dsns, "blank")
        await roll_back(db, await installing(fresh))
    await install(db, await installing(firm), two())
    ctx = await firm.ctx(unit="head")
    made = await firm.apply(create("visit", unit=firm.units["head"]), ctx=ctx)
    assert made.committed
    with pytest.raises(Clash, match="visit 1") as refused:
        await roll_back(db, await installing(firm))
    assert refused.value.extra["blocking"] == {"visit": 1}
    await firm.apply(delete("visit", made.outcomes[0].id), ctx=ctx)
    await change(firm, "field", "member.name", labels={"en": "Mine"})
    with pytest.raises(Clash, match="changed since"):
        await roll_back(db, await installing(firm))
    assert (await take_snapshot(db, firm.id)).base.version == "1.1"


async def test_a_template_is_switched_only_while_there_is_no_data(db, dsns):
    firm = await club(db, dsns)
    done = await install(db, await installing(firm), parse(ONE.replace('"club"', '"guild"', 1)))
    assert done.was == "club@1.0" and not done.conflicts
    assert len(await ask(firm, {"from": "member"})) == 3
    made = await firm.apply(create("member", name="Real"), ctx=await firm.ctx(unit="head"))
    assert made.committed
    with pytest.raises(Clash, match="member 1") as refused:
        await install(db, await installing(firm), one())
    assert (refused.value.code, refused.value.extra["blocking"]) == (
        "template.locked",
        {"member": 1},
    )


def shown(snapshot):
    return {k for k, h in snapshot.held.items() if h.live and h.enabled}


async def test_from_one_trade_to_another_and_back_while_there_is_no_data(db, dsns):
    firm = await make_firm(db, dsns, "multi_branch_sales")
    before = shown(await take_snapshot(db, firm.id))
    assert not (await install(db, await installing(firm), read("corporate"))).conflicts
    schema = await load_schema(db, firm.id)
    assert schema.kind("project") and not schema.kind("deal") and not schema.kind("product")
    assert not (await install(db, await installing(firm), read("multi_branch_sales"))).conflicts
    after = shown(await take_snapshot(db, firm.id))
    # What is off stays there to be switched on; people may have the profiles.
    assert {k for k in after - before if k[0] not in ("field", "profile", "grant")} == set()
    assert before <= after
    schema = await load_schema(db, firm.id)
    assert schema.kind("deal") and not schema.kind("project")
    assert schema.kinds["product"].by_name["source_key"].fid == "source_key"
    assert len(await ask(firm, {"from": "customer"})) == 3


async def test_a_refused_switch_leaves_everything_as_it_was(db, dsns):
    firm = await make_firm(db, dsns, "multi_branch_sales")
    before = await records(firm)
    bad = ONE.replace('fields = { name = "Guest" }', 'fields = { colour = "red" }')
    with pytest.raises(Invalid):
        await install(db, await installing(firm), parse(bad))
    assert await records(firm) == before


async def test_two_tenants_on_two_versions_in_one_process(db, dsns):
    old, new = await club(db, dsns), await club(db, dsns)
    await install(db, await installing(new), two())
    assert "visit" not in (await load_schema(db, old.id)).kinds
    assert "visit" in (await load_schema(db, new.id)).kinds
    shown = [(await preview(two(), db, await installing(f))).would for f in (old, new)]
    assert [bool(w.counts) for w in shown] == [True, False]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('version = "1.0"', "version = 1", "Expected `str`"),
        ("[[own]]", "[[own", "TOML"),
        ('type = "choice"', 'type = "colour"', "no such field type"),
        ("viewer", "stranger", "no such profile"),
        ('viewer = "none"', 'viewer = "often"', "Use shipped, read, none"),
        ('kind = "member"\nfields = { name = "Guest" }', 'kind = "dragon"\nfields = { name = "Guest" }',
         "no such kind"),
        ('kind = "member"\nfields = { name = "Guest" }', 'kind = "member"\nfields = { colour = "red" }',
         "no such field"),
        ('query = { from = "member", select = ["city"] }', "querry = {}", "no such property"),
    ],
)  # fmt: skip
async def test_a_bad_template_leaves_nothing_behind(db, dsns, old, new, expected):
    firm = await make_firm(db, dsns, "blank")
    before = await records(firm)
    with pytest.raises(Invalid, match=expected):
        await install(db, await installing(firm), parse(ONE.replace(old, new, 1)))
    assert await records(firm) == before


def test_merge_takes_each_side_where_it_alone_changed():
    merge = Merge(lambda path: path == "b")
    base = {"a": 1, "b": 1, "c": 1, "gone": 1, "list": [{"key": "x", "v": 1}, {"key": "y", "v": 1}]}
    theirs = {
        "a": 2,
        "b": 2,
        "c": 1,
        "new": 1,
        "list": [{"key": "y", "v": 1}, {"key": "z", "v": 1}],
    }
    ours = {"a": 1, "b": 3, "c": 3, "gone": 1, "list": [{"key": "x", "v": 2}, {"key": "y", "v": 5}]}
    assert merge.values(base, theirs, ours) == {
        "a": 2, "b": 2, "c": 3, "new": 1,
        "list": [{"key": "y", "v": 5}, {"key": "z", "v": 1}, {"key": "x", "v": 2}],
    }  # fmt: skip
    assert [(d.path, d.base, d.theirs, d.ours) for d in merge.differences] == [
        ("b", 1, 2, 3), ("list.x", {"key": "x", "v": 1}, None, {"key": "x", "v": 2}),
    ]  # fmt: skip


async def test_stamps_say_where_each_record_came_from(db, dsns):
    firm = await club(db, dsns)
    (row,) = await firm.sql(
        "SELECT data->'origin' FROM record WHERE tenant_id = $1 AND kind = 'sys.field' "
        "AND data->>'name' = 'city'", firm.id,
    )  # fmt: skip

    origin = msgspec.json.decode(row[0])
    held = (await take_snapshot(db, firm.id)).held[("field", "member.city")]
    assert origin == {"template": "club", "version": "1.0", "key": "member.city",
                      "checksum": held.item.checksum}  # fmt: skip
    assert isinstance(held.id, UUID)


async def test_rights_follow_the_stable_ids_of_fields(db, dsns):
    """On another node than the first, and for a name that was used before, an id is marked."""
    firm = await club(db, dsns)
    field = (await take_snapshot(db, firm.id)).held[("field", "member.city")]
    await firm.apply(delete("sys.field", field.id), ctx=await firm.ctx(unit="head"))
    ctx = msgspec.structs.replace(await installing(firm), origin=2)
    await install(db, ctx, two(), Options(rest="take"))
    kind = (await load_schema(db, firm.id)).kinds
    assert kind["member"].by_name["city"].fid == "city~2.1"
    assert kind["visit"].by_name["member"].fid == "member~2"
    granted = await firm.sql(
        "SELECT data->'fields' FROM record WHERE tenant_id = $1 AND kind = 'sys.grant' "
        "AND data->>'kind' = 'visit' AND deleted_at IS NULL",
        firm.id,
    )
    assert len(granted) > 5
    assert all("member~2" in msgspec.json.decode(row[0]) for row in granted)
    held = (await take_snapshot(db, firm.id)).held
    assert held[("grant", "owner/member")].item.values["fields"]["city"] == "write"
    assert "member" in held[("grant", "owner/visit")].item.values["fields"]
