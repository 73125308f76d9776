"""Read a template and say it in commands of the write path. A template holds no code."""

from __future__ import annotations

import tomllib
from importlib import resources
from uuid import UUID

import msgspec

from appliance.base.errors import Invalid
from appliance.base.ids import uuid7
from appliance.kernel.kind import Json, Labels
from appliance.write import Command, Op


class UnitEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A unit of the tree; `parent` names another entry's key."""

    key: str
    name: str
    sort: str = "branch"
    code: str | None = None
    parent: str | None = None
    tz: str = "UTC"
    currency: str | None = None
    prefix: str | None = None


class KindEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kind and its fields, in the vocabulary of `sys.kind` and `sys.field`."""

    key: str
    labels: Labels = {}
    home: str = "unit"
    display: str | None = None
    series: str | None = None
    fields: list[dict[str, Json]] = []


class SampleEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sample record; a field value `@key` refers to another sample."""

    key: str
    kind: str
    fields: dict[str, Json]
    unit: str | None = None


class Template(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of appliance/templates."""

    name: str
    version: str
    labels: Labels = {}
    units: list[UnitEntry] = []
    kinds: list[KindEntry] = []
    views: list[dict[str, Json]] = []
    samples: list[SampleEntry] = []


def names() -> list[str]:
    """The templates this program ships."""
    files = resources.files("appliance.templates").iterdir()
    return sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml"))


def read(name: str) -> Template:
    """A shipped template. Raises Invalid for an unknown name."""
    if name not in names():
        raise Invalid(f"There is no template {name!r}; known: {', '.join(names())}.")
    text = resources.files("appliance.templates").joinpath(f"{name}.toml").read_text("utf-8")
    return msgspec.convert(tomllib.loads(text), Template)


def unit_commands(template: Template) -> tuple[list[Command], dict[str, UUID]]:
    """Create the units; ids by template key. The first is the root that the others hang under."""
    ids = {unit.key: uuid7() for unit in template.units}
    commands = []
    for unit in template.units:
        values: dict[str, Json] = {
            "name": unit.name, "sort": unit.sort, "code": unit.code, "tz": unit.tz,
            "currency": unit.currency, "prefix": unit.prefix,
            "parent": str(ids[unit.parent]) if unit.parent else None,
        }  # fmt: skip
        commands.append(_create("sys.unit", values, ident=ids[unit.key]))
    return commands, ids


def kind_commands(template: Template) -> list[Command]:
    """Create kinds and fields, stamped with the template they came from."""
    stamp = f"{template.name}@{template.version}"
    commands: list[Command] = []
    for kind in template.kinds:
        values: dict[str, Json] = {
            "key": kind.key, "labels": dict(kind.labels), "home": kind.home,
            "display": kind.display, "series": kind.series, "template": stamp,
        }  # fmt: skip
        commands.append(_create("sys.kind", values))
        for order, entry in enumerate(kind.fields):
            stamped: dict[str, Json] = {
                "order": order,
                **entry,
                "kind": kind.key,
                "template": stamp,
            }
            commands.append(_create("sys.field", stamped))
    return commands


def view_commands(template: Template) -> list[Command]:
    """Create the shared views."""
    stamp = f"{template.name}@{template.version}"
    return [_create("sys.view", {**view, "template": stamp}) for view in template.views]


def sample_commands(template: Template, units: dict[str, UUID]) -> list[Command]:
    """Create the sample records, in file order, so that references point backwards."""
    ids = {sample.key: uuid7() for sample in template.samples}

    def resolve(value: Json) -> Json:
        if isinstance(value, str) and value.startswith("@") and value[1:] in ids:
            return str(ids[value[1:]])
        return value

    return [
        Command(
            op=Op.CREATE,
            kind=sample.kind,
            id=ids[sample.key],
            fields={name: resolve(value) for name, value in sample.fields.items()},
            unit=units[sample.unit] if sample.unit else msgspec.UNSET,
        )
        for sample in template.samples
    ]


def _create(kind: str, values: dict[str, Json], ident: UUID | None = None) -> Command:
    given: dict[str, Json] = {name: v for name, v in values.items() if v is not None}
    return Command(op=Op.CREATE, kind=kind, id=ident, fields=given)
