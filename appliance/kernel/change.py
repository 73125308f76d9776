"""One entry of the log: what changed, from what its author saw, and the hash that chains it.

An entry is one change of one record. `fields` holds the new values by field id (system registers
`@unit`, `@owner`, `@number` among them), `base` the live dots that the author saw in each
register it wrote (none on a creation), `groups` which fields a merge group wrote together,
`seen` every live dot of the record for a delete, undelete or move. A set is written as members
added and removed (`sets`), each member a register `fid/member` of its own; a counter as a delta
(`deltas`), never as an absolute value.

Hash: H(previous entry of the same origin and stream ‖ header ‖ H(leaves)); a leaf is
H(salt ‖ field ‖ value) with a salt only nodes of the tenant can make, so that a field can be
stripped for a peer that may not read it and the chain still verifies (research/sync 2.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from hashlib import blake2b
from uuid import UUID

import msgspec

from appliance.kernel.kind import Json

VERSION = 1
_pack = msgspec.msgpack.Encoder(order="sorted").encode
GENESIS = b""


class EntryOp(StrEnum):
    """What an entry does to its record."""

    NEW = "new"
    PUT = "put"
    DEL = "del"
    UNDEL = "undel"
    MOVE = "move"
    ARRIVE = "arrive"
    # What somebody decided about entries that were parked.
    DECIDE = "resolve"


def op_of(text: str) -> str:
    """An operation by its name; that of a newer peer stays a text."""
    return EntryOp(text) if text in EntryOp._value2member_map_ else text


class Body(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """The part of an entry that says what changed; MessagePack in `change.body`."""

    fields: dict[str, Json] = {}
    base: dict[str, list[str]] = {}
    groups: dict[str, list[str]] = {}
    seen: list[str] = []
    sets: dict[str, tuple[list[str], list[str]]] = {}
    deltas: dict[str, str] = {}
    ext: dict[str, Json] = {}


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `change` without its place in the local order."""

    stream: UUID
    origin: int
    oseq: int
    tx: int
    hlc: int
    actor: UUID
    door: str
    kind: str
    record_id: UUID
    op: str
    schema_rev: int
    change_set: UUID
    body: Body

    @property
    def dot(self) -> str:
        """The name of this entry inside its stream."""
        return f"{self.origin}.{self.oseq}"


class Logged(msgspec.Struct, frozen=True, kw_only=True):
    """An entry as it stands in a log, on its way to another one.

    `hash` chains it to the one before it from the same origin; empty where fields were taken out
    for the reader, who then has the sender's word alone. `ehlc` is the clock that counts: the
    author's, cut where it was ahead. `parked` is why the sender has not applied it.
    """

    entry: Entry
    hash: bytes
    ehlc: int
    parked: str = ""


def encode_body(body: Body) -> bytes:
    """The stored and sent form."""
    return _pack(body)


decode_body = msgspec.msgpack.Decoder(Body).decode


def chain_hash(log_key: bytes, previous: bytes, entry: Entry) -> bytes:
    """The hash of an entry, given the hash of its predecessor from the same origin."""
    body, stream = entry.body, entry.stream.bytes
    salt = blake2b(
        b"%d.%d" % (entry.origin, entry.oseq), key=log_key, salt=stream, digest_size=32
    ).digest()
    keyed = blake2b(key=salt, digest_size=16)
    leaves = [
        _leaf_hash(keyed.copy(), fid.encode(), part[fid])
        for part in (body.fields, body.sets, body.deltas) if part
        for fid in sorted(part)
    ]  # fmt: skip
    head = _pack(
        [
            VERSION, stream, entry.origin, entry.oseq, entry.tx, entry.hlc, entry.actor.bytes,
            entry.door, entry.kind, entry.record_id.bytes, entry.op, entry.schema_rev,
            entry.change_set.bytes, body.base, body.groups, body.seen, body.ext,
        ]
    )  # fmt: skip
    content = blake2b(b"".join(leaves), digest_size=32).digest()
    return blake2b(previous + head + content, digest_size=32).digest()


def _leaf_hash(keyed: blake2b, name: bytes, value: object) -> bytes:
    """The leaf of one field, of a hash keyed with the entry's salt: its own salt can be given away
    without that.
    """
    keyed.update(name)
    content = name + b"\0" + _pack(value)
    return blake2b(content, key=keyed.digest(), digest_size=16).digest()


class Diff(msgspec.Struct, frozen=True):
    """One field's step in a record's history, by field id."""

    fid: str
    before: Json
    after: Json


def describe(before: Mapping[str, Json], after: Mapping[str, Json]) -> list[Diff]:
    """Which fields differ between two states of a record's data, in name order."""
    names = sorted({*before, *after})
    return [
        Diff(name, before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    ]


class Stamped(msgspec.Struct, frozen=True):
    """Who made an entry and when, for people."""

    actor: UUID
    at: datetime
