"""Small words of a source and what they are here: units, currencies, taxes, and what a person said.

Settings of the run's mapping come first (`unit:шт`, `currency:у.е.`, `tax:20`, `price_type:<id>`,
`warehouse:<id>`); then codes and names that mean one thing only. A word that means nothing here is
never guessed and never made: its rows wait.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from uuid import UUID

import msgspec

from appliance.base.ids import parse_uuid
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from appliance.kernel.money import currencies
from appliance.kernel.text import fold

# ISO 4217 numbers and former codes that old bases write.
_CODES = {
    "980": "UAH", "643": "RUB", "810": "RUB", "RUR": "RUB", "840": "USD", "978": "EUR",
    "985": "PLN", "398": "KZT", "933": "BYN", "974": "BYN", "BYR": "BYN", "826": "GBP",
}  # fmt: skip
_SMALL = Statement(
    "SELECT id::text, kind, data FROM record WHERE tenant_id = $1 AND deleted_at IS NULL "
    "AND kind = ANY($2::text[]) ORDER BY id"
)
_KINDS = ["unit_of_measure", "currency", "tax", "price_type", "warehouse"]
_RATE = re.compile(r"(\d{1,2}(?:[.,]\d+)?)\s*%?\Z")
NONE = "-"
_decode = msgspec.json.Decoder(dict[str, Json]).decode


class Unknown(Exception):
    """A value that is nothing here: what it should be, and the value."""

    def __init__(self, what: str, value: str) -> None:
        super().__init__(what, value)
        self.what, self.value = what, value


class Words:
    """What the words of one source mean."""

    def __init__(
        self, settings: Mapping[str, str], small: list[tuple[UUID, str, dict[str, Json]]]
    ) -> None:
        self._settings = settings
        self._units: dict[str, str] = {}
        self._currencies: dict[str, str] = {}
        self._rates: dict[Decimal, list[UUID]] = {}
        self._named: dict[tuple[str, str], UUID] = {}
        self.records = {ident: data for ident, _, data in small}
        for ident, kind, data in small:
            self._take(ident, kind, data)

    @classmethod
    async def read(cls, db: Database, ctx: Ctx, settings: Mapping[str, str]) -> Words:
        """The words of a tenant."""
        (rows,) = await db.read(ctx.tenant, (_SMALL, (ctx.tenant, _KINDS)))
        small = [
            (UUID((i or b"").decode()), (k or b"").decode(), _decode(d or b"{}"))
            for i, k, d in rows
        ]
        return cls(settings, small)

    def _take(self, ident: UUID, kind: str, data: dict[str, Json]) -> None:
        names = [str(data[n]) for n in ("key", "code", "name") if data.get(n)]
        if kind == "unit_of_measure":
            for name in names:
                self._units.setdefault(_plain(name), str(data.get("key")))
        elif kind == "currency":
            for name in (*names, *str(data.get("words") or "").split(",")):
                self._currencies.setdefault(_plain(name), str(data.get("code")))
        elif kind == "tax":
            rate = Decimal(str(data.get("rate") or 0)).normalize()
            self._rates.setdefault(rate, []).append(ident)
        for name in (str(ident), *names):
            self._named.setdefault((kind, _plain(name)), ident)

    def unit(self, word: str, code: str = "") -> str:
        """The key of a unit of measure. Raises Unknown."""
        for name in (word, code):
            if name and (told := self._settings.get(f"unit:{name}")):
                return self._units.get(_plain(told), told)
        for name in (code.strip().zfill(3) if code.strip() else "", word):
            if found := self._units.get(_plain(name)) if name else None:
                return found
        raise Unknown("unit", word or code)

    def currency(self, word: str) -> str:
        """An ISO 4217 code. Raises Unknown."""
        told = self._settings.get(f"currency:{word}", word).strip()
        code = _CODES.get(told.upper(), told.upper())
        if code in currencies():
            return code
        if found := self._currencies.get(_plain(told)):
            return found
        raise Unknown("currency", word)

    def tax(self, word: str) -> UUID | None:
        """A tax: the one that a setting names, or the only one of that rate. Raises Unknown."""
        told = self._settings.get(f"tax:{word}")
        if told == NONE:
            return None
        if told and (found := self._named.get(("tax", _plain(told)))):
            return found
        try:
            match = _RATE.match((told or word).strip())
            rate = Decimal(match.group(1).replace(",", ".")) if match else None
        except InvalidOperation:
            rate = None
        taxes = self._rates.get(rate.normalize(), []) if rate is not None else []
        if len(taxes) == 1:
            return taxes[0]
        raise Unknown("tax", word)

    def linked(self, entity: str, kind: str, external_id: str) -> UUID | None:
        """The record that a setting names for an external id: by its id, key or name.

        Raises Unknown when the setting names nothing.
        """
        told = self._settings.get(f"{entity}:{external_id}")
        if not told:
            return None
        found = self._named.get((kind, _plain(told))) or parse_uuid(told)
        if found is None:
            raise Unknown(entity, external_id)
        return found

    def default_warehouse(self) -> UUID:
        """Where stock lies that is told without a warehouse. Raises Unknown."""
        told = self._settings.get("warehouse")
        found = self._named.get(("warehouse", _plain(told))) if told else None
        if found is None:
            raise Unknown("warehouse", "")
        return found

    def warehouses(self) -> dict[str, UUID]:
        """The warehouses that settings name: external id to record."""
        told = {
            k.partition(":")[2]: v for k, v in self._settings.items() if k.startswith("warehouse:")
        }
        found = {
            e: self._named.get(("warehouse", _plain(v))) or parse_uuid(v) for e, v in told.items()
        }
        return {ext: ident for ext, ident in found.items() if ext and ident is not None}

    def setting(self, name: str, default: str = "") -> str:
        """One setting of the mapping."""
        return self._settings.get(name, default)


def _plain(word: str) -> str:
    """A word without what makes no difference: case, blanks, a dot behind an abbreviation."""
    return fold(" ".join(word.split()).rstrip("."))
