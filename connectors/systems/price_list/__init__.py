"""Price lists of any layout: found, proposed, read."""

from connectors.systems.price_list.connector import PriceList

CONNECTOR = PriceList()

__all__ = ["CONNECTOR"]
