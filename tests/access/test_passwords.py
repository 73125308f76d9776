"""Passwords: what is accepted, what it costs, and how many at once."""

import asyncio
import time

import pytest

from appliance.access import passwords
from appliance.base.errors import Invalid, Limited

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("bad", [
    "short", "password1234", "Passw0rd!!2024", "qwertyuiop123", "P@ssw0rdP@ssw0rd", "aaaaaaaaaaaaaa",
    "abcabcabcabc", "abcdefghijklmno", "123456789012", "йцукенгшщзхъ", "пароль123456", "iloveyou2024!!",
    "administrator1", "DragonDragon12", "letmein-letmein", "superman.2024.", "zxcvbnmasdfgh", "привет2024!!!",
    "welcome admin 1", "n" * 257, "michael jordan 23",
])  # fmt: skip
def test_what_is_guessed_first_is_refused(bad):
    with pytest.raises(Invalid) as caught:
        passwords.check_strength(bad, 12, pointer="/password")
    fault = caught.value.faults[0]
    assert (fault.pointer, fault.code) == ("/password", "password_weak")
    assert bad not in str(caught.value) + fault.detail


@pytest.mark.parametrize("good", [
    "seven green umbrellas at dusk", "correct horse battery staple", "четыре жёлтых трамвая",
    "кіт наступив на гітару", "xK9#vv2Lq0-Rt", "x" * 3 + "yz!0 wobble quince" + "w" * 200,
])  # fmt: skip
def test_what_nobody_guesses_is_accepted(good):
    passwords.check_strength(good, 12, pointer="/password", known="anna@example.org")


def test_ones_own_address_is_refused():
    with pytest.raises(Invalid):
        passwords.check_strength("zq-annabel-73-vx", 12, pointer="/p", known="Annabel@example.org")


def test_the_list_is_a_few_hundred_words():
    assert 400 < len(passwords._common()) < 3_000


async def test_a_stored_form_is_argon2id_with_our_parameters():
    stored = await passwords.hash_password("seven green umbrellas")
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert await passwords.verify_password(stored, "seven green umbrellas")
    assert not await passwords.verify_password(stored, "seven green umbrella")
    assert not await passwords.verify_password("no hash at all", "x")
    assert not passwords.needs_rehash(stored)
    assert passwords.needs_rehash(stored.replace("m=19456", "m=8192"))


async def test_one_form_for_two_keyboards():
    stored = await passwords.hash_password("caf\u00e9 am Morgen")
    assert await passwords.verify_password(stored, "cafe\u0301 am Morgen")


async def test_a_flood_is_refused_and_the_rest_is_served():
    bound = passwords.AT_ONCE + passwords.WAITING_MAX
    tries = [passwords.verify_password(None, "x") for _ in range(bound + 5)]
    answers = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(a, Limited) for a in answers) == 5
    assert answers.count(False) == bound
    assert passwords._waiting == 0


async def test_nobody_costs_the_same_as_somebody():
    stored = await passwords.hash_password("seven green umbrellas")
    spent = {None: [], stored: []}
    for _ in range(12):
        for which, times in spent.items():
            begin = time.perf_counter()
            await passwords.verify_password(which, "wrong")
            times.append(time.perf_counter() - begin)
    a, b = (min(times) for times in spent.values())
    assert abs(a - b) / max(a, b) < 0.15, (a, b)
