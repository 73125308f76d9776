"""Values as 1C writes them in JSON, to those of staged rows. Never through a float."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from connectors.formats.amounts import is_plain, plain_decimal
from connectors.sdk.contract import Fault, Place, Value
from connectors.systems.onec_odata.profile import ZERO

_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_RATE = re.compile(r"(?:НДС|ПДВ)?\s*(\d{1,2})(?:_\d+)?\s*%?", re.IGNORECASE)
_NO_TAX = ("безндс", "без ндс", "без пдв", "безпдв")
_NO_DATES = ("0001-01-01", "1753-01-01")
_MOST = Decimal(10) ** 24
_decode = msgspec.json.Decoder(float_hook=Decimal).decode


class Row:
    """One object of an answer, read property by property; what is wrong gathers in `faults`."""

    __slots__ = ("_held", "faults", "place")

    def __init__(self, held: dict[str, Any], place: Place) -> None:
        self._held, self.place = held, place
        self.faults: list[Fault] = []

    def said(self, name: str) -> Any:
        """A property as it came."""
        return self._held.get(name)

    def text(self, name: str) -> str:
        """A text without blanks around it; empty when there is none."""
        found = self._held.get(name)
        if found is None:
            return ""
        if isinstance(found, int | Decimal) and not isinstance(found, bool):
            return f"{found:f}" if isinstance(found, Decimal) else str(found)
        if not isinstance(found, str):
            self._fault("value-malformed", "a text", name, str(found))
            return ""
        if _CONTROL.search(found):
            self._fault("control-character", "text without control characters", name, "")
            return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", found).strip()
        return found.strip()

    def guid(self, name: str) -> str:
        """An id; empty for the empty reference."""
        found = self.text(name)
        if not found or found == ZERO:
            return ""
        if not _GUID.fullmatch(found):
            self._fault("id-malformed", "an id of 1C", name, found)
            return ""
        return found

    def number(self, name: str) -> str | None:
        """A plain decimal."""
        found = self._held.get(name)
        if found is None or found == "":
            return None
        if isinstance(found, int | Decimal) and not isinstance(found, bool):
            written = f"{Decimal(found):f}" if -_MOST < found < _MOST else ""
        else:
            written = found if isinstance(found, str) else ""
        try:
            return written if is_plain(written) else plain_decimal(written)
        except ValueError as error:
            self._fault(str(error), "a decimal number", name, str(found))
            return None

    def yes_no(self, name: str) -> bool | None:
        """A flag."""
        found = self._held.get(name)
        if found is None or isinstance(found, bool):
            return found
        if found in ("true", "false"):
            return bool(found == "true")
        self._fault("value-malformed", "true or false", name, str(found))
        return None

    def moment(self, name: str) -> str | None:
        """A date with its time; None for the empty date."""
        found = self.text(name)
        if not found or found.startswith(_NO_DATES):
            return None
        try:
            return datetime.fromisoformat(found).replace(tzinfo=None).isoformat()
        except ValueError:
            self._fault("malformed-date", "a date", name, found)
            return None

    def part(self, name: str) -> list[dict[str, Any]]:
        """The rows of a tabular part."""
        found = self._held.get(name)
        if found is None:
            return []
        if not isinstance(found, list) or not all(isinstance(r, dict) for r in found):
            self._fault("value-malformed", "the rows of a tabular part", name, "")
            return []
        return found

    def _fault(self, code: str, expected: str, name: str, found: str) -> None:
        place = Place(self.place.sheet, self.place.row, name)
        self.faults.append(Fault(code, expected, found[:60], place))


def read_rows(body: msgspec.Raw) -> list[Any]:
    """The objects of an answer. Raises ValueError for what is no answer."""
    held = _decode(body)
    rows = held.get("value") if isinstance(held, dict) else None
    if not isinstance(rows, list):
        raise ValueError("an answer with its rows")  # noqa: TRY004 - a value of the input
    return rows


def read_tax(text: str) -> str:
    """A rate of a tax as the target reads it, of an enumeration or a catalogue of 1C."""
    if text.casefold() in _NO_TAX:
        return "Без НДС"
    found = _RATE.fullmatch(text)
    return found[1] if found else text


def put(values: dict[str, Value], **found: Value) -> None:
    """Put in what is said; what is empty stays absent."""
    values.update({k: v for k, v in found.items() if v not in (None, "")})
