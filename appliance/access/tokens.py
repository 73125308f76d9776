"""Tokens: opaque, 256 bit, stored as a hash; they name their tenant, so a request is routed first.

`nxs_` a session of a person, `nxk_` an API key, `nxp_` a session of platform staff.
"""

from __future__ import annotations

import re
import secrets
from hashlib import sha256
from uuid import UUID

_TOKEN = re.compile(r"(nxs|nxk)_([0-9a-f]{32})_([A-Za-z0-9_-]{43})\Z")


def make_token(sort: str, tenant: UUID) -> tuple[str, bytes]:
    """A fresh token and the hash that is stored of it."""
    secret = secrets.token_urlsafe(32)
    return f"{sort}_{tenant.hex}_{secret}", hash_secret(secret)


def read_token(token: str) -> tuple[UUID, bytes] | None:
    """Tenant and hash; None for anything that is no token of ours."""
    found = _TOKEN.match(token)
    return (UUID(found.group(2)), hash_secret(found.group(3))) if found else None


def hash_secret(secret: str) -> bytes:
    """A random secret needs no slow hash."""
    return sha256(secret.encode()).digest()


def make_code() -> tuple[str, bytes]:
    """A one-time code for a link, and its hash."""
    code = secrets.token_urlsafe(32)
    return code, hash_secret(code)
