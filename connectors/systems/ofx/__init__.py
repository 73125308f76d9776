"""OFX statements, versions 1 and 2."""

from connectors.systems.ofx.connector import Ofx

CONNECTOR = Ofx()

__all__ = ["CONNECTOR"]
