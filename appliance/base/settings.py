"""Settings: one TOML file plus NEXUS_… environment variables; an unknown key refuses to start.

Names map one to one: `[database] url` is NEXUS_DATABASE_URL. A secret may be given as a file:
NEXUS_DATABASE_URL_FILE. The data folder holds `nexus.toml`; NEXUS_DATA says where it is.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from appliance.base.errors import Misconfigured
from appliance.base.roles import Role


class Database(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Servers by URL; when `url` is empty the node starts its own PostgreSQL.

    `url` and `control_url` log in as the application role, the `owner_` ones as the role that
    owns tables and runs migrations.
    """

    url: str = ""
    owner_url: str = ""
    control_url: str = ""
    control_owner_url: str = ""
    pool_max: int = 8


class RedisSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Redis or Valkey by URL; empty starts the embedded one."""

    url: str = ""


class Http(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the API listens. Anything but loopback needs TLS in front (docs/operating.md)."""

    host: str = "127.0.0.1"
    trusted_proxies: str = ""
    workers: int = 1


class Files(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Attachments. `url` is where people reach the content plane (default: its own port here),
    `plane_url` where the node does; with `plane_url` the plane runs elsewhere, and `key_path` is
    the file with the key that both have. Bytes as named; a `bucket` stores blobs in S3 instead of the
    data folder. `packs` is a folder of rule packs, `pack_keys` the public keys that may sign them.
    Without `scanner` this node runs no virus scanner: a branch whose hub has one saves its memory.
    """

    port: int = 0
    url: str = ""
    plane_url: str = ""
    key_path: str = ""
    bytes_max: int = 104_857_600
    tenant_bytes_max: int = 53_687_091_200
    person_bytes_max: int = 10_737_418_240
    baseline_is_enough: bool = True
    scanner: bool = True
    freshclam: bool = False
    bucket: str = ""
    bucket_endpoint: str = ""
    bucket_region: str = "us-east-1"
    packs: str = ""
    pack_keys: str = ""


class Exchange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """1C's exchange with a web site: bytes of one part, bytes of all that one key may have waiting,
    and the charset of answers (1C 7.7 and 8.1 read windows-1251).
    """

    part_bytes_max: int = 16_777_216
    box_bytes_max: int = 2_147_483_648
    charset: Literal["utf-8", "windows-1251"] = "utf-8"


class Login(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Password and session policy. Minutes and hours are as named.

    A site that has not heard from its hub for `stale_days` says so to whoever signs in, and with
    `stale_refuse` lets nobody in.
    """

    password_chars_min: int = 12
    idle_minutes: int = 60
    session_hours: int = 12
    failures_before_delay: int = 5
    stale_days: int = 14
    stale_refuse: bool = False


class SyncSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Replication between a hub and its sites. A site rests while `pause` is set.

    A site's wait at the hub lasts `hold_seconds` (a proxy between them must allow that long); it
    looks for its own new entries every `poll_seconds` when nothing wakes it. `max_bytes` bounds a
    question and an answer; a hub works on `exchanges_max` of them at once, on
    `tenant_exchanges_max` of one tenant. A site lets its oldest copies of files go above
    `file_bytes_max`; 0 keeps all. A stream that is new to a site comes as the states of its records
    when its log has more than `states_after` entries.
    """

    pause: bool = False
    hold_seconds: Annotated[float, msgspec.Meta(ge=5, le=55)] = 55.0
    poll_seconds: Annotated[float, msgspec.Meta(ge=0.2, le=300)] = 5.0
    max_bytes: Annotated[int, msgspec.Meta(ge=16_384, le=4_194_304)] = 4_194_304
    exchanges_max: Annotated[int, msgspec.Meta(ge=1)] = 6
    tenant_exchanges_max: Annotated[int, msgspec.Meta(ge=1)] = 3
    file_bytes_max: Annotated[int, msgspec.Meta(ge=0)] = 0
    states_after: Annotated[int, msgspec.Meta(ge=0)] = 20_000


class Webhooks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where webhooks may go beside public addresses: `allow` names networks (10.1.2.0/24) and hosts,
    with blanks between; only these are spoken to without TLS, or on other ports than 443 and 8443.
    `key_path` is the file with the key that seals their secrets, where several machines share it;
    `ca_file` holds certificates that are trusted besides the system's. An attempt may take
    `timeout_seconds`; after `failing_days` without any success a webhook is stopped.
    """

    allow: str = ""
    key_path: str = ""
    ca_file: str = ""
    timeout_seconds: Annotated[float, msgspec.Meta(ge=1, le=30)] = 10.0
    failing_days: Annotated[float, msgspec.Meta(gt=0, le=60)] = 3.0

    @property
    def allowed(self) -> tuple[str, ...]:
        """The networks and hosts one by one."""
        return tuple(self.allow.split())


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a node is told from outside."""

    data: str = "./nexus-data"
    port: int = 8470
    role: Role = Role.SOLO
    log_level: str = "info"
    database: Database = msgspec.field(default_factory=Database)
    redis: RedisSettings = msgspec.field(default_factory=RedisSettings)
    http: Http = msgspec.field(default_factory=Http)
    login: Login = msgspec.field(default_factory=Login)
    files: Files = msgspec.field(default_factory=Files)
    exchange: Exchange = msgspec.field(default_factory=Exchange)
    sync: SyncSettings = msgspec.field(default_factory=SyncSettings)
    webhooks: Webhooks = msgspec.field(default_factory=Webhooks)

    @property
    def files_port(self) -> int:
        """Where an embedded content plane listens: beside the API unless said otherwise."""
        return self.files.port or self.port + 1

    @property
    def data_dir(self) -> Path:
        """The data folder as an absolute path."""
        return Path(self.data).expanduser().absolute()


_GROUPS = ("database", "redis", "http", "login", "files", "exchange", "sync", "webhooks")
_PROCESS_KEYS = frozenset({"NEXUS_ENDPOINTS_FILE"})


def load(
    environ: Mapping[str, str] | None = None, *, overrides: Mapping[str, object] | None = None
) -> Settings:
    """Read file and environment; command line `overrides` win. Raises Misconfigured."""
    env = os.environ if environ is None else environ
    tree: dict[str, object] = {}
    given = {
        **_from_environment(env),
        **{k: v for k, v in (overrides or {}).items() if v is not None},
    }
    data = Path(str(given.get("data", Settings().data))).expanduser()
    path = Path(env.get("NEXUS_SETTINGS", str(data / "nexus.toml")))
    if path.is_file():
        try:
            tree = tomllib.loads(path.read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as bad:
            raise Misconfigured(f"{path.name}: cannot be read as TOML: {bad}") from None
    for key, value in given.items():
        group, _, leaf = key.partition(".")
        if leaf:
            inner = tree.setdefault(group, {})
            if not isinstance(inner, dict):
                raise Misconfigured(f"{group}: expected a table, see docs/operating.md")
            inner[leaf] = value
        else:
            tree[key] = value
    try:
        return msgspec.convert(tree, Settings, strict=False)
    except msgspec.ValidationError as bad:
        raise Misconfigured(f"settings: {bad}; the list is in docs/operating.md") from None


def _from_environment(env: Mapping[str, str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in env.items():
        if not name.startswith("NEXUS_") or name in _PROCESS_KEYS or name == "NEXUS_SETTINGS":
            continue
        key = name.removeprefix("NEXUS_").lower()
        text = value
        if key.endswith("_file"):
            key = key.removesuffix("_file")
            try:
                text = Path(value).read_text("utf-8").strip()
            except OSError as bad:
                raise Misconfigured(f"{name}: cannot read {value}: {bad.strerror}") from None
        for group in _GROUPS:
            if key.startswith(group + "_"):
                key = f"{group}.{key.removeprefix(group + '_')}"
                break
        found[key] = text
    return found
