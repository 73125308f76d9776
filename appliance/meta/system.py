"""The kinds that configuration is made of: `sys.*`, defined here and nowhere else.

Configuration is records, so it is permitted, audited, versioned, undone and replicated by the
same two paths as a customer card. Their slots are fixed, so that they can be read before any
schema is loaded.
"""

from __future__ import annotations

import msgspec

from appliance.kernel.kind import Authority, Field, Home, Json, Kind, Policy, Sensitivity


def _field(name: str, type_: str, slot: str | None = None, **extra: object) -> Field:
    labels = {"en": name.replace("_", " ").capitalize()}
    return Field(
        fid=name, name=name, type=type_, slot=slot, filterable=slot is not None, labels=labels,
        system=True, **extra,  # type: ignore[arg-type]
    )  # fmt: skip


def _choices(*keys: str) -> dict[str, Json]:
    return {"choices": [{"key": k, "labels": {"en": k.capitalize()}} for k in keys]}


def _kind(
    key: str, home: Home, display: str, label: str, *fields: Field,
    authority: Authority = Authority.ANY,
) -> Kind:  # fmt: skip
    placed = tuple(_with_order(f, n) for n, f in enumerate(fields))
    return Kind(
        key=key, fields=placed, home=home, display=display, labels={"en": label}, system=True,
        authority=authority,
    )  # fmt: skip


def _with_order(field: Field, order: int) -> Field:
    return msgspec.structs.replace(field, order=order)


KIND = _kind(
    "sys.kind", Home.SCHEMA, "key", "Kinds",
    _field("key", "text", "t1", required=True, unique=True),
    _field("labels", "json"),
    _field("help", "json"),
    _field("home", "choice", options=_choices("unit", "shared", "schema"), default="unit"),
    _field("display", "text"),
    _field("series", "text"),
    _field("layout", "json"),
    _field("authority", "choice", options=_choices(*(a.value for a in Authority)), default="any"),
    _field("ledger", "json"),
    _field("module", "text", "t2"),
    _field("enabled", "yes_no", "n1", default=True),
    _field("origin", "json"),
)  # fmt: skip

FIELD = _kind(
    "sys.field", Home.SCHEMA, "name", "Fields",
    _field("kind", "text", "t1", required=True),
    _field("name", "text", "t2", required=True),
    _field("fid", "text"),
    _field("type", "text", "t3", required=True),
    _field("labels", "json"),
    _field("help", "json"),
    _field("options", "json"),
    _field("required", "yes_no", default=False),
    _field("default", "json"),
    _field("min", "text"),
    _field("max", "text"),
    _field("pattern", "text"),
    _field("sensitivity", "choice", options=_choices(*(s.value for s in Sensitivity)),
           default="internal"),
    _field("filterable", "yes_no", default=False),
    _field("searchable", "yes_no", default=False),
    _field("unique", "yes_no", default=False),
    _field("policy", "choice", options=_choices(*(p.value for p in Policy))),
    _field("group", "text"),
    _field("order", "integer", "n1"),
    _field("origin", "json"),
)  # fmt: skip

# Who may do what, and where, is decided at the hub: a site that could write it would set its own
# limits.
UNIT = _kind(
    "sys.unit", Home.SHARED, "name", "Units",
    _field("name", "text", "t1", required=True, searchable=True),
    _field("code", "text", "t2", unique=True),
    _field("sort", "choice", "t3", default="branch",
           options=_choices("company", "branch", "store", "warehouse", "department")),
    _field("parent", "reference", "r1", options={"target": "sys.unit"}),
    _field("tz", "text", default="UTC"),
    _field("currency", "text"),
    _field("prefix", "text", "t4"),
    authority=Authority.HUB,
)  # fmt: skip

PERSON = _kind(
    "sys.person", Home.SHARED, "name", "People",
    _field("name", "text", "t1", required=True, searchable=True,
           sensitivity=Sensitivity.PERSONAL),
    _field("email", "email", "t2", required=True, unique=True,
           sensitivity=Sensitivity.PERSONAL),
    _field("phone", "phone", sensitivity=Sensitivity.PERSONAL),
    _field("locale", "text", default="en"),
    _field("tz", "text"),
    _field("state", "choice", "t3", default="active",
           options=_choices("invited", "active", "suspended", "gone")),
)  # fmt: skip

