"""SQL text under construction: values become parameters, names come from the catalogue."""

from __future__ import annotations

from functools import lru_cache

from appliance.db.wire import Param, Statement


class Sql:
    """Collects parameters and hands out aliases for one statement."""

    def __init__(self) -> None:
        self.params: list[Param] = []
        self._aliases = 0

    def value(self, value: Param, type_: str) -> str:
        """A placeholder for a value of a PostgreSQL type."""
        self.params.append(value)
        return f"${len(self.params)}::{type_}"

    def alias(self) -> str:
        """A fresh table alias."""
        self._aliases += 1
        return f"r{self._aliases}"


@lru_cache(maxsize=4_000)
def statement(text: str) -> Statement:
    """One Statement per text, so that a shape is named once and prepared once a connection."""
    return Statement(text)


SLOT_TYPES = {"t": "text", "n": "bigint", "d": "timestamptz", "r": "uuid"}
_SYSTEM_TYPES = {
    "id": "uuid", "unit_id": "uuid", "owner_id": "uuid", "created_by": "uuid", "updated_by": "uuid",
    "created_at": "timestamptz", "updated_at": "timestamptz", "number": "text",
}  # fmt: skip


def slot_type(slot: str) -> str:
    """The PostgreSQL type of a slot or system column."""
    return _SYSTEM_TYPES.get(slot) or SLOT_TYPES[slot[0]]
