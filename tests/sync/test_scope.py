"""What a node holds of a tenant, what is kept from it, and what it may not write."""

import pytest

from appliance.base.ids import uuid7
from appliance.sync.scope import streams_for
from appliance.write.log import common_stream
from tests.tenants import create

pytestmark = pytest.mark.anyio


@pytest.fixture
def node(dsns):
    """A site in the control plane: origin, prefix and name are told apart by the count."""
    import psycopg

    made = iter(range(1000))

    async def make(tenant, units=None, masks="{}"):
        ident, n = uuid7(), next(made)
        control = dsns.superuser.replace("nexus_pool", "nexus_control")
        async with await psycopg.AsyncConnection.connect(control, autocommit=True) as conn:
            await conn.execute(
                "INSERT INTO node (id, origin, role, prefix, name) VALUES (%s, "
                "(SELECT coalesce(max(origin), 1) + 1 FROM node), 'site', "
                "'S' || (SELECT count(*) FROM node), %s)", (ident, f"site {n}"),
            )  # fmt: skip
            await conn.execute(
                "INSERT INTO node_scope (node_id, tenant_id, unit_ids, masks) "
                "VALUES (%s, %s, %s, %s)", (ident, tenant, units, masks),
            )  # fmt: skip
        return ident

    return make


async def test_units_and_all_below_with_the_common_streams(db, tenant, node):
    depot = uuid7()
    await tenant.apply(create("sys.unit", depot, name="depot", parent=str(tenant.units["north"])))
    site = await node(tenant.id, [tenant.units["north"]])
    found = await streams_for(db, site, tenant.id)
    common = {common_stream(tenant.id, n) for n in ("shared", "schema")}
    assert set(found) == {tenant.units["north"], depot} | common
    assert found[depot].name == "depot"
    assert {g.mode for g in found.values()} == {"rw"} and {g.epoch for g in found.values()} == {1}


async def test_no_units_named_are_all_and_a_stranger_has_none(db, tenant, node):
    site = await node(tenant.id)
    common = {common_stream(tenant.id, n) for n in ("shared", "schema")}
    assert set(await streams_for(db, site, tenant.id)) == set(tenant.units.values()) | common
    assert await streams_for(db, uuid7(), tenant.id) == {}
