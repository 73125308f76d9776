"""A site is given one more tenant of its hub: by a code that fits its key alone."""

import os

import psycopg
import pytest

from appliance.base.errors import Clash, Unauthenticated
from appliance.base.settings import Settings
from appliance.sync import enrol, joining, nodes
from appliance.sync.inviting import invite_site
from appliance.sync.keys import NodeKey
from appliance.sync.site import Talk
from tests.sync.pair import CONTROL, POOL, SiteTenant, let_act, records
from tests.tenants import create, make_tenant

pytestmark = pytest.mark.anyio
KIND = "deal"


@pytest.fixture
async def other(db, dsns):
    def control():
        return psycopg.AsyncConnection.connect(
            dsns.superuser.replace("nexus_pool", "nexus_control")
        )

    found = await make_tenant(db, control, f"o{os.urandom(4).hex()}")
    await let_act(found)
    return found


async def invited(pair, other, **more):
    peer = await nodes.find_peer(pair.hub.db, pair.parts.me.id)
    key = pair.node.key.current()
    return await invite_site(pair.hub.db, other.id, peer, hub_key=key.public, **more)


async def ask(pair, code, key):
    return await enrol.join(
        pair.hub.db, enrol.prove_joining(key, code, "1"), hub_key=pair.node.key.current(),
        version="1", address=os.urandom(4).hex(), policy=Settings().login,
    )  # fmt: skip


async def test_both_tenants_are_exchanged_and_the_node_stays_who_it_is(pair, other):
    db, me = pair.site.db, pair.parts.me
    code = (await invited(pair, other)).code
    hub = await joining.check_may_ask(db, code)
    for _ in range(2):
        joined = await ask(pair, code, pair.parts.key)
    await joining.check_answer(db, joined, hub)
    assert (joined.node, joined.origin, joined.tenant) == (me.id, me.origin, other.id)
    with psycopg.connect(pair.dsns.superuser.replace(POOL, CONTROL), autocommit=True) as conn:
        conn.execute(
            "INSERT INTO tenant (id, slug, name, placement_id) SELECT %s, %s, %s, id FROM placement",
            (joined.tenant, joined.slug, joined.tenant_name),
        )
        conn.execute("UPDATE routing SET rev = rev + 1")
    await db.routes.refresh()
    await joining.take_tenant(db, joined)
    assert (await nodes.find_self(db)) == me
    there = SiteTenant(db, other.id, other.units, other.people)
    there.origin = me.origin
    for one in (pair.hub, other):
        await one.add_kind(KIND, [("title", "text")])
    await other.apply(create(KIND, title="of the hub"))
    await pair.sync()
    talk = Talk(pair.parts, other.id)
    for title in ("of the branch", "later"):
        await talk.greet()
        await talk.catch_up()
        assert (await there.apply(create(KIND, title=title))).committed
        await talk.catch_up()
    await talk.close()
    found = str(await records(other, KIND))
    assert "of the branch" in found and "of the hub" in str(await records(there, KIND))
    assert await records(pair.hub, KIND) == {}, "tenants stay apart"
    held = [n for n in await nodes.list_nodes(pair.hub.db) if n.id == me.id]
    assert {n.tenant for n in held} == {pair.hub.id, other.id}
    with pytest.raises(Clash) as twice:
        await invited(pair, other)
    assert twice.value.code == "node.has_tenant"


async def test_a_code_for_a_site_is_of_no_use_to_anybody_else(pair, other):
    code = (await invited(pair, other)).code
    with pytest.raises(Unauthenticated):
        await ask(pair, code, NodeKey(b"9" * 32))
    with pytest.raises(Clash):
        await joining.check_may_ask(pair.site.db, f"nxj_{'a' * 65}")
    me = await nodes.find_self(pair.hub.db)
    with pytest.raises(Clash) as hub:
        await invite_site(pair.hub.db, other.id, me, hub_key=b"k" * 32)
    assert hub.value.code == "node.no_site"
    # A code for a new node would make this one another.
    fresh = await enrol.invite(
        pair.hub.db, other.id, f"n {os.urandom(4).hex()}", f"Q{os.urandom(2).hex().upper()}",
        hub_key=pair.node.key.current().public,
    )  # fmt: skip
    joined = await ask(pair, fresh.code, NodeKey(os.urandom(32)))
    with pytest.raises(Clash):
        await joining.check_answer(pair.site.db, joined, await nodes.hub_of(pair.site.db))
