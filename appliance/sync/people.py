"""Who may sign in at a site with the hub gone: their sign-ins, of exactly those who belong there.

People, memberships and profiles are records of the shared stream, so every site has their names;
the secrets are not in the log. The hub hands a site the sign-ins (password and recovery hashes,
the authenticator's secret, state, session epoch) of the people whose memberships reach a unit of
the site, as one small slice by revision. Sessions and API keys stay on their node.

What a site changes itself (an own password, a used code) goes up and counts where the hub has not
changed that sign-in since; else the hub's word wins and the site is told. A password or an
authenticator set at a site, a door shut and sessions ended there count only for people who belong
to that site alone: a stolen site must be neither the way into the rest of the tenant nor a way to
lock its managers out. Of everybody else used codes are taken. Everything may be sent twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from hashlib import blake2b
from time import time
from typing import TypeVar
from uuid import UUID

import msgspec

from appliance.access.load import read_ids
from appliance.access.passwords import is_bearable
from appliance.access.totp import STEP_S
from appliance.audit import audit_calls
from appliance.base import logs
from appliance.base.clock import now
from appliance.base.errors import Malformed
from appliance.db.database import Database, Transaction
from appliance.db.values import bytea_of, text_of
from appliance.db.wire import Call, Row, Rows, Statement
from appliance.kernel.kind import Json
from appliance.sync.scope import PARENTS, find_scope, units_below

T = TypeVar("T")
_MEMBERS = Statement(
    "SELECT data FROM record WHERE tenant_id = $1 AND kind = 'sys.membership' AND deleted_at IS NULL"
)
_COLUMNS = (
    "person_id::text, email, password_hash, totp_secret, totp_step, "
    "array_to_string(recovery_hashes, ','), state, must_change, session_epoch FROM credential "
    "WHERE tenant_id = $1"
)
_READ = Statement(f"SELECT {_COLUMNS} ORDER BY person_id")
_LOCK = Statement(f"SELECT {_COLUMNS} ORDER BY person_id FOR UPDATE")
# What a slice is made of: memberships and units by the revision of rights, sign-ins by their hash.
_STATE = Statement(
    "SELECT t.rights_rev, (SELECT sum(hashtextextended(concat_ws(',', c.person_id, c.email, "
    "c.password_hash, c.totp_secret, c.totp_step, c.recovery_hashes, c.state, c.must_change, "
    "c.session_epoch), 0)) FROM credential c WHERE c.tenant_id = $1) "
    "FROM tenant_state t WHERE t.tenant_id = $1"
)
_MARKS = Statement("SELECT person_id::text, mark FROM known_person WHERE tenant_id = $1")
_HOLD = Statement("SELECT people_rev FROM hold WHERE tenant_id = $1 FOR UPDATE")
# Two people may have exchanged their addresses: whoever has one that is given now lets go first.
_FREE = Statement(
    "UPDATE credential SET email = 'moved:' || person_id WHERE tenant_id = $1 AND email = $2 "
    "AND person_id <> $3"
)
_SET = Statement(
    "INSERT INTO credential (tenant_id, person_id, email, password_hash, totp_secret, totp_step, "
    "recovery_hashes, state, must_change, session_epoch) "
    "VALUES ($1, $2, $3, $4, $5, $6, $7::bytea[], $8, $9, $10) "
    "ON CONFLICT (tenant_id, person_id) DO UPDATE SET email = EXCLUDED.email, "
    "password_hash = EXCLUDED.password_hash, totp_secret = EXCLUDED.totp_secret, "
    "totp_step = EXCLUDED.totp_step, recovery_hashes = EXCLUDED.recovery_hashes, "
    "state = EXCLUDED.state, must_change = EXCLUDED.must_change, "
    "session_epoch = EXCLUDED.session_epoch, updated_at = now()"
)
_END = Statement(
    "UPDATE session SET ended_at = now(), ended_reason = 'changed_elsewhere' WHERE tenant_id = $1 "
    "AND person_id = $2 AND ended_at IS NULL AND sort = ANY($3::text[])"
)
_KNOW = Statement(
    "INSERT INTO known_person (tenant_id, person_id, mark) VALUES ($1, $2, $3) "
    "ON CONFLICT (tenant_id, person_id) DO UPDATE SET mark = EXCLUDED.mark"
)
_KEEP = Statement("SELECT keep_people($2::uuid[]) WHERE $1::uuid IS NOT NULL")
_TAKEN = Statement("UPDATE hold SET people_rev = $2 WHERE tenant_id = $1")
_SHUT = frozenset({"suspended", "locked"})
_STATES = _SHUT | {"invited", "active"}
# A site counts sessions' epochs up one by one; a leap would leave the hub no number to end any.
_EPOCHS_AHEAD = 10_000


class Person(msgspec.Struct, frozen=True, array_like=True):
    """One sign-in, whole."""

    person: UUID
    email: str
    password_hash: str | None
    totp_secret: bytes | None
    totp_step: int
    recovery: tuple[bytes, ...]
    state: str
    must_change: bool
    epoch: int

    @property
    def mark(self) -> bytes:
        """Equal for equal sign-ins."""
        return blake2b(_pack(self), digest_size=16).digest()


class Slice(msgspec.Struct, frozen=True, array_like=True):
    """Everybody who may sign in at a site; `rev` is another when anything of it is."""

    rev: int
    people: tuple[Person, ...]


class Change(msgspec.Struct, frozen=True, array_like=True):
    """A sign-in that was changed at a site; `mark` is that of the hub's row it was made from."""

    mark: bytes
    person: Person


