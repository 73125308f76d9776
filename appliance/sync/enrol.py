"""How a node is let in, at the hub: a one-time code for an administrator, an answer for the node.

Promises: a code is shown once, kept as a hash, ends by itself, and lets in one key and no other,
however many ask with it at once; whoever had it answered and lost the answer may ask again with the
same key while the code lives. A code holds the mark of the hub's own key, so that the node knows
its hub before it believes a word of it. A wrong, used, ended or foreign code reads alike, and
guessing is slowed as it is at a sign-in.
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import msgspec

from appliance.access import delay
from appliance.audit import audit_calls
from appliance.base import logs
from appliance.base.clock import now
from appliance.base.errors import (
    Clash,
    FieldFault,
    Invalid,
    Misconfigured,
    Refused,
    Unauthenticated,
)
from appliance.base.ids import uuid7
from appliance.base.settings import Login
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.kernel.kind import Json
from appliance.meta import load_schema
from appliance.sync.keys import NodeKey, is_signed
from appliance.sync.nodes import (
    ACTIVE,
    ISSUE_ORIGIN,
    control_transaction,
    find_self,
    hub_of,
    note,
    run_control,
)
from appliance.sync.scope import COMMON, check_masks, reach_of
from appliance.write.log import common_stream

MINUTES = 10
MINUTES_MAX = 24 * 60
NAME_CHARS_MAX = 60
UNITS_MAX = 500
_CODE = re.compile(r"nxj_([A-Za-z0-9_-]{43})([A-Za-z0-9_-]{22})")
_PREFIX = re.compile(r"[A-Z0-9]{1,6}")
_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
# What a node is called before it has a name; the hub itself may be one of them.
_ROLES = frozenset({"solo", "hub", "site"})
_JOIN = b"nexus-join-v1\0"
_TENANT = Statement(
    "SELECT encode(log_key, 'hex'), template, settings::text FROM tenant_state WHERE tenant_id = $1"
)
_STREAMS = Statement(
    "SELECT id::text, name FROM stream WHERE tenant_id = $1 "
    "AND ($2::uuid[] IS NULL OR id = ANY($2)) ORDER BY id"
)
_UNITS = Statement(
    "SELECT id::text, data->>'name' FROM record WHERE tenant_id = $1 AND kind = 'sys.unit' "
    "AND deleted_at IS NULL ORDER BY id"
)
_strangers = delay.Strangers()


class Invitation(msgspec.Struct, frozen=True):
    """The code is shown this once."""

    code: str
    name: str
    prefix: str
    expires_at: datetime


class Joining(msgspec.Struct, frozen=True, array_like=True):
    """What a node asks to be let in with; `proof` shows that it holds the key (`prove_joining`)."""

    code: str
    public_key: bytes
    proof: bytes
    version: str = ""


class Joined(msgspec.Struct, frozen=True, array_like=True):
    """All that a node has to know of itself, its hub and its tenant. Holds a secret (`log_key`)."""

    node: UUID
    name: str
    origin: int
    prefix: str
    hub: UUID
    hub_name: str
    hub_origin: int
    hub_prefix: str
    hub_key: bytes
    hub_epoch: UUID
    hub_version: str
    tenant: UUID
    slug: str
    tenant_name: str
    log_key: bytes
    template: str
    settings: dict[str, Json]
    streams: list[tuple[UUID, str]]
    unit_ids: list[UUID] | None
    epoch: int


async def invite(
    db: Database,
    tenant: UUID,
    name: str,
    prefix: str,
    *,
    hub_key: bytes,
    units: Sequence[UUID] | None = None,
    masks: Mapping[str, list[str]] | None = None,
    minutes: int = MINUTES,
    actor: UUID | None = None,
) -> Invitation:
    """A code for one new node that will hold `units` of the tenant (None: all) without the fields
    in `masks`, by kind.

    Raises Invalid (form), Clash (name or prefix is taken), Misconfigured (this is no hub).
    """
    wanted = sorted(set(units)) if units is not None else None
    _check(name, prefix, minutes)
    await check_units(db, tenant, wanted)
    kinds = (await load_schema(db, tenant)).kinds
    check_masks(masks or {}, kinds, masks or {})
    if await hub_of(db) is not None:
        raise Misconfigured("This node is a site; only its hub invites.", code="node.no_hub")
    code, ends = make_code(hub_key, minutes)
    async with control_transaction(db) as conn:
        # One at a time, with joins: two must not be promised one prefix.
        await conn.execute("SELECT FROM origin_issued FOR UPDATE")
        await conn.execute(
            "DELETE FROM node_invitation WHERE expires_at < now() - interval '30 days'"
        )
        await _check_free(conn, name, prefix)
        await conn.execute(
            "INSERT INTO node_invitation (code_hash, name, prefix, tenant_id, unit_ids, expires_at, "
            "masks) VALUES (%s, %s, %s, %s, %s::uuid[], %s, %s::jsonb)",
            (hash_code(code), name, prefix, tenant, wanted, ends, _json(masks or {})),
        )
    details: dict[str, object] = {"prefix": prefix, "minutes": minutes, "units": len(wanted or ())}
    await note(db, tenant, "node.invited", actor=actor, details=details)
    logs.event("sync.node_invited", tenant=tenant)
    return Invitation(code, name, prefix, ends)


async def join(
    db: Database, asked: Joining, *, hub_key: NodeKey, version: str, address: str, policy: Login
) -> Joined:
    """Let a node in. Raises Unauthenticated (whatever is wrong), Limited (too many wrong ones)."""
    guesser = sha256(address.encode()).digest()
    _strangers.check(guesser, policy)
    admitted = await _admit(db, asked)
    if admitted is None:
        _strangers.note_failure(guesser)
        logs.event("sync.join_refused", level="warning")
        raise _wrong_code()
    node, tenant = admitted
    logs.event("sync.node_joined", node=node)
    return await _answer(db, node, tenant, hub_key, version)


def prove_joining(key: NodeKey, code: str, version: str) -> Joining:
    """The question of a node that holds `key`."""
    return Joining(code, key.public, key.sign(_claim(code, key.public)), version)


def mark_of(public: bytes) -> str:
    """The mark of a hub's key in a code: 22 characters, 128 bits."""
    return base64.urlsafe_b64encode(sha256(public).digest()[:16]).decode().rstrip("=")


