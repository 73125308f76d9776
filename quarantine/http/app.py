"""The serving process: one ASGI application for both doors."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import msgspec
import redis.asyncio as aioredis
from litestar import Litestar, Request, Response
from litestar.datastructures import State
from litestar.exceptions import HTTPException

from quarantine.http import downloads, node_side, parts
from quarantine.http.plane import Plane
from quarantine.settings import Settings
from quarantine.signing import Signer
from quarantine.store.faults import StoreFault
from quarantine.vault import Vault

SWEEP_S = 300.0


def create_app(settings: Settings) -> Litestar:
    """The application; it opens its vault with the server and closes it last."""
    plane = Plane(
        settings, Vault(settings), Signer.load(Path(settings.key_file)),
        aioredis.Redis.from_url(settings.redis_url, socket_timeout=5, socket_connect_timeout=2),
    )  # fmt: skip

    sweeping: list[asyncio.Task[None]] = []

    async def sweep() -> None:
        while True:
            with contextlib.suppress(StoreFault, OSError):
                await plane.vault.sweep()
            await asyncio.sleep(SWEEP_S)

    async def start() -> None:
        await plane.vault.start(recover=True)
        sweeping.append(asyncio.create_task(sweep()))

    async def stop() -> None:
        plane.closing.set()
        for task in sweeping:
            task.cancel()
        await plane.redis.aclose()
        plane.vault.close()

    return Litestar(
        route_handlers=[*node_side.HANDLERS, *parts.HANDLERS, *downloads.HANDLERS],
        state=State({"plane": plane}),
        on_startup=[start],
        on_shutdown=[stop],
        exception_handlers={HTTPException: _refuse, StoreFault: _explain, Exception: _fault},
        openapi_config=None,
        request_max_body_size=None,
        logging_config=None,
    )


def _refuse(_: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    return _problem(error.status_code, str(error.detail))


def _explain(_: Request[Any, Any, Any], fault: StoreFault) -> Response[bytes]:
    refusal = node_side.refusal(fault)
    return _problem(refusal.status_code, refusal.detail)


def _fault(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    return _problem(500, "The content plane could not answer this.")


def _problem(status: int, detail: str) -> Response[bytes]:
    body = {
        "type": "about:blank",
        "title": detail.split(".", maxsplit=1)[0][:80],
        "status": status,
        "detail": detail,
    }
    return Response(
        msgspec.json.encode(body), status_code=status, media_type="application/problem+json",
        headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
    )  # fmt: skip