class TakenUp(msgspec.Struct, frozen=True, array_like=True):
    """The hub's answer to changes: who was taken, of whom the hub's word stands."""

    taken: tuple[UUID, ...] = ()
    refused: tuple[UUID, ...] = ()


_slices: dict[tuple[UUID, UUID], tuple[tuple[Row | None, int, date], int]] = {}
_encoder = msgspec.msgpack.Encoder(order="deterministic", uuid_format="bytes")
_pack = _encoder.encode


async def read_people(db: Database, tenant: UUID, node_id: UUID, since_rev: int) -> bytes | None:
    """At the hub: the slice of a node (a packed `Slice`), None when it has this revision."""
    scope = await find_scope(db, node_id, tenant)
    if scope is None or scope.state != "active":
        return None
    # Most questions are asked while nothing has changed; that costs one look and no decoding.
    (states,) = await db.read(tenant, (_STATE, (tenant,)))
    state = (states.first(), scope.epoch, now().date())
    if (known := _slices.get((tenant, node_id))) and known == (state, since_rev):
        return None
    rows, members, parents = await db.read(
        tenant, (_READ, (tenant,)), (_MEMBERS, (tenant,)), (PARENTS, (tenant,))
    )
    here = belonging(members, parents, scope.units)
    people = tuple(p for p in map(_read, rows) if p.person in here)
    digest = blake2b(_pack(people), digest_size=8).digest()
    rev = int.from_bytes(digest, "big") >> 1 or 1
    # The state was read first: at worst it is too old, and the slice is made once more.
    _slices[tenant, node_id] = (state, rev)
    return None if rev == since_rev else _pack(Slice(rev, people))


def belonging(members: Rows, parents: Rows, units: frozenset[UUID] | None) -> dict[UUID, bool]:
    """Whose memberships reach one of these units or what is below them (None: all); and whether
    they reach nothing else. One that has ended reaches nothing, one that begins later does.
    """
    children = list(parents)
    held = units_below(children, units) if units is not None else None
    # A day later than it is: midnight is not the same everywhere.
    yesterday = (now().date() - timedelta(days=1)).isoformat()
    found: dict[UUID, bool] = {}
    elsewhere: set[UUID] = set()
    for (raw,) in members:
        data = msgspec.json.decode(raw or b"{}", type=dict[str, Json])
        (person,) = read_ids([data.get("person")]) or (None,)
        last = data.get("valid_to")
        if person is None or (isinstance(last, str) and last < yesterday):
            continue
        named = read_ids(data.get("units"))
        reach = units_below(children, named) if named else None
        if held is None or reach is None or reach & held:
            found[person] = True
        if held is not None and (reach is None or not reach <= held):
            elsewhere.add(person)
    return {person: person not in elsewhere for person in found}


