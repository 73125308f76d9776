"""SWIFT MT940 and MT942 statements."""

from connectors.systems.mt940.connector import Mt940

CONNECTOR = Mt940()

__all__ = ["CONNECTOR"]
