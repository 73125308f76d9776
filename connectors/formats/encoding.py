"""Which encoding a text is in: by its marks, then strictly, then by what reads like language.

Declared encodings lie in both directions, so a declaration only counts when it decodes and reads
well (research/connectors 1). Nothing is ever replaced: bytes that fit no candidate are refused.
"""

from __future__ import annotations

from itertools import pairwise

from connectors.sdk.contract import Fault, Place, Refused

_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_CYRILLIC = ("cp1251", "cp866", "koi8-u", "mac_cyrillic")
_WESTERN = ("cp1252", "latin-1")
# The most frequent pairs of Russian and Ukrainian texts: wrong code pages make others.
_PAIRS = frozenset(
    "ст но то на ен ов ни ра во ко по пр ро ли ет ла ка ер ан ос ва од ка ви та не ть ог ри де ер "
    "ом ор ес ал ил ин ло ре те ве до ми за об го ол ки ти ас ий ит ів ії нн ня сь ує ав да ти ан "
    "мо ма па са ба ша ле ме се ус ур ум ук ул".split()
)
_SAMPLE = 65_536


def detect_encoding(data: bytes) -> str:
    """The encoding of a text by its first bytes. Raises Refused when no candidate reads well."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name
    if b"\0" in data[:4_096]:
        even, odd = data[0:2_000:2].count(0), data[1:2_000:2].count(0)
        if max(even, odd) < len(data[:2_000]) // 4:
            raise Refused(Fault("not-text", "a text table", "zero bytes"))
        return "utf-16-be" if even > odd else "utf-16-le"
    sample = data[:_SAMPLE]
    try:
        # A character may be cut at the end of the sample.
        sample.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(sample) - 4 or len(data) <= _SAMPLE:
            return _best(sample)
    return "utf-8"


def _best(sample: bytes) -> str:
    scored = [(_score(sample, name), -n, name) for n, name in enumerate((*_CYRILLIC, *_WESTERN))]
    return max(scored)[2]


def _score(sample: bytes, name: str) -> float:
    try:
        text = sample.decode(name)
    except UnicodeDecodeError:
        return -1.0
    high = [c for c in text if ord(c) > 127]
    if not high:
        return 0.0
    lower = text.lower()
    pairs = sum(lower[n : n + 2] in _PAIRS for n in range(len(lower) - 1))
    letters = sum(c.isalpha() for c in high) / len(high)
    strange = sum(0x80 <= ord(c) < 0xA0 or "\u2500" <= c <= "\u259f" for c in high) / len(high)
    # Capitals in the middle of words are the sign of a wrong Cyrillic page; ASCII has camel case.
    middle = (a.islower() and b.isupper() and b > "\x7f" for a, b in pairwise(text))
    odd = sum(middle) / len(high)
    if name in _WESTERN:
        return 0.3 * letters - strange
    return pairs / len(high) + 0.5 * letters - 2 * strange - 2 * odd


def decode_error(error: UnicodeDecodeError, offset: int) -> Refused:
    """The refusal of bytes that are not in the encoding of the rest."""
    found = f"byte 0x{error.object[error.start]:02X} at offset {offset + error.start}"
    return Refused(Fault("bad-encoding", f"text in {error.encoding}", found, Place()))


def reads_well(sample: bytes, declared: str) -> bool:
    """Whether a text may be in the encoding it declares: it decodes, and no other reads better.

    Encodings that are not scored (Latin-2, Greek) are believed when they decode, unless the text
    reads as a Cyrillic one.
    """
    try:
        score = _score(sample, declared)
    except LookupError:
        return False
    best = _best(sample)
    if score < 0 or (declared not in _CYRILLIC and _score(sample, best) > 1.0):
        return False
    return declared not in _CYRILLIC or score >= _score(sample, best) - 0.2