async def take_people(db: Database, tenant: UUID, data: bytes) -> tuple[UUID, ...]:
    """At the site: hold the hub's slice. Whoever is not in it is forgotten here, sessions and all;
    whose password, state or epoch is another has theirs ended. Who was changed on both sides and
    has the hub's row now. Raises Malformed.
    """
    found = _decode(data, Slice)
    overruled: list[UUID] = []
    async with db.transaction(tenant) as tx:
        _, rows, marks = await tx.run((_HOLD, (tenant,)), (_LOCK, (tenant,)), (_MARKS, (tenant,)))
        here = {p.person: p for p in map(_read, rows)}
        known = {UUID(text_of(i)): bytea_of(m) for i, m in marks}
        calls: list[Call] = [(_KEEP, (tenant, [p.person for p in found.people]))]
        for theirs in found.people:
            ours, mark = here.get(theirs.person), known.get(theirs.person)
            if ours is not None and ours.mark == theirs.mark:
                calls.append((_KNOW, (tenant, theirs.person, theirs.mark)))
                continue
            is_ours = ours is not None and mark is not None and ours.mark != mark
            if is_ours and theirs.mark == mark:
                continue  # Only we have changed it; it is on its way up.
            if is_ours:
                overruled.append(theirs.person)
            calls += _set_calls(tenant, theirs, ours, always=is_ours)
            calls.append((_KNOW, (tenant, theirs.person, theirs.mark)))
        for person in overruled:
            calls += audit_calls(tenant, "person.sign_in_overruled", subject=person)
        await tx.run(*calls, (_TAKEN, (tenant, found.rev)), commit=True)
    logs.event("sync.people_taken", tenant=tenant, count=len(found.people), lost=len(overruled))
    return tuple(overruled)


async def read_changes(db: Database, tenant: UUID) -> bytes | None:
    """At the site: what was changed here since the hub's rows were taken; None when nothing was."""
    rows, marks = await db.read(tenant, (_READ, (tenant,)), (_MARKS, (tenant,)))
    known = {UUID(text_of(i)): bytea_of(m) for i, m in marks}
    changed = tuple(
        Change(known[p.person], p)
        for p in map(_read, rows)
        if p.person in known and p.mark != known[p.person]
    )
    return _pack(changed) if changed else None


async def take_changes(db: Database, tenant: UUID, node_id: UUID, data: bytes) -> TakenUp:
    """At the hub: take what a site changed, as far as it may. Raises Malformed."""
    changes = _decode(data, tuple[Change, ...])
    scope = await find_scope(db, node_id, tenant)
    if scope is None or scope.state != "active":
        return TakenUp(refused=tuple(c.person.person for c in changes))
    taken: list[UUID] = []
    async with db.transaction(tenant) as tx:
        rows, members, parents = await tx.run(
            (_LOCK, (tenant,)), (_MEMBERS, (tenant,)), (PARENTS, (tenant,))
        )
        here = {p.person: p for p in map(_read, rows)}
        theirs = belonging(members, parents, scope.units)
        calls: list[Call] = []
        for change in changes:
            ours = here.get(change.person.person)
            if ours is None or ours.person not in theirs:
                continue
            is_own = theirs[ours.person]
            given = change.person
            is_whole = is_own and ours.mark == change.mark and _is_sound(given)
            fresh = _whole(ours, given) if is_whole else _stricter(ours, given, is_own=is_own)
            if is_whole or fresh == change.person:
                taken.append(ours.person)
            if fresh != ours:
                calls += _set_calls(tenant, fresh, ours)
                calls += audit_calls(
                    tenant, "person.sign_in_taken", subject=ours.person,
                    details={"node": str(node_id), "whole": is_whole},
                )  # fmt: skip
        await tx.run(*calls, commit=True)
    refused = tuple(c.person.person for c in changes if c.person.person not in taken)
    return TakenUp(tuple(taken), refused)


