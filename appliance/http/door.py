"""The one middleware: identity of the request, bounds of its body, headers, one line in the log.

It stands outside the framework, so that a 404 of the router, a refusal of ours and a fault of a
library all leave in one shape with one set of headers. Bodies are counted in real bytes, never
believed by their Content-Length, and must say exactly application/json (between nodes, theirs).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from appliance.base import limits, logs
from appliance.base.errors import Malformed, TooLarge, WrongMediaType
from appliance.base.ids import uuid7
from appliance.http.answers import JSON
from appliance.http.metrics import Metrics
from appliance.http.problems import Headers, refuse
from appliance.http.visit import KEY, Scope, Visit, header, is_secure
from appliance.sync.messages import MEDIA

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# A client that dribbles holds memory, no worker; it still has to come to an end.
BODY_WAIT_S = 60.0
# Files are counted and hashed by their route while they arrive; memory stays flat.
_FILES, _UPLOADS = ["api", "v1", "files"], ["api", "v1", "uploads"]
_EXCHANGE = ["exchange", "1c"]
_SYNC = ["api", "v1", "sync"]
# What people are told and decide of replication.
_FOR_PEOPLE = (["parked"], ["status"])
_BETWEEN_NODES = (b"content-type", MEDIA.encode())
_BLOBS = ["api", "v1", "sync", "blobs"]
# What connector workers elsewhere post.
_WORK = ["api", "v1", "intake", "work"]
FRAMES = "application/msgpack"
_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_HEADERS: Headers = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_HSTS = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")
# Probes come every few seconds; their lines would bury the others.
_QUIET = ("/health", "/metrics")


class Gone(Exception):
    """The client went away while it was sending."""


class _HeadSent(Exception):
    """A HEAD is answered in full by its headers: nothing more is made, however long it would be."""


class Door:
    """Wraps the framework's own handler."""

    def __init__(self, inner: App, metrics: Metrics) -> None:
        self._inner = inner
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Nothing that a request does raises out of here before an answer."""
        if scope["type"] != "http":
            await _refuse_websocket(scope, send)
            return
        began = time.perf_counter()
        visit = scope[KEY] = Visit(uuid7())
        opening = _opening(visit, secure=is_secure(scope))

        is_head = scope["method"] == "HEAD"

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                given = message.get("headers", ())
                # A node is no browser: what only a browser heeds costs a quiet link for nothing.
                own = opening[len(_HEADERS) :] if _BETWEEN_NODES in given else opening
                message["headers"] = [*given, *own]
            elif is_head:
                await send({"type": "http.response.body", "body": b""})
                raise _HeadSent
            else:
                visit.sent += len(message.get("body", b""))
            await send(message)

        try:
            if is_streamed(scope["method"], scope["path"]):
                visit.receive = receive
            elif scope["method"] in _WITH_BODY:
                visit.body = await _read_body(scope, receive)
            await self._inner(scope, receive, counted)
        except Gone:
            visit.status = 499
        except _HeadSent:
            pass
        except Exception as error:  # noqa: BLE001 - the outermost edge answers whatever it was
            await answer_error(error, visit, counted)
        finally:
            self._note(scope, visit, time.perf_counter() - began)

    def _note(self, scope: Scope, visit: Visit, seconds: float) -> None:
        route = visit.route or "(none)"
        self._metrics.observe(route, scope["method"], visit.status, seconds)
        if route.startswith(_QUIET) and visit.status < 500:
            return
        logs.event(
            "http.request_served", route=route, method=scope["method"], status=visit.status,
            duration_ms=round(seconds * 1000, 2), request_id=visit.request_id, bytes=visit.sent,
            tenant=visit.tenant, actor=visit.actor, code=visit.code,
        )  # fmt: skip


def is_streamed(method: str, path: str) -> bool:
    """Whether the body goes to its route as it comes: a file, or a part of one by its id, of a
    person or of another node. Written
    with more slashes it is the same address, as it is for the router.
    """
    steps = [step for step in path.split("/") if step]
    match method:
        case "POST":
            return steps in (_FILES, _EXCHANGE)
        case "PATCH":
            return steps[:-1] == _UPLOADS
        case "PUT":
            return steps[:-2] == _BLOBS
        case _:
            return False


def is_between_nodes(path: str) -> bool:
    """Whether a body at this address is what nodes say to each other."""
    steps = [step for step in path.split("/") if step]
    return steps[:3] == _SYNC and steps[3:4] not in _FOR_PEOPLE


async def answer_error(error: Exception, visit: Visit, send: Send) -> None:
    """Send the problem of an error; when an answer has begun, end it torn, as it must read."""
    refusal = refuse(error, visit.request_id)
    visit.code = getattr(error, "code", None)
    if visit.status:
        # Half an answer must not look whole: without the closing chunk the client sees a break.
        logs.event(
            "http.answer_torn", level="warning", request_id=visit.request_id, route=visit.route
        )
        raise error
    await send(
        {"type": "http.response.start", "status": refusal.status, "headers": refusal.headers}
    )
    await send({"type": "http.response.body", "body": refusal.body})


def _opening(visit: Visit, *, secure: bool) -> Headers:
    own = (b"x-request-id", str(visit.request_id).encode())
    return [*_HEADERS, own, _HSTS] if secure else [*_HEADERS, own]


async def _read_body(scope: Scope, receive: Receive) -> bytes:
    """The whole body. Raises TooLarge, WrongMediaType, Malformed, Gone."""
    said = header(scope, b"content-length")
    if said is not None and said.isdigit() and int(said[:20]) > limits.BODY_BYTES_MAX:
        raise _too_large()
    message = await receive()
    if message["type"] == "http.disconnect":
        raise Gone
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        try:
            async with asyncio.timeout(BODY_WAIT_S):
                body = await _read_rest(receive, body)
        except TimeoutError:
            raise Malformed("The body did not arrive in time.", code="request.slow") from None
    if body:
        _check_media_type(scope)
    return body


async def _read_rest(receive: Receive, first: bytes) -> bytes:
    parts, size, more = [first], len(first), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        part = message.get("body", b"")
        size += len(part)
        if size > limits.BODY_BYTES_MAX:
            raise _too_large()
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts)


def _check_media_type(scope: Scope) -> None:
    given = [v for k, v in scope["headers"] if k == b"content-type"]
    name, media = _form_at(scope["path"])
    if len(given) != 1 or given[0].strip().lower() != media.encode():
        raise WrongMediaType(
            f"Send the body as {name} with the header Content-Type: {media} and nothing after it."
        )
    if header(scope, b"content-encoding") not in (None, "", "identity"):
        raise WrongMediaType("Send the body as it is, without Content-Encoding.")


def _form_at(path: str) -> tuple[str, str]:
    """In what form a body comes at an address."""
    if is_between_nodes(path):
        return "MessagePack", MEDIA
    steps = [step for step in path.split("/") if step]
    is_frame = steps[:4] == _WORK and steps[5:] == ["frames"]
    return ("MessagePack", FRAMES) if is_frame else ("JSON", JSON)


def _too_large() -> TooLarge:
    return TooLarge(f"The body is larger than {limits.BODY_BYTES_MAX} bytes; send it in parts.")


async def _refuse_websocket(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1003})
        return
    raise Malformed("This address speaks HTTP only.")
