"""What can be wrong with stored bytes, each as one error with a sentence for people.

No sentence holds content, a key or a folder of the machine: they may be shown and logged as they
are. Errors of the operating system and of the bucket stay behind them as `__cause__`.
"""

from __future__ import annotations

from uuid import UUID


class StoreFault(Exception):
    """Any fault of the store; the text is the sentence for people."""


class Damaged(StoreFault):
    """Stored bytes are not those that were sealed: flipped, cut, swapped or of another blob."""

    def __init__(self, blob: UUID, chunk: int) -> None:
        self.blob, self.chunk = blob, chunk
        super().__init__(
            f"Chunk {chunk} of blob {blob} is not what was stored. Nothing of it was given out; "
            "restore the blob from a backup or ask for the file again."
        )


class NoSpace(StoreFault):
    """The disk or the bucket takes no more; what was begun is gone, all earlier is untouched."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"There is no room left to store {what}. Nothing of it was kept and nothing else was "
            "touched. Free space or raise the quota, then send it again."
        )


class Missing(StoreFault):
    """Nothing lies at that address, or no such upload is open."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not in the store. It was erased or never finished.")


class PlaceDown(StoreFault):
    """The bucket or the disk did not do what was asked; to be tried again."""

    def __init__(self, doing: str) -> None:
        super().__init__(
            f"The store could not {doing}. See that the disk or the bucket is reachable and that "
            "the plane may use it; the step can then be repeated."
        )


class KeyFault(StoreFault):
    """A key is missing, is open to others, or is not the one that sealed this."""


class TooLarge(StoreFault):
    """More bytes came than may; nothing was kept of the piece that crossed the limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"The file is larger than {limit} bytes, which is the most it may have.")


class WrongOffset(StoreFault):
    """A part does not begin where the durable bytes end."""

    def __init__(self, blob: UUID, expected: int) -> None:
        self.blob, self.expected = blob, expected
        super().__init__(
            f"Upload {blob} holds {expected} bytes. Send the next part from offset {expected}."
        )


class Changed(StoreFault):
    """Bytes came again and were other bytes: the file was edited while it was being sent."""

    def __init__(self, blob: UUID) -> None:
        self.blob = blob
        super().__init__(
            f"The file of upload {blob} changed while it was being sent. Close it in the program "
            "that edits it and start a new upload."
        )


class Spoiled(StoreFault):
    """A part does not match its checksum; no byte of it was kept."""

    def __init__(self, blob: UUID, expected: int) -> None:
        self.blob, self.expected = blob, expected
        super().__init__(
            f"A part of upload {blob} did not arrive as it was sent. Send it again from offset "
            f"{expected}."
        )


class Busy(StoreFault):
    """Another request is writing to this upload."""

    def __init__(self, blob: UUID) -> None:
        self.blob = blob
        super().__init__(f"Upload {blob} is being written by another request. Try again shortly.")


class Incomplete(StoreFault):
    """An upload is asked to finish before all of its bytes are durable."""

    def __init__(self, blob: UUID, held: int, size: int) -> None:
        self.blob, self.held, self.size = blob, held, size
        super().__init__(f"Upload {blob} holds {held} of {size} bytes. Send the rest first.")


class TooManyParts(StoreFault):
    """An upload came in so many small parts that keeping count would cost more than the file."""

    def __init__(self, blob: UUID, limit: int) -> None:
        self.blob, self.limit = blob, limit
        super().__init__(
            f"Upload {blob} came in more than {limit} parts. Start again with parts of 64 KiB or "
            "more."
        )
