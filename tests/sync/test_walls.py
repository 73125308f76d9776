"""What a hub refuses a node: other tenants, other streams, other origins, old questions."""

import msgspec
import pytest

from appliance.base.errors import Unauthenticated, Unavailable
from appliance.base.ids import uuid7
from appliance.sync import messages as say
from appliance.sync import outgoing
from appliance.sync.nodes import open_session, revoke
from appliance.sync.signing import Conversation
from appliance.sync.site import Talk
from appliance.sync.withdrawal import SignedProof
from tests.sync.pair import joined, records
from tests.tenants import create, make_tenant

pytestmark = pytest.mark.anyio
KIND = "deal"


@pytest.fixture
async def north(tenant, there, valkey_url, tmp_path):
    """A site of one branch."""
    units = [tenant.units["north"]]
    async with joined(tenant, there, valkey_url, tmp_path, units=units) as found:
        yield found


async def post(pair, verb, body, *, tenant=None, session=None, key=None):
    """A signed question, whatever its body."""
    import httpx

    nonce = session if session is not None else await open_session(pair.hub.db, pair.parts.me.id)
    speech = Conversation(key or pair.parts.key, pair.parts.me.id, tenant or pair.hub.id, nonce)
    path = f"/api/v1/sync/{verb}"
    headers = {**speech.headers("POST", path, body), "content-type": say.MEDIA}
    async with httpx.AsyncClient(transport=pair.line, base_url="http://hub") as client:
        return await client.post(path, content=body, headers=headers)


async def test_a_foreign_tenant_is_refused_before_the_body_is_read(pair, db, dsns):
    import psycopg

    def control():
        return psycopg.AsyncConnection.connect(
            dsns.superuser.replace("nexus_pool", "nexus_control")
        )

    other = await make_tenant(db, control, f"other{uuid7().hex[:12]}")
    for verb in ("exchange", "wait"):
        answer = await post(pair, verb, b"\xc1 no MessagePack", tenant=other.id)
        assert answer.status_code == 401, answer.text
        assert answer.json()["code"] == "node.unproven"
        # Of its own tenant the same body is read, and found to be nothing.
        answer = await post(pair, verb, b"\xc1 no MessagePack")
        assert (answer.status_code, answer.json()["code"]) == (400, "sync.message_unreadable")


async def test_a_question_is_taken_once(pair):
    talk = pair.talk()
    await talk.greet()
    await talk.catch_up()
    request = pair.line.bodies[-1]
    again = await pair.line.handle_async_request(request)
    assert again.status_code == 401
    await talk.close()


async def test_another_media_type_and_json_are_refused(pair):
    import httpx

    async with httpx.AsyncClient(transport=pair.line, base_url="http://hub") as client:
        answer = await client.post("/api/v1/sync/hello", json={})
        assert answer.status_code == 415
        assert (await client.post("/api/v1/sync/hello")).status_code == 401


async def push_of(pair, stream, origins=None):
    batch = await outgoing.read_after(
        pair.site.db, pair.site.id, stream, 0, origins=origins, max_bytes=1 << 20
    )
    return say.Push(stream, batch.frames)


async def test_a_stream_that_was_not_granted_is_neither_taken_nor_given(north):
    await north.hub.add_kind(KIND, [("title", "text")])
    await north.hub.apply(create(KIND, title="of the south"), ctx=await north.hub.ctx(unit="south"))
    await north.hub.apply(create(KIND, title="of the north"))
    await north.sync()
    assert "of the south" not in str(await records(north.site, KIND))
    assert "of the north" in str(await records(north.site, KIND))
    south = north.hub.units["south"]
    talk = north.talk()
    await talk.greet()
    asked = say.Exchange(
        [say.Push(south, [b"anything"])], [say.Pull(south, 0, 1)], 1 << 20,
    )  # fmt: skip
    answer = await talk.client.exchange(asked)
    await talk.close()
    assert [r.problem for r in answer.receipts] == [say.NOT_GRANTED]
    assert not answer.down
    assert south not in answer.hints


