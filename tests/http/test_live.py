"""The live stream over a real server: what is seen, what is not, resuming, ending."""

import asyncio
import contextlib
import socket

import httpx
import msgspec
import pytest
import uvicorn

from appliance.http.app import create_app
from tests.http.conftest import make_node

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def served(node):
    """The application behind uvicorn on a port of its own."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    config = uvicorn.Config(
        create_app(node), host="127.0.0.1", port=port, log_config=None, timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)
    with contextlib.ExitStack() as stack:
        stack.enter_context(pytest.MonkeyPatch.context()).setattr(
            server, "capture_signals", contextlib.nullcontext
        )
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.02)
        try:
            yield f"http://127.0.0.1:{port}", server
        finally:
            server.should_exit = True
            await task


class Frames:
    """Events of a stream as they come."""

    def __init__(self, answer):
        self.lines = answer.aiter_lines()
        self.last = None

    async def next(self, seconds=5.0):
        event = {}
        async with asyncio.timeout(seconds):
            async for line in self.lines:
                if line.startswith("id: "):
                    self.last = line[4:]
                elif line.startswith("event: "):
                    event["event"] = line[7:]
                elif line.startswith("data: "):
                    event.update(msgspec.json.decode(line[6:]))
                elif not line and "event" in event:
                    return event
        return None

    async def silent(self, seconds=1.5):
        try:
            found = await self.next(seconds)
        except TimeoutError:
            return True
        raise AssertionError(found)


@pytest.fixture
async def web(firm, db, valkey_url):
    node = make_node(db, valkey_url)
    async with served(node) as (url, server), httpx.AsyncClient(base_url=url, timeout=30) as client:
        client.server, client.node = server, node
        yield client
    await node.redis.aclose()


async def token_of(client, firm, who):
    return (await client.post("/api/v1/session", json=firm.credentials(who))).json()["token"]


@contextlib.asynccontextmanager
async def stream(client, token, query, **headers):
    headers = {"Authorization": f"Bearer {token}", **headers}
    async with client.stream(
        "GET", "/api/v1/live", params={"query": query}, headers=headers
    ) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"] == "text/event-stream"
        frames = Frames(answer)
        await anext(frames.lines)
        await asyncio.sleep(0.2)
        yield frames


def relay(redis, firm, change_set, kind, idents, op="update"):
    """What the relay of the worker does with an outbox row."""
    payload = {"change_set": change_set, "kinds": [kind], "more": 0,
               "changes": [{"kind": kind, "id": str(i), "op": op} for i in idents]}  # fmt: skip
    redis.xadd(f"events:{firm.tenant.id}", {"o": 1, "data": msgspec.json.encode(payload)})


async def edit(client, token, redis, firm, ident, **body):
    headers = {"Authorization": f"Bearer {token}"}
    answer = await client.patch(f"/api/v1/records/deal/{ident}", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    relay(redis, firm, answer.headers["x-change-set"], "deal", [ident])
    return answer.json()


async def test_a_change_shows_only_readable_fields(web, firm, redis_sync):
    owner, seller = await token_of(web, firm, "owner"), await token_of(web, firm, "seller")
    deal = firm.records["north"]["deal"][1]
    async with stream(web, seller, "deal") as frames:
        await edit(web, owner, redis_sync, firm, deal, fields={"margin": "9.99", "title": "told"})
        frame = await frames.next()
    assert frame["event"] == "change"
    assert frame["record"]["fields"]["title"] == "told"
    assert "margin" not in msgspec.json.encode(frame).decode()


async def test_what_is_out_of_sight_leaves_no_trace(web, firm, redis_sync):
    owner, seller = await token_of(web, firm, "owner"), await token_of(web, firm, "seller")
    async with stream(web, seller, "deal") as frames:
        await edit(
            web,
            owner,
            redis_sync,
            firm,
            firm.records["south"]["deal"][0],
            fields={"title": "quiet"},
        )
        await frames.silent()


async def test_a_record_that_leaves_the_branch_leaves_the_list(web, firm, redis_sync):
    owner, seller = await token_of(web, firm, "owner"), await token_of(web, firm, "seller")
    deal, south = firm.records["north"]["deal"][2], str(firm.tenant.units["south"])
    north = str(firm.tenant.units["north"])
    async with stream(web, seller, "deal") as frames:
        await edit(web, owner, redis_sync, firm, deal, unit=south)
        frame = await frames.next()
        assert (frame["event"], frame["id"]) == ("leave", str(deal))
        assert "record" not in frame
        await edit(web, owner, redis_sync, firm, deal, unit=north)
        assert (await frames.next())["event"] == "change"


async def test_a_filter_decides_what_is_told(web, firm, redis_sync):
    owner = await token_of(web, firm, "owner")
    deal = firm.records["north"]["deal"][3]
    async with stream(web, owner, 'deal where stage = "won"') as frames:
        await edit(web, owner, redis_sync, firm, deal, fields={"stage": "won"})
        assert (await frames.next())["event"] == "change"
        await edit(web, owner, redis_sync, firm, deal, fields={"stage": "new"})
        assert (await frames.next())["event"] == "leave"


async def test_resuming_loses_nothing_and_a_lost_place_says_so(web, firm, redis_sync):
    owner = await token_of(web, firm, "owner")
    deal = firm.records["north"]["deal"][4]
    async with stream(web, owner, "deal") as frames:
        await edit(web, owner, redis_sync, firm, deal, fields={"title": "one"})
        await frames.next()
        place = frames.last
    await edit(web, owner, redis_sync, firm, deal, fields={"title": "two"})
    async with stream(web, owner, "deal", **{"Last-Event-ID": place}) as frames:
        assert (await frames.next())["record"]["fields"]["title"] == "two"
    async with stream(web, owner, "deal", **{"Last-Event-ID": "1-1"}) as frames:
        assert (await frames.next())["event"] == "reset"


async def test_many_changes_at_once_are_a_reset(web, firm, redis_sync):
    owner = await token_of(web, firm, "owner")
    async with stream(web, owner, "deal") as frames:
        payload = {
            "change_set": str(firm.tenant.id),
            "kinds": ["deal"],
            "more": 9_500,
            "changes": [],
        }
        redis_sync.xadd(f"events:{firm.tenant.id}", {"o": 1, "data": msgspec.json.encode(payload)})
        assert (await frames.next())["event"] == "reset"


async def test_the_stream_ends_with_the_session(web, firm, redis_sync):
    owner, seller = await token_of(web, firm, "owner"), await token_of(web, firm, "seller")
    async with stream(web, seller, "deal") as frames:
        await web.delete("/api/v1/session", headers={"Authorization": f"Bearer {seller}"})
        await edit(
            web,
            owner,
            redis_sync,
            firm,
            firm.records["north"]["deal"][0],
            fields={"title": "after"},
        )
        assert (await frames.next())["event"] == "end"


async def test_a_stopping_node_ends_its_streams(web, firm):
    owner = await token_of(web, firm, "owner")
    async with stream(web, owner, "deal") as frames:
        web.node.closing.set()
        assert (await frames.next())["event"] == "end"


async def test_another_tenant_hears_nothing(web, firm, rival, redis_sync):
    owner, other = await token_of(web, firm, "owner"), await token_of(web, rival, "owner")
    async with stream(web, other, "deal") as frames:
        await edit(
            web, owner, redis_sync, firm, firm.records["north"]["deal"][0], fields={"title": "ours"}
        )
        await frames.silent()


async def test_a_redis_that_comes_back_empty_is_a_reset(web, firm, redis_sync):
    owner = await token_of(web, firm, "owner")
    deal = firm.records["north"]["deal"][0]
    async with stream(web, owner, "deal") as frames:
        await edit(web, owner, redis_sync, firm, deal, fields={"title": "before"})
        await frames.next()
        redis_sync.flushall()
        for one in redis_sync.client_list():
            if one["cmd"] != "client|list":
                redis_sync.client_kill_filter(_id=one["id"])
        assert (await frames.next())["event"] == "reset"
        await edit(web, owner, redis_sync, firm, deal, fields={"title": "back"})
        assert (await frames.next())["record"]["fields"]["title"] == "back"
