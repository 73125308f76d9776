"""Check digits of bank accounts and tax numbers, each by its public rule.

IBAN: ISO 13616 (mod 97-10). RF references: ISO 11649. Russian accounts: Bank of Russia 515 of
08.09.1997. ИНН: order of the Federal Tax Service ММВ-7-6/435. ЄДРПОУ and РНОКПП: rules of the State
Statistics and Tax Services of Ukraine.
"""

from __future__ import annotations

import re

_IBAN = re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}")
_BIC = re.compile(r"[A-Z]{4}[A-Z]{2}[A-Z0-9]{2}([A-Z0-9]{3})?")
_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BY": 28,
    "CH": 21, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "EE": 20, "ES": 24, "FI": 18, "FR": 27,
    "GB": 22, "GE": 22, "GI": 23, "GR": 27, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IS": 26,
    "IT": 27, "KZ": 20, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "MC": 27, "MD": 24, "ME": 22,
    "MK": 19, "MT": 31, "NL": 18, "NO": 15, "PL": 28, "PT": 25, "RO": 24, "RS": 22, "SE": 24,
    "SI": 19, "SK": 24, "SM": 27, "TR": 26, "UA": 29, "VA": 22, "XK": 20,
}  # fmt: skip
SEPA = frozenset(
    "AD AL AT BE BG CH CY CZ DE DK EE ES FI FR GB GI GR HR HU IE IS IT LI LT LU LV MC MD ME MK MT NL "
    "NO PL PT RO RS SE SI SK SM VA".split()
)


def is_iban(text: str) -> bool:
    """Whether it is an IBAN: form, length of its country, check digits."""
    if not _IBAN.fullmatch(text) or len(text) != _LENGTHS.get(text[:2], len(text)):
        return False
    return _mod97(text[4:] + text[:4]) == 1


def is_creditor_reference(text: str) -> bool:
    """Whether it is an RF reference with right check digits."""
    text = text.replace(" ", "").upper()
    if not re.fullmatch(r"RF[0-9]{2}[A-Z0-9]{1,21}", text):
        return False
    return _mod97(text[4:] + text[:4]) == 1


def is_bic(text: str) -> bool:
    """Whether it has the form of a BIC."""
    return _BIC.fullmatch(text) is not None


def is_russian_account(account: str, bank: str) -> bool:
    """Whether the control digit of an account of twenty agrees with the БИК of its bank."""
    if not re.fullmatch(r"[0-9]{20}", account) or not re.fullmatch(r"[0-9]{9}", bank):
        return False
    # Accounts with the Bank of Russia itself and correspondent accounts go by the region.
    of_region = bank[6:] in ("000", "001", "002") or account.startswith("30101")
    prefix = "0" + bank[4:6] if of_region else bank[6:]
    weights = (7, 1, 3) * 8
    total = sum(int(d) * w for d, w in zip(prefix + account, weights, strict=False))
    return total % 10 == 0


def is_russian_tax_id(text: str) -> bool:
    """Whether it is an ИНН of ten or twelve digits with right control digits."""
    if not re.fullmatch(r"[0-9]{10}|[0-9]{12}", text):
        return False
    ten = (2, 4, 10, 3, 5, 9, 4, 6, 8)
    if len(text) == 10:
        return _weigh(text, ten) % 11 % 10 == int(text[9])
    first, second = (7, *ten), (3, 7, *ten)
    return _weigh(text, first) % 11 % 10 == int(text[10]) and _weigh(text, second) % 11 % 10 == int(
        text[11]
    )


def is_ukrainian_tax_id(text: str) -> bool:
    """Whether it is a ЄДРПОУ of eight digits or a РНОКПП of ten with its control digit."""
    if re.fullmatch(r"[0-9]{10}", text):
        return _weigh(text, (-1, 5, 7, 9, 4, 6, 10, 5, 7)) % 11 % 10 == int(text[9])
    if not re.fullmatch(r"[0-9]{8}", text):
        return False
    weights = (
        (7, 1, 2, 3, 4, 5, 6) if 30_000_000 < int(text) < 60_000_000 else (1, 2, 3, 4, 5, 6, 7)
    )
    rest = _weigh(text, weights) % 11
    if rest == 10:
        rest = _weigh(text, tuple(w + 2 for w in weights)) % 11 % 10
    return rest == int(text[7])


def _mod97(text: str) -> int:
    return int("".join(str(int(c, 36)) for c in text)) % 97


def _weigh(text: str, weights: tuple[int, ...]) -> int:
    return sum(int(d) * w for d, w in zip(text, weights, strict=False))
