"""Changes of a scope: what the hub decides, what the site is told, what stands until it is proved.

Hub: `change_scope` and `withdraw_node` raise the epoch and leave withdrawals; `told_for` is what a
site hears with every contact; `take_proof` closes a withdrawal. Site: `take_told` keeps it, and
from that commit on nothing is written to a stream that has to go (write/held). Everything may be
told twice and in any order: only a newer epoch changes anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from appliance.base import logs
from appliance.base.errors import Clash, Invalid, Refused, Unauthenticated
from appliance.db.database import Connection, Database, translated
from appliance.db.wire import Statement
from appliance.kernel.hold import make_mask
from appliance.meta import load_schema
from appliance.sync.reconcile import reconcile
from appliance.sync.scope import (
    COMMON,
    PARENTS,
    Scope,
    StreamGrant,
    check_masks,
    find_scope,
    reach_of,
    read_scope,
    units_below,
)
from appliance.write.log import common_stream

_WITHDRAW = (
    "INSERT INTO stream_withdrawal AS w (node_id, tenant_id, stream, name, epoch, is_again, "
    "held_mask) VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (node_id, tenant_id, stream) "
    "DO UPDATE SET epoch = EXCLUDED.epoch, is_again = EXCLUDED.is_again, at = now(), "
    "held_mask = CASE WHEN w.purged_at IS NULL THEN w.held_mask ELSE EXCLUDED.held_mask END, "
    "purged_at = NULL, proof = NULL"
)
_OPEN = (
    "SELECT stream, name, epoch, is_again, at FROM stream_withdrawal "
    "WHERE node_id = %s AND tenant_id = %s AND purged_at IS NULL ORDER BY stream"
)
_HOLD = Statement(
    "INSERT INTO hold AS h (tenant_id, node_id, epoch, unit_ids, masks, is_leaving) "
    "VALUES ($1, $2, $3, $4::uuid[], $5::jsonb, $6) ON CONFLICT (tenant_id) DO UPDATE SET "
    "epoch = EXCLUDED.epoch, unit_ids = EXCLUDED.unit_ids, masks = EXCLUDED.masks, "
    "is_leaving = EXCLUDED.is_leaving, heard_at = now() WHERE h.epoch < EXCLUDED.epoch"
)
_HEARD = Statement("UPDATE hold SET heard_at = now() WHERE tenant_id = $1")
_CLOSING = Statement(
    "INSERT INTO withdrawal AS w (tenant_id, stream, epoch) SELECT $1, u.s, u.e "
    "FROM unnest($2::uuid[], $3::int[]) AS u(s, e) ON CONFLICT (tenant_id, stream) DO UPDATE SET "
    "epoch = EXCLUDED.epoch, state = 'closing', told_at = now(), files = 0, rows = 0, "
    "is_scrubbed = false "
    "WHERE w.epoch < EXCLUDED.epoch"
)
# Counters of units that are held elsewhere come with the units; nothing was ever written there.
_HELD = Statement(
    "SELECT s.id::text FROM stream s WHERE s.tenant_id = $1 AND (s.head > 0 OR EXISTS "
    "(SELECT FROM record r WHERE r.tenant_id = $1 AND r.stream = s.id))"
)
# What was granted again before anything was deleted simply stays.
_STAYS = Statement(
    "DELETE FROM withdrawal WHERE tenant_id = $1 AND state = 'closing' AND stream <> ALL($2::uuid[])"
)
_UNITS = Statement("SELECT id::text FROM record WHERE tenant_id = $1 AND kind = 'sys.unit'")
_STREAMS = Statement(
    "INSERT INTO stream (tenant_id, id, name, origin) SELECT $1, r.id, r.data->>'name', $2 "
    "FROM record r WHERE r.tenant_id = $1 AND r.kind = 'sys.unit' "
    "AND ($3::uuid[] IS NULL OR r.id = ANY($3)) AND NOT EXISTS (SELECT FROM withdrawal w "
    "WHERE w.tenant_id = $1 AND w.stream = r.id AND w.state IN ('closing', 'purging')) "
    "ON CONFLICT DO NOTHING"
)
_BUMP = Statement("UPDATE tenant_state SET schema_rev = schema_rev + 1 WHERE tenant_id = $1")
_ARRIVED = Statement(
    "DELETE FROM withdrawal w USING stream s WHERE w.tenant_id = $1 AND w.stream = $2 "
    "AND w.state = 'proved' AND s.tenant_id = $1 AND s.id = $2 AND (w.own_oseq = 0 OR "
    "w.own_oseq <= CASE WHEN s.origin = w.own_origin THEN s.oseq ELSE COALESCE((SELECT v.got "
    "FROM stream_vector v WHERE v.tenant_id = $1 AND v.stream = $2 AND v.origin = w.own_origin), 0) "
    "END)"
)


class Changed(msgspec.Struct, frozen=True):
    """What a change of scope did: its epoch, streams that came and that have to go."""

    epoch: int
    added: tuple[UUID, ...]
    withdrawn: tuple[UUID, ...]


class Withdrawal(msgspec.Struct, frozen=True):
    """A stream that a node has to give up and has not proved gone. `is_again`: it is granted anew
    as soon as it has, under another mask.
    """

    stream: UUID
    name: str
    epoch: int
    is_again: bool
    at: datetime


class Told(msgspec.Struct, frozen=True, array_like=True):
    """What a site hears of its own scope. `leaving`: it holds nothing of this tenant any more."""

    node: UUID
    epoch: int
    units: list[UUID] | None
    masks: dict[str, list[str]]
    leaving: bool
    withdrawn: list[tuple[UUID, int]]


class Proof(msgspec.Struct, frozen=True, array_like=True):
    """A site's word that nothing is left: rows and files that are still there by stream (0 and 0),
    how many there were, and whether the databases' own files were written anew.
    """

    node: UUID
    tenant: UUID
    epoch: int
    at: datetime
    left: dict[UUID, tuple[int, int]]
    gone: dict[UUID, tuple[int, int]]
    is_scrubbed: bool


class SignedProof(msgspec.Struct, frozen=True, array_like=True):
    """A proof in its bytes, with the node's Ed25519 signature over them."""

    proof: bytes
    signature: bytes


