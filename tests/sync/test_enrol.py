"""A code lets one key in, once, while it lives; what comes back is the hub's word or nothing."""

import asyncio
import contextlib
import os

import httpx
import msgspec
import psycopg
import pytest

from appliance.base.errors import (
    Clash,
    Invalid,
    Limited,
    Misconfigured,
    Unauthenticated,
    Unavailable,
)
from appliance.base.ids import uuid7
from appliance.base.settings import Login
from appliance.db import migrate
from appliance.db.database import Database
from appliance.sync import enrol, joining, nodes
from appliance.sync.keys import NodeKey
from appliance.sync.signing import sign_answer
from tests.sync.sites import NOBODY, hub_row

pytestmark = pytest.mark.anyio
HUB = NodeKey(b"H" * 32)
POLICY = Login()


def fresh_key():
    return NodeKey(os.urandom(32))


@pytest.fixture
async def hub(db, dsns):
    """The row of the hub itself."""
    async with hub_row(db, dsns) as ident:
        yield ident


@pytest.fixture
def prefix():
    return "P" + os.urandom(2).hex().upper()


@pytest.fixture
def call(db, hub):
    """Ask to be let in, from an address of one's own."""

    async def ask(code, key, address=None):
        asked = enrol.prove_joining(key, code, "1.0")
        return await enrol.join(
            db, asked, hub_key=HUB, version="1.0", address=address or str(uuid7()), policy=POLICY
        )

    return ask


async def invited(db, tenant, prefix, **more):
    return await enrol.invite(db, tenant.id, f"branch {prefix}", prefix, hub_key=HUB.public, **more)


async def test_a_code_makes_a_node_that_knows_all_it_needs(db, tenant, hub, call, prefix):
    north = tenant.units["north"]
    given = await invited(db, tenant, prefix, units=[north], actor=tenant.people["owner"])
    (kept,) = (await nodes.run_control(db, "SELECT code_hash FROM node_invitation WHERE prefix = %s",
                                       prefix))[0]  # fmt: skip
    assert given.code.encode() not in bytes(kept) and len(kept) == 32
    joined = await call(given.code, fresh_key())
    assert (joined.name, joined.prefix, joined.tenant) == (f"branch {prefix}", prefix, tenant.id)
    assert (joined.hub, joined.hub_origin, joined.hub_key) == (hub, 1, HUB.public)
    assert joined.log_key == b"k" * 32 and joined.unit_ids == [north]
    assert {s for s, _ in joined.streams} == {north, *enrol.common_streams(tenant.id)}
    peer = await nodes.find_peer(db, joined.node, tenant.id)
    assert (peer.origin, peer.state, peer.scope_state) == (joined.origin, "active", "active")
    assert peer.origin > 1 and peer.unit_ids == (north,)
    done = await tenant.sql("SELECT action FROM audit WHERE tenant_id = $1 AND action LIKE 'node.%' "
                            "ORDER BY at", tenant.id)  # fmt: skip
    assert [a for (a,) in done] == ["node.invited", "node.joined"]


async def test_a_lost_answer_is_given_again_to_the_same_key_alone(db, tenant, call, prefix):
    code, key = (await invited(db, tenant, prefix)).code, fresh_key()
    first = await call(code, key)
    assert await call(code, key) == first
    with pytest.raises(Unauthenticated):
        await call(code, fresh_key())
    await nodes.revoke(db, first.node, "a mistake", tenant=tenant.id)
    with pytest.raises(Unauthenticated):
        await call(code, key)


async def test_of_two_that_join_at_once_one_is_let_in(db, tenant, call, prefix):
    code = (await invited(db, tenant, prefix)).code
    found = await asyncio.gather(
        *(call(code, fresh_key()) for _ in range(6)), return_exceptions=True
    )
    let_in = [f for f in found if isinstance(f, enrol.Joined)]
    assert len(let_in) == 1
    assert all(isinstance(f, Unauthenticated) for f in found if f not in let_in)
    (held,) = (await nodes.run_control(db, "SELECT count(*) FROM node WHERE prefix = %s", prefix))[
        0
    ]
    assert held == 1


async def test_the_same_join_many_times_at_once_makes_one_node(db, tenant, call, prefix):
    code, key = (await invited(db, tenant, prefix)).code, fresh_key()
    found = await asyncio.gather(*(call(code, key) for _ in range(6)))
    assert len({f.node for f in found}) == 1


async def test_no_two_nodes_get_one_origin(db, tenant, call):
    codes = [
        (await invited(db, tenant, f"Q{n}{os.urandom(1).hex().upper()}")).code for n in range(5)
    ]
    found = await asyncio.gather(*(call(code, fresh_key()) for code in codes))
    assert len({f.origin for f in found}) == 5


