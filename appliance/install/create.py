"""Make a tenant: placement rows, streams, shipped profiles, first person, template.

Promises: the tenant is active only when all of it is there; a failure leaves a tenant in state
`creating`, which nobody can sign in to and which `nexus tenant` shows.
"""

from __future__ import annotations

import secrets
from uuid import UUID

import msgspec

from appliance.access import passwords
from appliance.access.login import normal_email
from appliance.access.shipped import grant_of, shipped
from appliance.base.clock import now
from appliance.base.errors import ApplianceError, FieldFault, Invalid
from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.db.placement import Route
from appliance.db.wire import Statement
from appliance.install import template as templates
from appliance.kernel.context import Ctx, Door
from appliance.kernel.kind import Json, Kind
from appliance.kernel.profile import Profile
from appliance.meta import SYSTEM_KINDS, load_schema
from appliance.tenancy import Servers, activate
from appliance.tenancy import create_tenant as create_row
from appliance.write import Command, Op, Rejected, apply
from appliance.write.emit import stream_call
from appliance.write.log import common_stream

POOL = "pool"
_STATE = Statement("INSERT INTO tenant_state (tenant_id, log_key, template) VALUES ($1, $2, $3)")
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


class CreatedTenant(msgspec.Struct, frozen=True):
    """The tenant and its first owner."""

    tenant: UUID
    owner: UUID
    units: dict[str, UUID]


async def create_tenant(
    db: Database, servers: Servers, new: NewTenant, *, origin: int, chars_min: int = 12
) -> CreatedTenant:
    """A new active tenant. Raises Invalid for a bad slug, address, password or template."""
    template = templates.read(new.template)
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
    db: Database, tenant: UUID, new: NewTenant, template: templates.Template,
    password_hash: str, origin: int,
) -> CreatedTenant:  # fmt: skip
    owner = uuid7()
    stamp = f"{template.name}@{template.version}"
    async with db.transaction(tenant) as tx:
        await tx.run(
            (_STATE, (tenant, secrets.token_bytes(32), stamp)),
            stream_call(
                tenant, origin, [(common_stream(tenant, n), n) for n in ("schema", "shared")]
            ),
            (_CREDENTIAL, (tenant, owner, normal_email(new.email), password_hash, new.must_change)),
        )
    ctx = await _context(db, tenant, owner, origin)
    units, unit_ids = templates.unit_commands(template)
    await _run(db, ctx, [*units, _owner(owner, new), _settings(new)])
    await _run(db, ctx, templates.kind_commands(template))
    ctx = await _context(db, tenant, owner, origin)
    rights, profiles = _rights(ctx.schema.kinds)
    root = next(iter(unit_ids.values()), None)
    await _run(db, ctx, [*rights, _membership(owner, profiles["owner"], root)])
    await _run(db, ctx, templates.view_commands(template))
    ctx = msgspec.structs.replace(await _context(db, tenant, owner, origin), unit=root)
    await _run(db, ctx, templates.sample_commands(template, unit_ids))
    return CreatedTenant(tenant, owner, unit_ids)


async def _context(db: Database, tenant: UUID, owner: UUID, origin: int) -> Ctx:
    schema = await load_schema(db, tenant)
    return Ctx(
        tenant=tenant, origin=origin, actor=owner, profile=Profile(id="", key="install"),
        schema=schema, door=Door.INSTALL, request_id=uuid7(), at=now(),
    )  # fmt: skip


async def _run(db: Database, ctx: Ctx, commands: list[Command]) -> None:
    """One batch of the installation. Raises Invalid naming the record that was refused."""
    if not commands:
        return
    step = msgspec.structs.replace(ctx, request_id=uuid7())
    result = await apply(db, step, commands)
    if result.committed:
        return
    faults: list[FieldFault] = []
    for command, outcome in zip(commands, result.outcomes, strict=True):
        if isinstance(outcome, Rejected):
            what = (
                f"/{command.kind}/{command.fields.get('key') or command.fields.get('name') or ''}"
            )
            faults += [FieldFault(what + f.pointer, f.code, f.detail) for f in outcome.faults]
    if not faults:
        raise ApplianceError("The template does not install.")
    listed = "; ".join(f"{f.pointer}: {f.detail}" for f in faults[:5])
    raise Invalid(
        f"The template does not install: {listed}", code="template.invalid", faults=tuple(faults)
    )


def _rights(kinds: dict[str, Kind] | object) -> tuple[list[Command], dict[str, UUID]]:
    """The shipped profiles and what each grants on every kind there is."""
    known: dict[str, Kind] = {**SYSTEM_KINDS, **kinds}  # type: ignore[dict-item]
    ids = {key: uuid7() for key in shipped()}
    commands: list[Command] = []
    for key, profile in shipped().items():
        values: dict[str, Json] = {
            "key": key, "labels": dict(profile.labels), "help": dict(profile.help),
            "capabilities": [*profile.capabilities], "template": "nexus",
        }  # fmt: skip
        commands.append(Command(op=Op.CREATE, kind="sys.profile", id=ids[key], fields=values))
        for kind in known.values():
            grant = grant_of(profile, kind)
            if grant is not None:
                given = {"profile": str(ids[key]), "kind": kind.key, **grant}
                commands.append(Command(op=Op.CREATE, kind="sys.grant", fields=given))
    return commands, ids


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
