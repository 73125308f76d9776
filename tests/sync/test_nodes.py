"""Nodes: revoked whole or of one tenant, given units, keys that follow each other by proof."""

import asyncio
import os

import psycopg
import pytest

from appliance.base.errors import Clash, Invalid, Misconfigured, Refused
from appliance.sync import keys, nodes
from tests.sync.sites import NOBODY, hub_row, site
from tests.tenants import make_tenant

pytestmark = pytest.mark.anyio


@pytest.fixture
async def other(db, dsns):
    def control():
        return psycopg.AsyncConnection.connect(
            dsns.superuser.replace("nexus_pool", "nexus_control")
        )

    return await make_tenant(db, control, f"o{os.urandom(4).hex()}")


async def actions(tenant):
    return [a for (a,) in await tenant.sql("SELECT action FROM audit WHERE tenant_id = $1 ORDER BY at",
                                           tenant.id)]  # fmt: skip


async def test_a_tenants_nodes_are_its_own(db, tenant, other):
    mine, theirs = await site(db, tenant.id), await site(db, other.id)
    assert {n.id for n in await nodes.list_nodes(db, tenant.id)} == {mine.id}
    assert {mine.id, theirs.id} <= {n.id for n in await nodes.list_nodes(db)}
    assert (await nodes.find_named(db, mine.name, tenant.id)).id == mine.id
    with pytest.raises(Refused):
        await nodes.find_named(db, theirs.name, tenant.id)
    for act in (
        nodes.revoke(db, theirs.id, "not mine", tenant=tenant.id),
        nodes.set_units(db, theirs.id, tenant.id, None),
        nodes.revoke(db, NOBODY, "nobody"),
    ):
        with pytest.raises(Refused):
            await act
    assert (await nodes.find_peer(db, theirs.id)).state == "active"


async def test_a_revoked_node_loses_sessions_and_right_and_stays_known(db, tenant):
    one = await site(db, tenant.id)
    nonce = await nodes.open_session(db, one.id)
    assert await nodes.count_request(db, one.id, nonce, 1)
    done = await nodes.revoke(db, one.id, "sold", tenant=tenant.id)
    assert (done.state, done.scope_state, done.epoch) == ("revoked", "withdrawn", 2)
    assert done.revoked_reason == "sold" and done.revoked_at is not None
    assert not await nodes.count_request(db, one.id, nonce, 2)
    again = await nodes.revoke(db, one.id, "sold twice", tenant=tenant.id)
    assert (again.epoch, again.revoked_reason) == (2, "sold")
    assert "node.revoked" in await actions(tenant)
    with pytest.raises(Clash):
        await nodes.set_units(db, one.id, tenant.id, None)


async def test_a_node_of_two_tenants_is_revoked_by_each_for_itself(db, tenant, other):
    one = await site(db, tenant.id, other.id)
    mine = await nodes.revoke(db, one.id, "closed here", tenant=tenant.id)
    assert (mine.state, mine.scope_state) == ("active", "withdrawn")
    assert (await nodes.find_peer(db, one.id, other.id)).scope_state == "active"
    whole = await nodes.revoke(db, one.id, "stolen")
    assert whole.state == "revoked"
    assert (await nodes.find_peer(db, one.id, other.id)).scope_state == "withdrawn"
    assert "node.revoked" in await actions(other)


async def test_the_hub_is_not_revoked_and_a_reason_is_given(db, dsns, tenant):
    one = await site(db, tenant.id)
    async with hub_row(db, dsns) as hub:
        with pytest.raises(Clash):
            await nodes.revoke(db, hub, "by mistake")
        assert await nodes.find_peer(db, hub) is None, "nobody is a peer of itself"
        assert (await nodes.find_self(db)).id == hub
        assert await nodes.hub_of(db) is None
        with pytest.raises(Invalid):
            await nodes.revoke(db, one.id, "  ")


