"""The physical floor: the same ASGI server answering from one prepared psycopg statement.

No login, no row security, no log: `uvicorn tests.bench.floor:app` with FLOOR_DSN (a superuser) and
FLOOR_CASES, a file of {path: [sql, params]}; without params they come as the JSON body. A path
answers what its statement gives.
"""

import json
import os

import psycopg
from psycopg.types.string import TextLoader

_connection = None
_cases = {}


async def _open():
    global _connection
    _connection = await psycopg.AsyncConnection.connect(
        os.environ["FLOOR_DSN"], autocommit=True, prepare_threshold=0
    )
    for name in ("jsonb", "text"):
        _connection.adapters.register_loader(name, TextLoader)
    with open(os.environ["FLOOR_CASES"]) as file:
        _cases.update(json.load(file))


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await _open()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    sql, params = _cases[scope["path"]]
    if params is None:
        params = json.loads(body)
    cursor = await _connection.execute(sql, params)
    rows = [row[0] for row in await cursor.fetchall()]
    body = ('{"rows":[' + ",".join(rows) + '],"next":null,"cost":120}').encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
