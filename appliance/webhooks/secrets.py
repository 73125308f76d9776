"""Secrets of webhooks: made here, shown once, kept sealed, and what they sign.

The signature is that of the Standard Webhooks specification (standardwebhooks.com): HMAC-SHA256
over `id.timestamp.body`, so that any of its libraries verifies what a node sends. A secret is
sealed with a key of the node (AES-256-GCM, bound to its tenant and webhook), so a copy of the
database alone signs nothing.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from appliance.base.errors import Misconfigured
from appliance.base.settings import Webhooks

KEY_FILE = "webhook.key"
PREFIX = "whsec_"
_KEY_BYTES = 32
_SECRET_BYTES = 32
_NONCE_BYTES = 12


def key_path(settings: Webhooks, data: Path) -> Path:
    """Where the sealing key lies."""
    return Path(settings.key_path) if settings.key_path else data / KEY_FILE


class Unsealable(Exception):
    """The secret was sealed with another node's key: a new one has to be made."""


class Box:
    """Seals and opens with the key in a file, which is made on first need."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._box: AESGCM | None = None

    def seal(self, tenant: UUID, webhook: UUID, secret: bytes) -> bytes:
        """The stored form. Raises Misconfigured."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._opened().encrypt(nonce, secret, tenant.bytes + webhook.bytes)

    def open(self, tenant: UUID, webhook: UUID, sealed: bytes) -> bytes:
        """The secret. Raises Unsealable, Misconfigured."""
        nonce, body = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return self._opened().decrypt(nonce, body, tenant.bytes + webhook.bytes)
        except (InvalidTag, ValueError):
            raise Unsealable from None

    def _opened(self) -> AESGCM:
        if self._box is None:
            self._box = AESGCM(_load(self._path))
        return self._box


def new_secret() -> bytes:
    """A fresh secret."""
    return secrets.token_bytes(_SECRET_BYTES)


def shown(secret: bytes) -> str:
    """The text that a receiver is given."""
    return PREFIX + b64encode(secret).decode()


def sign(secret: bytes, ident: str, timestamp: int, body: bytes) -> str:
    """One signature as it stands in the header."""
    said = f"{ident}.{timestamp}.".encode() + body
    return "v1," + b64encode(hmac.digest(secret, said, sha256)).decode()


def _load(path: Path) -> bytes:
    if not path.exists():
        with contextlib.suppress(FileExistsError):
            _make(path)
    try:
        key = path.read_bytes()
    except OSError as bad:
        raise Misconfigured(f"{path.name}: cannot be read: {bad.strerror}") from None
    if len(key) != _KEY_BYTES:
        raise Misconfigured(f"{path.name}: expected {_KEY_BYTES} bytes; bring back the file.")
    return key


def _make(path: Path) -> None:
    """A new key, which appears whole or not at all and never replaces another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        beside = path.parent / "cursor.key"
        if os.geteuid() == 0 and beside.exists():
            # Who runs the node reads it: a command run by root must not take it away from them.
            found = beside.stat()
            os.chown(draft, found.st_uid, found.st_gid)
        os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
