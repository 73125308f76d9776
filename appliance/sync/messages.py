"""What a site and its hub say to each other: MessagePack arrays of the structs below.

Forward compatible: a field is only ever appended, with a default. An older program leaves out what
it does not know and steps over what it does not expect; a field's meaning never changes. What can
not be said that way is a new protocol: each side speaks a range, `agree` takes the highest that
both do, a hub is upgraded first and speaks N-1 for as long as a site of it may be out there.

Every question may be asked twice: it is answered from what the databases hold, so that a lost
answer costs a repetition and nothing else. Bytes are sizes on the wire; times are milliseconds of
the epoch by the clock of whoever says them, and nothing is decided by them.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import TypeVar
from uuid import UUID

import msgspec

from appliance.base.errors import Clash, Malformed

T = TypeVar("T")
MEDIA = "application/vnd.nexus.sync"
# The protocols this program speaks, lowest and highest.
PROTOCOLS = (1, 1)

ASK_BYTES_MIN = 16 * 1024
ASK_BYTES_MAX = 4 * 1024 * 1024
# A question may exceed what it carries by its own framing.
BODY_BYTES_MAX = ASK_BYTES_MAX + 256 * 1024
HOLD_S_MIN, HOLD_S_MAX = 1.0, 55.0
# A clock that is off by less is not worth a word.
CLOCK_OFF_S = 60

# Notices by code. A program that does not know one shows it and goes on.
CLOCK_OFF = "clock.off"
REVOKED = "node.revoked"
# What was said has consequences: it counts only inside the session, where nothing is replayed.
SAY_AGAIN = "hello.again"
WITHDRAWN = "scope.withdrawn"
# The site says that it took what the hub has not, and shows nothing that the hub has signed.
UNPROVED = "hub.loss_unproved"
REBASE = "stream.rebase"
FORKED = "stream.forked"
# A receipt's problem: what was not taken, and why.
NOT_GRANTED = "stream.not_granted"
READ_ONLY = "stream.read_only"
FOREIGN_ORIGIN = "origin.foreign"
BROKEN_FRAME = "frame.broken"


class Message(msgspec.Struct, frozen=True, array_like=True):
    """The base of all: an array on the wire, unknown trailing members are skipped."""


class Notice(Message, frozen=True):
    """Something a person should hear. `value` is the number in it: seconds, a sequence."""

    code: str
    detail: str = ""
    stream: UUID | None = None
    value: int = 0


class Limits(Message, frozen=True):
    """Back-pressure: no question larger than `max_bytes`, none sooner than `min_wait_ms`."""

    max_bytes: int = ASK_BYTES_MAX
    min_wait_ms: int = 0


class Hello(Message, frozen=True):
    """A site opens a conversation about one tenant.

    `made` and `taken` are its tips (sync.incarnation): a hub that has more of what the site made,
    or less of what it gave out, knows which of the two was put back from a backup.
    """

    protocols: tuple[int, int]
    version: str
    clock_ms: int
    made: dict[UUID, dict[int, tuple[int, bytes]]]
    taken: dict[UUID, tuple[int, int, int, bytes]]
    hub_epoch: UUID
    cursors: dict[UUID, int] = {}
    # What a purge left behind, as its proof (sync.purge); empty when there was none.
    proof: bytes = b""
    # The newest entries of the site whose receipts it took, by stream and origin.
    heard: dict[UUID, dict[int, int]] = {}
    # Streams on which the hub has signed for nothing yet in this epoch (sync.attesting); None from
    # a program that knows nothing of it.
    unattested: list[UUID] | None = None
    # Words of the hub that do not fit what it says of itself now.
    shown: list[bytes] = []


class Tenant(Message, frozen=True):
    """What the tenant is called at the hub, and the schema it has there."""

    slug: str
    name: str
    schema_rev: int


class Granted(Message, frozen=True):
    """One stream that this node may have."""

    stream: UUID
    name: str
    mode: str
    epoch: int
    head: int
    floor: int = 0


class Welcome(Message, frozen=True):
    """The hub's answer to Hello. `standing` see `stand_of`."""

    protocol: int
    session: bytes
    version: str
    clock_ms: int
    tenant: Tenant
    streams: list[Granted]
    standing: bytes
    # Of the hub, and of the site as the hub has it from now on.
    hub_epoch: UUID
    hub_origin: int
    origin: int
    incarnation: int
    former: list[int]
    limits: Limits = Limits()
    notices: list[Notice] = []
    # What the node is told of its scope (sync.withdrawal), in MessagePack.
    told: bytes = b""
    # What the hub has of the node's own origins in all streams, also those that have to go; of all
    # origins while it wants back what it lost (`is_lacking`).
    got: dict[UUID, dict[int, int]] = {}
    # Clocks of the site's entries that the hub has cut, and whose receipts were lost.
    cuts: list[tuple[UUID, int, int, int]] = []
    # This hub was put back from a backup: it takes what others made too, from any node that has it.
    is_lacking: bool = False
    # The hub's epochs are counted; 0 from a program that says none of what follows.
    epoch_number: int = 0
    # The hub's signed words on the streams that were asked for.
    attested: list[bytes] = []
    # Streams of which the site says that it took what the hub has not: it may prove it.
    doubted: list[UUID] = []


class Push(Message, frozen=True):
    """Frames of a stream with entries that the node made, in the order it made them."""

    stream: UUID
    frames: list[bytes]


