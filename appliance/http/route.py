"""What a route is: a declaration, and one function from a checked question to an answer.

Every route says its capability and where it is placed; `check_declared` refuses to start a
program in which one does not. The session is proved in the database before anything leaves: hot
routes hand `ask.gate` to read.run or write.apply, which checks it in their own round trip; for
all others it is checked first. Rights that moved on meanwhile repeat the function once they are
loaded anew, so a route function must be free of effects before its gate is passed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from litestar import Litestar, Request
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse

from appliance.access.session import SEEN_EVERY_S, Stale
from appliance.base import limits
from appliance.base.errors import ApplianceError, Forbidden, Misconfigured, Refused
from appliance.base.roles import EVERYWHERE, Role, is_mounted
from appliance.http.ask import Ask, Gate
from appliance.http.credentials import find_token
from appliance.http.node import Node
from appliance.http.visit import KEY, Visit, address_of

PUBLIC = "public"
SIGNED_IN = "signed-in"
# Staff of the platform, signed in to no tenant: the route finds out who asks.
PLATFORM = "platform"
# Another node of the installation, without a session of a person: the route proves which.
NODE = "node"
API = "/api/v1"
# A session whose rights change faster than they load is not worth a third try.
_TRIES = 3

Function = Callable[[Ask], Awaitable[ASGIResponse]]
F = TypeVar("F", bound=Function)


@dataclass(frozen=True, kw_only=True)
class Route:
    """One declared route; the OpenAPI is written from these fields alone."""

    method: str
    path: str
    capability: str
    placed: frozenset[Role]
    run: Function
    tag: str
    body: Any = None
    body_most: int = limits.QUERY_BYTES_MAX
    params: type[msgspec.Struct] | None = None
    answers: dict[int, Any] = field(default_factory=dict)
    media: Sequence[str] = ("application/json",)
    headers: Sequence[str] = ()
    # Refusals beyond those that every route of its sort has.
    refuses: Sequence[int] = ()
    writes: bool = False
    gated: bool = False
    # A protocol of others: where its credential stands, and how it is told of a refusal.
    token: Callable[[Ask], str] | None = None
    refuse: Callable[[Ask, ApplianceError], ASGIResponse] | None = None
    # Open also to who has not yet replaced a one-time password.
    with_first_password: bool = False


class Book:
    """The routes of one resource."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.routes: list[Route] = []

    def route(
        self,
        method: str,
        path: str,
        *,
        capability: str,
        placed: frozenset[Role] = EVERYWHERE,
        **more: Any,
    ) -> Callable[[F], F]:
        """Declare a route. `path` holds {names}; `:verb` at its end is a verb on the resource."""

        def declare(function: F) -> F:
            self.routes.append(
                Route(method=method, path=path, capability=capability, placed=placed,
                      run=function, tag=self.tag, **more)
            )  # fmt: skip
            return function

        return declare


def build_handlers(node: Node, routes: Iterable[Route]) -> list[HTTPRouteHandler]:
    """Handlers of the routes that this node's role mounts."""
    grouped: dict[tuple[str, str], dict[str, Route]] = {}
    for route in routes:
        if is_mounted(node.role, route.placed):
            base, _, verb = route.path.partition("}:")
            path = base + "}" if verb else route.path
            grouped.setdefault((route.method, path), {})[verb] = route
    return [_handler(node, method, path, verbs) for (method, path), verbs in grouped.items()]


def _handler(node: Node, method: str, path: str, verbs: dict[str, Route]) -> HTTPRouteHandler:
    plain = verbs.get("") or next(iter(verbs.values()))
    last = path.rpartition("{")[2].rstrip("}") if path.endswith("}") else ""

    async def handle(request: Request[Any, Any, Any]) -> ASGIResponse:
        scope: dict[str, Any] = request.scope  # type: ignore[assignment]
        names = dict(scope["path_params"])
        route: Route | None = plain
        if last and (len(verbs) > 1 or "" not in verbs):
            names[last], _, verb = names[last].partition(":")
            route = verbs.get(verb)
        if route is None:
            raise Refused("There is nothing at this address.", code="route.unknown")
        visit: Visit = scope[KEY]
        visit.route = route.path
        return await _serve(node, route, Ask(node, scope, visit, names, route.body_most))

    return HTTPRouteHandler(
        _with_types(path), http_method=_methods(method), status_code=200,  # type: ignore[arg-type]
        opt={"capability": plain.capability, "placed": plain.placed},
    )(handle)  # fmt: skip


def _methods(method: str) -> list[str]:
    """A GET answers HEAD too (RFC 9110 9.3.2); the door leaves the body out."""
    return ["GET", "HEAD"] if method == "GET" else [method]


def _with_types(path: str) -> str:
    return path.replace("}", ":str}")


async def _serve(node: Node, route: Route, ask: Ask) -> ASGIResponse:
    """Answer, in the words of the route's own protocol where it has one."""
    if route.refuse is None:
        return await _answer(node, route, ask)
    try:
        return await _answer(node, route, ask)
    except ApplianceError as error:
        return route.refuse(ask, error)


async def _answer(node: Node, route: Route, ask: Ask) -> ASGIResponse:
    """Find out who asks, prove it, run the function; again when rights moved on meanwhile."""
    if route.params is not None:
        ask.read_params(route.params)
    if route.capability in (PUBLIC, PLATFORM, NODE):
        return await route.run(ask)
    token = route.token(ask) if route.token is not None else find_token(ask.scope)
    address = address_of(ask.scope)
    for left in reversed(range(_TRIES)):
        ctx, guard = await node.sessions.enter(
            token, ask.visit.request_id, address=address, about=f"{route.method} {route.path}",
            with_first_password=route.with_first_password,
        )  # fmt: skip
        ask.enter(ctx, Gate(guard))
        try:
            answer = await _run_gated(route, ask)
        except Stale:
            node.sessions.forget(token)
            if not left:
                raise
            continue
        # What was done is done: a failure to note the time of use must not read as a failure.
        if guard.seen_s >= SEEN_EVERY_S:
            with contextlib.suppress(ApplianceError):
                await node.sessions.touch(ctx, token, guard)
        return answer
    raise AssertionError("the last try answers or raises")


async def _run_gated(route: Route, ask: Ask) -> ASGIResponse:
    try:
        if not route.gated:
            await ask.verify()
        if route.capability != SIGNED_IN and not ask.ctx.profile.may(route.capability):
            raise Forbidden(f"Your profile does not have the capability {route.capability}.")
        answer = await route.run(ask)
    except Stale:
        raise
    except ApplianceError:
        # A refusal under rights that have moved on is no refusal: prove them before it leaves.
        if not ask.gate.passed:
            await ask.verify()
        raise
    if not ask.gate.passed:
        await ask.verify()
    return answer


def check_declared(app: Litestar) -> None:
    """Refuse to start when a route does not say who may use it and where. Raises Misconfigured."""
    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            if handler.http_methods == {"OPTIONS"}:
                continue
            if not (handler.opt.get("capability") and handler.opt.get("placed")):
                raise Misconfigured(
                    f"The route {sorted(handler.http_methods)} {route.path} does not declare its "
                    "capability and where it is placed."
                )
