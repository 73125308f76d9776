"""What the content plane is told: environment variables `QUARANTINE_…`, and nothing of a database."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`data` holds ledger, keys and blobs; `scratch` is a tmpfs for plaintext under scan.

    `key_file` holds the key shared with the node. A `bucket` stores blobs in S3 instead of `data`;
    its credentials come from the usual AWS variables. `packs` is a folder of rule packs besides the
    program's own, `pack_keys` the public keys in hexadecimal, split by commas, that may sign them.
    """

    data: str
    key_file: str
    redis_url: str
    host: str = "127.0.0.1"
    port: int = 8471
    scratch: str = ""
    clamd: str = ""
    signatures: str = ""
    baseline_is_enough: bool = True
    parallel: int = 2
    quota_bytes: int = 0
    bucket: str = ""
    bucket_endpoint: str = ""
    bucket_region: str = "us-east-1"
    packs: str = ""
    pack_keys: str = ""

    @property
    def folder(self) -> Path:
        """The data folder."""
        return Path(self.data).absolute()

    @property
    def scratch_folder(self) -> Path:
        """Where plaintext may lie while it is scanned."""
        return Path(self.scratch).absolute() if self.scratch else self.folder / "scratch"


class Misconfigured(Exception):
    """Settings that cannot be; the text names the variable."""


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the environment. Raises Misconfigured."""
    env = os.environ if environ is None else environ
    given = {
        k.removeprefix("QUARANTINE_").lower(): v
        for k, v in env.items()
        if k.startswith("QUARANTINE_")
    }
    try:
        return msgspec.convert(given, Settings, strict=False)
    except msgspec.ValidationError as bad:
        raise Misconfigured(f"QUARANTINE_…: {bad}; the list is in docs/quarantine.md") from None
