"""A template from a live tenant: its configuration as one file that installs anywhere.

Modules stand in the file itself, so that it needs no other program's modules. People, units below
the company and business records stay out; of records only those of kinds that the tenant's own
template had brought first records for (stages, price types, units of measure) come along.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from appliance.access.shipped import shipped
from appliance.base.errors import Clash
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.fields import type_of
from appliance.install.bundle import Item, build
from appliance.install.snapshot import Snapshot, take_snapshot
from appliance.install.template import (
    KindEntry,
    Module,
    ProfileEntry,
    RecordEntry,
    Template,
    UnitEntry,
)
from appliance.kernel.context import Ctx, UnitNode
from appliance.kernel.kind import FILLS, Json, Kind, Labels
from appliance.meta import SYSTEM_KINDS

T = TypeVar("T")
RECORDS_MAX = 2_000
_RECORDS = Statement(
    "SELECT id::text, kind, data FROM record WHERE tenant_id = $1 AND kind = ANY($2::text[]) "
    f"AND deleted_at IS NULL ORDER BY id LIMIT {RECORDS_MAX + 1}"
)
_decode = msgspec.json.Decoder(dict[str, Json]).decode


async def publish(
    db: Database, ctx: Ctx, name: str, version: str, labels: Labels | None = None
) -> Template:
    """The tenant's configuration as a template. Raises Clash when there are too many records."""
    snapshot = await take_snapshot(db, ctx.tenant)
    by_kind: dict[str, list[Item]] = {}
    for held in sorted(snapshot.live("field"), key=lambda h: _order(h.item)):
        by_kind.setdefault(str(held.item.values["kind"]), []).append(held.item)
    kinds: dict[str, list[KindEntry]] = {}
    for held in snapshot.live("kind"):
        module = str(held.item.values.get("module") or "")
        entry = _kind_entry(held.item, by_kind.get(held.item.key, []))
        kinds.setdefault(module, []).append(entry)
    own = [_module(h.item, kinds.pop(h.item.key, [])) for h in snapshot.live("module")]
    made = Template(
        name=name, version=version, labels=labels or {"en": name}, own=own,
        units=[_root(ctx.unit_tree.values())],
        # A kind whose module is gone stands for itself.
        kinds=[k for left in kinds.values() for k in left],
        views=_shown(snapshot, "view"), dashboards=_shown(snapshot, "dashboard"),
        workflows=_shown(snapshot, "workflow"), profiles=_profiles(snapshot),
        records=await _records(db, ctx, snapshot),
    )  # fmt: skip
    return _with_rights(made, snapshot)


def _order(item: Item) -> int:
    order = item.values.get("order")
    return order if isinstance(order, int) else 0


def _module(item: Item, kinds: list[KindEntry]) -> Module:
    inside: list[Json] = [msgspec.to_builtins(k) for k in kinds]
    return _converted({**item.values, "kinds": inside}, Module)


def _kind_entry(item: Item, fields: list[Item]) -> KindEntry:
    values = {n: v for n, v in item.values.items() if n != "module"}
    own: list[Json] = [{n: v for n, v in f.values.items() if n != "kind"} for f in fields]
    return _converted({**values, "fields": own}, KindEntry)


def _converted(values: dict[str, Json], shape: type[T]) -> T:
    return msgspec.convert(values, shape)


def _root(tree: Iterable[UnitNode]) -> UnitEntry:
    top = next((n for n in tree if n.parent is None), None)
    tz = top.tz if top else "UTC"
    return UnitEntry(key="head", name="Head office", sort="company", tz=tz)


def _shown(snapshot: Snapshot, sort: str) -> list[dict[str, Json]]:
    """Views, dashboards, workflows; views of people themselves stay theirs."""
    return [
        dict(h.item.values)
        for h in snapshot.live(sort)
        if sort != "view" or h.origin or h.item.values.get("shared") is True
    ]


def _profiles(snapshot: Snapshot) -> list[ProfileEntry]:
    """Profiles that are no shipped ones, and shipped ones that were changed."""
    found = []
    for held in snapshot.live("profile"):
        values, key = held.item.values, held.item.key
        known = shipped().get(key)
        given = values.get("capabilities")
        capabilities = [str(c) for c in given] if isinstance(given, list) else []
        labels, texts = _texts(values.get("labels")), _texts(values.get("help"))
        same = known is not None and (known.labels, known.help) == (labels, texts)
        if known is None or not same or known.capabilities != capabilities:
            like = key if known else "viewer"
            found.append(
                ProfileEntry(
                    key=key, like=like, labels=labels, help=texts, capabilities=capabilities
                )
            )
    return found