async def change_scope(
    db: Database,
    node: UUID,
    tenant: UUID,
    *,
    units: frozenset[UUID] | None,
    masks: Mapping[str, list[str]] | None = None,
    is_said_only: bool = False,
) -> Changed:
    """Give a node other units (None: all) or other masks (None: as they are), under a new epoch;
    or, with `is_said_only`, say what that would do.

    Other masks mean that the streams of the units are purged at the site and come again: a value
    once sent stands in its log. Raises Refused, Clash, Invalid.
    """
    known, below = await reach_of(db, tenant, units)
    if units is not None and (strange := sorted(map(str, units - known.keys()))):
        raise Invalid(f"Unit {strange[0]} is none of this tenant.", code="scope.unit_unknown")
    kinds, units_known = (await load_schema(db, tenant)).kinds, await _units_of(db, tenant)
    with translated():
        async with db.control.connection() as conn, conn.transaction():
            before = await _lock(conn, node, tenant)
            named = before.masks if masks is None else dict(masks)
            check_masks(named, kinds, before.masks)
            _, held = await reach_of(db, tenant, before.units)
            was, will = (make_mask(m, kinds).key for m in (before.masks, named))
            still = await _still_held(conn, node, tenant)
            masks_of = {s: still.get(s, was) for s in (held | still.keys()) & known.keys()}
            again = {s for s in masks_of.keys() & below & units_known if masks_of[s] != will}
            gone, epoch = (held - below) & known.keys(), before.epoch + 1
            added = tuple(sorted(below - held))
            if is_said_only:
                return Changed(before.epoch, added, tuple(sorted(gone | again)))
            await conn.execute(
                "UPDATE node_scope SET unit_ids = %s, masks = %s::jsonb, epoch = %s, "
                "changed_at = now(), purged_at = NULL, proof = NULL "
                "WHERE node_id = %s AND tenant_id = %s",
                (sorted(units) if units is not None else None,
                 msgspec.json.encode(named).decode(), epoch, node, tenant),
            )  # fmt: skip
            for stream in sorted(gone | again):
                values = (
                    node, tenant, stream, known[stream], epoch, stream in again, masks_of[stream],
                )  # fmt: skip
                await conn.execute(_WITHDRAW, values)
            await conn.execute(
                "DELETE FROM stream_withdrawal WHERE node_id = %s AND tenant_id = %s "
                "AND stream = ANY(%s)", (node, tenant, sorted(below - again)),
            )  # fmt: skip
    logs.event(
        "sync.scope_changed", tenant=tenant, node=node, count=len(added), units=len(gone | again)
    )
    return Changed(epoch, added, tuple(sorted(gone | again)))


