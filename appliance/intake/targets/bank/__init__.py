"""Statements of banks: lines land once, balances prove that all of them are there."""

from appliance.intake.targets.bank.target import Bank

__all__ = ["Bank"]
