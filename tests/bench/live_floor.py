"""The floor of the live bench: a bare relay (`python -m tests.bench.live_floor URL`) that makes an
XADD of each PUBLISH, and a bare application that sends what a blocked XREAD brings as an event.
"""

import asyncio
import os
import sys

import redis.asyncio as aioredis

KEY = "floor:events"


async def relay(url):
    """Until it is killed."""
    client = aioredis.Redis.from_url(url, socket_timeout=None)
    async with client.pubsub() as heard:
        await heard.subscribe("floor")
        async for message in heard.listen():
            if message["type"] == "message":
                await client.xadd(KEY, {"data": message["data"]})


async def app(scope, receive, send):
    """One endless event stream."""
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"retry: 1\n\n", "more_body": True})
    place, gone = "$", asyncio.create_task(_gone(receive))
    async with aioredis.Redis.from_url(os.environ["FLOOR_REDIS"]) as client:
        while not gone.done():
            for _, entries in await client.xread({KEY: place}, block=1000) or ():
                for place, _ in entries:
                    body = b"event: change\ndata: {}\n\n"
                    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _gone(receive):
    while (await receive())["type"] != "http.disconnect":
        pass


if __name__ == "__main__":
    asyncio.run(relay(sys.argv[1]))
