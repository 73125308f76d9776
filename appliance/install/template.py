"""Files of modules and templates: what may stand in them, and how they are read.

Both are data a tenant's own builder could have produced; a template holds no code. A file from
outside is read by the same reader as a shipped one and is bounded before it is parsed.
"""

from __future__ import annotations

import tomllib
from importlib import resources
from importlib.resources.abc import Traversable
from typing import TypeVar

import msgspec

from appliance.base.errors import FieldFault, Invalid, TooLarge
from appliance.kernel.kind import Json, Labels

T = TypeVar("T")
TEXT_BYTES_MAX = 1 << 20
# How a profile stands to a kind: `shipped` (as it is shipped), `read`, `none`, or scopes by action.
Access = str | dict[str, str]
LEVELS = ("shipped", "read", "none")


class UnitEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A unit of the tree; `parent` names another entry's key; a `sample` can be removed again."""

    key: str
    name: str
    sort: str = "branch"
    code: str | None = None
    parent: str | None = None
    tz: str = "UTC"
    currency: str | None = None
    prefix: str | None = None
    sample: bool = False


class KindEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kind and its fields, in the vocabulary of `sys.kind` and `sys.field`."""

    key: str
    labels: Labels = {}
    help: Labels = {}
    home: str = "unit"
    display: str | None = None
    series: str | None = None
    authority: str | None = None
    ledger: dict[str, Json] | None = None
    layout: Json = None
    access: dict[str, Access] = {}
    fields: list[dict[str, Json]] = []


class Module(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Kinds that belong together, what they stand on, and who does what with them."""

    key: str
    version: str = "1.0"
    labels: Labels = {}
    help: Labels = {}
    icon: str = ""
    order: int = 0
    requires: list[str] = []
    access: dict[str, Access] = {}
    kinds: list[KindEntry] = []
    views: list[dict[str, Json]] = []
    dashboards: list[dict[str, Json]] = []
    workflows: list[dict[str, Json]] = []


class ProfileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A profile made after a shipped one; `access` by kind; `ceiling` is modes by sensitivity."""

    key: str
    like: str
    labels: Labels = {}
    help: Labels = {}
    capabilities: list[str] | None = None
    ceiling: dict[str, str] = {}
    access: dict[str, Access] = {}


class Overrides(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a template says differently of its modules: by kind, and by `kind.field`."""

    kinds: dict[str, dict[str, Json]] = {}
    fields: dict[str, dict[str, Json]] = {}


class RecordEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A record; a value `@key` refers to another entry or to a unit."""

    key: str
    kind: str
    fields: dict[str, Json]
    unit: str | None = None


class Template(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One template. `own` are modules that stand in its file, `fields` those it adds to kinds of
    other modules; `records` stay, `samples` can go.
    """

    name: str
    version: str
    labels: Labels = {}
    help: Labels = {}
    modules: list[str] = []
    own: list[Module] = []
    overrides: Overrides = Overrides()
    units: list[UnitEntry] = []
    kinds: list[KindEntry] = []
    fields: list[dict[str, Json]] = []
    views: list[dict[str, Json]] = []
    dashboards: list[dict[str, Json]] = []
    workflows: list[dict[str, Json]] = []
    profiles: list[ProfileEntry] = []
    access: dict[str, dict[str, Access]] = {}
    grants: dict[str, dict[str, dict[str, Json]]] = {}
    records: list[RecordEntry] = []
    samples: list[RecordEntry] = []


def names() -> list[str]:
    """The templates this program ships."""
    files = resources.files("appliance.templates").iterdir()
    return sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml"))


def module_names() -> list[str]:
    """The modules this program ships."""
    folders = resources.files("appliance.modules").iterdir()
    return sorted(f.name for f in folders if f.joinpath("module.toml").is_file())


def read(name: str) -> Template:
    """A shipped template. Raises Invalid for an unknown name."""
    if name not in names():
        raise Invalid(
            f"There is no template {name[:60]!r}; known: {', '.join(names())}.",
            code="template.unknown",
        )
    return parse(resources.files("appliance.templates").joinpath(f"{name}.toml").read_bytes())


def parse(text: bytes | str) -> Template:
    """A template from the text of its file. Raises Invalid, TooLarge."""
    raw = text.encode() if isinstance(text, str) else text
    if len(raw) > TEXT_BYTES_MAX:
        raise TooLarge(f"A template has at most {TEXT_BYTES_MAX} bytes; this one has {len(raw)}.")
    return _convert(_load(raw), Template)


def read_module(key: str) -> Module:
    """A shipped module: `module.toml` and the files beside it. Raises Invalid for an unknown key."""
    if key not in module_names():
        raise Invalid(
            f"There is no module {key[:60]!r}; known: {', '.join(module_names())}.",
            code="module.unknown",
        )
    folder = resources.files("appliance.modules").joinpath(key)
    whole = _load(folder.joinpath("module.toml").read_bytes())
    for part in _parts(folder):
        for name, entries in _load(part.read_bytes()).items():
            listed = whole.setdefault(name, [])
            assert isinstance(listed, list) and isinstance(entries, list), "parts hold lists"
            listed += entries
    return _convert(whole, Module)


def modules_of(template: Template) -> list[Module]:
    """The modules of a template with all they require, in their order. Raises Invalid."""
    own = {module.key: module for module in template.own}
    found = with_required([*template.modules, *own], own)
    return sorted(found.values(), key=lambda m: (m.order, m.key))


def with_required(keys: list[str], own: dict[str, Module] | None = None) -> dict[str, Module]:
    """Modules by key, with all that they require. Raises Invalid for an unknown one."""
    found: dict[str, Module] = {}
    waiting = list(keys)
    while waiting:
        key = waiting.pop()
        if key not in found:
            found[key] = (own or {}).get(key) or read_module(key)
            waiting += found[key].requires
    return found


def _parts(folder: Traversable) -> list[Traversable]:
    files = (f for f in folder.iterdir() if f.name.endswith(".toml") and f.name != "module.toml")
    return sorted(files, key=lambda f: f.name)


def _load(raw: bytes) -> dict[str, Json]:
    try:
        return tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as bad:
        raise Invalid(
            f"The file cannot be read as TOML: {str(bad)[:200]}.", code="template.unreadable"
        ) from None


def _convert(raw: dict[str, Json], shape: type[T]) -> T:
    try:
        return msgspec.convert(raw, shape)
    except msgspec.ValidationError as bad:
        fault = FieldFault("", "wrong_shape", str(bad)[:300])
        raise Invalid(
            f"The file does not have the shape of a template: {str(bad)[:300]}.",
            code="template.malformed", faults=(fault,),
        ) from None  # fmt: skip
