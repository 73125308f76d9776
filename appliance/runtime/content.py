"""The content plane of one box: its folder, its keys, its two processes, under an account of its own.

What reads strangers' bytes can touch nothing of the node: not the database, whose passwords it is
not told, and not the data folder, which it cannot enter. The one thing that both have is the key
that signs what they say to each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx
import msgspec

from appliance.base.errors import Unavailable
from appliance.runtime.account import (
    Account,
    make_folder,
    may_execute,
    own_account,
    write_private,
)
from appliance.runtime.sockets import claim_folder, memory_folder
from appliance.runtime.supervisor import Unit

ACCOUNT = "nexus-content"
KEY_FILE = "content.key"
_KEY_BYTES = 32
_MEMORY_BYTES_MIN = 512 << 20
_READY_S = 30.0


class ContentOptions(msgspec.Struct, frozen=True):
    """What the operator sets of it."""

    host: str
    port: int
    redis_url: str
    clamd: str
    baseline_is_enough: bool
    bucket: str = ""
    bucket_endpoint: str = ""
    bucket_region: str = "us-east-1"
    packs: str = ""
    pack_keys: str = ""


class Content:
    """The plane below a data folder; `service` is the account of the node's own processes."""

    def __init__(self, data: Path, service: Account, account: Account) -> None:
        self.folder = data.absolute() / "content"
        self.key = data.absolute() / KEY_FILE
        self._service = service
        self.account = account if may_execute(account, Path(sys.executable)) else own_account()
        self._scratch = memory_folder(data, "content", _MEMORY_BYTES_MIN) or self.folder / "scratch"

    def prepare(self) -> None:
        """Folders and the key, one copy for each side."""
        make_folder(self.account, self.folder)
        claim_folder(self._scratch, self.account)
        if not self.key.exists():
            write_private(self._service, self.key, secrets.token_bytes(_KEY_BYTES))
        write_private(self.account, self.folder / "node.key", self.key.read_bytes())

    def units(self, options: ContentOptions, env: Mapping[str, str]) -> list[Unit]:
        """The serving process and the scanning one, in the order they start."""
        given = {
            "DATA": self.folder, "KEY_FILE": self.folder / "node.key", "SCRATCH": self._scratch,
            "HOST": options.host, "PORT": options.port, "REDIS_URL": options.redis_url,
            "CLAMD": options.clamd, "BASELINE_IS_ENOUGH": str(options.baseline_is_enough).lower(),
            "BUCKET": options.bucket, "BUCKET_ENDPOINT": options.bucket_endpoint,
            "BUCKET_REGION": options.bucket_region, "PACKS": options.packs,
            "PACK_KEYS": options.pack_keys,
        }  # fmt: skip
        full = {**env, **{f"QUARANTINE_{k}": str(v) for k, v in given.items() if str(v)}}
        full |= {k: v for k, v in os.environ.items() if k.startswith("AWS_")}
        python = [sys.executable, "-m", "quarantine"]

        async def ready() -> None:
            await _wait_http(f"http://{_reachable(options.host)}:{options.port}/")

        async def at_once() -> None:
            await asyncio.sleep(0)

        return [
            Unit("content", [*python, "serve"], self.account, ready, full),
            Unit("scan", [*python, "work"], self.account, at_once, full, grace_s=10.0),
        ]


def _reachable(host: str) -> str:
    return "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104


async def _wait_http(url: str) -> None:
    end = asyncio.get_running_loop().time() + _READY_S
    async with httpx.AsyncClient(trust_env=False, timeout=2.0) as client:
        while asyncio.get_running_loop().time() < end:
            with contextlib.suppress(httpx.HTTPError):
                await client.head(url)
                return
            await asyncio.sleep(0.05)
    raise Unavailable(
        "The content plane did not become ready; see log/content.log.", dependency="content plane"
    )
