"""ISO 20022 account reports, statements and notifications."""

from connectors.systems.camt.connector import Camt

CONNECTOR = Camt()

__all__ = ["CONNECTOR"]
