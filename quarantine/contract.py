"""What the node and the content plane say to each other: jobs, verdicts, tickets, and nothing else.

The core imports this module and no other of this package. Every message is signed by its sender
(`quarantine.signing`), because the two planes trust no network between them.

The rule on top of everything: `clean` is proved, never assumed. A report is clean only when every
mandatory engine ran to its end over the very bytes that are stored and found nothing.
"""

from __future__ import annotations

import enum
from datetime import datetime
from uuid import UUID

import msgspec

POLICY_REVISION = 1
"""Raised whenever the checks or their limits change: an older verdict is then asked for again."""


class Verdict(enum.StrEnum):
    """The worst of all findings. Order of `SEVERITY`: rejected, error, suspicious, clean."""

    CLEAN = "clean"
    SUSPICIOUS = "suspicious"
    ERROR = "error"
    REJECTED = "rejected"


SEVERITY = {Verdict.CLEAN: 0, Verdict.SUSPICIOUS: 1, Verdict.ERROR: 2, Verdict.REJECTED: 3}


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a place for files takes, and how far a container is unpacked. Sizes are bytes.

    `extensions` empty means every type that the plane knows. The budgets count real unpacked
    bytes, never what a header claims.
    """

    extensions: tuple[str, ...] = ()
    bytes_max: int = 104_857_600
    entries_max: int = 2_000
    depth_max: int = 3
    entry_bytes_max: int = 67_108_864
    unpacked_bytes_max: int = 268_435_456
    ratio_max: int = 200
    ratio_after_bytes: int = 10_485_760
    seconds_max: float = 20.0
    pixels_max: int = 50_000_000


class Finding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that one engine saw.

    `code` is `word.word`, stable, for programs; `detail` is a sentence for people and holds no
    content of the file; `place` is the path inside containers (`a.zip/b.docx/word/vba.bin`).
    """

    engine: str
    code: str
    verdict: Verdict
    detail: str
    place: str = ""


class EngineRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """That an engine ran to its end over the whole file; what it was, with which signatures."""

    engine: str
    version: str
    signatures: str = ""
    seconds: float = 0.0


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the checks say of one blob. `type` is our own detection, never the sender's word."""

    verdict: Verdict
    sha256: str
    size: int
    type: str
    findings: tuple[Finding, ...] = ()
    engines: tuple[EngineRun, ...] = ()
    policy_revision: int = POLICY_REVISION


class ScanJob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The node's word that a blob may come in (or is to be looked at again) under this policy.

    `name` is the display name, `priority` 0 is a person waiting and 9 a rescan.
    """

    blob: UUID
    tenant: UUID
    name: str
    policy: Policy
    issued_at: datetime
    priority: int = 0


class Judged(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="judged"):
    """The plane's word on one blob."""

    blob: UUID
    tenant: UUID
    report: Report
    judged_at: datetime


class Fetched(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="fetched"):
    """That somebody was sent a file, `bytes_sent` of it; `whole` when all of it was."""

    file: UUID
    tenant: UUID
    person: UUID
    ticket: str
    bytes_sent: int
    whole: bool
    at: datetime


class Notice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the plane tells the node; `serial` grows, and what was taken is acknowledged by it."""

    serial: int
    what: Judged | Fetched


class Action(enum.StrEnum):
    """What the node may ask of the plane."""

    RECEIVE = "receive"
    PARTS = "parts"
    FINISH = "finish"
    SCAN = "scan"
    LOOK = "look"
    READ = "read"
    COPY = "copy"
    RESTORE = "restore"
    PURGE = "purge"
    ERASE = "erase"
    NOTICES = "notices"
    STATUS = "status"


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an order about an upload in parts says: `size` and `sha256` (hex, or empty) of the whole
    where it begins, `offset` and CRC-32 of one part where it goes on. `lasting`: it comes from
    another node, over a link that may be away for days. For a copy: `size` bytes from `offset` on.
    """

    size: int = 0
    sha256: str = ""
    offset: int = 0
    crc32: int | None = None
    lasting: bool = False


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One request of the node, signed; good for a minute. `job` is there to receive and to scan."""

    action: Action
    issued_at: datetime
    blob: UUID | None = None
    tenant: UUID | None = None
    job: ScanJob | None = None
    taken: int = 0
    part: Part | None = None


class Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bytes that are on disk for good."""

    blob: UUID
    sha256: str
    size: int


class Arrived(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many bytes of an upload in parts are on disk, and until when the next ones are waited
    for. One that was finished has all of them, and no end.
    """

    blob: UUID
    offset: int
    size: int
    expires_at: datetime | None = None


class Hitch(enum.StrEnum):
    """Why a part was not taken, for programs; `code` of the refusal."""

    OFFSET = "offset"
    CHANGED = "changed"
    SPOILED = "spoiled"
    BUSY = "busy"
    MISSING = "missing"


class Copied(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What goes before the bytes of a blob that is copied out: the hash and size of its bytes, and
    all that it takes to restore it.
    """

    blob: UUID
    sha256: str
    size: int
    name: str
    policy: Policy


class Restored(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bytes that are on disk again and wait for their scan; `fresh`: the blob was not here."""

    blob: UUID
    sha256: str
    size: int
    fresh: bool


class Erased(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What went with a tenant: its blobs, and the bytes of their contents, each content once."""

    blobs: int
    bytes: int


class Look(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a blob stands: no verdict while it waits, and `why` it does."""

    blob: UUID
    why: str = ""
    verdict: Verdict | None = None
    judged_at: datetime | None = None
    is_current: bool = False
    attempts: int = 0


class Status(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the plane stands. `scanner` is `ready`, `baseline` or `down`, `sentence` is for people.

    `signatures_dated` is the moment of ClamAV's data, None without it.
    """

    scanner: str
    sentence: str
    signatures: str
    held: int
    oldest_held_s: float
    stored: int
    stored_bytes: int
    notices: int
    tallies: dict[str, float] = {}
    signatures_dated: datetime | None = None


class Ticket(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One download: of this file, by this person in this session, once, before `expires_at`.

    `session` is the SHA-256 of the session's token, `session_id` what the node knows it by.
    `reviewed`: a person released a file
    that is not clean; it is never shown inline.
    """

    id: str
    blob: UUID
    tenant: UUID
    file: UUID
    person: UUID
    session: str
    session_id: UUID
    name: str
    type: str
    size: int
    expires_at: datetime
    inline: bool = False
    reviewed: bool = False


TICKET_KEY = "files:ticket:{}"
"""Where a ticket lies in Redis until it is used: signed, for `TICKET_S` seconds."""
TRANSFER_KEY = "files:transfer:{}"
"""Where a running download lies; without it not a byte more is sent."""
LIVE_KEY = "files:live"
"""All of both by id, so that the node can look after them: id -> signed ticket."""
TICKET_S = 30
ORDER_HEADER = "x-nexus-order"
COPY_HEADER = "x-nexus-copy"
ORDER_S = 60.0
UPLOAD_S = 3_600.0
"""An upload in parts to which nothing came for so long is given up by the plane."""
LASTING_S = 30 * 86_400.0
"""The same for one that comes from another node."""
