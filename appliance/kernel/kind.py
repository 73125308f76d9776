"""Kinds and fields as data: what the schema of one tenant says, compiled for reading.

`Schema` is built from `sys.kind` and `sys.field` records (appliance/schema) and is valid for
one `schema_rev` of one tenant. Names are what people and the API say; `fid` is what data and
log say and never changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from appliance.kernel.ledger import Ledger

if TYPE_CHECKING:
    from appliance.kernel.hold import Hold

    Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
else:
    # The decoder knows no recursive types; any JSON value is what it decodes to anyway.
    Json = Any
Labels = dict[str, str]
# Option of a number: the price for the customer of the document that this field of the line names.
PRICE_FOR = "price_for"
# Option of a reference: what it points to are steps, with rules for moving (write/stages).
STEPS = "steps"
# Option of a reference: a new record belongs to the unit of what it refers to (a line to that of
# its document), whoever makes it.
BELONGS = "belongs"
# Option of a json field or a moment: what the server found out for the field of this name.
FILLS = "fills"
# Option of a reference: a conversion makes its target; {field of the target: "source|source"}.
MAKES = "makes"
# Option of a choice: what it says of a record that was converted.
CONVERTED = "converted"


class Sensitivity(StrEnum):
    """Drives field modes, guard weight, log sanitising and export warnings alike."""

    PUBLIC = "public"
    INTERNAL = "internal"
    PERSONAL = "personal"
    CONFIDENTIAL = "confidential"
    RESTRICTED = "restricted"


class Policy(StrEnum):
    """How concurrent edits of one register meet (research/sync 2.4)."""

    ASK = "ask"
    NEWEST = "newest"
    MAX = "max"
    MIN = "min"
    OR = "or"
    AND = "and"
    COUNTER = "counter"
    SET = "set"
    TEXT3 = "text3"
    OWNER = "owner"
    STRICTEST = "strictest"


class Home(StrEnum):
    """Which stream the records of a kind live in."""

    UNIT = "unit"
    SHARED = "shared"
    SCHEMA = "schema"


class Authority(StrEnum):
    """Whose word counts for a kind when nodes disagree, and who may write it while apart."""

    ANY = "any"
    HUB = "hub"
    UNIT = "unit"


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One field of a kind. `options` are those of its type (docs/fields.md)."""

    fid: str
    name: str
    type: str
    labels: Labels = msgspec.field(default_factory=dict)
    help: Labels = msgspec.field(default_factory=dict)
    options: dict[str, Json] = msgspec.field(default_factory=dict)
    required: bool = False
    default: Json = None
    min: str | None = None
    max: str | None = None
    pattern: str | None = None
    sensitivity: Sensitivity = Sensitivity.INTERNAL
    filterable: bool = False
    searchable: bool = False
    unique: bool = False
    policy: Policy = Policy.ASK
    group: str | None = None
    order: int = 0
    slot: str | None = None
    slot_ready: bool = True
    system: bool = False

    @property
    def register(self) -> str:
        """The register its value lives in: the merge group when it has one."""
        return self.group or self.fid

    @property
    def is_column(self) -> bool:
        """Whether it is a column that every record has (id, unit, created_at…)."""
        return self.fid.startswith("@")

    def option(self, name: str, default: Json = None) -> Json:
        """One option of its type."""
        return self.options.get(name, default)


class Kind(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One kind; `fields` in display order, all of them (the reader's view comes from Profile)."""

    key: str
    id: str = ""
    labels: Labels = msgspec.field(default_factory=dict)
    fields: tuple[Field, ...] = ()
    home: Home = Home.UNIT
    display: str | None = None
    series: str | None = None
    system: bool = False
    enabled: bool = True
    authority: Authority = Authority.ANY
    ledger: Ledger | None = None

    @property
    def table(self) -> str:
        """Where its rows lie: with the records that people edit, or with entries of ledgers."""
        return "entry" if self.ledger else "record"

    @property
    def by_name(self) -> Mapping[str, Field]:
        """Fields by API name."""
        found: dict[str, Field] | None = self.__dict__.get("_by_name")
        if found is None:
            found = self.__dict__["_by_name"] = {f.name: f for f in self.fields}
        return found

    @property
    def priced(self) -> Field | None:
        """The field whose price the server chooses; see PRICE_FOR."""
        return self.marks.get(PRICE_FOR)

    @property
    def stepped(self) -> Field | None:
        """The field that says at which step a record stands; see STEPS."""
        return self.marks.get(STEPS)

    @property
    def belonging(self) -> Field | None:
        """The field whose target's unit a new record takes; see BELONGS."""
        return self.marks.get(BELONGS)

    @property
    def marks(self) -> Mapping[str, Field]:
        """The first field of each option that rules of the trade go by; of most kinds none."""
        found: dict[str, Field] | None = self.__dict__.get("_by_mark")
        if found is None:
            found = self.__dict__["_by_mark"] = {}
            for field in reversed(self.fields):
                for mark in (PRICE_FOR, STEPS, BELONGS):
                    if field.options.get(mark):
                        found[mark] = field
        return found

    @property
    def by_fid(self) -> Mapping[str, Field]:
        """Fields by stable id."""
        found: dict[str, Field] | None = self.__dict__.get("_by_fid")
        if found is None:
            found = self.__dict__["_by_fid"] = {f.fid: f for f in self.fields}
        return found

    def registers(self) -> Mapping[str, tuple[Field, ...]]:
        """Fields by register: a merge group is written and compared as one."""
        found: dict[str, tuple[Field, ...]] | None = self.__dict__.get("_registers")
        if found is None:
            found = {}
            for field in self.fields:
                found[field.register] = (*found.get(field.register, ()), field)
            self.__dict__["_registers"] = found
        return found


class Schema(msgspec.Struct, frozen=True):
    """All kinds of one tenant at one revision, and what the tenant sets for all of them.

    `hold` is what this node holds of the tenant; None where it holds everything.
    """

    rev: int
    kinds: Mapping[str, Kind]
    currency: str = "UAH"
    locale: str = "en"
    hold: Hold | None = None

    def kind(self, key: str) -> Kind | None:
        """A kind that exists and is switched on."""
        found = self.kinds.get(key)
        return found if found and found.enabled else None


def label_of(labels: Labels, locale: str, fallback: str) -> str:
    """The text in the reader's language, else English, else any, else the name itself."""
    return labels.get(locale) or labels.get("en") or next(iter(labels.values()), fallback)
