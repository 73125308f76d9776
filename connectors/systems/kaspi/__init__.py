"""Kaspi: orders and their lines as its JSON:API answers.

Shapes are those that public clients of kaspi.kz/shop/api/v2 agree on (GET orders with
filter[orders][state], GET orders/{id}/entries with `offer` in the attributes of an entry). There is no
sandbox and no public contract: not checked is whether `offer.code` is told for every merchant.
"""

from connectors.systems.kaspi.connector import CONNECTOR

__all__ = ["CONNECTOR"]
