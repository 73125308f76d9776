"""Which connector an input is for, by its first bytes; for people to choose by, never binding.

A connector that can tell has `recognises(head, name) -> float`: 0 for certainly not, 1 for a mark
that no other format has. One that cannot is never proposed.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from connectors.sdk.contract import Connector, Recogniser
from connectors.sdk.manifest import list_systems

HEAD_BYTES = 65_536


def load_connector(system: str) -> Connector:
    """The connector of a folder."""
    found: Connector = import_module(f"connectors.systems.{system}").CONNECTOR
    return found


def read_head(path: Path) -> bytes:
    """As much of a file as recognisers are shown."""
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def recognise(head: bytes, name: str) -> list[tuple[float, str]]:
    """The connectors that claim an input, the surest first; equally sure ones by their keys."""
    claims = []
    for system in list_systems():
        connector = load_connector(system)
        if isinstance(connector, Recogniser):
            strength = connector.recognises(head, name)
            if strength > 0:
                claims.append((min(strength, 1.0), system))
    return sorted(claims, key=lambda c: (-c[0], c[1]))