async def test_units_are_said_anew_and_count_an_epoch(db, tenant):
    one = await site(db, tenant.id)
    north, south = tenant.units["north"], tenant.units["south"]
    changed = await nodes.set_units(db, one.id, tenant.id, [south, north, north])
    assert changed.unit_ids == tuple(sorted((north, south))) and changed.epoch == 2
    same = await nodes.set_units(db, one.id, tenant.id, [north, south])
    assert same.epoch == 2
    assert (await nodes.set_units(db, one.id, tenant.id, None)).unit_ids is None
    assert (await actions(tenant)).count("node.scope_changed") == 2


async def test_counters_of_a_session_are_taken_once_by_whoever_comes_first(db, tenant):
    one = await site(db, tenant.id)
    nonce = await nodes.open_session(db, one.id)
    took = await asyncio.gather(
        *(nodes.count_request(db, one.id, nonce, n % 4 + 1) for n in range(16))
    )
    assert 1 <= sum(took) <= 4
    assert not await nodes.count_request(db, one.id, nonce, 4)
    assert await nodes.count_request(db, one.id, nonce, 5)


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path):
    made = keys.load_key(tmp_path)
    path = tmp_path / keys.KEY_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert keys.load_key(tmp_path).public == made.public
    text = keys.fingerprint(made.public)
    assert len(text) == 39 and text == keys.fingerprint(made.public)
    assert keys.is_signed(made.public, made.sign(b"x"), b"x")
    assert not keys.is_signed(made.public, made.sign(b"x"), b"y")
    assert not keys.is_signed(b"short", made.sign(b"x"), b"x")
    path.write_bytes(b"short")
    with pytest.raises(Misconfigured):
        keys.load_key(tmp_path)


def test_a_rotation_that_broke_off_goes_on_with_the_same_key(tmp_path):
    old = keys.load_key(tmp_path)
    held = keys.KeyFile(tmp_path)
    assert held.current().public == old.public
    following = keys.begin_rotation(tmp_path)
    assert keys.begin_rotation(tmp_path).public == following.public
    assert keys.is_rotating(tmp_path) and held.current().public == old.public
    keys.finish_rotation(tmp_path)
    assert not keys.is_rotating(tmp_path) and held.current().public == following.public


async def test_a_key_is_followed_by_proof_alone(db, tenant):
    one, fresh, last = await site(db, tenant.id), keys.NodeKey(b"2" * 32), keys.NodeKey(b"3" * 32)
    thief = keys.NodeKey(b"t" * 32)
    forged = keys.make_rotation(one.id, thief, fresh)
    assert not await nodes.take_rotation(db, forged)
    first = keys.make_rotation(one.id, one.key, fresh)
    unheld = keys.Rotation(one.id, one.key.public, thief.public, first.by_old, first.by_new)
    assert not await nodes.take_rotation(db, unheld)
    elsewhere = keys.Rotation(NOBODY, *[getattr(first, f) for f in first.__struct_fields__[1:]])
    assert not await nodes.take_rotation(db, elsewhere)
    assert await nodes.take_rotation(db, first) and await nodes.take_rotation(db, first)
    second = keys.make_rotation(one.id, fresh, last)
    assert await nodes.take_rotation(db, second)
    assert not await nodes.take_rotation(db, first), "an old proof brings no old key back"
    assert (await nodes.find_peer(db, one.id)).public_key == last.public
    chain = await nodes.read_rotations(db, one.id)
    assert keys.follow(one.key.public, one.id, chain) == last.public
    assert keys.follow(thief.public, one.id, chain) == thief.public
    assert (await actions(tenant)).count("node.key_rotated") == 2


async def test_who_trusts_the_old_key_learns_the_new_one(db, tenant):
    one, fresh = await site(db, tenant.id), keys.NodeKey(b"4" * 32)
    chain = [keys.make_rotation(one.id, one.key, fresh)]
    assert not await nodes.learn_key(db, NOBODY, chain)
    assert await nodes.learn_key(db, one.id, chain)
    assert not await nodes.learn_key(db, one.id, chain)
    assert (await nodes.find_peer(db, one.id)).public_key == fresh.public