async def withdraw_node(db: Database, node: UUID, tenant: UUID) -> Changed:
    """Take everything of a tenant from a node. Again is fine. Raises Refused."""
    known, _ = await reach_of(db, tenant, None)
    with translated():
        async with db.control.connection() as conn, conn.transaction():
            before = await _lock(conn, node, tenant, ended=True)
            if before.state != "active":
                return Changed(before.epoch, (), ())
            epoch = before.epoch + 1
            await conn.execute(
                "UPDATE node_scope SET state = 'withdrawn', epoch = %s, changed_at = now(), "
                "purged_at = NULL, proof = NULL WHERE node_id = %s AND tenant_id = %s",
                (epoch, node, tenant),
            )
            _, held = await reach_of(db, tenant, before.units)
            for stream in sorted(held & known.keys()):
                values = (node, tenant, stream, known[stream], epoch, False, "")
                await conn.execute(_WITHDRAW, values)
    logs.event("sync.node_withdrawn", tenant=tenant, node=node, count=len(held))
    return Changed(epoch, (), tuple(sorted(held)))


async def open_withdrawals(db: Database, node: UUID, tenant: UUID) -> list[Withdrawal]:
    """What the node has to give up and has not proved gone: nothing of it is sent there, and what
    it made before it knew is still taken.
    """
    with translated():
        async with db.control.connection() as conn:
            await reconcile(db, conn, node, tenant)
            rows = await (await conn.execute(_OPEN, (node, tenant))).fetchall()
    return [Withdrawal(*msgspec.convert(row, _WithdrawalRow)) for row in rows]


_WithdrawalRow = tuple[UUID, str, int, bool, datetime]


async def draining_for(db: Database, node: UUID, tenant: UUID) -> dict[UUID, StreamGrant]:
    """Streams that the node has to give up and has not proved gone, by id, in mode `w`: what it made
    there before it heard of it is taken, as far as its mask allows; nothing is sent to it.
    """
    scope = await find_scope(db, node, tenant)
    waiting = await open_withdrawals(db, node, tenant)
    if scope is None or not waiting:
        return {}
    mask = make_mask(scope.masks, (await load_schema(db, tenant)).kinds)
    return {w.stream: StreamGrant(w.stream, w.name, "w", mask, scope.epoch) for w in waiting}


async def told_for(db: Database, node: UUID, tenant: UUID) -> Told | None:
    """What the hub says to the node about its scope; None for a stranger."""
    scope = await find_scope(db, node, tenant)
    if scope is None:
        return None
    waiting = await open_withdrawals(db, node, tenant)
    units = sorted(scope.units) if scope.units is not None else None
    return Told(
        node, scope.epoch, units, scope.masks, scope.state != "active",
        [(w.stream, w.epoch) for w in waiting],
    )  # fmt: skip


async def take_proof(db: Database, node: UUID, tenant: UUID, signed: SignedProof) -> bool:
    """Close the withdrawals that a proof speaks of; whether any was open.

    Raises Unauthenticated for a signature that is not the node's, Invalid for a proof that does
    not say that everything is gone.
    """
    try:
        proof = msgspec.msgpack.decode(signed.proof, type=Proof)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
        raise Invalid("The proof cannot be read.", code="scope.proof") from None
    with translated():
        async with db.control.connection() as conn, conn.transaction():
            row = await (
                await conn.execute("SELECT public_key FROM node WHERE id = %s", (node,))
            ).fetchone()
            _verify(row, signed)
            if (proof.node, proof.tenant) != (node, tenant) or any(
                left != (0, 0) for left in proof.left.values()
            ):
                raise Invalid("The proof does not say that all is gone.", code="scope.proof")
            text = msgspec.json.encode(proof).decode()
            closed = await conn.execute(
                "UPDATE stream_withdrawal SET purged_at = now(), proof = %s::jsonb "
                "WHERE node_id = %s AND tenant_id = %s AND stream = ANY(%s) AND epoch <= %s "
                "AND purged_at IS NULL", (text, node, tenant, sorted(proof.left), proof.epoch),
            )  # fmt: skip
            await conn.execute(
                "UPDATE node_scope SET proof = %s::jsonb, purged_at = now(), "
                "state = CASE state WHEN 'withdrawn' THEN 'purged' ELSE state END "
                "WHERE node_id = %s AND tenant_id = %s AND epoch <= %s AND NOT EXISTS (SELECT FROM "
                "stream_withdrawal w WHERE w.node_id = node_scope.node_id "
                "AND w.tenant_id = node_scope.tenant_id AND w.purged_at IS NULL)",
                (text, node, tenant, proof.epoch),
            )
    logs.event("sync.purge_proved", tenant=tenant, node=node, count=closed.rowcount)
    return closed.rowcount > 0


