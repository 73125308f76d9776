"""Time-based codes (RFC 6238) and recovery codes. A code is good once."""

from __future__ import annotations

import secrets
import time
from hashlib import sha256

import pyotp

STEP_S = 30
# Steps beside the present one that are accepted, for clocks that differ.
WINDOW = 1
RECOVERY_CODES = 10
RECOVERY_BYTES = 10


def new_secret() -> bytes:
    """A secret in the base32 text that authenticator programs take."""
    return pyotp.random_base32().encode()


def provisioning_uri(secret: bytes, email: str, tenant: str) -> str:
    """The URI behind the QR code."""
    return str(
        pyotp.TOTP(secret.decode()).provisioning_uri(name=email, issuer_name=f"Nexus {tenant}")
    )


def verify(secret: bytes, code: str, last_step: int) -> int | None:
    """The time step of a code that fits and is newer than the last one used; else None."""
    if not (len(code) == 6 and code.isascii() and code.isdigit()):
        return None
    totp = pyotp.TOTP(secret.decode())
    present = int(time.time()) // STEP_S
    for step in range(present - WINDOW, present + WINDOW + 1):
        if step > last_step and secrets.compare_digest(totp.at(step * STEP_S), code):
            return step
    return None


def recovery_codes() -> list[str]:
    """Codes for a lost device, each good once: 80 bit, in groups of five for reading aloud."""
    texts = [secrets.token_hex(RECOVERY_BYTES) for _ in range(RECOVERY_CODES)]
    return ["-".join(t[n : n + 5] for n in range(0, len(t), 5)) for t in texts]


def recovery_hash(code: str) -> bytes:
    """What is stored of a recovery code; groups and case do not count."""
    text = "".join(c for c in code.lower() if c.isascii() and c.isalnum())
    return sha256(b"recovery" + text.encode()).digest()