PROFILE = _kind(
    "sys.profile", Home.SHARED, "key", "Access profiles",
    _field("key", "text", "t1", required=True, unique=True),
    _field("labels", "json"),
    _field("help", "json"),
    _field("capabilities", "json"),
    _field("origin", "json"),
    authority=Authority.HUB,
)  # fmt: skip

GRANT = _kind(
    "sys.grant", Home.SHARED, "kind", "Grants",
    _field("profile", "reference", "r1", required=True, options={"target": "sys.profile"}),
    _field("kind", "text", "t1", required=True),
    _field("actions", "json"),
    _field("fields", "json"),
    _field("origin", "json"),
    authority=Authority.HUB,
)  # fmt: skip

MEMBERSHIP = _kind(
    "sys.membership", Home.SHARED, "person", "Memberships",
    _field("person", "reference", "r1", required=True, options={"target": "sys.person"}),
    _field("profile", "reference", "r2", required=True, options={"target": "sys.profile"}),
    _field("units", "references", "link", options={"target": "sys.unit"}),
    _field("valid_from", "date", "d1"),
    _field("valid_to", "date", "d2"),
    authority=Authority.HUB,
)  # fmt: skip

VIEW = _kind(
    "sys.view", Home.SHARED, "key", "Views",
    _field("key", "text", "t1", required=True),
    _field("kind", "text", "t2", required=True),
    _field("labels", "json"),
    _field("query", "json"),
    _field("layout", "json"),
    _field("shared", "yes_no", "n1", default=False),
    _field("origin", "json"),
)  # fmt: skip

MODULE = _kind(
    "sys.module", Home.SCHEMA, "key", "Modules",
    _field("key", "text", "t1", required=True, unique=True),
    _field("labels", "json"),
    _field("help", "json"),
    _field("icon", "text"),
    _field("order", "integer", "n1"),
    _field("version", "text"),
    _field("requires", "json"),
    _field("enabled", "yes_no", "n2", default=True),
    _field("stay_off", "json"),
    _field("origin", "json"),
    authority=Authority.HUB,
)  # fmt: skip

DASHBOARD = _kind(
    "sys.dashboard", Home.SHARED, "key", "Dashboards",
    _field("key", "text", "t1", required=True, unique=True),
    _field("labels", "json"),
    _field("widgets", "json"),
    _field("shared", "yes_no", "n1", default=False),
    _field("module", "text", "t2"),
    _field("origin", "json"),
)  # fmt: skip

WORKFLOW = _kind(
    "sys.workflow", Home.SHARED, "key", "Workflows",
    _field("key", "text", "t1", required=True, unique=True),
    _field("kind", "text", "t2", required=True),
    _field("labels", "json"),
    _field("help", "json"),
    _field("trigger", "json"),
    _field("condition", "json"),
    _field("steps", "json"),
    _field("active", "yes_no", "n1", default=False),
    _field("origin", "json"),
    authority=Authority.HUB,
)  # fmt: skip

# What a template brought that is no configuration: first records and samples, by the record's id.
SEED = _kind(
    "sys.seed", Home.SHARED, "key", "Records of templates",
    _field("key", "text", "t1", required=True),
    _field("kind", "text", "t2", required=True),
    _field("record", "text", "t3", required=True),
    _field("removable", "yes_no", "n1", default=False),
    _field("origin", "json"),
)  # fmt: skip

# How files of one layout are read, as somebody confirmed it; `fingerprint` is the layout's.
MAPPING = _kind(
    "sys.mapping", Home.SHARED, "name", "Mappings of imports",
    _field("name", "text", "t1", required=True),
    _field("connector", "text", "t2", required=True),
    _field("fingerprint", "text", "t3", required=True),
    _field("mapping", "json", required=True),
    _field("source", "text"),
    _field("used", "integer", "n1"),
    _field("last_used", "moment", "d1"),
)  # fmt: skip

