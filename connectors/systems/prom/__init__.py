"""Prom.ua: orders as its API answers.

Shapes are those that public clients of my.prom.ua/api/v1 agree on (GET orders/list: id, date_created,
products with external_id and sku, amounts as texts such as `1 200,50 грн`, statuses pending, received,
delivered, canceled, draft, paid). The reference itself stands behind a sign-in: not checked are the
bounds of `date_from` and what else filters there are.
"""

from connectors.systems.prom.connector import CONNECTOR

__all__ = ["CONNECTOR"]
