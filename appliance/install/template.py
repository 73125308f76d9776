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
    authority: str | None = None
    ledger: dict[str, Json] | None = None
    fields: list[dict[str, Json]] = []


class Module(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of appliance/modules: kinds that belong together, and what they stand on."""

    key: str
    labels: Labels = {}
    icon: str = ""
    order: int = 0
    requires: list[str] = []
    kinds: list[KindEntry] = []


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
    modules: list[str] = []
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


def read_module(key: str) -> Module:
    """A first-party module. Raises Invalid for an unknown key."""
    file = resources.files("appliance.modules").joinpath(f"{key}.toml")
    if not key.isidentifier() or not file.is_file():
        raise Invalid(f"There is no module {key!r}.", code="module.unknown")
    return msgspec.convert(tomllib.loads(file.read_text("utf-8")), Module)


def modules_of(template: Template) -> list[Module]:
    """The modules of a template with all they require, in their order."""
    found: dict[str, Module] = {}
    waiting = list(template.modules)
    while waiting:
        key = waiting.pop()
        if key not in found:
            found[key] = read_module(key)
            waiting += found[key].requires
    return sorted(found.values(), key=lambda m: (m.order, m.key))


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
    own = [(module.key, kind) for module in modules_of(template) for kind in module.kinds]
    for module_key, kind in [*own, *((None, kind) for kind in template.kinds)]:
        values: dict[str, Json] = {
            "key": kind.key, "labels": dict(kind.labels), "home": kind.home,
            "display": kind.display, "series": kind.series, "authority": kind.authority,
            "ledger": kind.ledger, "module": module_key, "template": stamp,
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
        if isinstance(value, str) and value.startswith("@"):
            known = ids.get(value[1:]) or units.get(value[1:])
            return str(known) if known else value
        return [resolve(v) for v in value] if isinstance(value, list) else value

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
