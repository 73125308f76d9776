"""The lines above a table's header: which of them say the account, the currency, the balance."""

from __future__ import annotations

import re
from collections.abc import Iterator

from connectors.systems.bank_csv.naming import CODE, fold, read_words
from connectors.systems.bank_csv.values import parse_money

_IBAN = re.compile(r"[A-Z]{2}\d{2}[ ]?[A-Z0-9](?:[ ]?[A-Z0-9]){9,29}")
_ACCOUNT = re.compile(r"[A-Z0-9][A-Z0-9 ./*-]{3,40}", re.IGNORECASE)


def read_above(above: list[list[str]]) -> Iterator[str]:
    """Patterns for the lines above the header that say the account, the currency, the balance."""
    seen: set[str] = set()
    for cells in above:
        text = " ".join(" ".join(c.split()) for c in cells if c)
        label, _, value = text.partition(":")
        if not value.strip() and sum(map(bool, cells)) == 2:
            label, value = [" ".join(c.split()) for c in cells if c]
        value, plain = value.strip(), fold(label)
        for slot, names in read_words().above.items():
            if slot in seen or not any(f" {fold(n)} " in f" {plain} " for n in names):
                continue
            if told := _value_of(slot, value):
                seen.add(slot)
                yield f"{text[: len(text) - len(value)]}{value.replace(told, f'{{{slot}}}', 1)}"


def _value_of(slot: str, value: str) -> str:
    if slot == "currency":
        return found[0] if (found := CODE.search(value)) else ""
    if slot == "closing":
        return value if any(parse_money(value, m) is not None for m in ".,") else ""
    found = _IBAN.search(value) or _ACCOUNT.fullmatch(value)
    return found[0] if found and any(c.isdigit() for c in found[0]) else ""
