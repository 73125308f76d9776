"""Passwords: argon2id, bounded work, no default, and no help for guessing.

Parameters 19 MiB, t = 2, p = 1 (OWASP Password Storage, 2025): about 40 ms of one core. At most
two are computed at once and twenty wait, so that a flood of logins cannot starve the node.
"""

from __future__ import annotations

import asyncio
import secrets
import unicodedata
from collections.abc import Callable
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from appliance.base.errors import FieldFault, Invalid, Limited

T = TypeVar("T")
CHARS_MAX = 256
_WAITING_MAX = 20
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
# Same work for an unknown person as for a known one.
_NOBODY = _hasher.hash(secrets.token_urlsafe(16))
_COMMON = frozenset(
    "password passw0rd p@ssw0rd qwerty qwertyuiop asdfghjkl zxcvbnm letmein welcome admin "
    "administrator iloveyou monkey dragon football baseball sunshine princess master shadow "
    "superman batman trustno1 starwars whatever freedom hello secret changeme default guest "
    "пароль йцукен фывапролдж привет любовь администратор".split()
)
_turns = asyncio.Semaphore(2)
_waiting = 0


async def hash_password(password: str) -> str:
    """The stored form. Raises Limited when too many wait."""
    return await _work(_hasher.hash, normal(password))


async def verify_password(stored: str | None, password: str) -> bool:
    """Whether the password fits; None costs the same and never fits."""
    return await _work(_verify, stored, normal(password))


def _verify(stored: str | None, password: str) -> bool:
    try:
        _hasher.verify(stored or _NOBODY, password)
    except (VerificationError, InvalidHashError):
        return False
    return stored is not None


def needs_rehash(stored: str) -> bool:
    """Whether a stored form was made with other parameters."""
    return _hasher.check_needs_rehash(stored)


def normal(password: str) -> str:
    """One form for what different keyboards send (RFC 8265 suggests NFC for passwords)."""
    return unicodedata.normalize("NFC", password)[: CHARS_MAX * 4]


def check_strength(password: str, chars_min: int, *, pointer: str, known: str = "") -> None:
    """Long enough, not common, not the address. Raises Invalid; the text never repeats it."""
    low = password.casefold()
    core = low.strip("0123456789!@#$%^&*().,-_+= ")
    problem = None
    if not chars_min <= len(password) <= CHARS_MAX:
        problem = f"Use {chars_min} to {CHARS_MAX} characters; a sentence is good."
    elif core in _COMMON or len(set(low)) < 5:
        problem = "This is among the first that are guessed; use a few unrelated words."
    elif known and known.partition("@")[0].casefold() in low and len(known.partition("@")[0]) > 3:
        problem = "Do not use your own address in it."
    if problem:
        raise Invalid(
            "The password was not accepted.",
            code="password.weak",
            faults=(FieldFault(pointer, "password_weak", problem),),
        )


async def _work(function: Callable[..., T], *args: object) -> T:
    global _waiting
    if _waiting >= _WAITING_MAX:
        raise Limited("Too many people are signing in at this moment.", retry_after_s=2)
    _waiting += 1
    try:
        async with _turns:
            return await asyncio.to_thread(function, *args)
    finally:
        _waiting -= 1
