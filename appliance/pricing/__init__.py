"""Which price holds for whom: chosen in one fixed order, with a trace that says why."""

from appliance.pricing.choice import Choice, NoPrice, Offer, PriceType, Wanted, choose
from appliance.pricing.find import Answer, Asked, find_prices

__all__ = [
    "Answer",
    "Asked",
    "Choice",
    "NoPrice",
    "Offer",
    "PriceType",
    "Wanted",
    "choose",
    "find_prices",
]
