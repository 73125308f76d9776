"""SQL text under construction: values become parameters, names come from the catalogue.

Every statement of this room leaves through `statement`, which refuses a text that reads a table
without its guard: the guard of each table is noted here when it is made (read/guard).
"""

from __future__ import annotations

import re
from functools import lru_cache

from appliance.base.errors import ApplianceError
from appliance.db.wire import Call, Param, Statement

Guards = tuple[tuple[str, str], ...]

_TABLE = re.compile(r"\b(?:record|entry|turnover) (?:AS )?(\w+)")
_LINKS = re.compile(r"\brecord_link\b")
_TIED_LINKS = re.compile(r"\brecord_link (\w+) WHERE \1\.tenant_id = \$1::uuid")
_UNSAFE = re.compile(r"[\\\x00-\x1f]")
_STATEMENTS_MAX = 4_000


class Sql:
    """Collects parameters, aliases and guards of one statement.

    `joins` counts the relations that paths have asked for; `lasting` turns false when the text or
    the values depend on more than query, rights and schema (the day, the tree of units).
    """

    def __init__(self) -> None:
        self.params: list[Param] = []
        self.guards: list[tuple[str, str]] = []
        self.joins = 0
        self.lasting = True
        self._aliases = 0
        self._shared: dict[str, str] = {}

    def value(self, value: Param, type_: str) -> str:
        """A placeholder for a value of a PostgreSQL type."""
        self.params.append(value)
        return f"${len(self.params)}::{type_}"

    def shared(self, name: str, value: Param, type_: str) -> str:
        """A placeholder for a value that one name stands for in the whole statement."""
        found = self._shared.get(name)
        if found is None:
            found = self._shared[name] = self.value(value, type_)
        return found

    def alias(self) -> str:
        """A fresh table alias."""
        self._aliases += 1
        return f"r{self._aliases}"

    def forget_after(self, mark: int) -> None:
        """Drop the parameters behind a mark, when the text that used them is given up."""
        del self.params[mark:]
        kept = {f"${n}" for n in range(1, mark + 1)}
        self._shared = {k: v for k, v in self._shared.items() if v.partition("::")[0] in kept}

    def finish(self, text: str) -> Call:
        """The statement and its parameters. Raises ApplianceError for an unguarded table."""
        return statement(text, tuple(self.guards)), tuple(self.params)


@lru_cache(maxsize=_STATEMENTS_MAX)
def statement(text: str, guards: Guards) -> Statement:
    """One Statement per text, so that a shape is named once and prepared once a connection.

    Each table named in the text must have its guard in the text, and each guard its table.
    """
    tables = set(_TABLE.findall(text))
    guarded = {alias for alias, _ in guards}
    whole = all(f"{alias}.tenant_id = $1::uuid" in g and g in text for alias, g in guards)
    links = len(_LINKS.findall(text)) == len(_TIED_LINKS.findall(text))
    if not (tables and tables == guarded and whole and links):
        raise ApplianceError("A statement would read a table without its guard.", code="node.fault")
    return Statement(text)


def literal(text: str) -> str:
    """A name of the catalogue as a SQL string; what could end one is refused."""
    if _UNSAFE.search(text):
        raise ApplianceError("A name of the catalogue cannot stand in SQL.", code="node.fault")
    return "'" + text.replace("'", "''") + "'"


SLOT_TYPES = {"t": "text", "n": "bigint", "d": "timestamptz", "r": "uuid"}
_SYSTEM_TYPES = {
    "id": "uuid", "unit_id": "uuid", "owner_id": "uuid", "created_by": "uuid", "updated_by": "uuid",
    "created_at": "timestamptz", "at": "timestamptz", "reverses": "uuid", "updated_at": "timestamptz", "number": "text",
}  # fmt: skip


def slot_type(slot: str) -> str:
    """The PostgreSQL type of a slot or system column."""
    return _SYSTEM_TYPES.get(slot) or SLOT_TYPES[slot[0]]
