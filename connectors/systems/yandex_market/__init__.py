"""Yandex Market: orders, and the seller's own offers, prices and stocks, as the Partner API answers.

Shapes are those of the published reference of api.partner.market.yandex.ru (GET
v2/campaigns/{id}/orders, POST v2/businesses/{id}/offer-prices and offer-mappings, POST
v2/campaigns/{id}/offers/stocks; state of September 2025). Not checked: the newer list of orders of a
whole business (v1/businesses/{id}/orders), which is not used here.
"""

from connectors.systems.yandex_market.connector import CONNECTOR

__all__ = ["CONNECTOR"]
