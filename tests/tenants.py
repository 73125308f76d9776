"""A tenant in one line, by the installer and the write path themselves."""

import contextlib
from dataclasses import dataclass
from uuid import UUID

import msgspec

from appliance.base.clock import now
from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.kernel.context import Ctx, Door, UnitNode
from appliance.kernel.profile import ACTIONS, KindGrant, Mode, Profile, Scope, ScopeKind
from appliance.meta import load_schema
from appliance.write import Command, Op, apply
from appliance.write.emit import stream_call
from appliance.write.log import common_stream

NEW_STATE = "INSERT INTO tenant_state (tenant_id, log_key) VALUES ($1, $2)"


@dataclass
class Tenant:
    """A tenant with two branches under a head office, and contexts to act in it."""

    db: Database
    id: UUID
    units: dict[str, UUID]
    people: dict[str, UUID]

    async def ctx(self, profile: Profile | None = None, *, unit="north", person="owner", **extra):
        """A context under `profile` (default: everything), in a unit, as a person."""
        schema = await load_schema(self.db, self.id)
        tree = {
            i: UnitNode(
                id=i, parent=None if k == "head" else self.units["head"], name=k, tz="Europe/Kyiv"
            )
            for k, i in self.units.items()
        }
        own = self.units[unit]
        below = set(self.units.values()) if unit == "head" else {own}
        return Ctx(
            tenant=self.id, origin=1, actor=self.people[person], schema=schema,
            profile=profile or everything(schema), units=frozenset({own}),
            subtree=frozenset(below), unit=own, unit_tree=tree, tz="Europe/Kyiv",
            request_id=uuid7(), at=now(), **extra,
        )  # fmt: skip

    async def apply(self, *commands, ctx=None, **options):
        """Run commands as the owner."""
        return await apply(self.db, ctx or await self.ctx(), commands, **options)

    async def add_kind(self, key, fields, **values):
        """A kind with fields, each a dict or (name, type)."""
        steps = [create("sys.kind", key=key, **values)]
        for order, field in enumerate(fields):
            given = field if isinstance(field, dict) else {"name": field[0], "type": field[1]}
            steps.append(
                create(
                    "sys.field",
                    **{
                        "kind": key,
                        "order": order,
                        "filterable": given.get("type") not in PLAIN,
                        **given,
                    },
                )
            )
        result = await self.apply(*steps, ctx=await self.ctx(door=Door.INSTALL))
        assert result.committed, result
        return result

    async def sql(self, text, *params):
        """Rows as text, inside the tenant."""
        from appliance.db.wire import Statement

        (rows,) = await self.db.read(self.id, (Statement(text), params))
        return [[v.decode() if v is not None else None for v in row] for row in rows]


PLAIN = {"long_text", "json", "rollup", "file"}


def create(kind, ident=None, /, *, unit=msgspec.UNSET, owner=msgspec.UNSET, **fields):
    return Command(op=Op.CREATE, kind=kind, id=ident, fields=fields, unit=unit, owner=owner)


def update(kind, ident, expect=None, /, *, unit=msgspec.UNSET, owner=msgspec.UNSET, **fields):
    return Command(
        op=Op.UPDATE, kind=kind, id=ident, fields=fields, expect=expect, unit=unit, owner=owner
    )


def delete(kind, ident, expect=None):
    return Command(op=Op.DELETE, kind=kind, id=ident, expect=expect)


def restore(kind, ident):
    return Command(op=Op.RESTORE, kind=kind, id=ident)


def everything(schema):
    """A profile that may do all with all kinds, each thing granted by name."""
    grants = {
        key: KindGrant(
            {a: Scope(ScopeKind.ALL) for a in ACTIONS}, {f.fid: Mode.WRITE for f in kind.fields}
        )
        for key, kind in schema.kinds.items()
    }
    return Profile(id="everything", key="everything", grants=grants)


def only(schema, kind, actions, fields, **others):
    """A profile of one kind: `actions` by scope name, `fields` by mode name."""
    grant = KindGrant(
        {a: Scope(ScopeKind(s)) for a, s in actions.items()},
        {f: Mode.parse(m) for f, m in fields.items()},
    )
    return Profile(id="only", key="only", grants={kind: grant, **others})


async def make_tenant(db, control, slug):
    """A bare tenant by SQL and the write path: for the tests of rooms below the installer."""
    tenant = uuid7()
    async with db.control.connection() as _:
        pass
    async with await control() as conn:
        await conn.execute(
            "INSERT INTO tenant (id, slug, name, placement_id) SELECT %s, %s, %s, id FROM placement "
            "WHERE name = 'pool'", (tenant, slug, slug.capitalize()),
        )  # fmt: skip
        await conn.commit()
    await db.routes.refresh()
    from appliance.db.wire import Statement

    async with db.transaction(tenant) as tx:
        await tx.run(
            (Statement(NEW_STATE), (tenant, b"k" * 32)),
            stream_call(tenant, 1, [(common_stream(tenant, n), n) for n in ("shared", "schema")]),
        )
    made = Tenant(db, tenant, {}, {"owner": uuid7()})
    made.units = {"head": uuid7(), "north": uuid7(), "south": uuid7()}
    schema = await load_schema(db, tenant)
    ctx = Ctx(
        tenant=tenant, origin=1, actor=made.people["owner"], profile=Profile(id="", key=""),
        schema=schema, door=Door.INSTALL, request_id=uuid7(), at=now(),
    )  # fmt: skip
    units = [
        create(
            "sys.unit",
            made.units[k],
            name=k,
            parent=None if k == "head" else str(made.units["head"]),
            tz="Europe/Kyiv",
        )
        for k in made.units
    ]
    people = [create("sys.person", made.people["owner"], name="Owner", email="owner@example.org")]
    result = await apply(db, ctx, [*units, *people])
    assert result.committed, result
    return made


@contextlib.asynccontextmanager
async def opened(dsns):
    """A Database of this process."""
    db = Database(dsns.control_dsn, dsns.pool_dsn)
    await db.start()
    try:
        yield db
    finally:
        await db.stop()
