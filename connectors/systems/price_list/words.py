"""The words of price lists, read once: header texts to targets, money words, units, phrases."""

from __future__ import annotations

import re
import tomllib
from functools import lru_cache
from importlib import resources

from rapidfuzz import fuzz

_WORDS = tomllib.loads(
    resources.files("connectors.systems.price_list").joinpath("words.toml").read_text("utf-8")
)
_CAMEL = re.compile(r"(?<=[a-zа-яіїєґ])(?=[A-ZА-ЯІЇЄҐ])")
_OWN = re.compile(r"\[([^\[\]]{1,40})\], ([A-Z]{3})\Z")
_JUNK = re.compile(r"[^\w%$€£₴₽₸/]+")
SINGLE = tuple(t for t in _WORDS["targets"] if t != "price")


def normal(text: str) -> str:
    """A header as it compares: lower case, ё as е, words apart by one blank."""
    return _JUNK.sub(" ", _CAMEL.sub(" ", text).lower().replace("ё", "е").replace("_", " ")).strip()


_TARGETS = {
    target: sorted({normal(w) for w in words}, key=len, reverse=True)
    for target, words in _WORDS["targets"].items()
}
_NOT = {target: [normal(w) or w for w in words] for target, words in _WORDS["not"].items()}


@lru_cache(maxsize=10_000)
def rate_header(text: str, target: str) -> tuple[float, str]:
    """How well a header names a target, 0 to 1, and the word that says so."""
    header = normal(text)
    if not header or any(_has(header, w) for w in _NOT.get(target, ())):
        return 0.0, ""
    best, why = 0.0, ""
    for word in _TARGETS[target]:
        if header == word:
            return 1.0, word
        if _has(header, word):
            # A long header that only mentions a short word says less.
            found = 0.6 + 0.35 * min(1.0, len(word) / len(header))
        elif len(word) > 4 and fuzz.ratio(header, word) >= 85:
            found = 0.7
        else:
            continue
        if found > best:
            best, why = found, word
    return best, why


def _has(header: str, word: str) -> bool:
    return f" {word} " in f" {header} " or (not word[:1].isalpha() and word in header)


@lru_cache(maxsize=10_000)
def find_currency(text: str) -> str:
    """The ISO 4217 code a text names, or nothing."""
    low = f" {text.lower()} "
    for code, words in _WORDS["currencies"].items():
        for word in words:
            if word.isalpha():
                if re.search(rf"(?<![a-zа-яіїєґ]){re.escape(word)}(?![a-zа-яіїєґ])", low):
                    return str(code)
            elif word in low:
                return str(code)
    return ""


@lru_cache(maxsize=1_000)
def read_currency(text: str) -> str:
    """The code that a cell of a currency column stands for: a word, ISO 4217 letters or number."""
    bare = text.strip().upper()
    for code, numbers in _WORDS["currency_numbers"].items():
        if bare.lstrip("0") in numbers:
            return str(code)
    return find_currency(text) or (bare if re.fullmatch("[A-Z]{3}", bare) else "")


@lru_cache(maxsize=10_000)
def find_unit(text: str) -> str:
    """The unit a word stands for, or nothing."""
    word = text.lower().strip(" .\t")
    for unit, words in _WORDS["units"].items():
        if word in (w.strip(".") for w in words):
            return str(unit)
    return ""


def own_price(header: str) -> tuple[str, str]:
    """Key and currency of a price column that a node has written: «Price: Retail [retail], UAH»."""
    found = _OWN.search(header)
    return (found.group(1), found.group(2)) if found else ("", "")


@lru_cache(maxsize=2_000)
def price_type_of(header: str) -> str:
    """retail, wholesale or purchase when a header says so; else nothing."""
    low = f" {normal(header)} "
    for key, words in _WORDS["price_types"].items():
        if any(f" {w} " in low for w in words):
            return str(key)
    return ""


def is_phrase(text: str, which: str) -> bool:
    """Whether a text is one of the phrases of a sort."""
    return text.lower().strip(" .:!*") in _phrases(which) or text.strip() in _phrases(which)


def starts_phrase(text: str, which: str) -> bool:
    """Whether a text begins with one of the phrases of a sort."""
    low = text.lower().strip(" .:!*")
    return low.startswith(_beginnings(which)) or low in _phrases(which)


@lru_cache(maxsize=20)
def _beginnings(which: str) -> tuple[str, ...]:
    # "Total knee replacement" is a thing that is sold; «Итого по складу» is not.
    phrases = _phrases(which)
    return tuple(p + ":" for p in phrases) + tuple(p + " " for p in phrases if not p.isascii())


@lru_cache(maxsize=20)
def _phrases(which: str) -> frozenset[str]:
    return frozenset(_WORDS["phrases"][which])
