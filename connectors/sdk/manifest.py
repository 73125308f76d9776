"""What each system folder says of itself: `manifest.toml`, and the vocabulary of its rows.

A vocabulary (sdk/entities/*.toml) names the entities that formats of one sort are staged as, their
fields and the sort of each, so that whoever plans the rows needs to know no format.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping as MappingOf
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path

import msgspec

from connectors.sdk.contract import StagedRow, Value

_SDK = Path(__file__).parent
SYSTEMS = _SDK.parent / "systems"
SORTS = ("text", "decimal", "date", "moment", "yes_no", "count", "lines", "pairs")
_PLAIN_DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?")


class Entity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One sort of row: the fields it may have, and those it has always."""

    fields: dict[str, str]
    required: tuple[str, ...] = ()


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One system folder. `entities` names the vocabulary; `files`: patterns of usual file names,
    for people to choose by (content decides); `settings`: default constants of its mapping.
    `proves_whole`: the format itself shows when a part of it is missing (balances, counts, a
    closing tag), so that no damaged input is ever read as a smaller sound one.
    """

    key: str
    labels: dict[str, str]
    entities: str
    files: tuple[str, ...] = ()
    settings: dict[str, str] = {}
    source: str = ""
    proves_whole: bool = False


def read_manifest(system: str) -> Manifest:
    """The manifest of a system folder. Raises ValueError naming what is wrong in it."""
    path = SYSTEMS / system / "manifest.toml"
    if not re.fullmatch(r"[a-z0-9_]{1,40}", system) or not path.is_file():
        raise ValueError(f"there is no connector {system}")
    found = msgspec.toml.decode(path.read_bytes(), type=Manifest)
    if found.key != system:
        raise ValueError(f"{path.name}: key is {found.key}, the folder {system}")
    read_vocabulary(found.entities)
    return found


def list_systems() -> list[str]:
    """The keys of every connector that is here."""
    return sorted(p.parent.name for p in SYSTEMS.glob("*/manifest.toml"))


@cache
def read_vocabulary(name: str) -> MappingOf[str, Entity]:
    """Entities by name. Raises ValueError."""
    path = _SDK / "entities" / f"{name}.toml"
    if not path.is_file():
        raise ValueError(f"there is no vocabulary {name}")
    found = msgspec.convert(tomllib.loads(path.read_text()), dict[str, Entity])
    for key, entity in found.items():
        unknown = set(entity.fields.values()) - set(SORTS) | set(entity.required) - set(
            entity.fields
        )
        if unknown:
            raise ValueError(f"{path.name}: {key}: unknown {sorted(unknown)}")
    return found


def faults_of(row: StagedRow, vocabulary: MappingOf[str, Entity]) -> list[str]:
    """What in a row is not of its vocabulary: empty for a sound one.

    A row that travels with faults of its own may lack what it requires.
    """
    entity = vocabulary.get(row.entity)
    if entity is None:
        return [f"no entity {row.entity}"]
    sorts = {name: _sort_of(name, entity) for name in row.values}
    found = [f"no field {name}" for name, sort in sorts.items() if not sort]
    if not row.faults:
        found += [f"{n} is missing" for n in entity.required if row.values.get(n) in (None, "")]
    for name, value in row.values.items():
        sort = sorts[name]
        if value is not None and sort and not _is_of(sort, value):
            found.append(f"{name} is no {sort}: {value!r}")
    return found


def _sort_of(name: str, entity: Entity) -> str:
    """A field `price:*` of a vocabulary is any name that begins with `price:`."""
    family = name.partition(":")[0] + ":*" if ":" in name else name
    return entity.fields.get(name) or entity.fields.get(family, "")


def _is_of(sort: str, value: Value) -> bool:
    if sort == "yes_no" or not isinstance(value, str):
        return sort == "yes_no" and isinstance(value, bool)
    try:
        if sort == "decimal":
            return bool(_PLAIN_DECIMAL.fullmatch(value)) and Decimal(value).is_finite()
        if sort == "date":
            return date.fromisoformat(value).isoformat() == value
        if sort == "moment":
            return datetime.fromisoformat(value) is not None
        if sort == "pairs":
            msgspec.json.decode(value, type=dict[str, str])
    except (ValueError, InvalidOperation, msgspec.DecodeError):
        return False
    return value.isdigit() if sort == "count" else True
