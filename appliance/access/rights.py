"""Rights of others: what a person may do ("view as"), and whether rights reach beyond one's own.

Nobody lends, grants or assigns more than they hold: keys, staff grants and codes are checked by
the functions here, and the write path asks them about memberships, profiles and grants.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from appliance.access.compile import compile_profile
from appliance.access.load import below, is_live, read_ids, roots
from appliance.base.clock import now
from appliance.base.errors import Forbidden, Refused
from appliance.db.database import Database, Transaction
from appliance.db.wire import Call, Rows, Statement
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from appliance.kernel.profile import Mode, Profile, Scope, ScopeKind

_GRANTS = (
    "LEFT JOIN record g ON g.tenant_id = p.tenant_id AND g.kind = 'sys.grant' AND g.r1 = p.id "
    "AND g.deleted_at IS NULL "
)
_BY_KEY = Statement(
    f"SELECT p.id::text, p.data, g.data FROM record p {_GRANTS}WHERE p.tenant_id = $1 "
    "AND p.kind = 'sys.profile' AND p.deleted_at IS NULL AND p.data->>'key' = $2 ORDER BY p.id, g.id"
)
_OF_PERSON = Statement(
    "SELECT m.id::text, m.data, p.id::text, p.data, g.data FROM record m "
    "JOIN record p ON p.tenant_id = m.tenant_id AND p.id = m.r2 AND p.kind = 'sys.profile' "
    f"AND p.deleted_at IS NULL {_GRANTS}WHERE m.tenant_id = $1 AND m.kind = 'sys.membership' "
    "AND m.r1 = $2 AND m.deleted_at IS NULL ORDER BY m.id"
)
_BY_IDS = Statement(
    f"SELECT p.id::text, p.data, g.data FROM record p {_GRANTS}WHERE p.tenant_id = $1 "
    "AND p.kind = 'sys.profile' AND p.id = ANY($2::uuid[]) AND (p.deleted_at IS NULL OR $3) "
    "ORDER BY p.id, g.id"
)
# Held to the commit: of two who take management from one another at once the second sees it.
_MANAGERS_LOCK = Statement(
    "SELECT pg_advisory_xact_lock(hashtextextended('access.managers ' || $1, 0))"
)
_MANAGERS = Statement(
    "SELECT m.id::text, p.id::text, m.r1::text, m.data FROM record m "
    "JOIN record p ON p.tenant_id = m.tenant_id AND p.id = m.r2 AND p.deleted_at IS NULL "
    "AND p.data->'capabilities' ? 'profiles.manage' "
    "JOIN credential c ON c.tenant_id = m.tenant_id AND c.person_id = m.r1 AND c.state = 'active' "
    "WHERE m.tenant_id = $1 AND m.kind = 'sys.membership' AND m.deleted_at IS NULL"
)
# Only the shipped profile Owner has both.
OWNING = frozenset({"profiles.manage", "tenant.manage"})
_CHAIN = (ScopeKind.UNIT, ScopeKind.SUBTREE, ScopeKind.ALL)
_decode = msgspec.json.Decoder(dict[str, Json]).decode


class KindRights(msgspec.Struct, frozen=True):
    """Row scopes by action, modes by field name; a row rule is shown as it stands."""

    actions: dict[str, Json]
    fields: dict[str, str]


class Effective(msgspec.Struct, frozen=True):
    """What one membership gives: a profile over units and all below them."""

    profile: str
    units: list[UUID]
    reaches: list[UUID]
    valid_from: str | None
    valid_to: str | None
    capabilities: list[str]
    kinds: dict[str, KindRights]


class Manager(msgspec.Struct, frozen=True):
    """One membership that lets somebody manage profiles today."""

    membership: UUID
    profile: UUID
    person: UUID


def profiles_call(tenant: UUID, ids: Sequence[UUID], *, deleted: bool = False) -> Call:
    """Ask for profiles with their grants; `deleted` ones too for who judges a restoration."""
    return _BY_IDS, (tenant, list(ids), deleted)


def read_profiles(rows: Rows, rev: int) -> dict[UUID, Profile]:
    """Compiled profiles by id."""
    found: dict[bytes, tuple[dict[str, Json], list[dict[str, Json]]]] = {}
    for ident, data, grant in rows:
        entry = found.setdefault(ident or b"", (_decode(data or b"{}"), []))
        if grant is not None:
            entry[1].append(_decode(grant))
    return {
        UUID(i.decode()): compile_profile(i.decode(), data, grants, rev)
        for i, (data, grants) in found.items()
    }


def managers_calls(tenant: UUID) -> list[Call]:
    """Ask who manages profiles, after whoever is just changing that; the answer is the last."""
    return [(_MANAGERS_LOCK, (str(tenant),)), (_MANAGERS, (tenant,))]


def read_managers(rows: Rows, at: datetime) -> list[Manager]:
    """Those whose membership holds on the day of `at`."""
    return [
        Manager(*(UUID((i or b"").decode()) for i in (member, profile, person)))
        for member, profile, person, data in rows
        if is_live(_decode(data or b"{}"), at.date())
    ]


async def effective_rights(db: Database, ctx: Ctx, person: UUID) -> list[Effective]:
    """One entry for each membership of a person."""
    (rows,) = await db.read(ctx.tenant, (_OF_PERSON, (ctx.tenant, person)))
    return [_effective(ctx, *entry) for entry in _memberships(rows, ctx.profile.rev)]


async def find_profile(db: Database, ctx: Ctx, key: str) -> Profile:
    """A profile by its key, compiled. Raises Refused."""
    (rows,) = await db.read(ctx.tenant, (_BY_KEY, (ctx.tenant, key)))
    first = rows.first()
    if first is None:
        raise Refused("There is no such profile for you.", code="profile.unknown")
    return _compiled(ctx, rows)


def is_within(theirs: Profile, mine: Profile) -> bool:
    """Whether a profile allows nothing that one's own does not."""
    if not theirs.capabilities <= mine.capabilities:
        return False
    for kind, grant in theirs.grants.items():
        own = mine.grant(kind)
        if any(not _covers(own.actions.get(a, Scope()), s) for a, s in grant.actions.items()):
            return False
        if any(own.fields.get(f, Mode.HIDDEN) < m for f, m in grant.fields.items()):
            return False
    return True


