"""FTP, and FTPS with the session of its control line on each data line, as most servers demand.

Passive only; the address that a server behind NAT names is ignored. A transfer that is cut goes on
from where it was.
"""

from __future__ import annotations

import contextlib
import ftplib
import io
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from connectors.sdk.retry import Trouble, as_trouble
from connectors.transports.contract import CHUNK, LIST_MAX, WAIT_S, Entry, Listing, make_listing

_RESUMES = 3
_UNKNOWN = ("500", "501", "502", "504")


class FtpPlace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="ftp", kw_only=True):
    """Where and as whom. `tls`: explicit FTPS; `ca_file`: who signs the server, else the system's.
    `encoding`: of names (utf-8, cp1251).
    """

    host: str
    user: str
    password_file: str
    port: int = 21
    folder: str = ""
    tls: bool = True
    ca_file: str = ""
    encoding: str = "utf-8"
    may_move: bool = False


class _Secure(ftplib.FTP_TLS):
    """Data lines go on with the TLS session of the control line."""

    def ntransfercmd(self, cmd: str, rest: int | str | None = None) -> tuple[socket.socket, int]:
        """See ftplib."""
        line, size = ftplib.FTP.ntransfercmd(self, cmd, rest)  # noqa: S321 - secured below
        if self._prot_p:  # type: ignore[attr-defined]
            control = self.sock
            assert isinstance(control, ssl.SSLSocket), "signed in over TLS"
            line = self.context.wrap_socket(
                line, server_hostname=self.host, session=control.session
            )
        return line, size or 0


