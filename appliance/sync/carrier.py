"""A branch without any line: what an exchange would say, in files that somebody carries.

The site's file holds its hello and what the hub lacks; the hub's file its welcome and what the
site lacks. Promises: a file is for one node and one tenant, and signed by its maker; taken twice,
or out of order, it does no harm, because what it brings are the messages of the exchange; a file
that was lost costs another one, because nobody takes for had what no file has said.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import msgspec

from appliance import __version__
from appliance.base import logs
from appliance.base.errors import Clash, Forbidden, Refused
from appliance.db.database import Database
from appliance.db.values import bytea_of
from appliance.db.wire import Statement
from appliance.sync import freight, people
from appliance.sync import messages as say
from appliance.sync.attesting import Kept
from appliance.sync.blobs import note_at_hub
from appliance.sync.client import Counted, HubClient
from appliance.sync.giving import Giving
from appliance.sync.hello import Begun, make_hello
from appliance.sync.hub import Hub, epoch_of, standing_of
from appliance.sync.keys import NodeKey
from appliance.sync.nodes import PeerNode, find_peer, find_self, hub_of
from appliance.sync.outgoing import read_after
from appliance.sync.pace import Pace
from appliance.sync.positions import read_heads, read_people_mark, read_positions
from appliance.sync.scope import streams_for
from appliance.sync.sealed import Head, Sealed, write_sealed
from appliance.sync.shelf import Shelf
from appliance.sync.site import Parts, Talk

# A file for a stick: what does not fit goes with the next one.
BYTES_MAX = 512 << 20
_CUTS_MAX = 10_000
_KEEP = Statement(
    "INSERT INTO carrier (tenant_id, peer, hello, people_rev, taken_up) VALUES ($1, $2, $3, $4, $5) "
    "ON CONFLICT (tenant_id, peer) DO UPDATE SET hello = EXCLUDED.hello, at = now(), "
    "people_rev = EXCLUDED.people_rev, taken_up = EXCLUDED.taken_up"
)
_FIND = Statement(
    "SELECT hello, people_rev, taken_up FROM carrier WHERE tenant_id = $1 AND peer = $2"
)
_PEOPLE_REV = Statement("SELECT people_rev FROM hold WHERE tenant_id = $1")
_CUTS = Statement(
    "SELECT stream::text, origin, oseq, ehlc FROM change WHERE tenant_id = $1 "
    "AND origin = ANY($2::bigint[]) AND ehlc < hlc ORDER BY stream, origin, oseq LIMIT $3"
)


@dataclass(frozen=True)
class Cargo:
    """Where bytes of files are, and how many a file may hold of them."""

    shelf: Shelf
    most: int = BYTES_MAX


class Carried(msgspec.Struct, frozen=True):
    """What a file brought: messages taken, and what the other side refused or parked."""

    tenant: UUID
    messages: int
    problems: tuple[str, ...] = ()


async def export_site(
    db: Database, key: NodeKey, tenant: UUID, path: Path, cargo: Cargo | None = None
) -> int:
    """At a site: everything that the hub has not acknowledged, for the hub. Raises Refused."""
    me, hub = await find_self(db), await hub_of(db)
    if me is None or hub is None:
        raise Refused("This node has no hub; `nexus node join` it to one.", code="sync.no_hub")
    head = Head(me.id, me.name, hub.id, tenant, False, _now_ms())
    return await write_sealed(path, head, _say_to_hub(db, tenant, me, hub, cargo), key)


async def _say_to_hub(
    db: Database, tenant: UUID, me: PeerNode, hub: PeerNode, cargo: Cargo | None
) -> AsyncIterator[say.Message]:
    positions = await read_positions(db, tenant, hub.origin)
    cursors = {stream: p.cursor for stream, p in positions.items()}
    kept = Kept(db, tenant, hub)
    await kept.load()
    yield await make_hello(kept, me, cursors)
    (rows,) = await db.read(tenant, (_PEOPLE_REV, (tenant,)))
    rev = int((rows.first() or (b"0",))[0] or 0)
    changes = await people.read_changes(db, tenant) or b""
    bill = await freight.make_bill(db, cargo.shelf) if cargo else freight.Bill()
    packed = say.encode(bill) if cargo else b""
    yield say.Exchange([], [], people_rev=rev, changes=changes, bill=packed)
    left = BYTES_MAX
    for stream, stand in sorted((await read_heads(db, tenant)).items()):
        at = max(positions[stream].acked if stream in positions else 0, stand.floor)
        more = True
        while more and left > 0:
            batch = await read_after(
                db, tenant, stream, at, origins=me.origins, max_bytes=say.ASK_BYTES_MAX
            )
            if batch.frames:
                yield say.Exchange([say.Push(stream, batch.frames)], [], people_rev=rev)
            left -= sum(map(len, batch.frames))
            at, more = batch.upto, batch.more
    if cargo:
        wanted = [(ident, 0) for ident in bill.offers]
        room = min(left, cargo.most)
        async for piece in freight.load(db, cargo.shelf, wanted, room, proved=False):
            yield say.Exchange([], [], people_rev=rev, files=[piece])


async def import_at_hub(
    db: Database, hub: Hub, origin: int, sealed: Sealed, cargo: Cargo | None = None
) -> Carried:
    """At a hub: take what a site made. Raises Refused (by name), Unauthenticated, Malformed."""
    head = sealed.head
    site = await _known_site(db, head)
    assert site.public_key is not None, "a known site has a key"
    sealed.prove(site.public_key)
    found = sealed.messages()
    hello = say.decode(next(found, b""), say.Hello)
    say.agree(hello.protocols)
    problems: list[str] = []
    rev, taken_up, count, bill = 0, b"", 0, b""
    for body in found:
        asked = msgspec.structs.replace(say.decode(body, say.Exchange), down=[])
        bill = bill or asked.bill
        if asked.files:
            count += 1
            continue
        told = await hub.exchange(site, head.tenant, origin, asked)
        rev, taken_up, count = asked.people_rev, taken_up or told.taken_up, count + 1
        problems += [
            f"{r.stream}: {r.problem or 'gap'}" for r in told.receipts if r.problem or r.gap
        ]
    await _keep(db, head.tenant, site, hello, rev, taken_up)
    if bill:
        await freight.keep_bill(db, head.tenant, site.id, say.decode(bill, freight.Bill))
    streams = await streams_for(db, site.id, head.tenant)
    problems += await _unload(db, sealed, say.Exchange, cargo, streams)
    logs.event("sync.file_taken", tenant=head.tenant, node=site.id, count=count)
    return Carried(head.tenant, count, tuple(problems))


async def _unload(
    db: Database, sealed: Sealed, shape: type[say.Exchange | say.Exchanged],
    cargo: Cargo | None, streams: Collection[UUID] | None = None,
) -> list[str]:  # fmt: skip
    """Take the files in, after the records that speak of them; what is wrong with single ones."""
    problems: list[str] = []
    messages = sealed.messages()
    next(messages, None)
    for body in messages:
        pieces = say.decode(body, shape).files
        if pieces and cargo is None:
            return ["the bytes of files: this node's content plane is away; take it once more"]
        if pieces and cargo:
            problems += await freight.unload(db, cargo.shelf, pieces, streams)
    return problems


async def _known_site(db: Database, head: Head) -> PeerNode:
    """The site that made a file, if it may still speak of the tenant. Raises Refused, Forbidden."""
    me, site = await find_self(db), await find_peer(db, head.node, head.tenant)
    if me is None or head.peer != me.id or head.from_hub:
        raise Refused(f"The file of {head.name[:60]} is for another node.", code="carrier.not_ours")
    if site is None or site.public_key is None:
        raise Refused(
            f"There is no node {head.name[:60]} ({head.node}) here.", code="carrier.unknown"
        )
    if site.state != "active":
        raise Forbidden(
            f"Node {site.name} was revoked; its file is not taken.", code="node.revoked"
        )
    if site.scope_state != "active":
        raise Forbidden(
            f"Node {site.name} does not hold tenant {head.tenant}.", code="carrier.tenant"
        )
    return site


async def _keep(
    db: Database, tenant: UUID, site: PeerNode, hello: say.Hello, rev: int, taken_up: bytes
) -> None:
    """Remember what the site said last: an older file does not undo a newer one."""
    known = await _last_said(db, tenant, site.id)
    if known is not None and _weight(known[0]) > _weight(hello):
        return
    async with db.transaction(tenant) as tx:
        call = (tenant, site.id, say.encode(hello), rev, taken_up)
        await tx.run((_KEEP, call), commit=True)


async def _last_said(db: Database, tenant: UUID, site: UUID) -> tuple[say.Hello, int, bytes] | None:
    (rows,) = await db.read(tenant, (_FIND, (tenant, site)))
    row = rows.first()
    if row is None:
        return None
    return say.decode(bytea_of(row[0]), say.Hello), int(row[1] or 0), bytea_of(row[2])


def _weight(hello: say.Hello) -> int:
    """Both what a site made and what it took only grow."""
    made = sum(oseq for tips in hello.made.values() for oseq, _ in tips.values())
    return made + sum(hello.cursors.values())


async def export_hub(
    db: Database, hub: Hub, key: NodeKey, site: PeerNode, path: Path, cargo: Cargo | None = None
) -> int:
    """At a hub: everything that a site lacks, by what it said last. Raises Refused."""
    tenant = site.tenant
    assert tenant is not None, "a site is asked for by its tenant"
    me, said = await find_self(db), await _last_said(db, tenant, site.id)
    if me is None or said is None:
        raise Refused(
            f"Node {site.name} has sent no file yet: take one of its files first, it says what the "
            "node has.", code="carrier.no_hello",
        )  # fmt: skip
    found = await find_peer(db, site.id, tenant)
    if found is None or found.state != "active" or found.scope_state != "active":
        raise Forbidden(f"Node {site.name} may have nothing of this tenant.", code="node.revoked")
    head = Head(me.id, me.name, found.id, tenant, True, _now_ms())
    return await write_sealed(path, head, _say_to_site(db, hub, found, said, cargo), key)


async def _say_to_site(
    db: Database, hub: Hub, site: PeerNode, said: tuple[say.Hello, int, bytes],
    cargo: Cargo | None,
) -> AsyncIterator[say.Message]:  # fmt: skip
    hello, rev, taken_up = said
    tenant = site.tenant
    assert tenant is not None, "it was found by its tenant"
    yield await hub.greet(site, tenant, hello, session=b"", version=__version__)
    grants, heads = await streams_for(db, site.id, tenant), await read_heads(db, tenant)
    marked = await read_people_mark(db, tenant)
    standing, hints = standing_of(grants, heads, marked), {
        s: heads[s].head for s in grants if s in heads
    }  # fmt: skip
    slice_ = await people.read_people(db, tenant, site.id, rev) or b""

    def answer(down: list[say.Delivery], **more: Any) -> say.Exchanged:
        return say.Exchanged(
            more.pop("receipts", []), down, hints, standing, _now_ms(), epoch=epoch_of(grants),
            **more,
        )  # fmt: skip

    receipts = await _receipts(db, tenant, site)
    order = sorted(grants, key=lambda s: {"schema": 0, "shared": 1}.get(grants[s].name, 2))
    bill = await freight.read_bill(db, tenant, site.id)
    arrived = await freight.find_arrived(db, cargo.shelf, bill.offers) if cargo else []
    first = {"receipts": receipts, "people": slice_, "taken_up": taken_up, "arrived": arrived}
    left = BYTES_MAX
    for stream in order:
        cursor, more = hello.cursors.get(stream, 0), stream in heads
        while more and left > 0:
            giving = Giving(db, site, tenant, grants, heads, hub.signer)
            asked = say.Exchange([], [say.Pull(stream, cursor, grants[stream].epoch)])
            down = await giving.give(asked, say.ASK_BYTES_MAX)
            if giving.notices:
                raise Clash(
                    f"Node {site.name} is behind what the log of {grants[stream].name} still holds: "
                    "it has to speak to the hub over a line once.", code="sync.rebase",
                )  # fmt: skip
            if not down:
                break
            yield answer(down, **first)
            first = {}
            left -= sum(len(frame) for delivery in down for frame in delivery.frames)
            cursor, more = down[0].upto, down[0].more
    if first:
        yield answer([], **first)
    if cargo:
        room = min(left, cargo.most)
        async for piece in freight.load(db, cargo.shelf, bill.wants, room, grants, proved=True):
            yield answer([], files=[piece])


async def _receipts(db: Database, tenant: UUID, site: PeerNode) -> list[say.Receipt]:
    """The clocks of the site's entries that were ahead; what was taken stands in the welcome."""
    (rows,) = await db.read(tenant, (_CUTS, (tenant, sorted(site.origins), _CUTS_MAX)))
    cuts: dict[UUID, list[tuple[int, int, int]]] = {}
    for stream, origin, oseq, ehlc in rows:
        place = (int(origin or 0), int(oseq or 0), int(ehlc or 0))
        cuts.setdefault(UUID((stream or b"").decode()), []).append(place)
    return [say.Receipt(stream, {}, found) for stream, found in cuts.items()]


