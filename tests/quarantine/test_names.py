"""One name for everybody: what is shown is what is kept, on every system in use."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarantine.names import BadName, check_name, extension_of

GOOD = [
    "a.csv", "Прайс на 20.11.2026.xlsx", "договор №5 (копия).docx", "a.b.c", ".gitignore",
    "фото — магазин.jpg", "价格.xlsx", "café.pdf", "👩‍👩‍👧.png", "می‌خواهم.txt", "x" * 200,
    "console.txt", "com.txt", "lpt.csv", "auxiliary", "a'b&c=d;e,f@g+h~.txt", "100%.csv",
    'quote".csv', "star*.csv",
]  # fmt: skip
BAD = [
    "", " ", ".", "..", "a/b.csv", "a\\b.csv", "../a", "C:a.csv", "a.txt:stream", "x" * 201,
    "a\0.csv", "a\n.csv", "a\x1b[31m.csv", "a\x7f", "a\x85b", "a\u202excod.exe", "a\u2066b",
    "a\u200fb.csv", "a\u200b.csv", "a\u2028b", "\ufeffa.csv", "a\ud800b", "\uffff", "a.", "a ", " a",
    "CON", "con.txt", "nul.csv", "AUX.tar.gz", "com1", "LPT9.txt", "com¹.txt", "CLOCK$", "conin$",
    "con .txt", "\u3164.csv",
]  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_good_name_is_kept(name):
    assert check_name(name) == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_bad_name_is_refused_with_a_sentence(name):
    with pytest.raises(BadName) as refused:
        check_name(name)
    sentence = str(refused.value)
    assert sentence.endswith(".") and "\n" not in sentence
    assert len(name) < 3 or name not in sentence


def test_two_ways_to_write_a_name_are_one():
    assert check_name("cafe\u0301.pdf") == "caf\u00e9.pdf"
    assert check_name("и\u0306.csv") == "й.csv"


@given(st.text(max_size=220))
def test_name_is_stable_or_refused(name):
    try:
        kept = check_name(name)
    except BadName:
        return
    assert check_name(kept) == kept and 0 < len(kept) <= 200
    assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in kept)
    assert "/" not in kept and "\\" not in kept
    kept.encode()


@pytest.mark.parametrize(
    ("name", "extension"),
    [
        ("a.CSV", "csv"), ("a.tar.gz", "gz"), ("a", ""), ("a.", ""), (".gitignore", "gitignore"),
        ("прайс.XLSX", "xlsx"), ("a. b", ""), ("a.exe ", ""), ("a.b/c", ""),
    ],
)  # fmt: skip
def test_extension_is_what_stands_last(name, extension):
    assert extension_of(name) == extension
