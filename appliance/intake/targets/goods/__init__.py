"""Goods of another system: catalogue, prices, stock, counterparties, orders."""

from appliance.intake.targets.goods.target import Goods

__all__ = ["Goods"]
