"""The states of a file and the arrows between them. Pure: this is the whole of it.

    receiving -> held -> released -> recalled -> purged
                  |  `-> suspicious -> restricted (two reviewers) -> recalled
                  |            `-> rejected -> purged
                  `-> rejected           receiving -> expired

`released` is reached from a clean verdict alone, `restricted` from a review by two alone
(research/security 1.5).
"""

from __future__ import annotations

from enum import StrEnum

from quarantine.contract import Verdict


class FileState(StrEnum):
    """Where a file is. `held` covers waiting, scanning and every fault on the way."""

    RECEIVING = "receiving"
    HELD = "held"
    SUSPICIOUS = "suspicious"
    RELEASED = "released"
    RESTRICTED = "restricted"
    REJECTED = "rejected"
    RECALLED = "recalled"
    EXPIRED = "expired"
    PURGED = "purged"


_S = FileState
ARROWS: dict[FileState, frozenset[FileState]] = {
    _S.RECEIVING: frozenset({_S.HELD, _S.RELEASED, _S.SUSPICIOUS, _S.REJECTED, _S.EXPIRED}),
    _S.HELD: frozenset({_S.RELEASED, _S.SUSPICIOUS, _S.REJECTED}),
    _S.SUSPICIOUS: frozenset({_S.RELEASED, _S.RESTRICTED, _S.REJECTED}),
    _S.RELEASED: frozenset({_S.RECALLED}),
    _S.RESTRICTED: frozenset({_S.RECALLED}),
    _S.RECALLED: frozenset({_S.RESTRICTED, _S.PURGED}),
    _S.REJECTED: frozenset({_S.PURGED}),
    _S.EXPIRED: frozenset({_S.PURGED}),
    _S.PURGED: frozenset(),
}
DOWNLOADABLE = frozenset({_S.RELEASED, _S.RESTRICTED})
RESTING = frozenset(FileState) - {_S.RECEIVING, _S.HELD}
REVIEWABLE = frozenset({_S.SUSPICIOUS, _S.RECALLED})


def after_verdict(state: FileState, verdict: Verdict, *, is_ours: bool = True) -> FileState | None:
    """Where a verdict of this node leads; None when the file stays where it is. `is_ours`: this
    node's own word holds it now. What another node's scanner holds, a clean one here does not free.
    """
    if state is FileState.SUSPICIOUS and verdict is not Verdict.REJECTED and not is_ours:
        return None
    if state in DOWNLOADABLE:
        # What two people let out as suspicious may stay so.
        allowed = state is _S.RESTRICTED and verdict is Verdict.SUSPICIOUS
        return None if verdict is Verdict.CLEAN or allowed else _S.RECALLED
    wanted = {
        Verdict.CLEAN: _S.RELEASED,
        Verdict.SUSPICIOUS: _S.SUSPICIOUS,
        Verdict.REJECTED: _S.REJECTED,
    }.get(verdict)
    return wanted if wanted in ARROWS[state] else None
