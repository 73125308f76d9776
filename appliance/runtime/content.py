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
from appliance.runtime.account import Account, give, make_folder, may_execute, own_account
from appliance.runtime.sockets import claim_folder, short_name
from appliance.runtime.supervisor import Unit

ACCOUNT = "nexus-content"
KEY_FILE = "content.key"
_KEY_BYTES = 32
_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is claimed in it
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
        self._scratch = _scratch_folder(data, self.folder)

    def prepare(self) -> None:
        """Folders and the key, one copy for each side."""
        make_folder(self.account, self.folder)
        claim_folder(self._scratch, self.account)
        if not self.key.exists():
            _write(self.key, secrets.token_bytes(_KEY_BYTES), self._service)
        _write(self.folder / "node.key", self.key.read_bytes(), self.account)

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


def _scratch_folder(data: Path, fallback: Path) -> Path:
    """Memory where there is plenty, so that plaintext meets no disk."""
    with contextlib.suppress(OSError):
        found = os.statvfs(_MEMORY)
        if found.f_bavail * found.f_frsize >= _MEMORY_BYTES_MIN and os.access(_MEMORY, os.W_OK):
            return _MEMORY / short_name(data, "content")
    return fallback / "scratch"


def _write(path: Path, body: bytes, account: Account) -> None:
    draft = path.with_name(f".{path.name}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    give(account, draft, 0o600)
    draft.replace(path)