async def take_told(db: Database, tenant: UUID, told: Told, origin: int) -> bool:
    """At the site: hold what the hub says, from this commit on. Whether anything changed.

    Whatever is here of streams outside of the scope has to go, whether the hub names it or not:
    also those of a unit that was moved from below ours. `origin` is this node's own: of streams
    that are new here it makes the counters.
    """
    units = sorted(told.units) if told.units is not None else None
    masks = msgspec.json.encode(told.masks).decode()
    async with db.transaction(tenant) as tx:
        changed, _, parents, held = await tx.run(
            (_HOLD, (tenant, told.node, told.epoch, units, masks, told.leaving)),
            (_HEARD, (tenant,)),
            (PARENTS, (tenant,)),
            (_HELD, (tenant,)),
        )
        reach = None if units is None else {*units_below(parents, units), *_common(tenant)}
        here = {UUID((row[0] or b"").decode()) for row in held}
        outside = here if told.leaving else here - reach if reach is not None else set()
        going = dict.fromkeys(outside, told.epoch) | dict(told.withdrawn)
        closing, staying = await tx.run(
            (_CLOSING, (tenant, list(going), list(going.values()))),
            (_STAYS, (tenant, list(going))),
        )
        named = None if reach is None else sorted(reach)
        calls = [] if told.leaving else [(_STREAMS, (tenant, origin, named))]
        is_new = any(rows.affected for rows in (changed, closing, staying))
        await tx.run(*calls, *([(_BUMP, (tenant,))] if is_new else []), commit=True)
    return is_new


async def arrived(db: Database, tenant: UUID, stream: UUID) -> bool:
    """At the site: a stream that was granted again has been pulled to its head, so it may be
    written again. False while it lacks entries that this node made before.
    """
    async with db.transaction(tenant) as tx:
        (done,) = await tx.run((_ARRIVED, (tenant, stream)))
        if done.affected:
            await tx.run((_BUMP, (tenant,)))
    return bool(done.affected)


def _common(tenant: UUID) -> set[UUID]:
    return {common_stream(tenant, name) for name in COMMON}


async def _lock(conn: Connection, node: UUID, tenant: UUID, *, ended: bool = False) -> Scope:
    found = await read_scope(conn, node, tenant, lock=True)
    if found is None:
        raise Refused("This node has no scope in this tenant.", code="scope.unknown")
    if found.state != "active" and not ended:
        raise Clash("This node was withdrawn; invite it anew.", code="scope.withdrawn")
    return found


async def _still_held(conn: Connection, node: UUID, tenant: UUID) -> dict[UUID, str]:
    """Streams that a node has to give up and still has, with the mask it has them under."""
    rows = await (
        await conn.execute(
            "SELECT stream, held_mask FROM stream_withdrawal "
            "WHERE node_id = %s AND tenant_id = %s AND purged_at IS NULL", (node, tenant),
        )
    ).fetchall()  # fmt: skip
    return dict(msgspec.convert(rows, list[tuple[UUID, str]]))


async def _units_of(db: Database, tenant: UUID) -> frozenset[UUID]:
    (rows,) = await db.read(tenant, (_UNITS, (tenant,)))
    return frozenset(UUID((row[0] or b"").decode()) for row in rows)


def _verify(row: object, signed: SignedProof) -> None:
    try:
        (key,) = msgspec.convert(row, tuple[bytes])
        Ed25519PublicKey.from_public_bytes(key).verify(signed.signature, signed.proof)
    except (InvalidSignature, ValueError, msgspec.ValidationError):
        raise Unauthenticated(
            "The proof is not signed by this node.", code="scope.proof_forged"
        ) from None