async def test_whatever_is_wrong_with_a_code_reads_alike(db, tenant, call, prefix):
    given, key = await invited(db, tenant, prefix), fresh_key()
    await nodes.run_control(
        db, "UPDATE node_invitation SET expires_at = now() WHERE prefix = %s", prefix
    )
    stranger = enrol.prove_joining(fresh_key(), given.code, "")
    unproven = enrol.Joining(given.code, key.public, stranger.proof)
    texts = set()
    for asked in (
        enrol.prove_joining(key, given.code, ""), enrol.prove_joining(key, "nxj_" + "A" * 65, ""),
        enrol.prove_joining(key, "\ud800 \0", ""), unproven, enrol.Joining("", b"", b""),
    ):  # fmt: skip
        with pytest.raises(Unauthenticated) as caught:
            await enrol.join(
                db, asked, hub_key=HUB, version="", address=str(uuid7()), policy=POLICY
            )
        texts.add((caught.value.code, caught.value.detail))
    assert len(texts) == 1


async def test_guessing_is_slowed_for_the_one_who_guesses(db, tenant, call, prefix):
    code = (await invited(db, tenant, prefix)).code
    for _ in range(POLICY.failures_before_delay):
        with pytest.raises(Unauthenticated):
            await call("nxj_wrong", fresh_key(), "192.0.2.9")
    with pytest.raises(Limited):
        await call(code, fresh_key(), "192.0.2.9")
    assert (await call(code, fresh_key(), "192.0.2.10")).prefix == prefix


async def test_a_copied_key_is_no_new_node(db, tenant, call, prefix):
    key = fresh_key()
    await call((await invited(db, tenant, prefix)).code, key)
    with pytest.raises(Clash) as caught:
        await call((await invited(db, tenant, f"{prefix}B")).code, key)
    assert caught.value.code == "node.key_taken"


async def test_names_and_prefixes_are_of_one_node_each(db, tenant, call, prefix):
    given = await invited(db, tenant, prefix)
    for name, wanted, code in (
        ("another", prefix, "node.prefix_taken"),
        (given.name, f"{prefix}C", "node.name_taken"),
    ):
        with pytest.raises(Clash) as caught:
            await enrol.invite(db, tenant.id, name, wanted, hub_key=HUB.public)
        assert caught.value.code == code
    joined = await call(given.code, fresh_key())
    await nodes.revoke(db, joined.node, "gone", tenant=tenant.id)
    with pytest.raises(Clash):
        await enrol.invite(db, tenant.id, "another", prefix, hub_key=HUB.public)
    await enrol.invite(db, tenant.id, given.name, f"{prefix}C", hub_key=HUB.public)


@pytest.mark.parametrize(
    "given",
    [
        {"name": ""}, {"name": "hub"}, {"name": "a\nb"}, {"name": "x" * 61}, {"prefix": ""},
        {"prefix": "abc"}, {"prefix": "SEVENSS"}, {"prefix": "\u0410"}, {"minutes": 0},
        {"minutes": 99999}, {"units": []}, {"units": [NOBODY]},
    ],
    ids=str,
)  # fmt: skip
async def test_an_invitation_has_a_form(db, tenant, given):
    asked = {"name": "north", "prefix": "N1", **given}
    with pytest.raises(Invalid) as caught:
        await enrol.invite(
            db, tenant.id, asked.pop("name"), asked.pop("prefix"), hub_key=HUB.public, **asked
        )
    assert caught.value.faults[0].pointer.startswith(f"/{next(iter(given))}")


@pytest.mark.parametrize(
    ("url", "insecure", "found"),
    [
        ("https://hub.example", False, "https://hub.example"),
        ("https://hub.example:8443/", False, "https://hub.example:8443"),
        ("http://127.0.0.1:8470", False, "http://127.0.0.1:8470"),
        ("http://localhost:8470", False, "http://localhost:8470"),
        ("http://[::1]:8470", False, "http://[::1]:8470"),
        ("http://10.77.0.1:8470", True, "http://10.77.0.1:8470"),
        ("http://10.77.0.1:8470", False, None),
        ("http://8.8.8.8", True, None),
        ("http://0.0.0.0", True, None),
        ("http://hub.example", True, None),
        ("ftp://hub.example", True, None),
        ("https://a:b@hub.example", False, None),
        ("https://hub.example/nexus", False, None),
        ("https://hub.example?x=1", False, None),
        ("https://", False, None),
        ("https://[", False, None),
        ("hub.example", False, None),
        ("https://hub.example:port", False, None),
    ],
)
def test_the_hub_is_spoken_to_where_nobody_listens_in(url, insecure, found):
    if found is not None:
        assert joining.check_url(url, insecure_http=insecure) == found
        return
    with pytest.raises(Invalid):
        joining.check_url(url, insecure_http=insecure)


class Line:
    """The hub as the joining node meets it; `twist` is a man in the middle."""

    def __init__(self, db, key=HUB, twist=None):
        self.db, self.key, self.twist = db, key, twist

    async def __call__(self, request):
        asked = msgspec.msgpack.decode(request.content, type=enrol.Joining)
        try:
            joined = await enrol.join(
                self.db, asked, hub_key=self.key, version="1", address=str(uuid7()), policy=POLICY
            )
        except Unauthenticated as bad:
            return httpx.Response(401, json={"detail": bad.detail, "code": bad.code})
        body = msgspec.msgpack.encode(joined)
        headers = sign_answer(self.key, 200, body, joining.signature_of(asked.proof))
        if self.twist:
            body = self.twist(body, joined)
        return httpx.Response(200, content=body, headers=headers)


