"""Texts: comparison without case, patterns in bounded time, masks."""

import time
import unicodedata

import pytest
from hypothesis import given

from appliance.base import limits
from appliance.fields import type_of
from appliance.fields.base import ValueFault
from tests.fields.samples import field, texts

TEXT, LONG, EMAIL, PHONE, URL = (type_of(n) for n in ("text", "long_text", "email", "phone", "url"))

# The slowest patterns of 200 characters that we found for RE2, each against the longest texts.
COSTLY = [
    "(a|aa)+$", "((a?){20}){20}b", "(.*a.*){9}(.*b.*){9}$", r"(\pL?){200}(\pN?){200}z", "(.?){1000}x",
    r"(([а-яё]|[a-z])?){100}.{100}", r"[\pL\pN]{500}.*x", ".*[ab].{60}c.*", r"(\pL*\pN*){30}!",
    r"((\pL?\pN?){9}){9}", r".*(\pL.{15}){8}$",
]  # fmt: skip


def refusal(type_, definition, value):
    with pytest.raises(ValueFault) as caught:
        type_.accept(definition, value)
    return caught.value.code


@given(texts)
def test_case_and_composition_do_not_matter_to_comparison(text):
    canonical = TEXT.accept(field("text"), text)

    for other in (unicodedata.normalize("NFD", canonical), canonical.casefold()):
        assert TEXT.slot_value(field("text"), canonical) == TEXT.operand(field("text"), other)


@pytest.mark.parametrize(
    "value", ["a\x00", "a\ud800", "a\ufdd0", "a\U0010ffff", "a\x1f", "a\x7f", "a\x9f", "a\tb"]
)
def test_character_refused_is_named_with_its_place(value):
    with pytest.raises(ValueFault, match=rf"U\+{ord(value[1]):04X} at 1 ") as caught:
        TEXT.accept(field("text"), value)

    assert "character_refused" == caught.value.code


@pytest.mark.parametrize("value", ["a\x0bb", "a\x00", "a\udfff", "a\ufffe"])
def test_long_text_takes_no_control_but_tab_and_line_feed(value):
    assert "character_refused" == refusal(LONG, field("long_text"), value)


def test_lengths_are_bounded_by_the_definition():
    code = field("text", min="2", max="3")

    assert "abc" == TEXT.accept(code, "abc")
    assert "too_short" == refusal(TEXT, code, "a")
    assert "too_long" == refusal(TEXT, code, "abcd")
    assert "too_short" == refusal(LONG, field("long_text", min="5"), "abc")


def test_pattern_is_about_the_whole_value():
    code = field("text", pattern="[A-Z]{2}[0-9]{3}|X")

    assert "AB123" == TEXT.accept(code, "AB123")
    for bad in ("AB1234", "zAB123", "Xy", "AB123!"):
        assert "pattern_mismatch" == refusal(TEXT, code, bad)


@pytest.mark.parametrize("pattern", COSTLY)
def test_pattern_takes_bounded_time(pattern):
    definition = field("text", max=str(limits.TEXT_SLOT_CHARS_MAX), pattern=pattern)
    if TEXT.check_definition(definition):
        return  # refused at once, which is bounded as well
    for text in ("a" * 400, "я" * 400, "ab1ж" * 100, "😀" * 400, "aя" * 200):
        spent = []
        for _ in range(3):
            started = time.thread_time()
            try:
                TEXT.accept(definition, text)
            except ValueFault:
                pass
            spent.append(time.thread_time() - started)
        assert min(spent) * 1_000 < limits.PATTERN_TIME_MS


@pytest.mark.parametrize(
    ("type_", "change", "pointer"),
    [
        (TEXT, {"pattern": "("}, "/pattern"),
        (TEXT, {"pattern": r"(a)\1"}, "/pattern"),
        (TEXT, {"pattern": "(?=a)"}, "/pattern"),
        (TEXT, {"pattern": "a" * 201}, "/pattern"),
        (TEXT, {"pattern": "\ud800"}, "/pattern"),
        (TEXT, {"pattern": "[0-9]+", "default": "x"}, "/default"),
        (TEXT, {"max": "401"}, "/max"),
        (TEXT, {"max": "0"}, "/max"),
        (TEXT, {"min": "300"}, "/min"),
        (TEXT, {"min": "5", "max": "4"}, "/min"),
        (LONG, {"max": "100001"}, "/max"),
        (LONG, {"pattern": "a"}, "/pattern"),
    ],
)
def test_definition_faults_name_their_place(type_, change, pointer):
    assert [pointer] == [f.pointer for f in type_.check_definition(field(type_.name, **change))]


def test_phone_is_compared_and_found_by_its_digits():
    phone = field("phone")

    assert "+380441234567" == PHONE.slot_value(phone, "+380 (44) 123-45-67")
    assert "380441234567" == PHONE.search_text(phone, "+380 (44) 123-45-67")
    assert "1234567" == PHONE.operand(phone, "123-45-67")
    with pytest.raises(ValueFault):
        PHONE.operand(phone, "nobody")


def test_masks_keep_a_hint_and_no_more():
    assert "i•••@example.org" == EMAIL.mask(field("email"), "ivan@example.org")
    assert "•••4567" == PHONE.mask(field("phone"), "+380 (44) 123-45-67")
    assert "•••" == PHONE.mask(field("phone"), "12-34")
    assert "•••" == URL.mask(field("url"), "https://example.org")


def test_long_text_is_no_operand():
    with pytest.raises(ValueFault, match="search"):
        LONG.operand(field("long_text"), "abc")
