"""A Valkey of our own: append-only file, unix socket, generated password."""

from __future__ import annotations

import asyncio
import secrets
import time
from pathlib import Path
from urllib.parse import quote

import redis

from appliance.base.errors import Unavailable
from appliance.runtime.account import Account, give, make_folder
from appliance.runtime.postgres import socket_folder

START_TIMEOUT_S = 30.0


class Valkey:
    """One server in `<data>/valkey`. It carries; PostgreSQL keeps: losing it loses no fact."""

    def __init__(self, program: Path, data: Path, account: Account) -> None:
        self.program = program
        self.folder = data / "valkey"
        self.account = account
        self.socket = socket_folder(data, account) / "valkey.sock"
        self._secret = data / "secrets" / "valkey.password"

    def prepare(self) -> None:
        """Write the configuration; generate the password at first start."""
        make_folder(self.account, self._secret.parent)
        make_folder(self.account, self.folder)
        if not self._secret.exists():
            self._secret.write_text(secrets.token_urlsafe(24), "utf-8")
            give(self.account, self._secret, 0o600)
        path = self.folder / "valkey.conf"
        path.write_text(
            "port 0\n"
            f"unixsocket {self.socket}\nunixsocketperm 700\n"
            f"dir {self.folder}\n"
            f"requirepass {self._secret.read_text('utf-8').strip()}\n"
            'appendonly yes\nappendfsync everysec\nsave ""\n'
            "maxmemory 256mb\nmaxmemory-policy noeviction\ndaemonize no\n",
            "utf-8",
        )
        give(self.account, path, 0o600)

    def argv(self) -> list[str]:
        """The server's command line."""
        return [str(self.program), str(self.folder / "valkey.conf")]

    @property
    def url(self) -> str:
        """The URL with the password: never log it."""
        password = quote(self._secret.read_text("utf-8").strip(), safe="")
        return f"unix://:{password}@{self.socket}?db=0"

    def is_ready(self) -> bool:
        """Whether the server answers a ping."""
        client = redis.Redis.from_url(self.url, socket_timeout=2, retry=None)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()

    async def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait for the server. Raises Unavailable."""
        end = time.monotonic() + timeout_s
        while not await asyncio.to_thread(self.is_ready):
            if time.monotonic() > end:
                raise Unavailable(
                    "Valkey did not start; its log says why: log/valkey.log in the data folder.",
                    dependency="Redis",
                )
            await asyncio.sleep(0.05)
