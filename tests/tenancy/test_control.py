"""The control plane's rows: short names, states, nodes, placements."""

import pytest

from appliance.base.errors import Clash, Invalid, Refused
from appliance.base.roles import Role
from appliance.tenancy import (
    activate,
    check_slug,
    close_tenant,
    create_dedicated,
    create_placement,
    create_tenant,
    drop_placement,
    find_tenant,
    list_tenants,
    register_node,
    rename_tenant,
    resume,
    suspend,
)
from appliance.tenancy.names import dedicated_database
from tests.tenancy.rows import make

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("good", ["ab", "a1", "north-trade", "0-0", "a" * 41])
def test_good_short_names(good):
    assert check_slug(good) == good
    assert len(dedicated_database(good)) <= 51


@pytest.mark.parametrize(
    "bad",
    ["", "a", "A1", "a_b", "-ab", "ab-", "a--b", "a b", "ab\n", "a" * 42, "їжак", "a;drop", "a\0b"],
)
def test_bad_short_names_are_named(bad):
    with pytest.raises(Invalid, match="short name"):
        check_slug(bad)


async def test_states_follow_their_arrows(servers, slug):
    made = await create_tenant(servers, slug, "Firm", "pool")
    assert made.state == "creating"
    for refused in (suspend, resume, close_tenant):
        with pytest.raises(Clash, match="creating; expected"):
            await refused(servers, made.id)
    assert (await activate(servers, made.id)).state == "active"
    assert (await suspend(servers, made.id)).state == "suspended"
    assert (await resume(servers, made.id)).state == "active"
    assert (await close_tenant(servers, made.id)).state == "closed"
    with pytest.raises(Clash):
        await resume(servers, made.id)
    assert slug in {t.slug for t in await list_tenants(servers)}


async def test_names_are_unique_and_found(servers, slug):
    made = await make(servers, slug)
    with pytest.raises(Clash, match="exists here already"):
        await create_tenant(servers, slug, "Again", "pool")
    with pytest.raises(Refused):
        await create_tenant(servers, slug + "-z", "Nowhere", "nowhere")
    with pytest.raises(Invalid):
        await create_tenant(servers, slug + "-z", " \n", "pool")
    renamed = await rename_tenant(servers, made.id, slug=slug + "-r", name="Other")
    assert (await find_tenant(servers, str(made.id))) == renamed
    assert (renamed.slug, renamed.name) == (slug + "-r", "Other")
    with pytest.raises(Refused):
        await find_tenant(servers, slug)


async def test_placements_are_made_once(servers, slug):
    one = await create_dedicated(servers, slug)
    assert await create_dedicated(servers, slug) == one
    with pytest.raises(Clash):
        await create_placement(servers, one.name, sort="pooled")
    with pytest.raises(Invalid):
        await create_placement(servers, "Bad Name", target=one.target)
    await drop_placement(servers, one.name)
    with pytest.raises(Refused):
        await drop_placement(servers, one.name)


async def test_a_placement_with_tenants_stays(servers, slug):
    made = await make(servers, slug, (await create_dedicated(servers, slug)).name)
    with pytest.raises(Clash, match="still has tenants"):
        await drop_placement(servers, made.placement)
    assert (await find_tenant(servers, slug)).placement == made.placement


async def test_a_node_registers_once(servers):
    node = await register_node(servers, name="office", role=Role.SOLO, prefix="")
    again = await register_node(servers, name="head office", role=Role.HUB, prefix="")
    assert (again.id, again.name, again.role, again.origin) == (node.id, "head office", "hub", 1)
    with pytest.raises(Clash, match="cannot change"):
        await register_node(servers, name="office", role=Role.SOLO, prefix="KV")
    with pytest.raises(Invalid, match="capital"):
        await register_node(servers, name="office", role=Role.SOLO, prefix="k v")
