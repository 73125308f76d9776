"""What a node holds of a tenant: units, and the fields that are kept from it.

Pure, and the same on both sides: the hub strips and refuses by it, the site refuses by it what
it could not send anyway. A hold is part of the compiled schema, so it is as fresh as that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from uuid import UUID

import msgspec

from appliance.kernel.context import UnitNode
from appliance.kernel.formula import operands
from appliance.kernel.kind import FILLS, Authority, Kind


class Hidden(msgspec.Struct, frozen=True):
    """The fields of a kind that a node does not get, and every register they live in."""

    fids: frozenset[str]
    registers: frozenset[str]


class Mask(msgspec.Struct, frozen=True):
    """What is kept from a node, by kind; `hub_only` are the kinds it does not write.

    `key` is equal for equal masks: frames are cached by it.
    """

    kinds: Mapping[str, Hidden] = {}
    hub_only: frozenset[str] = frozenset()
    key: str = ""


class Hold(msgspec.Struct, frozen=True):
    """What this node holds. `units` None: all of them. `reach` is those units and all below them
    as of the schema's revision; `waiting` are units that leave, or have not wholly come back yet;
    `leaving`: nothing is written here any more.
    """

    epoch: int
    units: frozenset[UUID] | None
    reach: frozenset[UUID]
    mask: Mask
    waiting: frozenset[UUID] = frozenset()
    leaving: bool = False

    def has(self, unit: UUID, tree: Mapping[UUID, UnitNode]) -> bool:
        """Whether a unit's stream is held; `tree` knows of units that came since."""
        if self.units is None or unit in self.reach:
            return True
        for _ in range(len(tree)):
            node = tree.get(unit)
            if node is None or node.parent is None:
                return False
            unit = node.parent
            if unit in self.reach:
                return True
        return False


def make_mask(named: Mapping[str, Iterable[str]], kinds: Mapping[str, Kind]) -> Mask:
    """The mask over what was named by kind (fields by name or id), with all that follows from it."""
    found = {
        key: hide(kinds[key], frozenset(names)) for key, names in named.items() if key in kinds
    }
    found = {key: hidden for key, hidden in found.items() if hidden.fids}
    hub_only = frozenset(k.key for k in kinds.values() if k.authority is Authority.HUB)
    digest = blake2b(digest_size=8)
    for key in sorted(found):
        digest.update(f"{key}:{','.join(sorted(found[key].fids))};".encode())
    return Mask(found, hub_only, digest.hexdigest() if found else "")


def hide(kind: Kind, names: frozenset[str]) -> Hidden:
    """Fields of a kind and what would give them away: computed ones, and what explains them.

    A register is hidden as a whole from writing: half a merge group is not a value.
    """
    fids = {f.fid for f in kind.fields if f.fid in names or f.name in names}
    while True:
        hidden = {f.name for f in kind.fields if f.fid in fids}
        more = {
            f.fid
            for f in kind.fields
            if f.fid not in fids
            and (
                ("formula" in f.options and operands(str(f.options["formula"])) & hidden)
                or f.options.get(FILLS) in hidden
            )
        }
        if not more:
            break
        fids |= more
    return Hidden(frozenset(fids), frozenset(f.register for f in kind.fields if f.fid in fids))
