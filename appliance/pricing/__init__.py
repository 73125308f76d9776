"""Which price holds for whom: chosen in one fixed order, with a trace that says why."""

from appliance.pricing.choice import Choice, NoPrice, Offer, PriceType, Wanted, choose
from appliance.pricing.find import Answer, Asked, Shelved, Shown, find_prices, find_shown

__all__ = [
    "Answer",
    "Asked",
    "Choice",
    "NoPrice",
    "Offer",
    "PriceType",
    "Shelved",
    "Shown",
    "Wanted",
    "choose",
    "find_prices",
    "find_shown",
]
