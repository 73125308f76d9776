"""Tokens: opaque, 256 bit, stored as a hash; they name their tenant, so a request is routed first.

`nxs_` a session in a tenant, `nxk_` an API key of a tenant, `nxp_` a session of platform staff in
the control plane, `nxi_` a one-time code for a link. A key ends with six check characters, so
that a scanner for leaked secrets can tell a real one from a string that looks like it.
"""

from __future__ import annotations

import re
import secrets
from hashlib import sha256
from uuid import UUID
from zlib import crc32

KEY = "nxk"
CHECK_CHARS = 6
_TOKEN = re.compile(r"(nxs|nxk)_([0-9a-f]{32})_([A-Za-z0-9_-]{43})([0-9A-Za-z]{6})?\Z")
_STAFF = re.compile(r"nxp_([A-Za-z0-9_-]{43})\Z")
_CODE = re.compile(r"nxi_([0-9a-f]{32})_([A-Za-z0-9_-]{43})\Z")
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def make_token(sort: str, tenant: UUID) -> tuple[str, bytes]:
    """A fresh token and the hash that is stored of it."""
    secret = secrets.token_urlsafe(32)
    text = f"{sort}_{tenant.hex}_{secret}"
    return text + (checksum(text) if sort == KEY else ""), hash_secret(secret)


def read_token(token: str) -> tuple[UUID, bytes] | None:
    """Tenant and hash; None for anything that is no token of ours."""
    found = _TOKEN.match(token)
    if found is None:
        return None
    sort, tenant, secret, check = found.groups()
    wanted = checksum(f"{sort}_{tenant}_{secret}") if sort == KEY else None
    return (UUID(tenant), hash_secret(secret)) if check == wanted else None


def checksum(text: str) -> str:
    """CRC-32 of a key in base 62: finds typing errors and look-alikes, proves nothing."""
    number, found = crc32(text.encode()), ""
    for _ in range(CHECK_CHARS):
        number, digit = divmod(number, len(_DIGITS))
        found = _DIGITS[digit] + found
    return found


def make_staff_token() -> tuple[str, bytes]:
    """A token of platform staff; it names no tenant."""
    secret = secrets.token_urlsafe(32)
    return f"nxp_{secret}", hash_secret(secret)


def read_staff_token(token: str) -> bytes | None:
    """The hash of a token of platform staff; None for anything else."""
    found = _STAFF.match(token)
    return hash_secret(found.group(1)) if found else None


def make_code() -> tuple[str, bytes]:
    """A one-time secret for a link, and its hash."""
    code = secrets.token_urlsafe(32)
    return code, hash_secret(code)


def read_code(code: str) -> tuple[UUID, bytes] | None:
    """Tenant and hash of a one-time code; None for anything that is no code of ours."""
    found = _CODE.match(code)
    return (UUID(found.group(1)), hash_secret(found.group(2))) if found else None


def hash_secret(secret: str) -> bytes:
    """A random secret needs no slow hash."""
    return sha256(secret.encode()).digest()