def _texts(value: Json) -> Labels:
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}


def _with_rights(made: Template, snapshot: Snapshot) -> Template:
    """Grants that differ from what the template would give by itself, by name; the rest follows."""
    would = {i.key: i for i in build(made).items if i.sort == "grant"}
    held = {h.item.key: h.item for h in snapshot.live("grant")}
    access: dict[str, dict[str, str | dict[str, str]]] = {}
    grants: dict[str, dict[str, dict[str, Json]]] = {}
    for key in would.keys() - held.keys():
        profile, _, kind = key.partition("/")
        if kind not in SYSTEM_KINDS:
            access.setdefault(profile, {})[kind] = "none"
    for key, one in held.items():
        if key not in would or would[key].values != one.values:
            profile, _, kind = key.partition("/")
            given = {n: v for n, v in one.values.items() if n in ("actions", "fields")}
            grants.setdefault(profile, {})[kind] = given
    return msgspec.structs.replace(made, access=access, grants=grants)


async def _records(db: Database, ctx: Ctx, snapshot: Snapshot) -> list[RecordEntry]:
    wanted = sorted({s.kind for s in snapshot.seeds if not s.removable})
    (rows,) = await db.read(ctx.tenant, (_RECORDS, (ctx.tenant, wanted)))
    if len(rows) > RECORDS_MAX:
        raise Clash(
            f"There are more than {RECORDS_MAX} records of {', '.join(wanted)}; a template is no "
            "export of data."
        )
    samples = {s.record for s in snapshot.seeds if s.removable}
    keys = {str(s.record): s.key for s in snapshot.seeds if not s.removable}
    found = [
        ((ident or b"").decode(), (kind or b"").decode(), _decode(data or b"{}"))
        for ident, kind, data in rows
    ]
    found = [row for row in found if row[0] not in {str(s) for s in samples}]
    for ident, kind, _ in found:
        keys.setdefault(ident, f"{kind}_{ident[-12:]}")
    entries = []
    # References point back: kinds that others refer to were made first, and ids are by time.
    for ident, key, data in found:
        kind_of = ctx.schema.kind(key)
        if kind_of is not None:
            entries.append(
                RecordEntry(key=keys[ident], kind=key, fields=_record_fields(kind_of, data, keys))
            )
    return entries


def _record_fields(kind: Kind, data: dict[str, Json], keys: dict[str, str]) -> dict[str, Json]:
    """Values by name; references only to what comes along, by its key."""
    values: dict[str, Json] = {}
    for field in kind.fields:
        value = data.get(field.fid)
        if (
            value is None
            or not type_of(field.type).stored
            or {"formula", FILLS} & field.options.keys()
        ):
            continue
        if field.type == "reference":
            if str(value) in keys:
                values[field.name] = f"@{keys[str(value)]}"
        elif field.type == "references" and isinstance(value, list):
            known: list[Json] = [f"@{keys[str(v)]}" for v in value if str(v) in keys]
            if known:
                values[field.name] = known
        elif field.type != "file":
            values[field.name] = value
    return values


def write_toml(template: Template) -> str:
    """The file of a template. Nothing for what is empty: TOML knows no null."""
    lines = [f"# {template.name} {template.version}, published from a tenant. Data only."]
    raw = msgspec.to_builtins(template)
    plain = {n: v for n, v in raw.items() if not _is_tables(v)}
    lines += [f"{n} = {_value(v)}" for n, v in plain.items() if not _is_empty(v)]
    for name, entries in raw.items():
        if name not in plain:
            for entry in entries:
                lines += ["", f"[[{name}]]"]
                lines += [f"{n} = {_value(v)}" for n, v in entry.items() if not _is_empty(v)]
    return "\n".join(lines) + "\n"


def _is_tables(value: Json) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def _is_empty(value: Json) -> bool:
    return value is None or value in ({}, [])


def _value(value: Json) -> str:
    """One inline value. Strings of JSON are strings of TOML, but for the delete character."""
    match value:
        case bool():
            return "true" if value else "false"
        case dict():
            inner = (f"{_value(k)} = {_value(v)}" for k, v in value.items() if v is not None)
            return "{ " + ", ".join(inner) + " }"
        case list():
            return "[" + ", ".join(_value(v) for v in value if v is not None) + "]"
        case str():
            return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
        case _:
            return str(value)
