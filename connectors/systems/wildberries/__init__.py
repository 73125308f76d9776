"""Wildberries: orders with their statuses, and the seller's cards, prices and stocks.

Shapes are those of the published OpenAPI descriptions of dev.wildberries.ru (api/v3/orders and
orders/status, content/v2/get/cards/list, api/v2/list/goods/filter, api/v3/stocks; state of early
2026, when stocks are told by chrtId). Not checked: orders that the seller delivers (DBS), which have
lists of their own.
"""

from connectors.systems.wildberries.connector import CONNECTOR

__all__ = ["CONNECTOR"]
