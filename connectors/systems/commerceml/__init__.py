"""CommerceML 2.x and 3.x: catalogues, offers, prices, stock, orders of 1C and BAS."""

from connectors.systems.commerceml.connector import CommerceML

CONNECTOR = CommerceML()

__all__ = ["CONNECTOR"]
