"""Files that nobody may keep: the SHA-256 deny list of the signed packs.

The list is exact: one changed byte passes it. It is there for the file that was recalled an hour
ago and is sent again by ten more people.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cached_property

from quarantine.contract import Finding, Policy, Verdict
from quarantine.engines.base import Leaf, Unscannable
from quarantine.rules.pack import PackError, SignedPack, ids_of, load_configured


class DeniedEngine:
    """Every file by its digest, against the lists of all packs. Packs are read once, at first use."""

    name = "denied"

    def __init__(self, packs: list[SignedPack] | None = None) -> None:
        self._given = packs

    @cached_property
    def packs(self) -> list[SignedPack]:
        """The packs that count; raises PackError when one does not verify."""
        return load_configured() if self._given is None else self._given

    @property
    def signatures(self) -> str:
        """Which packs: a report names them, and a new one asks for a rescan."""
        return ids_of(self.packs)

    @property
    def version(self) -> str:
        """The answer depends on the packs only."""
        return f"sha256; packs {self.signatures}"

    def wants(self, leaf: Leaf) -> bool:
        """Everything."""
        return True

    def examine(self, leaf: Leaf, policy: Policy) -> Iterable[Finding]:
        """Rejected when the digest is on a list."""
        try:
            packs = self.packs
        except PackError as fault:
            raise Unscannable(str(fault)) from fault
        digest = bytes.fromhex(leaf.sha256) or _digest_of(leaf)
        if any(signed.pack.denies(digest) for signed in packs):
            sentence = "This very file is on the deny list."
            yield Finding(self.name, "denied.hash", Verdict.REJECTED, sentence, leaf.place)


def _digest_of(leaf: Leaf) -> bytes:
    with leaf.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


ENGINE = DeniedEngine()
