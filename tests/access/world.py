"""A tenant with two branches, a business kind of every sensitivity, and people of shipped profiles."""

from dataclasses import dataclass, field

from appliance.access.login import Attempt, sign_in
from appliance.access.passwords import hash_password
from appliance.access.session import Sessions
from appliance.access.shipped import grants_for, shipped
from appliance.base.ids import uuid7
from appliance.base.settings import Login
from appliance.db.wire import Statement
from appliance.kernel.context import Door
from appliance.meta import load_schema
from tests.tenants import create, make_tenant

PASSWORD = "seven green umbrellas at dusk"
POLICY = Login()
SENSITIVITIES = ("public", "internal", "personal", "confidential", "restricted")
_CREDENTIAL = Statement(
    "INSERT INTO credential (tenant_id, person_id, email, password_hash) VALUES ($1, $2, $3, $4)"
)
_hashed = []


@dataclass
class World:
    tenant: object
    slug: str
    profiles: dict = field(default_factory=dict)
    members: dict = field(default_factory=dict)

    @property
    def db(self):
        return self.tenant.db

    @property
    def id(self):
        return self.tenant.id

    async def sign_in(self, who, password=PASSWORD, *, db=None, **more):
        attempt = Attempt(self.slug, f"{who}@example.org", password, **more)
        return await sign_in(db or self.db, attempt, POLICY, uuid7())

    async def enter(self, who, *, db=None):
        """A context of a person who has signed in, and the token."""
        signed = await self.sign_in(who, db=db)
        return await sessions(db or self.db).authenticate(signed.token, uuid7()), signed.token

    async def person(self, who, profile, unit="north", **membership):
        """Somebody who signs in with PASSWORD."""
        ident = self.tenant.people.setdefault(who, uuid7())
        commands = [] if who == "owner" else [
            create("sys.person", ident, name=who.capitalize(), email=f"{who}@example.org")
        ]  # fmt: skip
        units = {"units": [str(self.tenant.units[unit])]} if unit else {}
        member = self.members[who] = uuid7()
        commands.append(create("sys.membership", member, person=str(ident),
                               profile=str(self.profiles[profile]), **units, **membership))  # fmt: skip
        await self.run(*commands)
        if not _hashed:
            _hashed.append(await hash_password(PASSWORD))
        await self.sql(_CREDENTIAL, self.id, ident, f"{who}@example.org", _hashed[0])
        return ident

    async def run(self, *commands):
        result = await self.tenant.apply(*commands, ctx=await self.tenant.ctx(door=Door.INSTALL))
        assert result.committed, result
        return result

    async def sql(self, statement, *params):
        text = statement if isinstance(statement, Statement) else Statement(statement)
        async with self.db.transaction(self.id) as tx:
            return (await tx.run((text, params)))[0]

    async def audited(self, action):
        rows = await self.tenant.sql(
            "SELECT actor::text, subject, outcome, details::text FROM audit "
            "WHERE tenant_id = $1 AND action = $2 ORDER BY id", self.id, action,
        )  # fmt: skip
        return rows


def sessions(db):
    return Sessions(db, origin=1, node_prefix="", idle_minutes=60)


async def build(db, control, slug):
    tenant = await make_tenant(db, control, slug)
    world = World(tenant, slug)
    await tenant.add_kind("card", [
        {"name": name, "type": "text", "sensitivity": name} for name in SENSITIVITIES
    ])  # fmt: skip
    schema = await load_schema(db, tenant.id)
    commands = []
    for key, profile in shipped().items():
        world.profiles[key] = ident = uuid7()
        commands.append(create("sys.profile", ident, key=key, labels=profile.labels,
                               capabilities=profile.capabilities))  # fmt: skip
        for grant in grants_for(key, schema.kinds.values()):
            commands.append(create("sys.grant", profile=str(ident), **grant))
    await world.run(*commands)
    await world.person("owner", "owner", "head")
    return world
