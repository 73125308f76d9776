"""Passwords: argon2id, bounded work, no default, and no help for guessing.

Parameters 19 MiB, t = 2, p = 1 (OWASP Password Storage, 2025): about 40 ms of one core. At most
two are computed at once and twenty wait, so that a flood of logins cannot starve the node. An
unknown person costs the same work as a known one.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from importlib import resources
from typing import TypeVar
from weakref import WeakKeyDictionary

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError

from appliance.base.errors import FieldFault, Invalid, Limited

T = TypeVar("T")
CHARS_MAX = 256
AT_ONCE = 2
WAITING_MAX = 20
_DISTINCT_MIN = 5
# What a newer program may have raised the work to.
_DEARER_MAX = 4
_LEET = str.maketrans("0134578@$!|", "oieastbasii")
_LETTERS = re.compile(r"[^\W\d_]+")
_ENDS = re.compile(r"^[\W\d_]+|[\W\d_]+$")
_RUNS = (
    "abcdefghijklmnopqrstuvwxyz", "01234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm",
    "абвгдежзийклмнопрстуфхцчшщъыьэюя", "йцукенгшщзхъ", "фывапролджэ", "ячсмитьбю",
)  # fmt: skip
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
# Same work for an unknown person as for a known one.
_NOBODY = _hasher.hash(secrets.token_urlsafe(16))
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
_waiting = 0


async def hash_password(password: str) -> str:
    """The stored form. Raises Limited when too many wait."""
    return await _work(_hasher.hash, normal(password))


async def verify_password(stored: str | None, password: str) -> bool:
    """Whether the password fits; None costs the same and never fits. Raises Limited."""
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


def is_bearable(stored: str) -> bool:
    """Whether a stored form that another node has made costs no more to check than some times our
    own: its parameters say how much memory and time a sign-in takes here.
    """
    try:
        found = extract_parameters(stored)
    except InvalidHashError:
        return False
    ours = _hasher
    return (
        found.memory_cost <= _DEARER_MAX * ours.memory_cost
        and found.time_cost <= _DEARER_MAX * ours.time_cost
        and found.parallelism <= _DEARER_MAX * ours.parallelism
    )


def normal(password: str) -> str:
    """One form for what different keyboards send (RFC 8265 takes NFC for passwords).

    Longer than any password may be is cut before it costs work; it cannot fit anyway.
    """
    return unicodedata.normalize("NFC", password[: CHARS_MAX + 1])


def check_strength(password: str, chars_min: int, *, pointer: str, known: str = "") -> None:
    """Long enough, not common, not the address. Raises Invalid; the text never repeats it."""
    text = unicodedata.normalize("NFC", password)
    problem = None
    if not chars_min <= len(text) <= CHARS_MAX:
        problem = f"Use {chars_min} to {CHARS_MAX} characters; a sentence is good."
    elif is_common(text):
        problem = "This is among the first that are guessed; use a few unrelated words."
    elif _is_known(text, known):
        problem = "Do not use your own address in it."
    if problem:
        raise Invalid(
            "The password was not accepted.",
            code="password.weak",
            faults=(FieldFault(pointer, "password_weak", problem),),
        )


def is_common(password: str) -> bool:
    """Whether little is left once digits, signs, keyboard runs, repeats and one common word are."""
    low = unicodedata.normalize("NFKC", password).casefold()
    if len(set(low)) < _DISTINCT_MIN or low.isdigit() or _is_repeat(low) or _is_run(low):
        return True
    # Digits that end a word stand for themselves, those inside it for letters.
    leet = _ENDS.sub("", low).translate(_LEET)
    return _is_few_words(low) or (2 * len(leet) > len(low) and _is_few_words(leet))


def _is_few_words(text: str) -> bool:
    """Two fifths of it or more is letters, and these are one or two common words.

    One or two single letters beside them are not more than decoration.
    """
    words = [w for w in _LETTERS.findall(text) if len(w) > 2]
    found = [_split(w) for w in words]
    if 5 * sum(map(len, words)) < 2 * len(text) or None in found:
        return False
    return len({w for f in found if f for w in f}) <= 2


def _split(word: str) -> tuple[str, ...] | None:
    """A run of letters as one or two common words; None when it is something else."""
    common = _common()
    if word in common or _is_run(word) or _is_repeat(word):
        return (word,)
    for cut in range(3, len(word) - 2):
        if word[:cut] in common and word[cut:] in common:
            return word[:cut], word[cut:]
    return None


def _is_repeat(text: str) -> bool:
    """The same up to six characters over and over."""
    return any(len(text) > n and text == (text[:n] * len(text))[: len(text)] for n in range(1, 7))


def _is_run(text: str) -> bool:
    """Keys or letters in a row, forwards or backwards."""
    return len(text) > 3 and any(text in run * 3 or text[::-1] in run * 3 for run in _RUNS)


def _is_known(text: str, known: str) -> bool:
    name = known.partition("@")[0].casefold()
    return len(name) > 3 and name in text.casefold()


@lru_cache(maxsize=1)
def _common() -> frozenset[str]:
    path = resources.files("appliance.access").joinpath("common_passwords.txt")
    lines = path.read_text("utf-8").splitlines()
    return frozenset(w for line in lines if not line.startswith("#") for w in line.split())


async def _work(function: Callable[..., T], *args: object) -> T:
    global _waiting
    if _waiting >= AT_ONCE + WAITING_MAX:
        raise Limited(
            "Too many people are signing in at this moment.", code="session.busy", retry_after_s=2
        )
    turns = _turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE))
    _waiting += 1
    try:
        async with turns:
            return await asyncio.to_thread(function, *args)
    finally:
        _waiting -= 1
