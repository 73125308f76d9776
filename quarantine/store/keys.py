"""The keys: a master key of the plane wraps tenants' keys, a tenant's key wraps blobs' keys.

Erasing is forgetting a key: a blob whose wrapped key is gone, or a tenant whose wrapped key is
gone, cannot be read by anybody, whatever copies of the bytes lie on disks and in buckets. Wrapping
is AES-256-GCM and is bound to what the key is for, so a wrapped key that is put beside another
blob or tenant does not open.

From a tenant's key two keys are derived (HKDF-SHA256): one wraps, one marks content for finding
duplicates inside the tenant. Equal files of two tenants have unrelated marks.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from quarantine.store.disk import make_folders, sync_folder, write_all
from quarantine.store.faults import KeyFault

KEY_BYTES = 32
_NONCE_BYTES = 12


class MasterKey:
    """The plane's own key. `id` tells keys apart without telling anything about them."""

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_BYTES:
            raise KeyFault(f"A master key has {KEY_BYTES} bytes; this one has {len(raw)}.")
        self.id = _derive(raw, b"id").hex()[:16]
        self._wrap = AESGCM(_derive(raw, b"wrap"))

    def make_tenant_key(self, tenant: UUID) -> bytes:
        """A new key for a tenant, wrapped: what the ledger keeps and forgets to erase it."""
        return _close(self._wrap, secrets.token_bytes(KEY_BYTES), b"tenant", tenant)

    def open_tenant_key(self, tenant: UUID, wrapped: bytes) -> TenantKey:
        """The tenant's key. Raises KeyFault when it was not wrapped by this key for this tenant."""
        return TenantKey(tenant, _open(self._wrap, wrapped, b"tenant", tenant))

    def adopt_tenant_key(self, tenant: UUID, wrapped: bytes, old: MasterKey) -> bytes:
        """A tenant's key wrapped by `old`, now wrapped by this one. Blobs stay as they are."""
        raw = _open(old._wrap, wrapped, b"tenant", tenant)
        return _close(self._wrap, raw, b"tenant", tenant)


class TenantKey:
    """What may be done with one tenant's key; the key itself is not shown."""

    def __init__(self, tenant: UUID, raw: bytes) -> None:
        self.tenant = tenant
        self._wrap = AESGCM(_derive(raw, b"wrap"))
        self._mark = _derive(raw, b"mark")

    def make_key(self, purpose: str, blob: UUID) -> tuple[bytes, bytes]:
        """A new key for one blob and purpose: itself, and wrapped for keeping."""
        raw = secrets.token_bytes(KEY_BYTES)
        return raw, _close(self._wrap, raw, purpose.encode(), blob)

    def open_key(self, purpose: str, blob: UUID, wrapped: bytes) -> bytes:
        """The key of a blob. Raises KeyFault for another blob, purpose or tenant."""
        return _open(self._wrap, wrapped, purpose.encode(), blob)

    def mark(self, sha256: bytes) -> str:
        """The name of content inside this tenant, 64 hex digits; says nothing outside of it."""
        return hmac.new(self._mark, sha256, hashlib.sha256).hexdigest()


def load_master_key(path: Path, *, may_make: bool) -> MasterKey:
    """The key in a file that only the plane's user may read; made at the first start.

    `may_make` is to be true only while nothing is stored yet: a new key beside old blobs would
    look like a healthy start and read nothing. Raises KeyFault.
    """
    if may_make and not path.exists():
        _make(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise KeyFault(
            f"The master key file {path.name} is gone and blobs are stored. Bring it back from "
            "where it was put away; without it no stored file can be read."
        ) from error
    except OSError as error:
        raise KeyFault(f"The master key file {path.name} cannot be opened.") from error
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077:
            raise KeyFault(
                f"The master key file {path.name} is open to others. Set its mode to 600 and "
                "consider who may have read it."
            )
        return MasterKey(os.read(fd, KEY_BYTES + 1))
    finally:
        os.close(fd)


def _make(path: Path) -> None:
    """Write a new key beside and link it into place, so that of two starters one wins whole."""
    make_folders(path.parent)
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, secrets.token_bytes(KEY_BYTES))
        os.fsync(fd)
        with contextlib.suppress(FileExistsError):
            os.link(beside, path)
        sync_folder(path.parent)
    finally:
        os.close(fd)
        beside.unlink()


def _derive(raw: bytes, label: bytes) -> bytes:
    return HKDFExpand(hashes.SHA256(), KEY_BYTES, b"nexus store 1 " + label).derive(raw)


def _close(cipher: AESGCM, raw: bytes, purpose: bytes, owner: UUID) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, raw, purpose + owner.bytes)


def _open(cipher: AESGCM, wrapped: bytes, purpose: bytes, owner: UUID) -> bytes:
    try:
        return cipher.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], purpose + owner.bytes)
    except (InvalidTag, ValueError) as error:
        raise KeyFault(
            f"The key of {owner} does not open: it was wrapped by another key or for something "
            "else. See that the master key file is the one that belongs to this store."
        ) from error
