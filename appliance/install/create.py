"""Make a tenant: placement rows, streams, shipped profiles, first person, template.

Promises: the tenant is active only when all of it is there; a failure leaves a tenant in state
`creating`, which nobody can sign in to and which `nexus tenant` shows.
"""

from __future__ import annotations

import secrets
from uuid import UUID

import msgspec

from appliance.access import passwords
from appliance.access.load import read_tree
from appliance.access.login import normal_email
from appliance.base.clock import now
from appliance.base.errors import Invalid
from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.db.placement import Route
from appliance.db.wire import Statement
from appliance.install.installing import Options, install, run
from appliance.install.snapshot import take_snapshot
from appliance.install.template import Template, read
from appliance.kernel.context import Ctx, Door
from appliance.kernel.kind import Json
from appliance.kernel.profile import Profile
from appliance.meta import load_schema
from appliance.tenancy import Servers, activate
from appliance.tenancy import create_tenant as create_row
from appliance.write import Command, Op
from appliance.write.emit import stream_call
from appliance.write.log import common_stream

POOL = "pool"
_STATE = Statement("INSERT INTO tenant_state (tenant_id, log_key) VALUES ($1, $2)")
_UNITS = Statement(
    "SELECT id::text, data FROM record WHERE tenant_id = $1 AND kind = 'sys.unit' "
    "AND deleted_at IS NULL ORDER BY id"
)
_CREDENTIAL = Statement(
    "INSERT INTO credential (tenant_id, person_id, email, password_hash, must_change) "
    "VALUES ($1, $2, $3, $4, $5)"
)


class NewTenant(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for. `email` and `password` are the first owner's."""

    slug: str
    name: str
    email: str
    password: str
    person: str = "Owner"
    template: str = "blank"
    must_change: bool = True
    placement: str = POOL
    currency: str = "UAH"
    samples: bool = True


class CreatedTenant(msgspec.Struct, frozen=True):
    """The tenant and its first owner."""

    tenant: UUID
    owner: UUID
    units: dict[str, UUID]


async def create_tenant(
    db: Database, servers: Servers, new: NewTenant, *, origin: int, chars_min: int = 12
) -> CreatedTenant:
    """A new active tenant. Raises Invalid for a bad slug, address, password or template."""
    template = read(new.template)
    if "@" not in new.email:
        raise Invalid("The owner's address is no e-mail address.", code="tenant.bad_email")
    passwords.check_strength(new.password, chars_min, pointer="/password", known=new.email)
    password_hash = await passwords.hash_password(new.password)
    row = await create_row(servers, new.slug, new.name, new.placement)
    with db.routes.pinned(Route(row.id, row.slug, row.name, "active", row.target, row.placement)):
        made = await _fill(db, row.id, new, template, password_hash, origin)
    await activate(servers, row.id)
    await db.routes.refresh()
    return made


async def _fill(
    db: Database, tenant: UUID, new: NewTenant, template: Template, password_hash: str, origin: int
) -> CreatedTenant:
    owner = uuid7()
    async with db.transaction(tenant) as tx:
        await tx.run(
            (_STATE, (tenant, secrets.token_bytes(32))),
            stream_call(
                tenant, origin, [(common_stream(tenant, n), n) for n in ("schema", "shared")]
            ),
            (_CREDENTIAL, (tenant, owner, normal_email(new.email), password_hash, new.must_change)),
        )
    ctx = await install_context(db, tenant, owner, origin)
    await run(db, ctx, [_owner(owner, new), _settings(new)])
    made = await install(db, ctx, template, Options(samples=new.samples))
    profiles = {h.item.key: h.id for h in (await take_snapshot(db, tenant)).live("profile")}
    root = next(iter(made.units.values()), None)
    await run(db, ctx, [_membership(owner, profiles["owner"], root)])
    return CreatedTenant(tenant, owner, made.units)


async def install_context(db: Database, tenant: UUID, actor: UUID, origin: int) -> Ctx:
    """The context in which templates write: through the door of installation, as a person."""
    schema = await load_schema(db, tenant)
    (units,) = await db.read(tenant, (_UNITS, (tenant,)))
    tree = read_tree(units)
    return Ctx(
        tenant=tenant, origin=origin, actor=actor, profile=Profile(id="", key="install"),
        schema=schema, door=Door.INSTALL, request_id=uuid7(), at=now(), unit_tree=tree,
        unit=next((n.id for n in tree.values() if n.parent is None), None),
    )  # fmt: skip


def _owner(ident: UUID, new: NewTenant) -> Command:
    values: dict[str, Json] = {"name": new.person, "email": new.email}
    return Command(op=Op.CREATE, kind="sys.person", id=ident, fields=values)


def _settings(new: NewTenant) -> Command:
    values: dict[str, Json] = {"key": "tenant", "value": {"currency": new.currency}}
    return Command(op=Op.CREATE, kind="sys.setting", fields=values)


def _membership(person: UUID, profile: UUID, unit: UUID | None) -> Command:
    values: dict[str, Json] = {"person": str(person), "profile": str(profile)}
    if unit is not None:
        values["units"] = [str(unit)]
    return Command(op=Op.CREATE, kind="sys.membership", fields=values)