class Ftp:
    """See contract.Transport."""

    def __init__(self, place: FtpPlace) -> None:
        self._place = place
        self._ftp: ftplib.FTP = (
            _Secure(context=_context(place), timeout=WAIT_S, encoding=place.encoding)
            if place.tls
            else ftplib.FTP(timeout=WAIT_S, encoding=place.encoding)  # noqa: S321 - asked for
        )
        try:
            with self._told():
                self._sign_in()
        except BaseException:
            self.close()
            raise

    def entries(self) -> Listing:
        """See contract.Transport."""
        with self._told():
            try:
                found = [
                    _entry(name, facts)
                    for name, facts in self._ftp.mlsd(facts=["type", "size", "modify"])
                    if facts.get("type", "file").lower() == "file"
                ]
            except ftplib.error_perm as error:
                if not str(error).startswith(_UNKNOWN):
                    raise
                found = [e for n in self._names() if (e := self._measure(n)) is not None]
        if len(found) > LIST_MAX:
            text = f"more than {LIST_MAX} files in one folder"
            raise Trouble("too-many-files", text, is_permanent=True)
        return make_listing(found)

    def look(self, entry: Entry) -> Entry | None:
        """See contract.Transport."""
        with self._told():
            return self._measure(entry.name)

    @contextlib.contextmanager
    def open(self, entry: Entry) -> Iterator[Iterator[bytes]]:
        """See contract.Transport."""
        with self._told():
            yield self._pieces(entry)

    def put(self, name: str, content: bytes) -> None:
        """See contract.Transport."""
        with self._told():
            there = self._measure(name)
            if there is not None:
                self._check_same(there, content)
                return
            self._ftp.storbinary(f"STOR {name}.part", io.BytesIO(content), CHUNK)
            kept = self._measure(name + ".part")
            if kept is not None and kept.size >= 0 and kept.size != len(content):
                raise Trouble("truncated", f"{name}: the server has kept less than was sent")
            self._ftp.rename(name + ".part", name)

    def finish(self, entry: Entry, *, is_failed: bool) -> None:
        """See contract.Transport."""
        if not self._place.may_move:
            return
        folder = "failed" if is_failed else "done"
        with self._told():
            with contextlib.suppress(ftplib.error_perm):
                self._ftp.mkd(folder)
            name = entry.name
            for n in range(1, 1_000):
                if self._measure(f"{folder}/{name}") is None:
                    break
                name = f"{n}-{entry.name}"
            if self._measure(entry.name) is not None:
                self._ftp.rename(entry.name, f"{folder}/{name}")

    def close(self) -> None:
        """See contract.Transport."""
        with contextlib.suppress(Exception):
            self._ftp.close()

    def _sign_in(self) -> None:
        place, ftp = self._place, self._ftp
        ftp.connect(place.host, place.port)
        password = Path(place.password_file).read_text("utf-8").rstrip("\r\n")
        try:
            ftp.login(place.user, password)
        except ftplib.error_perm as error:
            text = f"{place.host} refuses {place.user}: {str(error)[:100]}"
            raise Trouble("sign-in-refused", text, is_permanent=True) from None
        if isinstance(ftp, ftplib.FTP_TLS):
            ftp.prot_p()
        if place.encoding == "utf-8":
            with contextlib.suppress(ftplib.error_perm):
                ftp.sendcmd("OPTS UTF8 ON")
        ftp.set_pasv(True)
        if place.folder:
            ftp.cwd(place.folder)

    def _pieces(self, entry: Entry) -> Iterator[bytes]:
        """The bytes, gone on with after a cut as long as each go brings some."""
        at, left = 0, _RESUMES
        while True:
            try:
                # A listing turns the line to text, which would change the bytes of files.
                self._ftp.voidcmd("TYPE I")
                line = self._ftp.transfercmd(f"RETR {entry.name}", at or None)
                with line:
                    line.settimeout(WAIT_S)
                    while piece := line.recv(CHUNK):
                        at += len(piece)
                        yield piece
                self._ftp.voidresp()
                cut: Exception | None = None
            except (
                ConnectionError,
                TimeoutError,
                ssl.SSLError,
                ftplib.error_temp,
                EOFError,
            ) as error:
                cut = error
            if cut is None and (entry.size < 0 or at >= entry.size):
                return
            if not left or entry.size < 0:
                raise Trouble("truncated", f"{entry.name} was cut after {at} bytes")
            left -= 1
            self.close()
            self._sign_in()

    def _names(self) -> list[str]:
        try:
            return [n.rpartition("/")[2] for n in self._ftp.nlst()]
        except ftplib.error_perm as error:
            # 550 is how servers say that a folder is empty.
            if str(error).startswith("550"):
                return []
            raise

    def _measure(self, name: str) -> Entry | None:
        self._ftp.voidcmd("TYPE I")
        try:
            size = self._ftp.size(name)
            changed = self._ftp.sendcmd(f"MDTM {name}").partition(" ")[2].strip()
        except ftplib.error_perm as error:
            if str(error).startswith("550"):
                return None
            raise
        return _entry(name, {"size": str(size), "modify": changed})

    def _check_same(self, there: Entry, content: bytes) -> None:
        is_same_size = there.size in (-1, len(content))
        if not is_same_size or b"".join(self._pieces(there)) != content:
            text = f"another file {there.name} is there already"
            raise Trouble("name-taken", text, is_permanent=True)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        host = self._place.host
        try:
            yield
        except ftplib.error_perm as error:
            text = f"{host}: {str(error)[:200]}"
            vanished = str(error).startswith("550")
            code = "file-vanished" if vanished else "refused"
            raise Trouble(code, text, is_permanent=not vanished) from None
        except (ftplib.Error, EOFError) as error:
            raise Trouble("connection-failed", f"{host}: {str(error)[:200]}") from None
        except OSError as error:
            raise as_trouble(error) from None
        except ValueError:
            raise Trouble("bad-name", "a name has a line break", is_permanent=True) from None


def _context(place: FtpPlace) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=place.ca_file or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _entry(name: str, facts: dict[str, Any]) -> Entry:
    text = str(facts.get("size", ""))
    size = int(text) if text.isascii() and text.isdigit() else -1
    # MLSD and MDTM may differ in their fractions of a second.
    changed = str(facts.get("modify", "")).partition(".")[0]
    return Entry(name, size, f"{size}.{changed}")
