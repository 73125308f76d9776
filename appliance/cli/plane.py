"""The content plane as a command reaches it: by the settings of this node, with its key."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from appliance import assemble
from appliance.base.errors import ApplianceError, Misconfigured, Refused, Unavailable
from appliance.base.settings import Settings
from appliance.content import ContentPlane
from quarantine.contract import Status

ANSWER_S = 5.0


def address_of(settings: Settings) -> str:
    """Where this node's plane is."""
    return settings.files.plane_url or f"http://127.0.0.1:{settings.files_port}"


@contextlib.asynccontextmanager
async def reached(settings: Settings) -> AsyncIterator[ContentPlane]:
    """The plane's client; whether it answers is `ask_status`. Raises Misconfigured."""
    try:
        plane = assemble.content_plane(settings)
    except OSError as bad:
        raise Misconfigured(
            f"The key of the content plane cannot be read ({bad.strerror}); run this as the user "
            "who starts the node."
        ) from None
    if plane is None:
        raise Misconfigured(
            f"{settings.data_dir} has no content plane yet: start the node once with `nexus up`."
        )
    try:
        yield plane
    finally:
        await plane.close()


async def ask_status(settings: Settings, plane: ContentPlane) -> Status:
    """How it stands, within seconds. Raises Unavailable, which says what to do."""
    where = address_of(settings)
    try:
        async with asyncio.timeout(ANSWER_S):
            return await plane.status()
    except Refused:
        raise Unavailable(
            f"What answers at {where} is not the content plane of this node. Say with --port, or "
            "port in nexus.toml, where this node listens.",
            dependency="content plane",
        ) from None
    except (ApplianceError, TimeoutError):
        what_to_do = (
            "Start it on its machine: python -m quarantine serve."
            if settings.files.plane_url
            else "It runs with the node: start it with `nexus up`, or say with --port where the node "
            "listens."
        )
        raise Unavailable(
            f"The content plane, which takes and gives files, does not answer at {where}. "
            + what_to_do,
            dependency="content plane",
        ) from None


__all__ = ["ANSWER_S", "address_of", "ask_status", "reached"]
