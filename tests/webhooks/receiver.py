"""A receiver of webhooks over real sockets, which proves signatures by itself and misbehaves at will."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import ssl
import time
from dataclasses import dataclass, field


@dataclass
class Got:
    """One request as it came."""

    headers: dict
    body: bytes
    at: float

    @property
    def id(self):
        return self.headers["webhook-id"]

    @property
    def event(self):
        return json.loads(self.body)

    @property
    def type(self):
        return self.event["type"]

    @property
    def record(self):
        return self.event["data"].get("record")


def signed_by(got, secret):
    """How many of the signatures are of this secret, by the words of the Standard Webhooks alone."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    said = f"{got.id}.{got.headers['webhook-timestamp']}.".encode() + got.body
    want = "v1," + base64.b64encode(hmac.new(key, said, hashlib.sha256).digest()).decode()
    return got.headers["webhook-signature"].split(" ").count(want)


def answer(status, body=b"", **headers):
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
    lines += [f"{k.replace('_', '-')}: {v}" for k, v in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


@dataclass
class Receiver:
    """`rule(got)` is bytes to answer with, or a coroutine function of the writer; None is 204."""

    port: int = 0
    got: list = field(default_factory=list)
    open: int = 0
    rule: object = None

    async def serve(self, reader, writer):
        self.open += 1
        try:
            while (head := await reader.readuntil(b"\r\n\r\n")) and await self._one(
                head, reader, writer
            ):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            self.open -= 1
            with contextlib.suppress(Exception):
                writer.close()

    async def _one(self, head, reader, writer):
        lines = head.decode().split("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:] if line)}
        headers[":line"] = lines[0]
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        got = Got(headers, body, time.monotonic())
        self.got.append(got)
        said = self.rule(got) if self.rule is not None else None
        if callable(said):
            await said(writer)
            return False
        writer.write(said or answer(204))
        await writer.drain()
        return True

    def types(self):
        return [g.type for g in self.got]

    def ids(self):
        return [g.id for g in self.got]

    async def until(self, check, seconds=30.0):
        end = time.monotonic() + seconds
        while not check():
            assert time.monotonic() < end, [(g.type, g.record) for g in self.got]
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def receiving(certificate=None, rule=None, host="127.0.0.1"):
    """A receiver that listens; with a certificate over TLS."""
    found = Receiver(rule=rule)
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    server = await asyncio.start_server(found.serve, host, 0, ssl=context)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
