"""Entries of this node whose names are another's at the hub, made anew under its present origin.

A site that was put back from a backup, or copied, has written under names that exist; so has one
whose hub was put back and went on. What was written is neither lost nor sent as something it is
not: the entries keep their places, contents, clocks and authors, get the next names of this
node's origin, and say which name they had (`ext.remade`). What named them as its base names them
by their new names, because under the old ones it would speak of what its author never saw.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

import msgspec

from appliance.base.errors import Clash
from appliance.db.columns import Column
from appliance.db.database import Transaction
from appliance.db.values import bytea_of
from appliance.db.wire import Call, Statement
from appliance.kernel.arrival import BUT, KNEW, OPEN
from appliance.kernel.beside import rename_dots
from appliance.kernel.change import GENESIS, Body, Entry, chain_hash, encode_body
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from appliance.kernel.registers import qualified
from appliance.kernel.stamps import Stamps
from appliance.write.log import LOCK_STREAMS, read_heads
from appliance.write.merging import Merged, write_merged
from appliance.write.refold import refold
from appliance.write.trail import COLUMNS, read_entry

REMADE = "remade"
# By (stream, origin): the last entry that the hub has too; what follows gets another name.
Tails = Mapping[tuple[UUID, int], int]

_TAIL = Statement(
    f"SELECT {COLUMNS} FROM change JOIN unnest($2::uuid[], $3::bigint[], $4::bigint[]) "
    "AS u(s, o, q) ON change.stream = u.s AND change.origin = u.o AND change.oseq > u.q "
    "WHERE tenant_id = $1 ORDER BY stream, seq"
)
_MET = Statement(
    "SELECT u.s::text, u.o, u.q, c.hash FROM unnest($2::uuid[], $3::bigint[], $4::bigint[]) "
    "AS u(s, o, q) LEFT JOIN change c ON c.tenant_id = $1 AND c.stream = u.s AND c.origin = u.o "
    "AND c.oseq = u.q"
)
_RENAME = Statement(
    "SELECT rename_entries($1, $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], "
    "$6::bytea[], $7::bytea[])"
)
_VECTOR = Statement(
    "INSERT INTO stream_vector (tenant_id, stream, origin, got, hash) "
    "SELECT $1, s, o, q, h FROM unnest($2::uuid[], $3::bigint[], $4::bigint[], $5::bytea[]) "
    "AS u(s, o, q, h) ON CONFLICT (tenant_id, stream, origin) DO UPDATE SET got = EXCLUDED.got, "
    "hash = EXCLUDED.hash"
)
_KEEP = Statement(
    "INSERT INTO stream_vector (tenant_id, stream, origin, got, hash) "
    "SELECT tenant_id, id, origin, oseq, hash FROM stream WHERE tenant_id = $1 "
    "AND id = ANY($2::uuid[]) AND origin <> $3 AND oseq > 0 "
    "ON CONFLICT (tenant_id, stream, origin) DO UPDATE SET got = EXCLUDED.got, hash = EXCLUDED.hash"
)
_COUNTER = Statement(
    "UPDATE stream SET origin = $2, oseq = u.q, hash = u.h FROM unnest($3::uuid[], $4::bigint[], "
    "$5::bytea[]) AS u(s, q, h) WHERE stream.tenant_id = $1 AND stream.id = u.s"
)
_PARKED = Statement(
    "UPDATE parked SET origin = $5, oseq = $6 WHERE tenant_id = $1 AND stream = $2 "
    "AND origin = $3 AND oseq = $4 AND is_logged"
)
# Under the names that were theirs others come now, from where the hub keeps them.
_AGAIN = Statement(
    "UPDATE peer_stream SET cursor = 0 WHERE tenant_id = $1 AND stream = ANY($2::uuid[])"
)


@dataclass(slots=True)
class _Stream:
    """One stream: the name its next entry gets, and the entries that get one, by their place."""

    origin: int
    oseq: int
    hash: bytes
    log_key: bytes
    old: list[tuple[int, Entry]] = field(default_factory=list)
    new: list[Entry] = field(default_factory=list)


async def remake(tx: Transaction, ctx: Ctx, tails: Tails) -> int:
    """Give the entries behind `tails` the next names of this node; how many got another one.

    Runs in the caller's transaction, which holds the counters of the streams from then on. Raises
    Clash where the log no longer reaches back so far.
    """
    streams = sorted({stream for stream, _ in tails})
    (rows,) = await tx.run((LOCK_STREAMS, (ctx.tenant, streams, ctx.origin)))
    heads = read_heads(ctx, rows)
    met = await _read_met(tx, ctx, tails)
    found = {
        s: _Stream(ctx.origin, *met.get((s, ctx.origin), (h.oseq, h.hash)), h.log_key)
        for s, h in heads.items()
    }
    columns = list(zip(*((s, o, q) for (s, o), q in tails.items()), strict=True))
    (rows,) = await tx.run((_TAIL, (ctx.tenant, *map(list, columns))))
    for row in rows:
        entry = read_entry(row)
        if entry.stream in found:
            found[entry.stream].old.append((int(row[13] or 0), entry))
    names = _name(found.values())
    for one in found.values():
        one.new = [_made_anew(entry, new, names) for (_, entry), new in zip(one.old, one.new,
                                                                           strict=True)]  # fmt: skip
    changed = {s: one for s, one in found.items() if [e for _, e in one.old] != one.new}
    if not changed:
        return 0
    await _write(tx, ctx, changed, {p: tip for p, tip in met.items() if p[0] in changed})
    ids = sorted({entry.record_id for one in changed.values() for _, entry in one.old})
    drafts = [d for d in await refold(tx, ctx, ids) if d.before != d.after]
    if drafts:
        await tx.run(*await write_merged(tx, ctx, Merged(None, drafts), is_hub=False))
    return len(names)


async def _read_met(
    tx: Transaction, ctx: Ctx, tails: Tails
) -> dict[tuple[UUID, int], tuple[int, bytes]]:
    """The last entry that both have, of each tail, with its hash."""
    columns = list(zip(*((s, o, q) for (s, o), q in tails.items()), strict=True))
    (rows,) = await tx.run((_MET, (ctx.tenant, *map(list, columns))))
    met: dict[tuple[UUID, int], tuple[int, bytes]] = {}
    for stream, origin, oseq, digest in rows:
        place = (UUID((stream or b"").decode()), int(origin or 0))
        if int(oseq or 0) and digest is None:
            raise Clash(
                f"The log of stream {place[0]} does not reach back to where this node and its hub "
                "part; its records have to be compared first.", code="sync.rebase",
            )  # fmt: skip
        met[place] = (int(oseq or 0), bytea_of(digest) or GENESIS)
    return met


def _name(streams: Iterable[_Stream]) -> dict[str, str]:
    """Number the entries in their order; old full names to new short ones, where they differ."""
    names: dict[str, str] = {}
    for one in streams:
        oseq = one.oseq
        group, first = (0, 0), 0
        for _, entry in one.old:
            oseq += 1
            if group != (entry.origin, entry.tx):
                group, first = (entry.origin, entry.tx), oseq
            new = msgspec.structs.replace(entry, origin=one.origin, oseq=oseq, tx=first)
            one.new.append(new)
            if new.dot != entry.dot:
                names[qualified(entry.dot, entry.stream)] = new.dot
    return names


def _made_anew(old: Entry, new: Entry, names: Mapping[str, str]) -> Entry:
    """The entry under its new name, with the new names of what it speaks of."""

    def name(dot: str) -> str:
        found = names.get(qualified(dot, old.stream))
        _, at, stream = dot.partition("@")
        return dot if found is None else found + at + stream

    body = old.body
    ext = dict(body.ext)
    if (stamps := Stamps.parse(str(ext.get("stamps", "")))) is not None:
        live = {register: tuple(map(name, dots)) for register, dots in stamps.live.items()}
        ext["stamps"] = str(Stamps(tuple(map(name, stamps.born)), live))
    if OPEN in ext:
        ext[OPEN] = b64encode(rename_dots(b64decode(str(ext[OPEN])), name)).decode()
    if isinstance(left := ext.get(BUT), list):
        ext[BUT] = [name(str(dot)) for dot in left]
    if isinstance(knew := ext.get(KNEW), dict):
        ext[KNEW] = _renumbered(knew, names)
    if old.dot != new.dot:
        ext.setdefault(REMADE, qualified(old.dot, old.stream))
    changed = Body(
        body.fields, {r: [name(d) for d in dots] for r, dots in body.base.items()}, body.groups,
        [name(d) for d in body.seen], body.sets, body.deltas, ext,
    )  # fmt: skip
    return msgspec.structs.replace(new, body=changed)


def _renumbered(knew: Mapping[str, Json], names: Mapping[str, str]) -> dict[str, Json]:
    """How far a mover had streams, said of entries by their new names."""
    ends: dict[str, dict[str, int]] = {
        s: {o: int(str(n)) for o, n in got.items()}
        for s, got in knew.items()
        if isinstance(got, dict)
    }
    had = {s: dict(got) for s, got in ends.items()}
    for old in names:
        name, _, stream = old.partition("@")
        origin, oseq = name.split(".")
        if int(oseq) > had.get(stream, {}).get(origin, 0):
            continue
        # It is not known by its old name: nothing from there on is.
        got = ends[stream]
        got[origin] = min(got[origin], int(oseq) - 1)
    for old, new in names.items():
        name, _, stream = old.partition("@")
        origin, oseq = name.split(".")
        if int(oseq) <= had.get(stream, {}).get(origin, 0):
            now, place = new.split(".")
            ends[stream][now] = max(ends[stream].get(now, 0), int(place))
    return {s: dict[str, Json](got) for s, got in ends.items()}


async def _write(
    tx: Transaction, ctx: Ctx, streams: Mapping[UUID, _Stream],
    met: Mapping[tuple[UUID, int], tuple[int, bytes]],
) -> None:  # fmt: skip
    """The new names into the log, and the ends of the chains to where they are now."""
    calls: list[Call] = []
    for stream, one in streams.items():
        rows = []
        for (place, old), new in zip(one.old, one.new, strict=True):
            one.oseq, one.hash = new.oseq, chain_hash(one.log_key, one.hash, new)
            body = encode_body(new.body)
            rows.append((place, new.origin, new.oseq, new.tx, body, one.hash))
            if old.dot != new.dot:
                calls.append(
                    (_PARKED, (ctx.tenant, stream, old.origin, old.oseq, new.origin, new.oseq))
                )
        if rows:
            types = ("bigint", "bigint", "bigint", "bigint", "bytea", "bytea")
            columns = [Column(t, c) for t, c in zip(types, zip(*rows, strict=True), strict=True)]
            calls.append((_RENAME, (stream, *columns)))
    ends = {place: tip for place, tip in met.items() if place[1] != ctx.origin}
    ends |= {(s, ctx.origin): (one.oseq, one.hash) for s, one in streams.items()}
    vectors = list(zip(*((s, o, q, h) for (s, o), (q, h) in ends.items()), strict=True))
    hashes = Column("bytea", vectors[3])
    calls.append((_VECTOR, (ctx.tenant, *map(list, vectors[:3]), hashes)))
    # The counter's own row is the present origin's from now on, so what it said of another goes
    # into that one's vector, unless it is one of those that end earlier now.
    calls.insert(0, (_KEEP, (ctx.tenant, list(streams), ctx.origin)))
    counters = [one.oseq for one in streams.values()]
    own = Column("bytea", [one.hash for one in streams.values()])
    calls.append((_COUNTER, (ctx.tenant, ctx.origin, list(streams), counters, own)))
    calls.append((_AGAIN, (ctx.tenant, list(streams))))
    await tx.run(*calls)
