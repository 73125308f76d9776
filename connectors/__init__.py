"""Connectors: bytes of other systems into staged rows. No database, no import of the node."""
