"""What is known of one request while it is served; the one log line is made of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

Scope = dict[str, Any]
KEY = "nexus"


@dataclass(slots=True)
class Visit:
    """One request. `route` is the template, never the path, which may hold ids and names."""

    request_id: UUID
    body: bytes = b""
    route: str = ""
    status: int = 0
    sent: int = 0
    tenant: UUID | None = None
    actor: UUID | None = None
    session: UUID | None = None
    code: str | None = None
    # The rest of a body that is streamed to its route instead of being read before it.
    receive: Callable[[], Awaitable[dict[str, Any]]] | None = None


def header(scope: Scope, name: bytes) -> str | None:
    """The first header of a lower-case name as text."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return None


def is_secure(scope: Scope) -> bool:
    """Whether the request came over TLS, as far as the server (or its trusted proxy) says."""
    return bool(scope["scheme"] == "https")


def is_local(scope: Scope) -> bool:
    """Whether the peer is this machine; a Unix socket has no address and is always local."""
    client = scope.get("client")
    return client is None or client[0] in ("127.0.0.1", "::1", "::ffff:127.0.0.1")


def address_of(scope: Scope) -> str:
    """The address that networks of API keys are compared with."""
    client = scope.get("client")
    return str(client[0]) if client else "127.0.0.1"