# The template a tenant stands on. `bundle` is what it brought, packed: the base of later merges.
TEMPLATE = _kind(
    "sys.template", Home.SCHEMA, "name", "Installed templates",
    _field("name", "text", "t1", required=True, unique=True),
    _field("version", "text", required=True),
    _field("labels", "json"),
    _field("modules", "json"),
    _field("bundle", "long_text"),
    _field("steps", "json"),
)  # fmt: skip

# One attachment; the bytes lie in the content planes of nodes under the same id. Only nodes write
# it: each judges by itself, and where two did at once the strictest state stands.
FILE = _kind(
    "sys.file", Home.UNIT, "name", "Files",
    _field("name", "text", "t1", required=True, searchable=True,
           sensitivity=Sensitivity.PERSONAL),
    _field("state", "choice", "t2", required=True, policy=Policy.STRICTEST,
           options=_choices("receiving", "held", "released", "restricted", "suspicious",
                            "recalled", "rejected", "expired", "purged")),
    _field("reason", "text", policy=Policy.NEWEST),
    _field("type", "text", "t3", policy=Policy.NEWEST),
    _field("size", "integer", "n1", policy=Policy.NEWEST),
    _field("sha256", "text", "t4", policy=Policy.NEWEST),
    _field("for_kind", "text", "t5"),
    _field("for_record", "text", "t6"),
    _field("for_field", "text"),
    _field("verdict", "json", policy=Policy.NEWEST),
    _field("judged_at", "moment", "d1", policy=Policy.NEWEST),
    _field("review", "json", policy=Policy.NEWEST),
)  # fmt: skip

# Something that somebody has to look into; `evidence` holds ids, codes and times.
INCIDENT = _kind(
    "sys.incident", Home.UNIT, "title", "Incidents",
    _field("title", "text", "t1", required=True),
    _field("sort", "text", "t2", required=True),
    _field("severity", "choice", "t3", options=_choices("low", "medium", "high"), default="medium"),
    _field("state", "choice", "t4", options=_choices("open", "closed"), default="open"),
    _field("subject", "text", "t5"),
    _field("opened_at", "moment", "d1"),
    _field("evidence", "json"),
    _field("conclusion", "long_text"),
)  # fmt: skip

# Who is told of changes by HTTP, and what of; it sees what `profile` over `units` sees. Only the API of
# webhooks writes it (write/hooks), which proves that whoever does may lend that profile. Secrets and
# what is delivered stand beside it, on the delivering node alone.
WEBHOOK = _kind(
    "sys.webhook", Home.SHARED, "name", "Webhooks",
    _field("name", "text", "t1", required=True),
    _field("url", "text", required=True),
    _field("watches", "json", required=True),
    _field("profile", "text", "t2", required=True),
    _field("units", "json", required=True),
    _field("maker", "text", required=True),
    authority=Authority.HUB,
)  # fmt: skip

SETTING = _kind(
    "sys.setting", Home.SHARED, "key", "Settings",
    _field("key", "text", "t1", required=True, unique=True),
    _field("value", "json"),
    authority=Authority.HUB,
)  # fmt: skip

SYSTEM_KINDS: dict[str, Kind] = {
    kind.key: kind
    for kind in (
        KIND,
        FIELD,
        UNIT,
        PERSON,
        PROFILE,
        GRANT,
        MEMBERSHIP,
        VIEW,
        DASHBOARD,
        WORKFLOW,
        MODULE,
        TEMPLATE,
        SEED,
        MAPPING,
        FILE,
        INCIDENT,
        WEBHOOK,
        SETTING,
    )
}

# Which revision a change of a kind's records moves on: caches of rights and schema are keyed by it.
SCHEMA_KINDS = frozenset({"sys.kind", "sys.field", "sys.module", "sys.setting"})
RIGHTS_KINDS = frozenset({"sys.unit", "sys.person", "sys.profile", "sys.grant", "sys.membership"})