async def test_a_stream_is_read_once_however_often_it_is_named(north):
    await north.hub.add_kind(KIND, [("title", "text")])
    await north.hub.apply(create(KIND, title="of the north"))
    await north.sync()
    stream, talk = north.hub.units["north"], north.talk()
    await talk.greet()
    asked = say.Exchange([], [say.Pull(stream, 0, 1)] * 1_000, 1 << 20)
    answer = await talk.client.exchange(asked)
    await talk.close()
    assert [delivery.stream for delivery in answer.down] == [stream]


async def test_a_proof_that_cannot_be_read_is_refused_as_such(north):
    talk = north.talk()
    forged = msgspec.msgpack.encode(SignedProof(b"no proof", b"x" * 64))
    with pytest.raises(Unavailable, match="422"):
        await talk.greet(forged)
    await talk.close()


async def test_entries_of_another_origin_are_refused(pair):
    await pair.hub.add_kind(KIND, [("title", "text")])
    await pair.hub.apply(create(KIND, title="of the hub"))
    await pair.sync()
    stream = pair.hub.units["north"]
    talk = pair.talk()
    await talk.greet()
    # The hub's own entries, offered to it by a site as if it might speak for the hub.
    asked = say.Exchange([await push_of(pair, stream)], [], 1 << 20)
    answer = await talk.client.exchange(asked)
    await talk.close()
    assert [r.problem for r in answer.receipts] == [say.FOREIGN_ORIGIN]


async def test_a_broken_frame_harms_nothing(pair):
    await pair.hub.add_kind(KIND, [("title", "text")])
    await pair.sync()
    await pair.site.apply(create(KIND, title="whole"))
    stream = pair.hub.units["north"]
    good = await push_of(pair, stream, frozenset({pair.parts.me.origin}))
    bent = bytearray(good.frames[0])
    bent[-3] ^= 4
    talk = pair.talk()
    await talk.greet()
    answer = await talk.client.exchange(
        say.Exchange([say.Push(stream, [bytes(bent)]), good], [], 1 << 20)
    )
    await talk.close()
    assert [r.problem for r in answer.receipts] == [say.BROKEN_FRAME, ""]
    assert "whole" in str(await records(pair.hub, KIND))


async def test_an_answer_of_another_hub_is_not_believed(pair):
    from appliance.sync.keys import NodeKey

    wrong = msgspec.structs.replace(pair.parts.hub, public_key=NodeKey(b"x" * 32).public)
    import dataclasses

    talk = Talk(dataclasses.replace(pair.parts, hub=wrong), pair.hub.id)
    with pytest.raises(Unauthenticated) as refused:
        await talk.greet()
    assert refused.value.code == "sync.answer_untrusted"
    await talk.close()


async def test_too_many_exchanges_are_told_to_come_back(pair):
    with pair.node.hub._lanes.enter(pair.hub.id), pair.node.hub._lanes.enter(pair.hub.id):
        with pair.node.hub._lanes.enter(pair.hub.id), pytest.raises(Unavailable) as busy:
            await pair.sync()
    assert busy.value.retry_after_s >= 1
    await pair.sync()


async def test_what_a_revoked_node_still_sends_waits_for_a_person(pair):
    await pair.hub.add_kind(KIND, [("title", "text")])
    await pair.sync()
    await pair.site.apply(create(KIND, title="written before it knew"))
    await revoke(pair.hub.db, pair.parts.me.id, "stolen")
    talk = pair.talk()
    welcome = await talk.greet()
    assert say.REVOKED in [n.code for n in welcome.notices]
    assert not welcome.streams
    assert talk.must_purge
    await talk.catch_up()
    await talk.close()
    assert not await records(pair.hub, KIND)
    (row,) = await pair.hub.sql(
        "SELECT reason, is_logged, entries FROM parked WHERE tenant_id = $1", pair.hub.id
    )
    assert row[:2] == ["late_write_after_revoke", "f"]
