"""Ozon Seller: postings, and the seller's own prices and stocks, as its API answers.

Shapes are those of the published OpenAPI description of api-seller.ozon.ru (v3/posting/fbs/list,
v5/product/info/prices, v4/product/info/stocks; state of 2025). Not checked: postings of Ozon's own
warehouses (FBO), which have another list.
"""

from connectors.systems.ozon.connector import CONNECTOR

__all__ = ["CONNECTOR"]
