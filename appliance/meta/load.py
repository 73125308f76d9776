"""Compile the tenant's `sys.kind` and `sys.field` records to a Schema, once per revision.

The cache key is the revision that every request reads in its own round trip, so a new field is
there on the very next request of every process and nothing ever expires by time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar
from uuid import UUID

import msgspec

from appliance.base import logs
from appliance.base.errors import Unavailable
from appliance.db.database import Database
from appliance.db.wire import Rows, Statement
from appliance.fields import TYPES
from appliance.kernel.hold import Hold, make_mask
from appliance.kernel.kind import Authority, Field, Home, Json, Kind, Policy, Schema, Sensitivity
from appliance.kernel.ledger import REVERSES, Ledger
from appliance.meta.system import SYSTEM_KINDS

_RECORDS = Statement(
    "SELECT kind, id::text, data FROM record WHERE tenant_id = $1 "
    "AND kind IN ('sys.kind', 'sys.field', 'sys.setting') AND deleted_at IS NULL ORDER BY id"
)
_SLOTS = Statement(
    "SELECT kind, fid, slot, is_ready FROM slot WHERE tenant_id = $1 AND NOT is_retired"
)
_REV = Statement("SELECT schema_rev FROM tenant_state WHERE tenant_id = $1")

# What this node holds of the tenant; the units are counted from the records, deleted ones too.
_HOLD = Statement(
    "SELECT h.epoch, array_to_string(h.unit_ids, ','), h.masks, h.is_leaving, array_to_string(ARRAY("
    "WITH RECURSIVE below AS (SELECT unnest(h.unit_ids) AS id UNION SELECT r.id FROM record r "
    "JOIN below b ON r.r1 = b.id WHERE r.tenant_id = $1 AND r.kind = 'sys.unit') "
    "SELECT id FROM below), ','), array_to_string(ARRAY(SELECT w.stream FROM withdrawal w "
    "WHERE w.tenant_id = $1), ',') FROM hold h WHERE h.tenant_id = $1"
)

P = ParamSpec("P")
T = TypeVar("T")
_cache: dict[UUID, Schema] = {}
_decode = msgspec.json.Decoder(dict[str, Json]).decode


async def load_schema(db: Database, tenant: UUID, rev: int | None = None) -> Schema:
    """The schema at `rev` (None: whatever is current). Raises Unavailable."""
    cached = _cache.get(tenant)
    if cached is not None and rev is not None and cached.rev == rev:
        return cached
    answers = await db.read(tenant, *schema_calls(tenant))
    schema = compile_schema(answers)
    # The revision was read before the records: at worst it is too old and is loaded again.
    _cache[tenant] = schema
    return schema


def schema_calls(tenant: UUID) -> list[tuple[Statement, tuple[UUID]]]:
    """The statements whose answers `compile_schema` takes, revision first."""
    return [(s, (tenant,)) for s in (_REV, _RECORDS, _SLOTS, _HOLD)]


def compile_schema(answers: list[Rows]) -> Schema:
    """Rows to Schema; the system kinds are always there."""
    revs, records, slots, holds = answers
    first = revs.first()
    if first is None:
        raise Unavailable("The tenant is not on this database.", dependency="placement")
    slot_of = {
        (str(kind, "utf-8"), str(fid, "utf-8")): (str(slot, "utf-8"), ready == b"t")
        for kind, fid, slot, ready in slots
        if kind and fid and slot
    }
    kinds: list[tuple[str, dict[str, Json]]] = []
    fields: dict[str, list[Field]] = {}
    settings: dict[str, Json] = {}
    for kind, ident, data in records:
        values = _decode(data or b"{}")
        match kind:
            case b"sys.kind":
                kinds.append((str(ident, "utf-8") if ident else "", values))
            case b"sys.setting":
                settings[str(values.get("key"))] = values.get("value")
            case _:
                field = _or_none(build_field, values, slot_of)
                if field is not None:
                    fields.setdefault(str(values.get("kind")), []).append(field)
    tenant_wide = settings.get("tenant")
    wide = tenant_wide if isinstance(tenant_wide, dict) else {}
    currency = str(wide.get("currency") or "UAH")
    own = {k: [_in_currency(f, currency) for f in found] for k, found in fields.items()}
    read = (_or_none(build_kind, i, v, own) for i, v in kinds)
    built = {kind.key: kind for kind in read if kind is not None}
    all_kinds = {**built, **SYSTEM_KINDS}
    return Schema(
        rev=int(first[0] or 0),
        kinds=all_kinds,
        currency=currency,
        locale=str(wide.get("locale") or "en"),
        hold=_read_hold(holds, all_kinds),
    )


def _or_none(build: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """A definition, or None for one that cannot be read: one record must not stop a tenant. Its
    values stay in `data`, as those of an unknown type do.
    """
    try:
        return build(*args, **kwargs)
    except (KeyError, ValueError, msgspec.ValidationError):
        logs.event("schema.unreadable", level="error", code=build.__name__)
        return None


def _read_hold(holds: Rows, kinds: dict[str, Kind]) -> Hold | None:
    row = holds.first()
    if row is None:
        return None
    named = msgspec.json.decode(row[2] or b"{}", type=dict[str, list[str]])
    return Hold(
        epoch=int(row[0] or 0),
        units=_uuids(row[1]) if row[1] is not None else None,
        reach=_uuids(row[4]),
        mask=make_mask(named, kinds),
        waiting=_uuids(row[5]),
        leaving=row[3] == b"t",
    )


def _uuids(joined: bytes | None) -> frozenset[UUID]:
    return frozenset(UUID(text) for text in (joined or b"").decode().split(",") if text)


def _in_currency(field: Field, currency: str) -> Field:
    """Money that names no currency is the tenant's, with its digits after the point."""
    if field.type != "money" or {"currency", "currency_field"} & field.options.keys():
        return field
    return msgspec.structs.replace(field, options={**field.options, "currency": currency})


