"""What a node is: this program plus a role.

Only `placed(...)` marks and the assembly may look at the role; a lint bans the comparison
anywhere else, so that the same code runs on a laptop, a hub and a branch.
"""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """`solo` mounts everything and is the default for a laptop or a small firm."""

    SOLO = "solo"
    HUB = "hub"
    SITE = "site"


HUB = frozenset({Role.SOLO, Role.HUB})
SITE = frozenset({Role.SOLO, Role.SITE})
EVERYWHERE = frozenset(Role)


def is_mounted(role: Role, placed: frozenset[Role]) -> bool:
    """Whether something placed on `placed` runs on a node of this role."""
    return role in placed
