"""A tenant as the installer would leave it, with people of several profiles and some records."""

from dataclasses import dataclass, field

import msgspec

from appliance.access.passwords import hash_password
from appliance.access.shipped import grant_of, shipped
from appliance.db.wire import Statement
from appliance.kernel.context import Door
from appliance.meta import load_schema
from tests.tenants import create, make_tenant

PASSWORD = "correct horse battery staple"
PEOPLE = {
    "owner": ("owner", "head"), "seller": ("salesperson", "north"), "south": ("salesperson", "south"),
    "viewer": ("viewer", "head"), "manager": ("branch_manager", "north"), "auditor": ("auditor", "head"),
    "admin": ("admin", "head"),
}  # fmt: skip
_CREDENTIAL = Statement(
    "INSERT INTO credential (tenant_id, person_id, email, password_hash) VALUES ($1, $2, $3, $4)"
)
STAGES = {"choices": [{"key": k} for k in ("new", "won", "lost")]}


@dataclass
class World:
    tenant: object
    slug: str
    records: dict = field(default_factory=dict)
    profiles: dict = field(default_factory=dict)
    tokens: dict = field(default_factory=dict)

    def credentials(self, who):
        return {"tenant": self.slug, "email": f"{who}@example.org", "password": PASSWORD}


async def build(db, control, slug):
    tenant = await make_tenant(db, control, slug)
    found = World(tenant, slug)
    await tenant.add_kind("customer", [
        {"name": "name", "type": "text", "searchable": True, "required": True},
        {"name": "secret", "type": "text", "sensitivity": "restricted", "filterable": True, "searchable": True},
    ], display="name")  # fmt: skip
    await tenant.add_kind("deal", [
        {"name": "title", "type": "text", "searchable": True},
        {"name": "amount", "type": "money"}, {"name": "margin", "type": "money", "sensitivity": "confidential"},
        {"name": "stage", "type": "choice", "options": STAGES},
        {"name": "closes", "type": "date"},
        {"name": "customer", "type": "reference", "options": {"target": "customer"}},
    ])  # fmt: skip
    await _people(found)
    await _records(found)
    return found


async def _people(world):
    tenant = world.tenant
    schema = await load_schema(tenant.db, tenant.id)
    ctx = await tenant.ctx(door=Door.INSTALL)
    commands = []
    ids = {}
    from appliance.base.ids import uuid7

    for key in {p for p, _ in PEOPLE.values()}:
        profile = shipped()[key]
        ids[key] = world.profiles[key] = uuid7()
        commands.append(
            create(
                "sys.profile",
                ids[key],
                key=key,
                labels=profile.labels,
                capabilities=profile.capabilities,
            )
        )
        for kind in schema.kinds.values():
            grant = grant_of(profile, kind)
            if grant:
                commands.append(create("sys.grant", profile=str(ids[key]), kind=kind.key, **grant))
    for who, (profile, unit) in PEOPLE.items():
        if who != "owner":
            tenant.people[who] = uuid7()
            commands.append(
                create(
                    "sys.person",
                    tenant.people[who],
                    name=who.capitalize(),
                    email=f"{who}@example.org",
                )
            )
        commands.append(
            create(
                "sys.membership",
                person=str(tenant.people[who]),
                profile=str(ids[profile]),
                units=[str(tenant.units[unit])],
            )
        )
    result = await tenant.apply(*commands, ctx=ctx)
    assert result.committed, result
    hashed = await hash_password(PASSWORD)
    async with tenant.db.transaction(tenant.id) as tx:
        await tx.run(
            *(
                (_CREDENTIAL, (tenant.id, i, f"{w}@example.org", hashed))
                for w, i in tenant.people.items()
            )
        )


async def _records(world):
    tenant = world.tenant
    for unit in ("north", "south"):
        ctx = await tenant.ctx(unit=unit)
        made = await tenant.apply(
            create(
                "customer",
                name=f"{world.slug} firm of {unit}",
                secret=f"canary-{world.slug}-{unit}",
            ),
            ctx=ctx,
        )
        customer = made.outcomes[0].id
        deals = await tenant.apply(
            *(
                create(
                    "deal",
                    title=f"{world.slug} {unit} deal {n}",
                    amount=f"{n}.50",
                    margin="7.77",
                    stage="new",
                    customer=str(customer),
                )
                for n in range(5)
            ),
            ctx=ctx,
        )
        assert deals.committed, deals
        world.records[unit] = {"customer": customer, "deal": [o.id for o in deals.outcomes]}


def decoded(raw):
    return msgspec.json.decode(raw)