async def settle_changes(db: Database, tenant: UUID, answer: TakenUp) -> None:
    """At the site: ask for the slice afresh, in which the hub's rows are those it now has; of whom
    it refused, ours is given up for it.
    """
    async with db.transaction(tenant) as tx:
        await _settle(tx, tenant, answer.refused)


async def _settle(tx: Transaction, tenant: UUID, refused: Sequence[UUID]) -> None:
    _, rows = await tx.run((_HOLD, (tenant,)), (_LOCK, (tenant,)))
    ours = {p.person: p for p in map(_read, rows)}
    calls: list[Call] = []
    for person in refused:
        if person in ours:
            calls.append((_KNOW, (tenant, person, ours[person].mark)))
            calls += audit_calls(tenant, "person.sign_in_overruled", subject=person)
    await tx.run(*calls, (_TAKEN, (tenant, 0)), commit=True)


def _is_sound(given: Person) -> bool:
    """Whether a row can be kept, and a sign-in by it costs this node what one should."""
    is_cheap = given.password_hash is None or is_bearable(given.password_hash)
    return is_cheap and given.state in _STATES


def _epoch(ours: Person, theirs: Person) -> int:
    is_near = theirs.epoch - ours.epoch <= _EPOCHS_AHEAD
    return max(ours.epoch, theirs.epoch) if is_near else ours.epoch


def _whole(ours: Person, theirs: Person) -> Person:
    """A site's row in place of ours, but nobody is let in again by it."""
    state = theirs.state if ours.state not in _SHUT else ours.state
    return msgspec.structs.replace(
        theirs, email=ours.email, state=state, epoch=_epoch(ours, theirs)
    )


def _stricter(ours: Person, theirs: Person, *, is_own: bool) -> Person:
    """What only takes away: used codes; of the site's own people ended sessions and a shut door."""
    fresh = ours
    # A step of the future would shut its owner out.
    if ours.totp_secret == theirs.totp_secret and theirs.totp_step <= time() // STEP_S + 1:
        fresh = msgspec.structs.replace(
            ours, totp_step=max(ours.totp_step, theirs.totp_step),
            recovery=tuple(h for h in ours.recovery if h in theirs.recovery),
        )  # fmt: skip
    if not is_own:
        return fresh
    is_shut = theirs.state in _SHUT and ours.state == "active"
    return msgspec.structs.replace(
        fresh, state=theirs.state if is_shut else ours.state, epoch=_epoch(ours, theirs)
    )


def _set_calls(
    tenant: UUID, fresh: Person, before: Person | None, *, always: bool = False
) -> list[Call]:
    """Store a sign-in; sessions that it does not allow any more end."""
    calls: list[Call] = [(_FREE, (tenant, fresh.email, fresh.person))]
    calls.append((_SET, (
        tenant, fresh.person, fresh.email, fresh.password_hash, fresh.totp_secret,
        fresh.totp_step, list(fresh.recovery), fresh.state, fresh.must_change, fresh.epoch,
    )))  # fmt: skip
    if before is None:
        return calls
    if always or fresh.state != "active" or fresh.epoch != before.epoch:
        calls.append((_END, (tenant, fresh.person, ["login", "api_key"])))
    elif fresh.password_hash != before.password_hash:
        calls.append((_END, (tenant, fresh.person, ["login"])))
    return calls


def _read(row: Row) -> Person:
    hashes = tuple(bytes.fromhex(h[2:]) for h in text_of(row[5]).split(",") if h)
    return Person(
        UUID(text_of(row[0])), text_of(row[1]), text_of(row[2]) if row[2] is not None else None,
        bytea_of(row[3]) if row[3] is not None else None, int(row[4] or 0), hashes, text_of(row[6]),
        row[7] == b"t", int(row[8] or 0),
    )  # fmt: skip


def _decode(data: bytes, shape: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(data, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError):
        raise Malformed(
            "The slice of people cannot be read.", code="sync.people_malformed"
        ) from None
