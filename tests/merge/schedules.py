"""One seed is one schedule: people write on four nodes, which meet over a bad link and are killed.

A world is a tenant on its nodes; schedules follow one another in it, each with records of its own.
"""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from appliance.base.errors import ApplianceError
from appliance.base.ids import uuid7
from appliance.kernel.change import Body, Entry, EntryOp, Logged
from appliance.kernel.context import Door
from appliance.kernel.stamps import Stamps
from appliance.write.incoming import Forked, transactions
from appliance.write.log import common_stream
from appliance.write.parked import decide_parked
from tests.merge import stores
from tests.merge.stores import HUB, Killed, Node
from tests.tenants import create, delete, restore, update

STRANGER = 9
KINDS = ("card", "move")
TAGS = ("t0", "t1", "t2")
_MS_2026 = 1_780_000_000_000
_SEEN = (
    "SELECT id::text, stamps, unit_id::text, deleted_at IS NULL, kind, stream::text FROM record "
    "WHERE tenant_id = $1 AND id = ANY($2::uuid[]) ORDER BY id"
)
CARD = [
    {"name": "name", "type": "text"},
    {"name": "city", "type": "text", "group": "address"},
    {"name": "street", "type": "text", "group": "address"},
    {"name": "hint", "type": "text", "policy": "newest"},
    {"name": "credit", "type": "number", "policy": "max", "options": {"scale": 2}},
    {"name": "least", "type": "integer", "policy": "min"},
    {"name": "blocked", "type": "yes_no", "policy": "or"},
    {"name": "price", "type": "number", "policy": "owner", "options": {"scale": 2}},
    {"name": "code", "type": "text", "unique": True},
    {"name": "note", "type": "long_text", "policy": "text3"},
    {"name": "tags", "type": "multi_choice",
     "options": {"choices": [{"key": k, "labels": {"en": k}} for k in TAGS]}},
]  # fmt: skip
MOVE = [
    {"name": "sku", "type": "text", "required": True},
    {"name": "moved_at", "type": "moment", "filterable": False},
    {"name": "quantity", "type": "integer", "required": True},
]
LEDGER = {"sort": "balance", "at": "moved_at", "key": ["sku"], "values": ["quantity"],
          "floor": True}  # fmt: skip


@dataclass
class World:
    """A tenant on its nodes, and the numbers of a stranger who writes through the hub alone."""

    hub: Node
    sites: list
    oseqs: dict = field(default_factory=dict)
    # Known bugs of others that the exchange itself can have.
    ack_first: bool = False
    cursor_first: bool = False

    @property
    def nodes(self):
        return [self.hub, *self.sites]

    @property
    def tenant(self):
        return self.hub.tenant


