"""The factory: routes that this node's role mounts, our door around the framework, a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from types import FrameType
from typing import Any, NoReturn

from litestar import Litestar, Request

from appliance.base.roles import is_mounted
from appliance.http.door import Door
from appliance.http.node import Node
from appliance.http.openapi import document
from appliance.http.route import Route, build_handlers, check_declared
from appliance.http.routes import all_routes
from appliance.http.routes.description import describe

Lifespan = Callable[[Litestar], contextlib.AbstractAsyncContextManager[None]]


def create_app(
    node: Node,
    *,
    start: Callable[[], Awaitable[None]] | None = None,
    stop: Callable[[], Awaitable[None]] | None = None,
) -> Litestar:
    """The application over the parts of `node`. `start` and `stop` run with the server.

    Raises Misconfigured for a route that does not declare its capability and place.
    """
    routes: list[Route] = [r for r in all_routes() if is_mounted(node.role, r.placed)]
    common = document([*routes], node.version)
    routes += describe(common)
    # The description tells of itself too.
    common.update(document(routes, node.version))

    @contextlib.asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        if start is not None:
            await start()
        with _told_to_stop(node.closing):
            try:
                yield
            finally:
                node.closing.set()
                if stop is not None:
                    await stop()

    app = Litestar(
        route_handlers=build_handlers(node, routes),
        lifespan=[lifespan],
        exception_handlers={Exception: _pass_on},
        openapi_config=None,
        logging_config=None,
        debug=False,
    )
    check_declared(app)
    # Around everything, the router's own 404 included: one shape of refusal, one log line.
    app.asgi_handler = Door(app.asgi_router, node.metrics)  # type: ignore[arg-type,assignment]
    return app


def _pass_on(_: Request[Any, Any, Any], error: Exception) -> NoReturn:
    """Errors are answered by the door, not by the framework."""
    raise error


@contextlib.contextmanager
def _told_to_stop(closing: asyncio.Event) -> Any:
    """Hear the server's stop signal before it waits for open streams, so that they end at once.

    The server's own handler still runs: in-flight requests finish, new ones are refused.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}

    def heard(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(closing.set)
        known = before[signal.Signals(number)]
        if callable(known):
            known(number, frame)

    watched = [s for s, known in before.items() if callable(known)]
    for number in watched:
        signal.signal(number, heard)
    try:
        yield
    finally:
        for number in watched:
            signal.signal(number, before[number])
