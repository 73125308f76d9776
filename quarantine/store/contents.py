"""Equal bytes of one tenant are kept once: pure functions over a row of the ledger.

A content is what lies at one address; blobs refer to it. The caller looks it up by
(tenant, mark), calls a function here, and writes the answer in the same transaction:

    join     a blob came in whole. Fresh → insert the row, commit, `Blobs.settle`, write `settled`.
             Shared → count one more, commit, `Incoming.discard`. Where `Blobs.holds` says that
             the stored bytes are lost, or reading them raised Damaged, call `mend` instead.
    leave    a blob goes. Gone → delete the row (with it the wrapped key: that is the erasure),
             commit, `Blobs.erase`. A crash before that leaves bytes that nobody can read and
             `Blobs.addresses` finds.

(tenant, mark) is unique in the ledger, so of two equal uploads that end together one is fresh and
the other shared. Between tenants nothing is ever shared: a hit would tell that somebody else
holds the file.
"""

from __future__ import annotations

from uuid import UUID

import msgspec

from quarantine.store.incoming import Received
from quarantine.store.places import address_of


class Content(msgspec.Struct, frozen=True):
    """One stored content. `blob` is the one whose bytes were sealed; its id opens the seal.

    While not `settled` the bytes may still lie in `incoming`.
    """

    tenant: UUID
    mark: str
    blob: UUID
    wrapped_key: bytes
    size: int
    references: int
    settled: bool

    @property
    def address(self) -> str:
        """Where it lies once it is settled."""
        return address_of(self.tenant, self.mark, self.blob)


class Joined(msgspec.Struct, frozen=True):
    """The row to write, and whether the blob's own bytes are the ones that stay."""

    content: Content
    fresh: bool


class Left(msgspec.Struct, frozen=True):
    """The row to write; `gone` means: delete it, then erase the object."""

    content: Content
    gone: bool


def join(known: Content | None, received: Received) -> Joined:
    """What a blob that came in whole makes of the content that is known under its mark."""
    if known is None:
        return Joined(_fresh(received, references=1), fresh=True)
    _require_same(known, received)
    more = msgspec.structs.replace(known, references=known.references + 1)
    return Joined(more, fresh=False)


def mend(known: Content, received: Received) -> Joined:
    """The same bytes came again and what is stored of them is damaged or lost: the new ones take
    its place for all blobs that refer to it. After the commit erase the object of `known`.
    """
    _require_same(known, received)
    return Joined(_fresh(received, references=known.references + 1), fresh=True)


def leave(content: Content) -> Left:
    """What remains of a content when one blob that refers to it goes."""
    if content.references < 1:
        raise ValueError("no blob refers to this content")
    less = msgspec.structs.replace(content, references=content.references - 1)
    return Left(less, gone=less.references == 0)


def _fresh(received: Received, *, references: int) -> Content:
    return Content(
        tenant=received.tenant, mark=received.mark, blob=received.blob,
        wrapped_key=received.wrapped_key, size=received.size, references=references, settled=False,
    )  # fmt: skip


def _require_same(known: Content, received: Received) -> None:
    if (known.tenant, known.mark, known.size) != (received.tenant, received.mark, received.size):
        raise ValueError("that content is not the one with the mark of this blob")
