"""What banks call their columns, and how well a name says what a column is."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from pathlib import Path

import msgspec

# The rank of a name that only holds a word for a field.
HELD = 1_000
CODE = re.compile(r"(?<![^\W_])([A-Z]{3})(?![^\W_])")


class Words(msgspec.Struct, frozen=True):
    """What stands in words.toml, by field, side, state, slot and currency."""

    fields: dict[str, tuple[str, ...]]
    sides: dict[str, tuple[str, ...]]
    states: dict[str, tuple[str, ...]]
    above: dict[str, tuple[str, ...]]
    symbols: dict[str, tuple[str, ...]]


class Column(msgspec.Struct, frozen=True):
    """A column: its place from 0, its name as it is and as it is compared, its filled cells."""

    place: int
    name: str
    plain: str
    currency: str
    cells: tuple[str, ...]


@cache
def read_words() -> Words:
    """The words of words.toml."""
    text = (Path(__file__).parent / "words.toml").read_bytes()
    return msgspec.toml.decode(text, type=Words)


def fold(text: str) -> str:
    """A name as it is compared: no case, no accents, words apart by one blank."""
    apart = unicodedata.normalize("NFKD", text.casefold().replace("ß", "ss").replace("ł", "l"))
    bare = "".join(c if c.isalnum() else " " for c in apart if not unicodedata.combining(c))
    return " ".join(bare.split())


@cache
def ranks_of(field: str) -> dict[str, int]:
    """The names of a field as they are compared, with their places in the list."""
    return {fold(word): n for n, word in reversed(list(enumerate(read_words().fields[field])))}


def rank_name(column: Column, field: str) -> int | None:
    """How well a name says a field: 0 is best; a name that only holds its word is worse."""
    ranks = ranks_of(field)
    if (exact := ranks.get(column.plain)) is not None:
        return exact
    bare = column.plain.rstrip("0123456789 ").removesuffix(" in").removesuffix(" en")
    if (exact := ranks.get(bare)) is not None:
        return exact + 100
    words = f" {column.plain} "
    held = [n for word, n in ranks.items() if len(word) > 2 and f" {word} " in words]
    return min(held) + HELD if held else None


def sort_by_name(columns: list[Column], field: str) -> list[Column]:
    """The columns whose name says a field, the best one first."""
    found = [(rank, c.place, c) for c in columns if (rank := rank_name(c, field)) is not None]
    return [c for _, _, c in sorted(found, key=lambda x: x[:2])]