def read_mark(code: str) -> str | None:
    """The mark of the hub that made a code; None for what is no code."""
    found = _CODE.fullmatch(code)
    return found.group(2) if found else None


async def check_units(db: Database, tenant: UUID, units: Sequence[UUID] | None) -> None:
    """Refuse units that the tenant does not have; None is all of them. Raises Invalid."""
    if units is None:
        return
    if not 0 < len(units) <= UNITS_MAX:
        detail = f"Name 1 to {UNITS_MAX} units, or leave it out for all."
        raise Invalid(detail, faults=(FieldFault("/units", "out_of_range", detail),))
    (rows,) = await db.read(tenant, (_STREAMS, (tenant, list(units))))
    known = {UUID((ident or b"").decode()) for ident, _ in rows} - {*common_streams(tenant)}
    faults = tuple(
        FieldFault(f"/units/{n}", "unit_unknown", "There is no such unit in this tenant.")
        for n, unit in enumerate(units)
        if unit not in known
    )
    if faults:
        raise Invalid("The node cannot be invited like this.", faults=faults)


async def find_units(db: Database, tenant: UUID, names: Sequence[str]) -> list[UUID]:
    """Units by name or id, as a person gives them. Raises Refused."""
    (rows,) = await db.read(tenant, (_UNITS, (tenant,)))
    known = [tuple(rows.values(n)) for n in range(len(rows))]
    found = []
    for name in names:
        fits = [i for i, n in known if i and name.casefold() in ((n or "").casefold(), i)]
        if len(fits) != 1:
            there = ", ".join(sorted(n or "" for _, n in known))
            count = "no unit" if not fits else "more than one unit"
            raise Refused(f"There is {count} {name} in this tenant; known: {there}.",
                          code="unit.unknown")  # fmt: skip
        found.append(UUID(fits[0]))
    return found