class _HubInFile:
    """What answers a site's conversation out of a file; what the file does not hold stays unsaid."""

    def __init__(self, sealed: Sealed) -> None:
        self.pace, self.count = Pace(), Counted()
        self._left: Iterator[bytes] = sealed.messages()
        self._welcome = say.decode(next(self._left, b""), say.Welcome)
        self._last: say.Exchanged | None = None
        self.taken = 0

    async def greet(self, hello: say.Hello) -> say.Welcome:
        del hello
        return self._welcome

    async def compare(self, asked: say.Compare) -> say.Compared:
        """Nobody is there to answer: chains are compared when there is a line."""
        return say.Compared([])

    async def exchange(self, asked: say.Exchange) -> say.Exchanged:
        del asked
        body = next(self._left, None)
        if body is not None:
            self._last, self.taken = say.decode(body, say.Exchanged), self.taken + 1
            return self._last
        if self._last is None:
            raise Clash("The file holds no answer.", code="carrier.broken")
        return msgspec.structs.replace(
            self._last, receipts=[], down=[], people=b"", taken_up=b"", notices=[], files=[]
        )

    async def ask(self, *_: object, **__: object) -> Any:
        raise Clash(
            "This has to be fetched from the hub over a line; a file does not hold it.",
            code="carrier.needs_line",
        )

    async def close(self) -> None:
        return None


