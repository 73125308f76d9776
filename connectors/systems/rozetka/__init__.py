"""Rozetka: orders as the Seller API answers.

Shapes are those of the published documentation of api-seller.rozetka.com.ua (GET orders/search with
its examples; state of 2025). Not checked: what numbers beyond 1 and 5 stand for among statuses, so
that their group decides (1 in work, 2 done, 3 failed); how a time of day in a filter is read.
"""

from connectors.systems.rozetka.connector import CONNECTOR

__all__ = ["CONNECTOR"]
