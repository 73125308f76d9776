"""Nodes of one tenant on real databases, that can be killed between any two statements.

What a node is goes through the product's own doors: `write.apply`, frames as bytes, `receive`. Its
clock is its own; a kill is an exception that no code catches, raised instead of the n-th statement,
so that PostgreSQL rolls back what was open and keeps what was committed.
"""

import contextlib
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

import psycopg

from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.kernel.context import Ctx, Door, UnitNode
from appliance.kernel.profile import Profile
from appliance.meta import load_schema
from appliance.sync.frames import decode_frame
from appliance.sync.outgoing import read_after
from appliance.sync.positions import (
    note_acked,
    note_cursors,
    read_cuts,
    read_heads,
    read_heard,
    read_pending,
    read_positions,
    read_vectors,
)
from appliance.write import apply
from appliance.write import receive as receiving
from appliance.write.emit import stream_call
from appliance.write.log import CLOCK, common_stream
from appliance.write.refold import fold_early, recount
from tests import tenants

HUB = 1
LOG_KEY = b"k" * 32
PEER = UUID(int=9)


async def keep_cuts(db, ctx, hub, cuts):
    """As a site does: the hub's word on its clocks, then the records that are made of them."""
    await note_acked(db, ctx.tenant, hub, {}, cuts)
    await recount(db, ctx, [cut[:3] for cut in cuts])


class Killed(BaseException):
    """The process is gone; nothing may catch this but who started it."""


class Fuse:
    """Burns instead of the statement after `left` more of them; None: never."""

    def __init__(self):
        self.left = None
        self.is_torn = False
        self.counted = 0


class FusedWire:
    """A wire that ends where the fuse says."""

    def __init__(self, wire, fuse):
        self._wire, self._fuse, self.connection = wire, fuse, wire.connection

    async def run(self, calls):
        fuse = self._fuse
        fuse.counted += len(calls)
        if fuse.left is None:
            return await self._wire.run(calls)
        if fuse.left >= len(calls):
            fuse.left -= len(calls)
            return await self._wire.run(calls)
        done, fuse.left = calls[: fuse.left], None
        if done:
            await self._wire.run(done)
        if fuse.is_torn:
            self.connection.pgconn.finish()
        raise Killed


class FusedDatabase(Database):
    """The database of a node that can be killed."""

    def __init__(self, *dsns):
        super().__init__(*dsns)
        self.fuse = Fuse()

    @contextlib.asynccontextmanager
    async def wire(self, target):
        async with super().wire(target) as wire:
            yield FusedWire(wire, self.fuse)


@dataclass
class Node:
    """One node's copy of the tenant. `ack_first` and `cursor_first` are known bugs of others."""

    db: FusedDatabase
    origin: int
    tenant: tenants.Tenant
    held: tuple = ("head", "north", "south")
    prefix: str = ""
    wall_ms: int = 0
    hlc: int = 0
    is_down: bool = False
    seen: dict = field(default_factory=lambda: defaultdict(list))
    _schema: object = None

    @property
    def is_hub(self):
        return self.origin == HUB

    @contextlib.contextmanager
    def clock(self):
        """This node's wall clock, and what its process remembers of the clocks it met."""
        old = CLOCK._wall, CLOCK._last, receiving.now
        CLOCK._wall, CLOCK._last = (lambda: self.wall_ms), self.hlc
        receiving.now = self.now
        try:
            yield
        except Killed:
            CLOCK._last = 0
            raise
        finally:
            self.hlc = CLOCK._last
            CLOCK._wall, CLOCK._last, receiving.now = old

    def now(self):
        return datetime.fromtimestamp(self.wall_ms / 1000, UTC)

    @contextlib.contextmanager
    def fused(self, left, *, is_torn=False):
        """A kill after `left` statements, of which one may be the commit."""
        fuse = self.db.fuse
        fuse.left, fuse.is_torn = left, is_torn
        try:
            yield
            if fuse.left == 0:
                raise Killed
        except Killed:
            self.hlc = 0
            raise
        finally:
            fuse.left = None

    def renew(self):
        self._schema = None

    async def schema(self):
        if self._schema is None:
            self._schema = await load_schema(self.db, self.tenant.id)
        return self._schema

    async def ctx(self, door=Door.SYNC, *, unit=None):
        schema = await self.schema()
        plain = {
            "tenant": self.tenant.id, "origin": self.origin, "schema": schema, "door": door,
            "request_id": uuid7(), "at": self.now(), "actor": PEER,
            "profile": Profile(id="", key="sync"),
        }  # fmt: skip
        if unit is None:
            return Ctx(**plain)
        units = self.tenant.units
        tree = {
            i: UnitNode(id=i, parent=None if k == "head" else units["head"], name=k, tz="UTC")
            for k, i in units.items()
        }
        mine = frozenset(units.values())
        return Ctx(**plain | {
            "actor": self.tenant.people["owner"], "profile": tenants.everything(schema),
            "unit": units[unit], "units": mine, "subtree": mine, "unit_tree": tree,
            "node_prefix": self.prefix,
        })  # fmt: skip

    async def write(self, *commands, unit, command_id=None):
        with self.clock():
            ctx = await self.ctx(Door.HTTP, unit=unit)
            return await apply(self.db, ctx, commands, command_id=command_id)

    async def take(self, stream, entries, *, peer, cursor=None):
        with self.clock():
            return await receiving.receive(
                self.db, await self.ctx(), stream, entries, peer=peer, cursor=cursor,
                from_hub=not self.is_hub,
            )  # fmt: skip

    async def open_and_take(self, data, *, peer, cursor=None, parks=None):
        frame = decode_frame(data, LOG_KEY)
        entries = parks(frame.entries) if parks else frame.entries
        taken = await self.take(frame.stream, entries, peer=peer, cursor=cursor)
        if frame.stream == common_stream(self.tenant.id, "schema") and taken.applied:
            self.renew()
            with self.clock():
                await fold_early(self.db, await self.ctx())
        return taken

    async def take_cuts(self, stream, taken):
        """What the hub's receipt says of clocks that were ahead."""
        cuts = [(stream, o, q, e) for (o, q), e in taken.cuts.items() if o == self.origin]
        with self.clock():
            await keep_cuts(self.db, await self.ctx(), HUB, cuts)

    async def take_welcome(self, offer):
        """What the hub says of receipts that did not come; then they have."""
        tenant = self.tenant.id
        with self.clock():
            await keep_cuts(self.db, await self.ctx(), HUB, offer.cuts)
        ends = {s: h.head for s, h in (await read_heads(self.db, tenant)).items() if h.head}
        acked = {s: offer.pending.get(s, end + 1) - 1 for s, end in ends.items()}
        await note_acked(self.db, tenant, HUB, acked)

    async def rows_raw(self, text, *params):
        (rows,) = await self.db.read(self.tenant.id, (Statement(text), (self.tenant.id, *params)))
        return rows

    async def rows(self, text, *params):
        found = await self.rows_raw(text, *params)
        return [[v.decode() if v is not None else None for v in row] for row in found]


