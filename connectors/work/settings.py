"""What a worker is told: which node, by which key, and the sources that it looks at.

Secrets stand in files of their own, never on a command line, which everybody on a machine can read.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import ipaddress
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from connectors.markets.open import SellingPlace
from connectors.sdk.manifest import list_systems
from connectors.sdk.retry import Policy
from connectors.sdk.schedule import Clock, Schedule, Weekday
from connectors.sdk.wire import SOURCES_MAX, Name
from connectors.transports.places import Place

_PACKAGE = Path(__file__).resolve().parents[1]


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Files that are looked for again and again.

    `name`: the source as the node knows it; `pattern`: names that are taken (`*.txt`); `options`
    and `mapping` go into each run as they are. When it is looked at: see sdk.schedule.Schedule; a
    look with all its tries takes at most the deadline of `retry`.
    """

    key: Name
    connector: Name
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    place: Place
    pattern: str = "*"
    every_s: Annotated[float, msgspec.Meta(ge=1, le=31 * 86_400)] = 60.0
    at: Annotated[tuple[Clock, ...], msgspec.Meta(max_length=100)] = ()
    weekdays: tuple[Weekday, ...] = ()
    zone: str = "UTC"
    jitter_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] | None = None
    expected_by: Clock | None = None
    bytes_max: int = 512 << 20
    options: dict[str, str | int | bool] = {}
    mapping: str = ""
    retry: Policy = Policy(tries=3, deadline_s=600)

    def __post_init__(self) -> None:
        """Raises ValueError for times that make no schedule."""
        _ = self.schedule

    @property
    def schedule(self) -> Schedule:
        """When it is looked at."""
        return Schedule(
            every_s=self.every_s, at=self.at, weekdays=self.weekdays, zone=self.zone,
            jitter_s=self.jitter_s, expected_by=self.expected_by,
        )  # fmt: skip


class Selling(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A sales channel that is given prices and stock again and again. `channel`: its id or its name
    at the node. `gone_share`: which share of its items may go off sale at once.
    """

    key: Name
    channel: str
    place: SellingPlace
    every_s: Annotated[float, msgspec.Meta(ge=1)] = 300.0
    gone_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.2


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """One worker: `data` holds what is on its way and what was taken."""

    name: str
    node: str
    key: str
    data: Path
    sources: tuple[Source, ...] = ()
    channels: tuple[Selling, ...] = ()
    ca_file: str = ""
    runs_at_once: int = 2


class Misconfigured(Exception):
    """The worker cannot start; the text says what to do."""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    source: tuple[Source, ...] = ()
    channel: tuple[Selling, ...] = ()


def read_sources(path: Path, chosen: Sequence[str] = ()) -> tuple[Source, ...]:
    """The sources of a file, all or those chosen. Raises Misconfigured saying what is wrong."""
    found = _read(path)
    if missing := sorted(set(chosen) - {s.key for s in found.source}):
        raise Misconfigured(f"{path}: there is no source {', '.join(missing)}")
    return tuple(s for s in found.source if not chosen or s.key in chosen)


def read_work(
    path: Path, chosen: Sequence[str] = ()
) -> tuple[tuple[Source, ...], tuple[Selling, ...]]:
    """The sources and channels of a file, all or those chosen. Raises Misconfigured."""
    found = _read(path)
    keys = {s.key for s in found.source} | {c.key for c in found.channel}
    if missing := sorted(set(chosen) - keys):
        raise Misconfigured(f"{path}: there is no source or channel {', '.join(missing)}")
    sources = tuple(s for s in found.source if not chosen or s.key in chosen)
    return sources, tuple(c for c in found.channel if not chosen or c.key in chosen)


def _read(path: Path) -> _File:
    try:
        found = msgspec.toml.decode(path.read_bytes(), type=_File)
    except (OSError, msgspec.DecodeError) as error:
        raise Misconfigured(f"{path}: {error}") from None
    keys = [*(s.key for s in found.source), *(c.key for c in found.channel)]
    twice = sorted({k for k in keys if keys.count(k) > 1})
    unknown = sorted({s.connector for s in found.source} - set(list_systems()))
    if twice or unknown:
        text = f"keys that stand twice: {twice}; connectors that are not here: {unknown}"
        raise Misconfigured(f"{path}: {text}")
    if len(found.source) > SOURCES_MAX:
        raise Misconfigured(f"{path}: one worker has at most {SOURCES_MAX} sources")
    return found


def read_key(path: Path) -> str:
    """The API key in a file that nobody else may read. Raises Misconfigured."""
    try:
        mode, text = path.stat().st_mode, path.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise Misconfigured(f"the key file {path} cannot be read: {error}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise Misconfigured(f"{path} can be read by others; chmod 600 it")
    if not text:
        raise Misconfigured(f"{path} is empty; it holds the key that the node has shown once")
    return text


def check_node(url: str, *, is_plain_allowed: bool) -> str:
    """The address of the node. Raises Misconfigured where the key would be read on its way."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise Misconfigured(f"{url} is no address like https://node.example")
    if parts.scheme == "http" and not (is_plain_allowed or _is_here(parts.hostname)):
        raise Misconfigured(
            f"{url} would carry the key in the clear; give an https address, or --plain-http "
            "inside a network that is yours"
        )
    return url.rstrip("/")


@contextlib.contextmanager
def claimed(data: Path) -> Iterator[str]:
    """The data folder for this process alone, made where it is not there; what names it to the
    node. Raises Misconfigured when another worker has it.
    """
    for folder in ("in", "books"):
        (data / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    # Held as long as it is open: also a process that is killed lets go of it.
    lock = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        name = os.read(lock, 64).decode("ascii", "replace")
        if not re.fullmatch("[0-9a-f]{32}", name):
            name = secrets.token_hex(16)
            os.ftruncate(lock, 0)
            os.pwrite(lock, name.encode(), 0)
            os.fsync(lock)
        yield name
    except BlockingIOError:
        raise Misconfigured(f"another worker works in {data}; give this one its own") from None
    finally:
        os.close(lock)


def reader_digest() -> str:
    """Names this program: only the same one goes on with a reading that another one began."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*")):
        if path.suffix in (".py", ".toml"):
            digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0")
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
