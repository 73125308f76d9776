"""A template spelled out: one item for each configuration record it brings, in canonical values.

Promises: an item that was installed and not touched since has exactly these values in the tenant,
so that values, not guesses, say who changed what. A bundle packs into the tenant's own
`sys.template` record and is the base of every later merge, whatever program runs then.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from hashlib import blake2b
from typing import NoReturn

import msgspec
import zstandard

from appliance.base.errors import FieldFault, Invalid
from appliance.fields import type_of
from appliance.fields.base import ValueFault
from appliance.install.rights import Rules, grants_of, profiles_of
from appliance.install.template import KindEntry, Module, Overrides, Template, modules_of
from appliance.kernel.kind import Field, Json, Kind, Labels
from appliance.meta import SYSTEM_KINDS
from appliance.meta.load import build_field, build_kind

# What an item is, the kind of record it becomes, and the order they are made in.
SORTS = {
    "module": "sys.module", "kind": "sys.kind", "field": "sys.field", "profile": "sys.profile",
    "grant": "sys.grant", "view": "sys.view", "dashboard": "sys.dashboard",
    "workflow": "sys.workflow",
}  # fmt: skip
# State of the tenant, not of the template: never compared, never overwritten.
_STATE = frozenset({"origin", "fid", "stay_off"})
_OWN_STATE = {"module": frozenset({"enabled"}), "kind": frozenset({"enabled"})}
Key = tuple[str, str]
_encode = msgspec.json.Encoder(order="sorted").encode


class Item(msgspec.Struct, frozen=True):
    """One record of configuration: `values` by field name, canonical, nothing for empty."""

    sort: str
    key: str
    values: dict[str, Json]

    @property
    def checksum(self) -> str:
        """Sixteen hexadecimal digits that stand for the values."""
        return blake2b(_encode(self.values), digest_size=8).hexdigest()


class Bundle(msgspec.Struct, frozen=True):
    """All items of one template at one version; `modules` are those switched on beside it."""

    name: str
    version: str
    labels: Labels
    items: list[Item]
    modules: list[str] = []

    def by_key(self) -> dict[Key, Item]:
        """Items by sort and key."""
        return {(i.sort, i.key): i for i in self.items}


EMPTY = Bundle("", "", {}, [])


def build(template: Template) -> Bundle:
    """Spell a template out. Raises Invalid with the place of what cannot be."""
    modules = modules_of(template)
    items: list[Item] = [_module_item(m) for m in modules]
    placed = [(m.key, kind) for m in modules for kind in m.kinds]
    entries = [*placed, *(("", kind) for kind in template.kinds)]
    _check_overrides(template, [k for _, k in entries])
    kinds: list[Kind] = []
    more = _added_fields(template, {k.key for _, k in entries})
    for module, bare in entries:
        entry = msgspec.structs.replace(bare, fields=[*bare.fields, *more.get(bare.key, [])])
        kind_item, field_items = _kind_items(module, entry, template.overrides)
        items += [kind_item, *field_items]
        kinds.append(compile_kind(kind_item, field_items))
    profiles = profiles_of(template)
    for key, profile in profiles.items():
        values: dict[str, Json] = {
            "key": key, "labels": dict(profile.labels), "help": dict(profile.help),
            "capabilities": [*profile.capabilities],
        }  # fmt: skip
        items.append(item("profile", key, values))
    rules = Rules(template, modules)
    granted = {
        (p, k): v for p, k, v in grants_of(rules, profiles, (*SYSTEM_KINDS.values(), *kinds))
    }
    for profile_key, by_kind in template.grants.items():
        granted |= {(profile_key, k): v for k, v in by_kind.items()}
    for (profile_key, kind_key), given in granted.items():
        values = {"profile": profile_key, "kind": kind_key, **given}
        items.append(item("grant", f"{profile_key}/{kind_key}", values))
    items += _shown(template, modules)
    return _checked(Bundle(template.name, template.version, template.labels, items))


def build_modules(modules: Iterable[Module]) -> list[Item]:
    """The items that modules bring beside a template: theirs, and their grants to shipped profiles."""
    alone = Template(name="", version="", own=list(modules))
    whole = build(alone)
    system = {f"{kind}" for kind in SYSTEM_KINDS}
    return [
        i
        for i in whole.items
        if i.sort != "profile" and not (i.sort == "grant" and i.values["kind"] in system)
    ]


def item(sort: str, key: str, given: dict[str, Json]) -> Item:
    """An item with canonical values and the defaults its record will get. Raises Invalid."""
    values: dict[str, Json] = {}
    left_out = _STATE | _OWN_STATE.get(sort, frozenset())
    fields = SYSTEM_KINDS[SORTS[sort]].by_name
    for name in given.keys() - fields.keys():
        _fail(f"/{sort}/{key}/{name}", "There is no such property.")
    for name, field in fields.items():
        value = given.get(name, field.default)
        if value is None or value == {} or name in left_out:
            continue
        values[name] = _accepted(sort, key, field, value)
    return Item(sort, key, values)


def _accepted(sort: str, key: str, field: Field, value: Json) -> Json:
    # A grant names its profile by key here and by id in the tenant.
    if field.type == "reference":
        return value
    try:
        return type_of(field.type).accept(field, value)
    except ValueFault as bad:
        _fail(f"/{sort}/{key}/{field.name}", bad.detail)


def _module_item(module: Module) -> Item:
    values: dict[str, Json] = {
        "key": module.key, "labels": dict(module.labels), "help": dict(module.help),
        "icon": module.icon or None, "order": module.order, "version": module.version,
        "requires": [*module.requires] or None,
    }  # fmt: skip
    return item("module", module.key, values)


def _kind_items(module: str, entry: KindEntry, over: Overrides) -> tuple[Item, list[Item]]:
    values: dict[str, Json] = {
        "key": entry.key, "labels": dict(entry.labels), "help": dict(entry.help),
        "home": entry.home, "display": entry.display, "series": entry.series,
        "authority": entry.authority, "ledger": entry.ledger, "layout": entry.layout,
        "module": module or None, **over.kinds.get(entry.key, {}),
    }  # fmt: skip
    given: dict[str, Json] = {n: value for n, value in values.items() if value is not None}
    added_up = _added_up(given.get("ledger"))
    fields = []
    for order, field in enumerate(entry.fields):
        name = f"{entry.key}.{field.get('name')}"
        changed = {"order": order, **field, "kind": entry.key, **over.fields.get(name, {})}
        if field.get("name") in added_up:
            changed["filterable"] = True
        fields.append(item("field", name, changed))
    return item("kind", entry.key, given), fields


def _added_up(ledger: Json) -> frozenset[Json]:
    """What a ledger adds up by: the write path gives these fields an index, asked or not."""
    named = [ledger.get(part) for part in ("key", "values")] if isinstance(ledger, dict) else []
    return frozenset(n for names in named if isinstance(names, list) for n in names)


def compile_kind(kind: Item, fields: Iterable[Item]) -> Kind:
    """The kind as the schema will hold it. Raises Invalid."""
    try:
        built = [f for i in fields if (f := build_field(dict(i.values))) is not None]
        return build_kind("", dict(kind.values), {kind.key: built})
    except (ValueError, KeyError) as bad:
        _fail(f"/kind/{kind.key}", f"It cannot be built: {str(bad)[:200]}")


def _shown(template: Template, modules: Iterable[Module]) -> list[Item]:
    """Views, dashboards and workflows of the modules and of the template."""
    found: list[Item] = []
    sources: list[Module | Template] = [*modules, template]
    for source in sources:
        module = source.key if isinstance(source, Module) else None
        for view in source.views:
            found.append(item("view", str(view.get("key")), {"shared": True, **view}))
        for board in source.dashboards:
            placed: dict[str, Json] = {"module": module, "shared": True, **board}
            found.append(item("dashboard", str(board.get("key")), placed))
        for flow in source.workflows:
            found.append(item("workflow", str(flow.get("key")), dict(flow)))
    return found


def _added_fields(template: Template, kinds: set[str]) -> dict[str, list[dict[str, Json]]]:
    """Fields that a template adds to kinds of modules, by kind."""
    found: dict[str, list[dict[str, Json]]] = {}
    for field in template.fields:
        kind = str(field.get("kind"))
        if kind not in kinds:
            _fail(f"/fields/{kind}.{field.get('name')}", "There is no such kind to add a field to.")
        found.setdefault(kind, []).append(field)
    return found


def _check_overrides(template: Template, entries: Iterable[KindEntry]) -> None:
    over = template.overrides
    kinds = set()
    fields = {f"{f.get('kind')}.{f.get('name')}" for f in template.fields}
    for entry in entries:
        kinds.add(entry.key)
        fields |= {f"{entry.key}.{f.get('name')}" for f in entry.fields}
    for name in (*(over.kinds.keys() - kinds), *(over.fields.keys() - fields)):
        _fail(f"/overrides/{name}", "There is no such kind or field to override.")


def _checked(bundle: Bundle) -> Bundle:
    """Refuse a key that stands twice and a right of an unknown profile."""
    seen: set[Key] = set()
    for one in bundle.items:
        if (one.sort, one.key) in seen:
            _fail(f"/{one.sort}/{one.key}", "This key stands twice.")
        seen.add((one.sort, one.key))
    for one in bundle.items:
        if one.sort == "grant" and ("profile", str(one.values["profile"])) not in seen:
            _fail(f"/grant/{one.key}", "There is no such profile.")
    return bundle


def pack(bundle: Bundle) -> str:
    """A bundle as text for one field of one record."""
    raw = zstandard.ZstdCompressor(level=12).compress(msgspec.msgpack.encode(bundle))
    return base64.b64encode(raw).decode()


def unpack(text: str) -> Bundle:
    """The bundle of a tenant's own record."""
    raw = zstandard.ZstdDecompressor().decompress(base64.b64decode(text), max_output_size=1 << 26)
    return msgspec.msgpack.decode(raw, type=Bundle)


def label_of(one: Item) -> Labels:
    """The labels of an item, for people who look at a plan."""
    labels = one.values.get("labels")
    return {str(k): str(v) for k, v in labels.items()} if isinstance(labels, dict) else {}


def _fail(pointer: str, detail: str) -> NoReturn:
    raise Invalid(
        f"The template cannot be used: {pointer}: {detail}", code="template.malformed",
        faults=(FieldFault(pointer, "template", detail),),
    )  # fmt: skip