async def _admit(db: Database, asked: Joining) -> tuple[UUID, UUID] | None:
    """The node that a code and a key stand for, made if it is new, and the tenant it is given; None
    for all that is wrong.
    """
    if not is_signed(asked.public_key, asked.proof, _claim(asked.code, asked.public_key)):
        return None
    async with control_transaction(db) as conn:
        await conn.execute("SELECT FROM origin_issued FOR UPDATE")
        found = await conn.execute(
            "SELECT i.name, i.prefix, i.tenant_id, i.unit_ids, i.used_at, i.node_id, n.public_key, "
            "n.state, i.masks, i.for_node FROM node_invitation i "
            "LEFT JOIN node n ON n.id = coalesce(i.node_id, i.for_node) "
            "WHERE i.code_hash = %s AND i.expires_at > now()",
            (hash_code(asked.code),),
        )
        row = await found.fetchone()
        if row is None:
            return None
        name, prefix, tenant, units, used_at, before, key, state, masks, existing = row
        if used_at is not None:
            is_same = key == asked.public_key and state == ACTIVE
            return (before, tenant) if is_same else None
        if existing is not None and (key != asked.public_key or state != ACTIVE):
            return None
        if existing is None:
            await _check_key(conn, asked.public_key)
        ident: UUID = existing or uuid7()
        if existing is None:
            await _insert_node(conn, ident, name, prefix, asked)
        await _insert_scope(conn, ident, (tenant, units, masks), asked)
        # Last: the tenant's audit is in another database, and without it nobody gets in.
        async with db.transaction(tenant) as tx:
            await tx.run(*audit_calls(tenant, "node.joined", subject=ident,
                                      details={"prefix": prefix}))  # fmt: skip
    return ident, tenant


async def _insert_node(conn: Any, ident: UUID, name: str, prefix: str, asked: Joining) -> None:
    issued = await conn.execute(ISSUE_ORIGIN)
    (origin,) = await issued.fetchone()
    await conn.execute(
        "INSERT INTO node (id, origin, role, prefix, name, public_key, joined_at) "
        "VALUES (%s, %s, 'site', %s, %s, %s, now())",
        (ident, origin, prefix, name, asked.public_key),
    )


async def _insert_scope(conn: Any, ident: UUID, given: tuple[Any, ...], asked: Joining) -> None:
    tenant, units, masks = given
    await conn.execute(
        "INSERT INTO node_scope (node_id, tenant_id, unit_ids, masks) "
        "VALUES (%s, %s, %s::uuid[], %s::jsonb)",
        (ident, tenant, units, _json(masks)),
    )
    await conn.execute(
        "UPDATE node_invitation SET used_at = now(), node_id = %s WHERE code_hash = %s",
        (ident, hash_code(asked.code)),
    )


async def _answer(db: Database, node: UUID, tenant: UUID, hub_key: NodeKey, version: str) -> Joined:
    """What a node that was let in is told; the same however often it asks."""
    (row,) = await run_control(
        db,
        "SELECT n.name, n.origin, n.prefix, s.unit_ids, s.epoch, e.id FROM node n "
        "JOIN node_scope s ON s.node_id = n.id CROSS JOIN hub_epoch e WHERE n.id = %s "
        "AND s.tenant_id = %s",
        node, tenant,
    )  # fmt: skip
    name, origin, prefix, units, epoch, hub_epoch = row
    hub = await find_self(db)
    if hub is None:
        raise Misconfigured("This node has no row of its own; start it with `nexus up`.")
    route = db.routes.of(tenant, read=True)
    (state,) = await db.read(tenant, (_TENANT, (tenant,)))
    names, held = await reach_of(db, tenant, None if units is None else frozenset(units))
    log_key, template, settings = state.values(0)
    return Joined(
        node=node, name=name, origin=origin, prefix=prefix, hub=hub.id, hub_name=hub.name,
        hub_origin=hub.origin, hub_prefix=hub.prefix, hub_key=hub_key.public, hub_epoch=hub_epoch,
        hub_version=version, tenant=tenant, slug=route.slug, tenant_name=route.name,
        log_key=bytes.fromhex(log_key or ""), template=template or "",
        settings=msgspec.json.decode(settings or "{}", type=dict[str, Json]),
        streams=[(s, names[s]) for s in sorted(held & names.keys())],
        unit_ids=list(units) if units is not None else None, epoch=epoch,
    )  # fmt: skip


