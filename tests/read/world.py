"""A small world for properties: two kinds that refer to each other, two tenants, odd values.

The other tenant holds the same kinds and look-alike rows: any of its rows in an answer is a leak.
"""

import random
from dataclasses import dataclass, field
from uuid import UUID

from appliance.base.ids import uuid7
from appliance.kernel.profile import KindGrant, Mode, Profile, Scope, ScopeKind
from tests.tenants import create, delete

CHOICES = {"choices": [{"key": k, "labels": {"en": k.upper()}} for k in ("new", "won", "lost")]}
TAGS = {"choices": [{"key": k} for k in "abc"]}
# name -> (type, filterable, searchable, options)
FIELDS = {
    "customer": {
        "name": ("text", True, True, {}),
        "city": ("text", True, False, {}),
        "vip": ("yes_no", True, False, {}),
        "score": ("number", True, False, {"scale": 2}),
        "secret": ("text", True, True, {}),
        "memo": ("text", False, False, {}),
        "parent": ("reference", True, False, {"target": "customer"}),
        "spent": ("rollup", False, False, {"kind": "deal", "via": "customer", "op": "sum", "field": "amount"}),
        "deals": ("rollup", False, False, {"kind": "deal", "via": "customer", "op": "count"}),
    },
    "deal": {
        "title": ("text", True, True, {}),
        "amount": ("money", True, False, {}),
        "qty": ("integer", True, False, {}),
        "stage": ("choice", True, False, CHOICES),
        "tags": ("multi_choice", True, False, TAGS),
        "closes": ("date", True, False, {}),
        "met": ("moment", True, False, {}),
        "customer": ("reference", True, False, {"target": "customer"}),
        "watchers": ("references", True, False, {"target": "customer"}),
        "hush": ("text", True, True, {}),
    },
}  # fmt: skip
SYSTEM = {
    "id": "reference", "number": "text", "unit": "reference", "owner": "reference",
    "created_at": "moment", "created_by": "reference", "updated_at": "moment", "updated_by": "reference",
}  # fmt: skip
WORDS = ["zorb", "kvat", "mipq", "7731", "ZORB"]
TEXTS = [
    "a%b",
    "a_b",
    "A_B",
    "axb",
    "100%",
    "\\x",
    "Ёлка",
    "елка",
    "ґрати",
    "zz",
    "Zz",
    "b",
    "a",
    "'; --",
]
AMOUNTS = ["0.00", "10.00", "10.50", "-3.25", "99999.99", "10.00"]
SCORES = ["0.00", "1.50", "-2.25", "1000.00"]
DATES = ["2026-11-01", "2026-11-20", "2026-11-30", "2026-12-01", "2025-12-31"]
MOMENTS = [
    "2026-11-19T22:30:00.000Z",
    "2026-11-20T10:00:00.000Z",
    "2026-10-25T00:30:00.000Z",
    "2026-11-20T22:00:00.000Z",
    "2025-12-31T22:30:00.000Z",
]
ASOF = "2026-11-20T10:00:00.000Z"


@dataclass
class Row:
    """One record as the reference sees it; `data` by field name in canonical form."""

    id: str
    kind: str
    unit: str | None
    owner: str | None
    data: dict
    deleted: bool = False
    system: dict = field(default_factory=dict)


@dataclass
class World:
    tenant: object
    rows: list[Row]
    people: list[UUID]
    schema: object = None


def _text(rng):
    return rng.choice(
        [rng.choice(TEXTS), f"{rng.choice(WORDS)} {rng.choice(TEXTS)}", rng.choice(WORDS)]
    )


def _value(rng, type_, options, customers):
    match type_:
        case "text":
            return _text(rng)
        case "yes_no":
            return rng.random() < 0.5
        case "number":
            return rng.choice(SCORES)
        case "money":
            return rng.choice(AMOUNTS)
        case "integer":
            return rng.choice([-1, 0, 1, 2, 7, 2**40])
        case "choice":
            return rng.choice(["new", "won", "lost"])
        case "multi_choice":
            return sorted(rng.sample("abc", rng.randint(1, 3)))
        case "date":
            return rng.choice(DATES)
        case "moment":
            return rng.choice(MOMENTS)
        case "reference":
            return str(rng.choice(customers))
        case "references":
            return sorted({str(rng.choice(customers)) for _ in range(rng.randint(1, 2))})
    raise AssertionError(type_)


async def build(tenant, *, seed, customers=24, deals=48):
    """Kinds and rows of a tenant, by the write path."""
    rng = random.Random(seed)
    for kind, fields in FIELDS.items():
        await tenant.add_kind(kind, [
            {"name": n, "type": t, "filterable": f, "searchable": s, "options": o}
            for n, (t, f, s, o) in fields.items()
        ], display="name" if kind == "customer" else "title")  # fmt: skip
    people = [tenant.people["owner"], uuid7()]
    await tenant.apply(create("sys.person", people[1], name="Second", email="second@example.org"))
    ids = {"customer": [uuid7() for _ in range(customers)], "deal": [uuid7() for _ in range(deals)]}
    rows = []
    for kind, fields in FIELDS.items():
        commands = []
        for n, ident in enumerate(ids[kind]):
            data = {
                name: _value(
                    rng, t, o, ids["customer"][: n + 1] if kind == "customer" else ids["customer"]
                )
                for name, (t, _, _, o) in fields.items()
                if t != "rollup" and rng.random() < 0.8
            }
            unit, owner = rng.choice([*tenant.units.values()]), rng.choice(people)
            commands.append(create(kind, ident, unit=unit, owner=owner, **data))
            rows.append(Row(str(ident), kind, str(unit), str(owner), data))
        made = await tenant.apply(*commands)
        assert made.committed, made
    for row in rows:
        if rng.random() < 0.08:
            row.deleted = True
            gone = await tenant.apply(delete(row.kind, UUID(row.id)))
            assert gone.committed, gone
    for row in rows:
        ((created, by, updated, changed),) = await tenant.sql(
            "SELECT to_char(created_at,'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'), created_by::text, "
            "to_char(updated_at,'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'), updated_by::text FROM record WHERE id = $1::uuid", row.id,
        )  # fmt: skip
        row.system = {
            "id": row.id, "number": None, "unit": row.unit, "owner": row.owner, "created_at": created,
            "created_by": by, "updated_at": updated, "updated_by": changed,
        }  # fmt: skip
    world = World(tenant, rows, people)
    world.schema = (await tenant.ctx()).schema
    return world


def profile_of(plan, rev=0):
    """A Profile from {kind: {"scope": name | {"where": cond}, "restore": name, "fields": {name: mode}}}."""
    grants = {}
    for kind, given in plan.items():
        actions = {}
        for action in ("read", "restore", "export"):
            scope = given.get("scope" if action == "read" else action, "none")
            where = scope.get("where") if isinstance(scope, dict) else None
            name = "where" if isinstance(scope, dict) else scope
            actions[action] = Scope(ScopeKind(name), where)
        grants[kind] = KindGrant(actions, {n: Mode.parse(m) for n, m in given["fields"].items()})
    return Profile(id="made", key="made", rev=rev, grants=grants)