async def import_at_site(parts: Parts, sealed: Sealed, cargo: Cargo | None = None) -> Carried:
    """At a site: take what the hub gave. Raises Refused (by name), Unauthenticated, Malformed."""
    head, me, hub = sealed.head, parts.me, parts.hub
    if head.peer != me.id or not head.from_hub:
        raise Refused(f"The file of {head.name[:60]} is for another node.", code="carrier.not_ours")
    if head.node != hub.id or hub.public_key is None:
        raise Refused(
            f"{head.name[:60]} ({head.node}) is not the hub of this node.", code="carrier.unknown"
        )
    if all(route.tenant != head.tenant for route in parts.db.routes.all()):
        raise Refused(f"Tenant {head.tenant} is not on this node.", code="carrier.tenant")
    sealed.prove(hub.public_key)
    for attempt in range(2):
        client = _HubInFile(sealed)
        talk = Talk(parts, head.tenant, cast("HubClient", client))
        try:
            await talk.greet()
            while client.taken < len_of(sealed):
                before = client.taken
                await talk.catch_up(anyway=True)
                if client.taken == before:
                    break
        except Begun:
            if attempt:
                raise
            continue
        break
    arrived = [ident for told in _answers(sealed) for ident in told.arrived]
    if arrived:
        await note_at_hub(parts.db, head.tenant, arrived)
    problems = sorted({n.code for n in talk.notices if n.code != say.CLOCK_OFF})
    problems += await _unload(parts.db, sealed, say.Exchanged, cargo)
    logs.event("sync.file_taken", tenant=head.tenant, node=hub.id, count=client.taken)
    return Carried(head.tenant, client.taken, tuple(problems))


def _answers(sealed: Sealed) -> Iterator[say.Exchanged]:
    messages = sealed.messages()
    next(messages, None)
    return (say.decode(body, say.Exchanged) for body in messages)


def len_of(sealed: Sealed) -> int:
    """How many answers a hub's file holds."""
    return sealed.count - 1


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
