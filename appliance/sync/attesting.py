"""What a hub signs for that it had: of each stream the entry at which a site was told it stands.

A site keeps the newest such word by stream. Where the hub turns out to lack the entry, or to be in
an earlier epoch than its own word says, it was put back from a backup: its own signature proves it,
so nobody has to believe a site. The word holds in its epoch alone; once another has begun, it has
been heeded.

Promises: only what stood in the log is signed for; nothing is kept that the hub's key did not
sign; what is kept only ever gets newer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from uuid import UUID

import msgspec

from appliance.base import logs
from appliance.base.errors import Malformed
from appliance.db.columns import Column
from appliance.db.database import Database
from appliance.db.values import bytea_of, text_of
from appliance.db.wire import Statement
from appliance.sync import messages as say
from appliance.sync.incarnation import hub_went_back, read_era
from appliance.sync.keys import NodeKey, is_signed
from appliance.sync.nodes import PeerNode, find_self, read_rotations

Signer = Callable[[], NodeKey]
# As many words as one site may show at once.
SHOWN_MAX = 64
_PURPOSE = b"nexus-stream-head-v1\0"
_AT = Statement(
    "SELECT u.s::text, c.seq, c.origin, c.oseq, c.hash FROM unnest($2::uuid[], $3::bigint[]) "
    "AS u(s, upto) JOIN LATERAL (SELECT seq, origin, oseq, hash FROM change WHERE tenant_id = $1 "
    "AND stream = u.s AND seq <= u.upto ORDER BY seq DESC LIMIT 1) c ON true"
)
_KEPT = Statement(
    "SELECT stream::text, attested FROM peer_stream WHERE tenant_id = $1 AND peer = $2 "
    "AND attested IS NOT NULL"
)
_KEEP = Statement(
    "INSERT INTO peer_stream AS p (tenant_id, peer, stream, attested) SELECT $1, $2, s, a "
    "FROM unnest($3::uuid[], $4::bytea[]) AS u(s, a) ON CONFLICT (tenant_id, peer, stream) "
    "DO UPDATE SET attested = EXCLUDED.attested"
)


class Head(say.Message, frozen=True):
    """The entry at `seq` of the hub's order of a stream, in the hub's epoch (`number` counts them);
    `issued` is the last origin that it had given out.
    """

    tenant: UUID
    stream: UUID
    epoch: UUID
    number: int
    issued: int
    seq: int
    origin: int
    oseq: int
    hash: bytes


class Word(say.Message, frozen=True):
    """A packed Head with its signature."""

    head: bytes
    signature: bytes


async def attest(
    db: Database, signer: Signer, tenant: UUID, upto: Mapping[UUID, int]
) -> dict[UUID, bytes]:
    """At the hub: a signed word on the entry at, or next before, each place of its order."""
    if not upto:
        return {}
    era = await read_era(db)
    (rows,) = await db.read(tenant, (_AT, (tenant, list(upto), list(upto.values()))))
    key, found = signer(), dict[UUID, bytes]()
    for stream, seq, origin, oseq, digest in rows:
        ident = UUID(text_of(stream))
        head = say.encode(
            Head(tenant, ident, era.id, era.number, era.issued, int(seq or 0), int(origin or 0),
                 int(oseq or 0), bytea_of(digest))
        )  # fmt: skip
        found[ident] = say.encode(Word(head, key.sign(_PURPOSE + head)))
    return found


async def find_loss(
    db: Database, signer: Signer, tenant: UUID, shown: Sequence[bytes]
) -> Head | None:
    """At the hub: of what a site shows, a word of its own that it does not keep; None otherwise."""
    if not shown:
        return None
    era, keys = await read_era(db), await _own_keys(db, signer)
    heads = [h for word in shown[:SHOWN_MAX] if (h := read_word(word, keys)) and h.tenant == tenant]
    later = [head for head in heads if head.number > era.number]
    if later:
        return max(later, key=lambda head: (head.number, head.issued))
    # Of one and the same epoch; what another life of this hub began instead has been heeded.
    same = {h.stream: h for h in heads if (h.number, h.epoch) == (era.number, era.id)}
    tips = {s: (h.seq, h.origin, h.oseq, h.hash) for s, h in same.items()}
    lost = await hub_went_back(db, tenant, tips)
    return same[lost[0]] if lost else None


def read_word(word: bytes, keys: Collection[bytes]) -> Head | None:
    """What a word says; None when none of these keys has signed it."""
    try:
        found = say.decode(word, Word)
        signed = _PURPOSE + found.head
        if not any(is_signed(key, found.signature, signed) for key in keys):
            return None
        return say.decode(found.head, Head)
    except Malformed:
        return None


async def _own_keys(db: Database, signer: Signer) -> set[bytes]:
    """The public keys this node ever had."""
    me = await find_self(db)
    rotations = await read_rotations(db, me.id) if me is not None else []
    return {signer().public} | {key for r in rotations for key in (r.old_key, r.new_key)}


class Kept:
    """At a site: the newest words of its hub about one tenant."""

    def __init__(self, db: Database, tenant: UUID, hub: PeerNode) -> None:
        self.db, self.tenant, self.hub = db, tenant, hub
        self._keys = {hub.public_key} if hub.public_key else set()
        self._words: dict[UUID, tuple[Head, bytes]] = {}

    async def load(self) -> None:
        """Read them."""
        (rows,) = await self.db.read(self.tenant, (_KEPT, (self.tenant, self.hub.origin)))
        for stream, raw in rows:
            word = bytea_of(raw)
            head = msgspec.msgpack.decode(say.decode(word, Word).head, type=Head)
            self._words[UUID(text_of(stream))] = (head, word)

    def find_lacking(self, epoch: UUID, streams: Collection[UUID]) -> list[UUID]:
        """Streams on which the hub has said nothing in this epoch."""
        return sorted(
            s for s in streams if s not in self._words or self._words[s][0].epoch != epoch
        )

    def find_proof(self, welcome: say.Welcome) -> list[bytes]:
        """What speaks against a hub's answer: that it has less than it signed for."""
        here = {g.stream: g.head for g in welcome.streams}
        found = []
        for stream, (head, word) in self._words.items():
            is_same = head.epoch == welcome.hub_epoch
            if (
                head.number > welcome.epoch_number > 0
                or stream in welcome.doubted
                or (is_same and stream in here and here[stream] < head.seq)
            ):
                found.append(word)
        return found[:SHOWN_MAX]

    async def keep(self, words: Sequence[bytes]) -> None:
        """Keep what is newer than what is there, and signed."""
        fresh: dict[UUID, bytes] = {}
        for word in words:
            head = read_word(word, self._keys)
            if head is None or head.tenant != self.tenant:
                logs.event("sync.word_unsigned", level="warning", tenant=self.tenant)
                continue
            known = self._words.get(head.stream)
            if known is None or (known[0].number, known[0].seq) < (head.number, head.seq):
                self._words[head.stream] = (head, word)
                fresh[head.stream] = word
        if fresh:
            call = (self.tenant, self.hub.origin, list(fresh), Column("bytea", [*fresh.values()]))
            async with self.db.transaction(self.tenant) as tx:
                await tx.run((_KEEP, call), commit=True)
