"""SFTP by paramiko: the host key is pinned, nothing is guessed, no agent is asked.

Old bank servers that offer only what is refused today are named with what they offer. Uploads go
to `<name>.part` and are renamed; a name that is taken is never written over.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec
import paramiko
from paramiko.ssh_exception import AuthenticationException, IncompatiblePeer, SSHException

from connectors.sdk.retry import Trouble, as_trouble
from connectors.transports.contract import LIST_MAX, WAIT_S, Entry, Listing, make_listing
from connectors.transports.ssh_offer import read_offer

_KEEP_ALIVE_S = 15
_BLOCK = 1 << 15
_WINDOW = 64 * _BLOCK


class SftpPlace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="sftp", kw_only=True):
    """Where and as whom. `fingerprints`: `SHA256:…` of the host keys that may be met, as
    `ssh-keygen -lf` prints them. Exactly one of `password_file` and `key_file`.
    """

    host: str
    user: str
    fingerprints: tuple[str, ...]
    port: int = 22
    folder: str = "."
    password_file: str = ""
    key_file: str = ""
    may_move: bool = False


class Sftp:
    """See contract.Transport."""

    def __init__(self, place: SftpPlace) -> None:
        self._place = place
        self._folder = place.folder.rstrip("/") or "/"
        self._line: paramiko.Transport | None = None
        try:
            self._client = self._connect()
        except (SSHException, EOFError, OSError, Trouble) as error:
            self.close()
            raise self._explain(error) from None

    def entries(self) -> Listing:
        """See contract.Transport."""
        with self._told():
            found = []
            for one in self._client.listdir_iter(self._folder):
                if one.st_mode is None or stat.S_ISREG(one.st_mode):
                    found.append(_entry(one.filename, one))
                if len(found) > LIST_MAX:
                    text = f"more than {LIST_MAX} files in one folder"
                    raise Trouble("too-many-files", text, is_permanent=True)
            return make_listing(found)

    def look(self, entry: Entry) -> Entry | None:
        """See contract.Transport."""
        with self._told():
            try:
                return _entry(entry.name, self._client.stat(self._path(entry.name)))
            except FileNotFoundError:
                return None

    @contextlib.contextmanager
    def open(self, entry: Entry) -> Iterator[Iterator[bytes]]:
        """See contract.Transport."""
        with self._told():
            try:
                file = self._client.open(self._path(entry.name), "rb")
            except FileNotFoundError:
                raise Trouble("file-vanished", f"{entry.name} is not there any more") from None
            with file:
                yield _pieces(file, entry.size)

    def put(self, name: str, content: bytes) -> None:
        """See contract.Transport."""
        target, draft = self._path(name), self._path(name + ".part")
        with self._told():
            if self._is_there(target):
                self._check_same(name, content)
                return
            with self._client.open(draft, "wb") as file:
                file.set_pipelined(True)
                file.write(content)
            if self._client.stat(draft).st_size != len(content):
                raise Trouble("truncated", f"{name}: the server has kept less than was sent")
            try:
                self._client.rename(draft, target)
            except OSError:
                # Refused: either the name was taken meanwhile, or the server renames nothing so.
                if self._is_there(target):
                    self._check_same(name, content)
                    return
                self._rename_hard(name, draft, target)

    def _rename_hard(self, name: str, draft: str, target: str) -> None:
        try:
            self._client.posix_rename(draft, target)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._client.remove(draft)
            text = f"{name}: the server does not rename ({error}); no half file was left"
            raise Trouble("cannot-rename", text, is_permanent=True) from None

    def finish(self, entry: Entry, *, is_failed: bool) -> None:
        """See contract.Transport."""
        if not self._place.may_move:
            return
        folder = self._path("failed" if is_failed else "done")
        with self._told():
            with contextlib.suppress(OSError):
                self._client.mkdir(folder)
            name = entry.name
            for n in range(1, 1_000):
                if not self._is_there(f"{folder}/{name}"):
                    break
                name = f"{n}-{entry.name}"
            with contextlib.suppress(FileNotFoundError):
                self._client.rename(self._path(entry.name), f"{folder}/{name}")

    def close(self) -> None:
        """See contract.Transport."""
        if self._line is not None:
            with contextlib.suppress(Exception):
                self._line.close()

    def _connect(self) -> paramiko.SFTPClient:
        place = self._place
        sock = socket.create_connection((place.host, place.port), WAIT_S)
        sock.settimeout(WAIT_S)
        line = self._line = paramiko.Transport(sock)
        line.banner_timeout = line.auth_timeout = line.channel_timeout = WAIT_S
        line.start_client(timeout=WAIT_S)
        key = line.get_remote_server_key()
        found = "SHA256:" + base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode()
        if not any(hmac.compare_digest(found, p.rstrip("=") + "=") for p in place.fingerprints):
            text = (
                f"{place.host} shows the {key.get_name()} host key {found.rstrip('=')}, which is "
                "none of those pinned; ask who runs it whether it was changed, then pin it"
            )
            raise Trouble("host-key-changed", text, is_permanent=True)
        if place.key_file:
            line.auth_publickey(place.user, _private_key(Path(place.key_file)))
        else:
            password = Path(place.password_file).read_text("utf-8").rstrip("\r\n")
            line.auth_password(place.user, password, fallback=False)
        line.set_keepalive(_KEEP_ALIVE_S)
        client = paramiko.SFTPClient.from_transport(line)
        if client is None:
            raise Trouble("no-sftp", f"{place.host} has no SFTP subsystem", is_permanent=True)
        channel = client.get_channel()
        assert channel is not None, "a client of a transport has its channel"
        channel.settimeout(WAIT_S)
        return client

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (SSHException, EOFError, OSError) as error:
            raise self._explain(error) from None

    def _explain(self, error: BaseException) -> BaseException:
        host = self._place.host
        if isinstance(error, IncompatiblePeer):
            text = f"{host} and we have no algorithm in common ({error}); {read_offer(host, self._place.port)}"
            return Trouble("no-common-algorithm", text, is_permanent=True)
        if isinstance(error, AuthenticationException):
            text = f"{host} refuses {self._place.user} with this key or password"
            return Trouble("sign-in-refused", text, is_permanent=True)
        if isinstance(error, (SSHException, EOFError)):
            return Trouble("connection-failed", f"{host}: {error or 'the line was cut'}")
        return as_trouble(error) if isinstance(error, OSError) else error

    def _is_there(self, path: str) -> bool:
        try:
            self._client.stat(path)
        except FileNotFoundError:
            return False
        return True

    def _check_same(self, name: str, content: bytes) -> None:
        """What was put before and not acknowledged is fine, anything else is another's."""
        with self._client.open(self._path(name), "rb") as file:
            if file.read(len(content) + 1) == content:
                return
        raise Trouble("name-taken", f"another file {name} is there already", is_permanent=True)

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}"


def _pieces(file: paramiko.SFTPFile, size: int) -> Iterator[bytes]:
    """A window of many requests at a time: one by one crawls over a long line, and reading ahead
    without a bound stalls (paramiko 1788, 2058).
    """
    if size < 0:
        yield from iter(lambda: file.read(_BLOCK), b"")
        return
    for start in range(0, size, _WINDOW):
        end = min(start + _WINDOW, size)
        blocks = [(at, min(_BLOCK, end - at)) for at in range(start, end, _BLOCK)]
        yield from file.readv(blocks)


def _entry(name: str, seen: paramiko.SFTPAttributes) -> Entry:
    size = seen.st_size if seen.st_size is not None else -1
    return Entry(name, size, f"{size}.{seen.st_mtime}")


def _private_key(path: Path) -> paramiko.PKey:
    try:
        return paramiko.PKey.from_path(path)
    except (OSError, ValueError, SSHException) as error:
        text = f"the key file {path.name} cannot be read ({type(error).__name__})"
        raise Trouble("key-unreadable", text, is_permanent=True) from None
