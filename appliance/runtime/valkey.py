"""A Valkey of our own: append-only file, unix socket, generated password."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from urllib.parse import quote

import redis

from appliance.base.errors import Unavailable
from appliance.runtime.account import Account, keep_secret, make_folder, write_private
from appliance.runtime.sockets import open_to_group, socket_folder

START_TIMEOUT_S = 30.0
FILES_USER = "files"
# What the content plane does with tickets and transfers, on keys of its own.
_FILES_RIGHTS = (
    "~files:* resetchannels -@all +ping +hello +auth +select +client|setinfo +client|setname "
    "+get +set +getdel +hset +hdel +hmget +hincrby +expire +multi +exec"
)


class Valkey:
    """One server in `<data>/valkey`. It carries; PostgreSQL keeps: losing it loses no fact."""

    def __init__(
        self, program: Path, data: Path, account: Account, *, client: Account | None = None
    ) -> None:
        self.program = program
        self._client = client
        self.folder = data.absolute() / "valkey"
        self.account = account
        self.socket = socket_folder(data, account, "carry") / "valkey.sock"
        self._secret = data.absolute() / "secrets" / "valkey.password"
        self._files_secret = data.absolute() / "secrets" / "valkey-files.password"

    def prepare(self) -> None:
        """Write the configuration; generate the passwords at first start."""
        make_folder(self.account, self.folder)
        if self._client is not None and not self._client.is_self:
            open_to_group(self.socket.parent, self._client.gid)
        text = (
            "port 0\n"
            f"unixsocket {self.socket}\nunixsocketperm 770\n"
            f"dir {_quote(self.folder)}\n"
            f"requirepass {keep_secret(self.account, self._secret)}\n"
            f"user {FILES_USER} on >{keep_secret(self.account, self._files_secret)} {_FILES_RIGHTS}\n"
            'appendonly yes\nappendfsync everysec\nsave ""\n'
            "maxmemory 256mb\nmaxmemory-policy noeviction\ndaemonize no\n"
        )
        write_private(self.account, self.folder / "valkey.conf", text)

    def argv(self) -> list[str]:
        """The server's command line."""
        return [str(self.program), str(self.folder / "valkey.conf")]

    @property
    def url(self) -> str:
        """The URL with the password: never log it."""
        password = quote(keep_secret(self.account, self._secret), safe="")
        return f"unix://:{password}@{self.socket}?db=0"

    @property
    def files_url(self) -> str:
        """The URL of the content plane, which sees its own keys and nothing else: never log it."""
        password = quote(keep_secret(self.account, self._files_secret), safe="")
        return f"unix://{FILES_USER}:{password}@{self.socket}?db=0"

    def is_ready(self) -> bool:
        """Whether the server answers a ping; while it reads its file it does not."""
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
            await asyncio.sleep(0.02)


def _quote(path: Path) -> str:
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