@dataclass
class Schedule:
    """What one seed does; `steps` is what is printed when it goes wrong."""

    world: World
    seed: int
    rng: random.Random = None
    ids: list = field(default_factory=list)
    acked: list = field(default_factory=list)
    made: set = field(default_factory=set)
    late: list = field(default_factory=list)
    steps: list = field(default_factory=list)
    held_back: list = field(default_factory=list)
    extra: str = ""
    is_sequential: bool = False
    strange: bool = False

    def note(self, text):
        self.steps.append(text)

    async def run(self, count):
        rng = self.rng = random.Random(self.seed)
        world = self.world
        self.is_sequential = rng.random() < 0.12
        self.crash = 0 if self.is_sequential else rng.choice((0, 0.1, 0.3))
        self.lossy = 0 if self.is_sequential else rng.choice((0, 0.2, 0.5))
        skews = (0, 0, -7_200_000, 7_200_000, 36_000_000)
        for node in world.nodes:
            node.wall_ms = _MS_2026 + self.seed * 1_000_000_000 % 10**11 + rng.choice(skews)
            node.hlc, node.seen = 0, type(node.seen)(list)
        apart = dict.fromkeys((n.origin for n in world.sites), 0)
        for _ in range(count):
            for node in world.nodes:
                node.wall_ms += rng.randrange(1, 5_000)
            luck, node = rng.random(), rng.choice(world.nodes)
            if self.is_sequential:
                await self._settle_and_write(node)
            elif luck < 0.55:
                await self._write(node)
            elif luck < 0.6:
                if node is not world.hub:
                    apart[node.origin] = rng.randrange(1, 6)
            elif luck < 0.64:
                await self._stranger()
            elif luck < 0.65:
                await self._new_field()
            elif luck < 0.68 and self.held_back:
                await self._release(self.held_back.pop())
            else:
                site = rng.choice(world.sites)
                if apart[site.origin]:
                    apart[site.origin] -= 1
                else:
                    await self._meet(site)
        await self._drain()

    async def _settle_and_write(self, node):
        if node is not self.world.hub:
            await self._meet(node)
        await self._write(node)
        if node is not self.world.hub:
            await self._meet(node)

    def _fuse(self, node):
        """A kill somewhere in what a node does next."""
        return node.fused(self.rng.randrange(2, 40), is_torn=self.rng.random() < 0.15)

    # --- what people do ---------------------------------------------------------------

    async def _write(self, node):
        rng, known = self.rng, await node.rows(_SEEN, self.ids)
        for row in known:
            if row[1] not in node.seen[row[0]]:
                node.seen[row[0]].append(row[1])
        commands, unit = [], rng.choice(node.held)
        for _ in range(2 if rng.random() < 0.15 else 1):
            command = self._command(node, known)
            # A batch names a record once.
            if command.id not in [c.id for c in commands]:
                commands.append(command)
        key = uuid7() if rng.random() < 0.5 else None
        self.note(f"{node.origin} {' & '.join(map(_told, commands))}")
        for attempt in (1, 2):
            try:
                if attempt == 1 and rng.random() < self.crash:
                    with self._fuse(node):
                        result = await node.write(*commands, unit=unit, command_id=key)
                else:
                    result = await node.write(*commands, unit=unit, command_id=key)
            except Killed:
                self.note(f"  {node.origin} is killed")
                if key is None:
                    return
                continue
            if result.committed:
                # Whoever writes what is there already is told so, and no entry is made of it.
                if result.effects:
                    self.acked.append((node.origin, str(result.change_set)))
            else:
                self.note(f"  refused: {[type(o).__name__ for o in result.outcomes]}")
            return

    def _command(self, node, known):
        rng = self.rng
        cards = [r for r in known if r[4] == "card"]
        if not cards and len(self.ids) > 6 or cards and rng.random() < 0.1:
            return self._stock(node)
        if not cards or len(self.ids) < 4 and rng.random() < 0.15:
            self.ids.append(ident := uuid7())
            fields = {"name": rng.choice("abc"), "city": "x", "note": "1\n2\n3\n4\n"}
            if rng.random() < 0.5:
                fields |= {"tags": ["t0", "t1"], "credit": "2"}
            return create("card", ident, unit=self._unit(node), **fields)
        row = rng.choice(cards)
        return self._edit(node, UUID(row[0]), row)

    def _unit(self, node):
        return self.world.tenant.units[self.rng.choice(node.held)]

    def _stock(self, node):
        self.ids.append(ident := uuid7())
        rng = self.rng
        return create(
            "move", ident, unit=self._unit(node), sku=f"s{self.seed}", quantity=rng.choice((5, 3, -2, -4)),
            moved_at=node.now().isoformat(),
        )  # fmt: skip

    def _edit(self, node, ident, row):
        rng = self.rng
        expect = rng.choice([None, None, row[1], rng.choice(node.seen[row[0]])])
        if row[3] == "f":
            return restore("card", ident) if rng.random() < 0.6 else update(
                "card", ident, expect, name=rng.choice("xyz")
            )  # fmt: skip
        luck = rng.random()
        if luck < 0.08:
            return delete("card", ident, expect)
        if luck < 0.18:
            return update("card", ident, expect, unit=self._unit(node))
        if luck < 0.24:
            people = [*self.world.tenant.people.values(), None]
            return update("card", ident, expect, owner=rng.choice(people))
        if luck < 0.32:
            chosen = rng.sample(TAGS, rng.randrange(len(TAGS) + 1))
            return update("card", ident, expect, tags=chosen)
        if luck < 0.42:
            lines = ["1", "2", "3", "4"]
            lines[rng.choice((0, 3, rng.randrange(4)))] = rng.choice("abcd")
            return update("card", ident, expect, note="\n".join(lines) + "\n")
        fields = {
            "name": rng.choice("abcdefgh"), "city": rng.choice("xyz"), "street": rng.choice("12"),
            "hint": rng.choice("abcd"), "credit": str(rng.randrange(9)), "least": rng.randrange(9),
            "blocked": rng.random() < 0.5, "price": str(rng.randrange(9)),
            "code": f"{self.seed}-{rng.choice('pq')}",
        }  # fmt: skip
        names = ["name", "name", *fields]
        if self.extra and node.origin == HUB:
            fields[self.extra] = rng.choice("abc")
            names.append(self.extra)
        picked = {rng.choice(names) for _ in range(rng.choice((1, 1, 2)))}
        return update("card", ident, expect, **{n: fields[n] for n in sorted(picked)})

    async def _new_field(self):
        """A field of the tenant, added while sites are away."""
        hub, name = self.world.hub, f"extra{self.seed}"
        if self.extra:
            return
        self.note(f"1 adds the field {name}")
        with hub.clock():
            ctx = await hub.ctx(Door.INSTALL, unit="head")
            from appliance.write import apply

            result = await apply(
                hub.db, msgspec.structs.replace(ctx, door=Door.INSTALL),
                [create("sys.field", kind="card", name=name, type="text", order=50)],
            )  # fmt: skip
        assert result.committed, result
        hub.renew()
        self.extra = name

    async def _stranger(self):
        """Another program writes through the hub: what this one cannot read is parked there."""
        hub, rng = self.world.hub, self.rng
        cards = [r for r in await hub.rows(_SEEN, self.ids) if r[4] == "card"]
        if not cards:
            return
        row = rng.choice(cards)
        stream, stamps = UUID(row[5]), Stamps.parse(row[1])
        self.strange = True
        entries = []
        for n in range(rng.choice((1, 2))):
            oseq = self.world.oseqs[stream] = self.world.oseqs.get(stream, 0) + 1
            fields = {"credit": {"strange": True}} if n == 0 else {"name": "s"}
            base = {name: list(stamps.of(name)) for name in fields}
            entry = Entry(
                stream=stream, origin=STRANGER, oseq=oseq, tx=oseq, hlc=hub.wall_ms << 16,
                actor=stores.PEER, door="http", kind="card", record_id=UUID(row[0]),
                op=EntryOp.PUT, schema_rev=1, change_set=uuid7(),
                body=Body(fields=fields, base=base),
            )  # fmt: skip
            entries.append(Logged(entry=entry, hash=b"", ehlc=entry.hlc))
        self.note(f"{STRANGER} writes poison and {len(entries) - 1} more of {row[0]}")
        taken = await hub.take(stream, entries, peer=STRANGER)
        assert [p.reason for p in taken.parked] == [p.reason for p in taken.parked[:1]], taken
        assert len(taken.parked) == 1, taken

    # --- nodes that meet --------------------------------------------------------------

    async def _meet(self, site, *, is_fair=False):
        """One conversation, at either end of which somebody may be killed, as may the link be."""
        rng, hub = self.rng, self.world.hub
        is_fair = is_fair or self.is_sequential
        lossy = 0 if is_fair else self.lossy
        self.note(f"{site.origin} meets the hub")
        offer = await stores.greet(site, hub)
        try:
            if self._killing(site):
                with self._fuse(site):
                    await site.take_welcome(offer)
            else:
                await site.take_welcome(offer)
            for stream in stores.in_order(site.tenant, offer.pending, rng):
                await self._push(site, stream, offer, lossy)
            for stream in stores.in_order(site.tenant, offer.cursors, rng):
                if offer.heads[stream] <= offer.cursors[stream]:
                    continue
                is_whole = await self._pull(site, stream, offer, lossy)
                # What may have been written under a newer schema waits for it.
                if stream == common_stream(site.tenant.id, "schema") and not is_whole:
                    return
        except Killed:
            self.note("  killed")

    def _killing(self, node):
        return self.crash and self.rng.random() < self.crash

    async def _push(self, site, stream, offer, lossy):
        rng = self.rng
        size = 1_000_000 if not lossy else rng.choice((300, 1_000_000))
        frames = await stores.up_frames(site, stream, offer.pending[stream], size)
        for data in frames:
            if rng.random() < 0.1:
                self.late.append((site, data))
            if rng.random() < lossy:
                self.note("  up: lost")
                return
            if self.world.ack_first:
                await self._acknowledge(site, stream)
            taken = await self._at_hub(site, data)
            if rng.random() < lossy / 2:
                self.note("  up: taken, the reply is lost")
                return
            await site.take_cuts(stream, taken)
            if rng.random() < 0.1 and not self.is_sequential:
                self.note("  up: once more")
                await self._at_hub(site, data)
            if rng.random() < 0.06 and lossy:
                await self._forge(site, data)
        if self.late and lossy and rng.random() < 0.3:
            self.note("  up: something late")
            await self._at_hub(*self.late.pop(rng.randrange(len(self.late))))

    async def _at_hub(self, site, data):
        hub, parks = self.world.hub, self._hold_back if self.rng.random() < 0.06 else None
        if self._killing(hub):
            try:
                with self._fuse(hub):
                    return await hub.open_and_take(data, peer=site.origin, parks=parks)
            except Killed:
                self.note("  the hub is killed")
                raise
        return await hub.open_and_take(data, peer=site.origin, parks=parks)

    def _hold_back(self, entries):
        """The hub's word that somebody has to look at a transaction first; it is let go later."""
        if self.is_sequential:
            return entries
        part = self.rng.choice(transactions(entries))[0].entry
        # Who belongs where is nobody's to hold back: only what is said of records that stay.
        if part.kind != "card":
            return entries
        self.held_back.append((part.stream, part.origin, part.oseq))
        self.note(f"  the hub parks {part.dot} {part.op} {part.record_id}")
        return [
            msgspec.structs.replace(e, parked="rule: held")
            if (e.entry.origin, e.entry.tx) == (part.origin, part.tx) else e
            for e in entries
        ]  # fmt: skip

    async def _forge(self, site, data):
        """Somebody on the way changes a value: it must not get in."""
        hub = self.world.hub
        frame = stores.decode_frame(data, stores.LOG_KEY)
        place = next(
            (n for n, e in enumerate(frame.entries) if "name" in e.entry.body.fields), None
        )
        if place is None:
            return
        first = frame.entries[place]
        body = msgspec.structs.replace(first.entry.body, fields={"name": "forged"})
        entry = msgspec.structs.replace(first.entry, body=body, oseq=first.entry.oseq)
        forged = msgspec.structs.replace(first, entry=entry)
        try:
            await hub.take(frame.stream, [*frame.entries[:place], forged], peer=site.origin)
        except Forked:
            self.note("  a forged entry is refused")

    async def _acknowledge(self, site, stream):
        """The bug of those who say that they have what they are only about to take."""
        (head,) = await site.rows(
            "SELECT oseq, hash FROM stream WHERE tenant_id = $1 AND id = $2", stream
        )
        async with self.world.hub.db.transaction(site.tenant.id) as tx:
            await tx.run((stores.Statement(
                "INSERT INTO stream_vector (tenant_id, stream, origin, got, hash) VALUES ($1, $2, "
                "$3, $4, $5::bytea) ON CONFLICT (tenant_id, stream, origin) DO UPDATE SET "
                "got = EXCLUDED.got, hash = EXCLUDED.hash"), (site.tenant.id, stream, site.origin,
                int(head[0]), head[1])))  # fmt: skip

    async def _pull(self, site, stream, offer, lossy):
        rng, hub = self.rng, self.world.hub
        size = 1_000_000 if not lossy else rng.choice((300, 1_000_000))
        batch = await stores.down_batch(hub, site, stream, offer.cursors[stream], size)
        last = len(batch.frames) - 1
        if self.world.cursor_first or not batch.frames:
            await stores.keep_cursor(site, stream, batch.upto)
        for n, data in enumerate(batch.frames):
            if rng.random() < lossy:
                self.note("  down: lost")
                return False
            cursor = batch.upto if n == last else None
            if self._killing(site):
                with self._fuse(site):
                    taken = await site.open_and_take(data, peer=HUB, cursor=cursor)
            else:
                taken = await site.open_and_take(data, peer=HUB, cursor=cursor)
            if taken.gap:
                self.note("  down: a gap")
                await stores.keep_cursor(site, stream, 0)
                return False
            if rng.random() < 0.08 and not self.is_sequential:
                self.note("  down: once more")
                await site.open_and_take(data, peer=HUB)
        return not batch.more

    async def _release(self, place):
        """A person lets go what the hub had parked, if it was parked at all."""
        hub = self.world.hub
        found = await hub.rows(
            "SELECT id::text FROM parked WHERE tenant_id = $1 AND stream = $2 AND origin = $3 "
            "AND oseq = $4 AND state = 'waiting'", *place,
        )  # fmt: skip
        for (ident,) in found:
            self.note(f"1 releases {place[1]}.{place[2]}")
            with hub.clock():
                ctx = await hub.ctx(Door.HTTP, unit="head")
                async with hub.db.transaction(hub.tenant.id) as tx:
                    await decide_parked(tx, ctx, UUID(ident), release=True)

    async def _drain(self):
        for place in self.held_back:
            await self._release(place)
        crash, self.crash = self.crash, 0
        self.held_back, hold = [], self._hold_back
        self._hold_back = lambda entries: entries
        try:
            for _ in range(12):
                for site in self.world.sites:
                    await self._meet(site, is_fair=True)
                if not [s for s in self.world.sites if await self._is_behind(s)]:
                    return
            raise AssertionError("never drained")
        finally:
            self._hold_back, self.crash = hold, crash

    async def _is_behind(self, site):
        offer = await stores.greet(site, self.world.hub)
        return offer.pending or any(h > offer.cursors[s] for s, h in offer.heads.items())


def _told(command):
    parts = [command.op.value, command.kind, str(command.id)[-6:]]
    parts += [f"{k}={v!r}" for k, v in command.fields.items()]
    if command.unit is not msgspec.UNSET:
        parts.append(f"unit={str(command.unit)[-4:]}")
    if command.owner is not msgspec.UNSET:
        parts.append(f"owner={command.owner and str(command.owner)[-4:]}")
    if command.expect:
        parts.append(f"expect={command.expect}")
    return " ".join(parts)


__all__ = ["ApplianceError", "Schedule", "World"]