def build_kind(ident: str, values: dict[str, Json], fields: dict[str, list[Field]]) -> Kind:
    """One kind from its record and the fields found for it."""
    key = str(values["key"])
    declared = values.get("ledger")
    ledger = msgspec.convert(declared, Ledger) if declared else None
    found = fields.get(key, [])
    ordered = tuple(sorted(_of_ledger(key, found, ledger), key=lambda f: (f.order, f.fid)))
    home = values.get("home")
    return Kind(
        key=key,
        id=ident,
        labels=_labels(values.get("labels")),
        fields=ordered,
        home=Home(home) if isinstance(home, str) and home in set(Home) else Home.UNIT,
        display=_text(values.get("display")) or (ordered[0].name if ordered else None),
        series=_text(values.get("series")),
        enabled=values.get("enabled") is not False,
        authority=Authority(str(values.get("authority") or "any")),
        ledger=ledger,
    )


def _of_ledger(key: str, fields: list[Field], ledger: Ledger | None) -> list[Field]:
    """The fields of a ledger have columns of its table: the moment, and what is reversed."""
    if ledger is None:
        return fields
    reverses = Field(
        fid=REVERSES, name=REVERSES, type="reference", slot=REVERSES, filterable=True, order=10_000,
        labels={"en": "Reverses", "ru": "Сторнирует", "uk": "Сторнує"},
        options={"target": key}, system=True,
    )  # fmt: skip
    found = [f for f in fields if f.name != REVERSES]
    at = [
        msgspec.structs.replace(f, slot="at", filterable=True) for f in found if f.name == ledger.at
    ]
    return [*(f for f in found if f.name != ledger.at), *at, reverses]


def build_field(
    values: dict[str, Json], slots: dict[tuple[str, str], tuple[str, bool]] | None = None
) -> Field | None:
    """One field from its record; None for a type this program does not know (a newer peer's):
    its values stay in `data` untouched until the program is upgraded.
    """
    type_ = TYPES.get(str(values.get("type")))
    if type_ is None:
        return None
    name = str(values.get("name"))
    fid = str(values.get("fid") or name)
    slot, ready = (slots or {}).get((str(values.get("kind")), fid), (None, True))
    policy = values.get("policy")
    options = values.get("options")
    order = values.get("order")
    return Field(
        fid=fid,
        name=name,
        type=type_.name,
        labels=_labels(values.get("labels")),
        help=_labels(values.get("help")),
        options=options if isinstance(options, dict) else {},
        required=values.get("required") is True,
        default=values.get("default"),
        min=_text(values.get("min")),
        max=_text(values.get("max")),
        pattern=_text(values.get("pattern")),
        sensitivity=Sensitivity(str(values.get("sensitivity") or "internal")),
        filterable=values.get("filterable") is True,
        searchable=values.get("searchable") is True,
        unique=values.get("unique") is True,
        policy=Policy(str(policy)) if policy else type_.policy,
        group=_text(values.get("group")),
        order=order if isinstance(order, int) else 0,
        slot="link" if type_.slot == "link" else slot,
        slot_ready=ready,
    )


def _labels(value: Json) -> dict[str, str]:
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) and value else None