class Pull(Message, frozen=True):
    """Send what comes after `cursor` in the hub's order. `own` also asks for what the node made
    itself: its log has lost it.
    """

    stream: UUID
    cursor: int
    epoch: int
    own: bool = False


class Piece(Message, frozen=True):
    """Bytes of a file from an offset on; only in what is carried by hand (sync.freight)."""

    file: UUID
    offset: int
    data: bytes


class Exchange(Message, frozen=True):
    """Both directions in one question. Streams are served in the order they are named."""

    up: list[Push]
    down: list[Pull]
    max_bytes: int = ASK_BYTES_MAX
    # Sign-ins (sync.people): the revision of the slice the site has, and what it changed itself.
    people_rev: int = 0
    changes: bytes = b""
    # The site has nothing more of what the hub lacks (Welcome.is_lacking).
    has_offered: bool = False
    # Carried by hand: bytes of files, and what the site says of its files.
    files: list[Piece] = []
    bill: bytes = b""


class Parked(Message, frozen=True):
    """A transaction that the hub took and did not apply; it waits for a person there."""

    origin: int
    oseq: int
    reason: str


class Receipt(Message, frozen=True):
    """What the hub has of a pushed stream after its commit. `cuts` are entries whose clock was
    ahead: (origin, oseq, the clock that counts). `gap`: ask again from `got`.
    """

    stream: UUID
    got: dict[int, int]
    cuts: list[tuple[int, int, int]] = []
    parked: list[Parked] = []
    gap: bool = False
    problem: str = ""
    detail: str = ""


class Delivery(Message, frozen=True):
    """Frames after a cursor; the next cursor is `upto` once all of them are taken. `attested` is
    the hub's signed word on the entry there.
    """

    stream: UUID
    frames: list[bytes]
    upto: int
    more: bool
    attested: bytes = b""


class Exchanged(Message, frozen=True):
    """The hub's answer to Exchange. `hints` are the heads of all granted streams, for nothing but
    to know whether another question is worth it. `people` is the slice when it is another than the
    site has; `taken_up` answers `changes`.
    """

    receipts: list[Receipt]
    down: list[Delivery]
    hints: dict[UUID, int]
    standing: bytes
    clock_ms: int
    people: bytes = b""
    taken_up: bytes = b""
    limits: Limits = Limits()
    notices: list[Notice] = []
    # Of the node's scope: when it is another than in Welcome, a new hello tells what changed.
    epoch: int = 0
    # Carried by hand: bytes of files, and those of the site's that have arrived.
    files: list[Piece] = []
    arrived: list[UUID] = []


class Compare(Message, frozen=True):
    """Which of these entries does the hub have: (stream, origin, oseq, chain hash)?"""

    entries: list[tuple[UUID, int, int, bytes]]


class Compared(Message, frozen=True):
    """By (stream, origin) of Compare: the last of the entries that the hub has as well, 0 for none,
    and how far it has that origin.
    """

    met: list[tuple[UUID, int, int, int]]


class Waiting(Message, frozen=True):
    """Answer when the hub's standing is another than `standing`, or when `hold_ms` are over.

    `cursors` are those that moved since the site last named them.
    """

    standing: bytes
    hold_ms: int
    cursors: dict[UUID, int] = {}


class Waited(Message, frozen=True):
    """`standing` as it is now; `is_new` when it is another than the one named. `hints` are the heads
    that moved during the wait, or all of them when it was another from the beginning.
    """

    standing: bytes
    is_new: bool
    hints: dict[UUID, int] = {}


_encoder = msgspec.msgpack.Encoder(uuid_format="bytes")


def encode(message: Message) -> bytes:
    """The bytes of a message."""
    return _encoder.encode(message)


def decode(body: bytes, shape: type[T]) -> T:
    """A message out of bytes from outside. Raises Malformed."""
    try:
        return msgspec.msgpack.decode(body, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError):
        raise Malformed(
            f"The body is no {shape.__name__} in MessagePack as this protocol has it; the two "
            "programs may be of versions that do not understand each other.",
            code="sync.message_unreadable",
        ) from None


def agree(theirs: tuple[int, int], ours: tuple[int, int] = PROTOCOLS) -> int:
    """The highest protocol that both speak. Raises Clash when there is none."""
    found = min(theirs[1], ours[1])
    if found < max(theirs[0], ours[0]):
        behind = "the site" if theirs[1] < ours[0] else "the hub"
        raise Clash(
            f"This hub speaks the protocols {ours[0]} to {ours[1]}, the site {theirs[0]} to "
            f"{theirs[1]}: upgrade {behind}.",
            code="sync.protocol_unknown",
        )
    return found


def stand_of(epoch: int, people: int, streams: Iterable[tuple[UUID, int, int]]) -> bytes:
    """A hub's standing for one node, in 8 bytes: its scope, its people, (stream, epoch, head).

    Two that differ say that something is new; what it is, an exchange tells. A waiting site sends
    this instead of its cursors, so that a quiet hour costs it no traffic by the stream.
    """
    found = sorted((stream.bytes, grant, head) for stream, grant, head in streams)
    packed = _encoder.encode((epoch, people, found))
    return blake2b(packed, digest_size=8).digest()


def behind(floor: int, stream: UUID) -> Notice:
    """That a cursor is below what the hub's log still holds."""
    detail = (
        "The hub's log of this stream begins later: the states of its records are needed first."
    )
    return Notice(REBASE, detail, stream, floor)