async def asking(line, code, key):
    transport = httpx.MockTransport(line)
    return await joining.ask_to_join("https://hub.example", code, key, "1", transport=transport)


async def test_only_the_hub_of_the_code_is_believed(db, tenant, hub, prefix):
    code, key = (await invited(db, tenant, prefix)).code, fresh_key()

    def altered(_, joined):
        return msgspec.msgpack.encode(msgspec.structs.replace(joined, origin=1))

    for line, error in (
        (Line(db, twist=altered), Unauthenticated),
        (Line(db, key=NodeKey(b"M" * 32)), Unauthenticated),
        (Line(db, twist=lambda *_: b"<html>"), Unavailable),
    ):
        with pytest.raises(error):
            await asking(line, code, key)
    assert (await asking(Line(db), code, key)).prefix == prefix
    with pytest.raises(Unauthenticated) as caught:
        await asking(Line(db), code, fresh_key())
    assert caught.value.code == "node.code_refused"
    with pytest.raises(Invalid):
        await asking(Line(db), "nxj_short", key)


@pytest.fixture
async def elsewhere(dsns):
    """An empty node of its own: a control plane and a pool."""
    name = f"nexus_{os.urandom(4).hex()}"
    names = [f"{name}_control", f"{name}_pool"]

    def of(dsn, database):
        return psycopg.conninfo.make_conninfo(dsn, dbname=database)

    with psycopg.connect(dsns.superuser, autocommit=True) as conn:
        for one in names:
            conn.execute(f'CREATE DATABASE "{one}" OWNER nexus_owner TEMPLATE template0')
    migrate.upgrade(of(dsns.control_owner, names[0]), migrate.CONTROL)
    migrate.upgrade(of(dsns.pool_owner, names[1]), migrate.PLACEMENT)
    with psycopg.connect(of(dsns.superuser, names[0]), autocommit=True) as conn:
        conn.execute(
            "INSERT INTO placement VALUES (gen_random_uuid(), 'pool', 'pooled', %s)", [names[1]]
        )
        conn.execute("INSERT INTO node (id, origin, role, prefix, name, is_self) "
                     "VALUES (gen_random_uuid(), 1, 'site', '', 'site', true)")  # fmt: skip
    found = Database(of(dsns.control_dsn, names[0]), of(dsns.pool_dsn, names[1]))
    await found.start()
    found.owner = of(dsns.superuser, names[0])
    yield found
    await found.stop()
    with psycopg.connect(dsns.superuser, autocommit=True) as conn:
        for one in names:
            conn.execute(f'DROP DATABASE "{one}" WITH (FORCE)')


async def test_a_node_becomes_what_the_answer_says_however_often(
    db, tenant, call, prefix, elsewhere
):
    key = fresh_key()
    joined = await call((await invited(db, tenant, prefix)).code, key)
    await joining.check_may_join(elsewhere)
    await _route(elsewhere, joined)
    for _ in range(2):
        await joining.take_tenant(elsewhere, joined)
        await joining.take_node(elsewhere, joined, "https://hub.example", key)
    me, hub = await nodes.find_self(elsewhere), await nodes.hub_of(elsewhere)
    assert (me.id, me.origin, me.prefix, me.role) == (joined.node, joined.origin, prefix, "site")
    assert (hub.id, hub.origin, hub.public_key, hub.url) == (
        joined.hub, 1, HUB.public, "https://hub.example",
    )  # fmt: skip
    state, streams = await elsewhere.read(tenant.id, *_reads(tenant.id))
    assert state.values(0) == [(b"k" * 32).hex()]
    assert {tuple(streams.values(n)) for n in range(len(streams))} == {
        (str(s), str(joined.origin), "0", "0") for s, _ in joined.streams
    }
    with pytest.raises(Clash) as caught:
        await joining.check_may_join(elsewhere)
    assert caught.value.code == "node.joined"
    await joining.check_may_join(elsewhere, tenant.id)
    with pytest.raises(Misconfigured):
        await enrol.invite(elsewhere, tenant.id, "x", "X", hub_key=key.public)


async def test_a_node_with_entries_of_its_own_does_not_join(db, tenant, hub):
    with pytest.raises(Clash) as caught:
        await joining.check_may_join(db)
    assert caught.value.code == "node.has_entries"


def _reads(tenant):
    from appliance.db.wire import Statement

    return (
        (
            Statement("SELECT encode(log_key, 'hex') FROM tenant_state WHERE tenant_id = $1"),
            (tenant,),
        ),
        (Statement("SELECT id, origin, oseq, head FROM stream WHERE tenant_id = $1"), (tenant,)),
    )


async def _route(db, joined):
    with contextlib.closing(psycopg.connect(db.owner, autocommit=True)) as conn:
        conn.execute(
            "INSERT INTO tenant (id, slug, name, placement_id) SELECT %s, %s, %s, id FROM placement",
            [joined.tenant, joined.slug, joined.tenant_name],
        )
    await db.routes.refresh()
