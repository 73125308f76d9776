"""Nodes over HTTP: an administrator's own alone; in by a code, over a line nobody listens in on."""

import os

import httpx
import msgspec
import pytest

from appliance.base.errors import Forbidden
from appliance.http.routes import nodes as routes
from appliance.sync import enrol, joining, nodes
from appliance.sync.keys import NodeKey, load_key, make_rotation
from tests.http.conftest import client_of
from tests.http.test_door import assert_problem
from tests.sync.sites import hub_row, site

pytestmark = pytest.mark.anyio
PATH = "/api/v1/nodes"


@pytest.fixture
async def hub(db, dsns):
    async with hub_row(db, dsns) as ident:
        yield ident


def asked(name=None):
    mark = os.urandom(2).hex().upper()
    return {"name": name or f"branch {mark}", "prefix": f"H{mark}"}


async def test_a_code_over_http_lets_a_node_in_and_its_key_be_changed(
    app, node, firm, sign_in, hub
):
    owner = await sign_in(firm, "owner")
    made = await owner.post(f"{PATH}/invitations", json=asked())
    assert made.status_code == 201, made.text
    assert made.json()["fingerprint"] == (await owner.get(PATH)).json()["hub"]
    transport, key = httpx.ASGITransport(app=app), NodeKey(os.urandom(32))
    joined = await joining.ask_to_join(
        "http://127.0.0.1", made.json()["code"], key, "1", transport=transport
    )
    (view,) = [n for n in (await owner.get(PATH)).json()["nodes"] if n["id"] == str(joined.node)]
    assert (view["state"], view["holds"], view["units"]) == ("active", "active", None)
    known = nodes.PeerNode(
        hub, "hub", 1, (), "hub", "active", "", public_key=joined.hub_key, url="http://127.0.0.1"
    )
    rotation = make_rotation(joined.node, key, NodeKey(os.urandom(32)))
    for _ in range(2):
        await joining.send_rotation(known, rotation, transport=transport)
    peer = await nodes.find_peer(node.db, joined.node)
    assert peer.public_key == rotation.new_key
    ours = make_rotation(hub, load_key(node.settings.data_dir), NodeKey(b"n" * 32))
    async with nodes.control_transaction(node.db) as conn:
        await nodes.keep_rotation(conn, ours)
    assert await joining.ask_for_keys(known, transport=transport) == [ours]


async def test_nodes_are_for_whom_the_profile_says_and_of_their_tenant(
    node, firm, rival, sign_in, hub
):
    owner, stranger = await sign_in(firm, "owner"), await sign_in(rival, "owner")
    seller = await sign_in(firm, "seller")
    one = await site(node.db, firm.tenant.id)
    mine = f"{PATH}/{one.id}"
    assert_problem(await seller.get(PATH), 403)
    assert_problem(await seller.post(f"{PATH}/invitations", json=asked()), 403)
    assert str(one.id) not in (await stranger.get(PATH)).text
    assert_problem(await stranger.post(f"{mine}/revoke", json={"reason": "x"}), 404)
    assert_problem(await stranger.patch(f"{mine}/scope", json={"units": None}), 404)
    north = str(firm.tenant.units["north"])
    changed = await owner.patch(f"{mine}/scope", json={"units": [north]})
    assert (changed.status_code, changed.json()["units"]) == (200, [north]), changed.text
    asked_only = {"units": None, "masks": {"deal": ["amount"]}, "dry_run": True}
    told = (await owner.patch(f"{mine}/scope", json=asked_only)).json()
    assert told["units"] == [north] and told["masks"] == {"deal": ["amount"]}
    assert north in [p["unit"] for p in told["purges"]] and told["adds"]
    kept = (await owner.patch(f"{mine}/scope", json={})).json()
    assert (kept["masks"], kept["purges"], kept["epoch"]) == ({}, [], changed.json()["epoch"])
    foreign = str(rival.tenant.units["north"])
    assert_problem(await owner.patch(f"{mine}/scope", json={"units": [foreign]}), 422)
    assert_problem(await owner.patch(f"{mine}/scope", json={"units": []}), 422)
    done = await owner.post(f"{mine}/revoke", json={"reason": "sold"})
    assert (done.json()["state"], done.json()["holds"]) == ("revoked", "withdrawn")
    assert_problem(await owner.patch(f"{mine}/scope", json={"units": None}), 409)
    assert_problem(await owner.post(f"{PATH}/{hub}/revoke", json={"reason": "x"}), 409)
    assert_problem(await owner.post(f"{mine}/revoke", json={"reason": ""}), 422)


async def test_what_is_no_question_of_a_node_is_refused(client, hub):
    head = {"content-type": joining.MEDIA}
    for verb, body, status in (
        ("join", b"", 400), ("join", b"\xc1", 400), ("join", b"\x90" * 5_000, 400),
        ("join", msgspec.msgpack.encode(enrol.Joining("nxj_x", b"", b"")), 401),
        ("rotate", msgspec.msgpack.encode(make_rotation(hub, NodeKey(b"1" * 32), NodeKey(b"2" * 32))), 401),
    ):  # fmt: skip
        assert_problem(
            await client.post(f"/api/v1/sync/{verb}", content=body, headers=head), status
        )


async def test_a_code_does_not_cross_a_public_network_in_the_open(app, hub):
    body = msgspec.msgpack.encode(enrol.Joining("nxj_x", b"", b""))
    for address, base, status in (
        ("198.51.100.7", "https://hub", 401), ("8.8.8.8", "http://hub", 403),
        ("10.0.0.9", "http://hub", 401),
    ):  # fmt: skip
        async with client_of(app, address=address, base=base) as far:
            answer = await far.post(
                "/api/v1/sync/join", content=body, headers={"content-type": joining.MEDIA}
            )
        assert_problem(answer, status)
    with pytest.raises(Forbidden):
        routes._check_line({"scheme": "http", "client": ("no address", 1)})
