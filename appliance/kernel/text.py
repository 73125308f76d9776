"""Text as people compare it: without case, Cyrillic in the order of the alphabet.

`fold` maps one character to one character after case folding, so that equality, prefix and
containment of folded texts mean the same in Python and in SQL, and the byte order of the folded
form is the order people expect (ё after е, і after и, ґ after г). It replaces a database
collation: every engine and every node then sorts alike (docs/adr).
"""

from __future__ import annotations

import unicodedata

# Union of the Russian, Ukrainian and Belarusian alphabets in one order.
_ALPHABET = "абвгґдеёєжзиіїйклмнопрстуўфхцчшщъыьэюя"
_TABLE = {ord(letter): 0x0430 + place for place, letter in enumerate(_ALPHABET)}


def fold(text: str) -> str:
    """The comparable form of a text: NFC, case folded, alphabet mapped to code point order."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold()).translate(
        _TABLE
    )


def searchable(text: str) -> str:
    """Text as search stores and asks for it: NFC, ё as е, because people type either."""
    return unicodedata.normalize("NFC", text).replace("ё", "е").replace("Ё", "Е")