@dataclass
class Offer:
    """What a site knows of the hub when they meet; hello."""

    got: dict
    cursors: dict
    heads: dict
    pending: dict
    cuts: list


async def greet(site, hub):
    tenant = site.tenant.id
    mine = await read_heads(site.db, tenant)
    known = await read_vectors(hub.db, tenant, [site.origin])
    got = {s: {site.origin: known.get(s, {}).get(site.origin, 0)} for s in mine}
    positions = await read_positions(site.db, tenant, HUB)
    cursors = {s: positions[s].cursor if s in positions else 0 for s in mine}
    heads = {s: h.head for s, h in (await read_heads(hub.db, tenant)).items() if s in mine}
    pending = await read_pending(site.db, tenant, got)
    kept = await read_heard(site.db, tenant, HUB, [site.origin])
    return Offer(got, cursors, heads, pending, await read_cuts(hub.db, tenant, got, kept))


async def up_frames(site, stream, pending, size):
    batch = await read_after(
        site.db, site.tenant.id, stream, pending - 1, origins=frozenset({site.origin}),
        max_bytes=size,
    )  # fmt: skip
    return batch.frames


async def down_batch(hub, site, stream, cursor, size):
    return await read_after(
        hub.db, hub.tenant.id, stream, cursor, without=frozenset({site.origin}), max_bytes=size
    )


async def keep_cursor(site, stream, cursor):
    await note_cursors(site.db, site.tenant.id, HUB, {stream: (cursor, 0)})


def in_order(tenant, streams, rng):
    """Streams as an exchange takes them: the schema first. The same for a seed in every world."""
    first = [common_stream(tenant.id, n) for n in ("schema", "shared")]
    known = [*first, *tenant.units.values()]
    found = sorted(streams, key=known.index)
    rng.shuffle(found)
    return sorted(found, key=lambda s: s != first[0])


async def add_tenant(dsns, db, tenant):
    """A tenant that exists elsewhere, in the control plane of this node."""
    async with await psycopg.AsyncConnection.connect(dsns.control_owner) as conn:
        await conn.execute(
            "INSERT INTO tenant (id, slug, name, placement_id) SELECT %s, %s, 'T', id "
            "FROM placement WHERE name = 'pool'",
            (tenant, f"t-{tenant.hex[:12]}-{tenant.hex[20:]}"),
        )
    await db.routes.refresh()


async def make_site(db, origin, tenant, held, prefix):
    """An empty copy that holds the streams of some units."""
    streams = [(common_stream(tenant.id, n), n) for n in ("shared", "schema")]
    streams += [(tenant.units[u], u) for u in held]
    async with db.transaction(tenant.id) as tx:
        await tx.run(
            (Statement(tenants.NEW_STATE), (tenant.id, LOG_KEY)),
            stream_call(tenant.id, origin, streams),
        )
    return Node(
        db, origin, tenants.Tenant(db, tenant.id, tenant.units, tenant.people), held, prefix
    )
