"""Words of CommerceML that stand in several places, and how its yes and no are written."""

from __future__ import annotations

from datetime import date
from typing import Any

from connectors.formats.xml import LOCAL

ROOT = "КоммерческаяИнформация"
CHANGES_ONLY = "СодержитТолькоИзменения"
_YES = frozenset({"true", "1", "да", "yes", "истина"})
_NO = frozenset({"false", "0", "нет", "no", "ложь"})
REMOVED = frozenset({"удален", "удалён", "удалена"})
_NONE_DATES = ("0001-01-01", "00010101", "1899-12-30", "0000-00-00")


def is_yes(text: str) -> bool:
    """Whether a word of a flag says yes ('true', 'Да', '1')."""
    return text.strip().casefold() in _YES


def yes_no(text: str | None) -> bool | None:
    """Yes, no, or None for a word that is neither."""
    word = (text or "").strip().casefold()
    return True if word in _YES else False if word in _NO else None


def text_of(element: Any) -> str:
    """The text of a leaf without the blanks around it."""
    return (element.text or "").strip()


def children_of(element: Any) -> dict[str, Any]:
    """The children by local name, the first of each name."""
    found: dict[str, Any] = {}
    for child in element:
        found.setdefault(LOCAL[child.tag], child)
    return found


def texts_of(element: Any) -> dict[str, str]:
    """The texts of the children by local name; what is empty is absent."""
    found: dict[str, str] = {}
    for child in element:
        if text := (child.text or "").strip():
            found.setdefault(LOCAL[child.tag], text)
    return found


def attributes_of(element: Any) -> dict[str, str]:
    """The attributes by local name, without blanks around their values."""
    return {LOCAL[name]: value.strip() for name, value in element.attrib.items()}


def is_removed(element: Any, children: dict[str, str]) -> bool | None:
    """The mark of deletion in any of its forms; None when nothing is said of it."""
    status = element.get("Статус") or children.get("Статус")
    if status and status.strip().casefold() in REMOVED:
        return True
    return yes_no(children.get("ПометкаУдаления"))


def date_of(text: str) -> str | None:
    """An ISO date of a date as written (with or without time), None for those that mean none.

    Raises ValueError for what is no date.
    """
    found = text.strip()
    if not found or found.startswith(_NONE_DATES):
        return None
    if len(found) >= 8 and found[:8].isdigit():
        return date(int(found[:4]), int(found[4:6]), int(found[6:8])).isoformat()
    if len(found) >= 10 and found[2] == found[5] == ".":
        if found[:10] in ("00.00.0000", "30.12.1899", "01.01.0001"):
            return None
        return date(int(found[6:10]), int(found[3:5]), int(found[:2])).isoformat()
    return date.fromisoformat(found[:10]).isoformat()