def common_streams(tenant: UUID) -> list[UUID]:
    """The streams that every node of a tenant has."""
    return [common_stream(tenant, name) for name in COMMON]


async def _check_free(conn: Any, name: str, prefix: str) -> None:
    found = await conn.execute(
        "SELECT bool_or(prefix = %s), bool_or(name = %s AND is_live) FROM ("
        "SELECT prefix, name, state = 'active' AS is_live FROM node UNION ALL "
        "SELECT prefix, name, true FROM node_invitation WHERE used_at IS NULL AND expires_at > now()"
        ") AS taken",
        (prefix, name),
    )
    prefix_taken, name_taken = await found.fetchone()
    if prefix_taken:
        raise Clash(
            f"The number prefix {prefix} is another node's, or promised to one: numbers made there "
            "carry it for good. Choose another.",
            code="node.prefix_taken",
        )
    if name_taken:
        raise Clash(f"There is a node {name} already; choose another name.", code="node.name_taken")


async def _check_key(conn: Any, public_key: bytes) -> None:
    found = await conn.execute("SELECT name FROM node WHERE public_key = %s", (public_key,))
    row = await found.fetchone()
    if row is not None:
        raise Clash(
            f"This key is that of the node {row[0]}: a copied data folder is no new node. Remove "
            "node.key from the copy and join again.",
            code="node.key_taken",
        )


def _check(name: str, prefix: str, minutes: int) -> None:
    faults = []
    if not (0 < len(name) <= NAME_CHARS_MAX and _NAME.fullmatch(name) and name == name.strip()):
        detail = f"Expected 1 to {NAME_CHARS_MAX} characters on one line."
        faults.append(FieldFault("/name", "name_form", detail))
    elif name.lower() in _ROLES:
        faults.append(
            FieldFault("/name", "name_form", "This is a role; give it a name of its own.")
        )
    if not _PREFIX.fullmatch(prefix):
        detail = "Expected 1 to 6 capital Latin letters and digits, as KYIV or B2."
        faults.append(FieldFault("/prefix", "prefix_form", detail))
    if not 0 < minutes <= MINUTES_MAX:
        faults.append(FieldFault("/minutes", "out_of_range", f"Expected 1 to {MINUTES_MAX}."))
    if faults:
        raise Invalid("The node cannot be invited like this.", faults=tuple(faults))


def _claim(code: str, public_key: bytes) -> bytes:
    return _JOIN + hash_code(code) + public_key


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def make_code(hub_key: bytes, minutes: int) -> tuple[str, datetime]:
    """A one-time code that names this hub's key, and when it ends."""
    return f"nxj_{secrets.token_urlsafe(32)}{mark_of(hub_key)}", now() + timedelta(minutes=minutes)


def hash_code(code: str) -> bytes:
    """What is kept of a code."""
    return sha256(code.encode("utf-8", "replace")).digest()


def _wrong_code() -> Unauthenticated:
    return Unauthenticated(
        "The code lets nobody in: it is wrong, was used by another node, or has ended. Ask for a "
        "new one (`nexus node invite` at the hub).",
        code="node.code_refused",
    )