def may_lend(theirs: Profile, mine: Profile) -> bool:
    """Whether one may hand a profile out: it is within one's own, or all is one's own to give.

    Who manages both the tenant and its profiles is its owner: without somebody who may grant
    what nobody has yet, a kind whose last grant was removed could never be opened again.
    """
    return mine.capabilities >= OWNING or is_within(theirs, mine)


def lendable_units(ctx: Ctx, theirs: Profile) -> frozenset[UUID]:
    """The units over which one may hand out a profile: for what reaches a unit alone and is
    one's own in one's units alone, these; else they and all below them.
    """
    for kind, grant in theirs.grants.items():
        for action, scope in grant.actions.items():
            own = ctx.profile.scope(kind, action)
            if scope.kind is ScopeKind.UNIT and own.kind is ScopeKind.UNIT:
                return ctx.units
    return ctx.subtree


async def lend_profile(db: Database, ctx: Ctx, key: str) -> Profile:
    """A profile that one may hand out. Raises Refused, Forbidden."""
    profile = await find_profile(db, ctx, key)
    if not may_lend(profile, ctx.profile):
        raise Forbidden("This profile allows more than your own; lend one that does not.")
    return profile


async def check_not_wider(tx: Transaction, ctx: Ctx, person: UUID) -> None:
    """Refuse to touch the sign-in of somebody who may do more than oneself. Raises Forbidden."""
    (rows,) = await tx.run((_OF_PERSON, (ctx.tenant, person)))
    for member, theirs in _memberships(rows, ctx.profile.rev):
        units = frozenset(read_ids(member.get("units"))) or roots(ctx.unit_tree)
        if not (may_lend(theirs, ctx.profile) and units <= lendable_units(ctx, theirs)):
            raise Forbidden(
                "This person may do more than you; somebody who may do as much has to do this.",
                code="person.wider_than_you",
            )


async def is_last_manager(tx: Transaction, tenant: UUID, person: UUID) -> bool:
    """Whether this person, and nobody else, manages profiles; it stays so until the commit."""
    answers = await tx.run(*managers_calls(tenant))
    people = {m.person for m in read_managers(answers[-1], now())}
    return people == {person}


def _covers(mine: Scope, theirs: Scope) -> bool:
    if theirs.kind is ScopeKind.NONE or mine.kind is ScopeKind.ALL or mine == theirs:
        return True
    # Whose own records are meant differs from person to person, and so do rules' words.
    if mine.kind in _CHAIN and theirs.kind in _CHAIN:
        return _CHAIN.index(theirs.kind) <= _CHAIN.index(mine.kind)
    return False


def _compiled(ctx: Ctx, rows: Rows) -> Profile:
    # Two branches may have made a profile of one key while apart: the older one counts.
    found = [r for r in rows if r[0] == (rows.first() or (None,))[0]]
    grants = [_decode(r[2]) for r in found if r[2]]
    ident, data = (found[0][0] or b"").decode(), _decode(found[0][1] or b"{}")
    return compile_profile(ident, data, grants, ctx.profile.rev)


def _memberships(rows: Rows, rev: int) -> list[tuple[dict[str, Json], Profile]]:
    """Each membership of a person with its profile."""
    found: dict[bytes, tuple[dict[str, Json], str, dict[str, Json], list[dict[str, Json]]]] = {}
    for ident, member, profile, data, grant in rows:
        entry = found.setdefault(
            ident or b"",
            (_decode(member or b"{}"), (profile or b"").decode(), _decode(data or b"{}"), []),
        )
        if grant is not None:
            entry[3].append(_decode(grant))
    return [(member, compile_profile(i, data, gs, rev)) for member, i, data, gs in found.values()]


def _effective(ctx: Ctx, member: dict[str, Json], profile: Profile) -> Effective:
    units = read_ids(member.get("units"))
    units = units or sorted(roots(ctx.unit_tree))
    kinds = {
        kind.key: KindRights(
            {a: _scope(s) for a, s in profile.grant(kind.key).actions.items()},
            {f.name: profile.mode(kind.key, f).name.lower() for f in kind.fields},
        )
        for kind in ctx.schema.kinds.values()
        if profile.sees(kind)
    }
    return Effective(
        profile=profile.key, units=units, reaches=sorted(below(ctx.unit_tree, frozenset(units))),
        valid_from=_text(member.get("valid_from")), valid_to=_text(member.get("valid_to")),
        capabilities=sorted(profile.capabilities), kinds=kinds,
    )  # fmt: skip


def _scope(scope: Scope) -> Json:
    return {"where": scope.where} if scope.kind is ScopeKind.WHERE else scope.kind.value


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) else None
