"""Tables of internet banks: one reader, a profile per layout."""

from connectors.systems.bank_csv.connector import BankCsv

CONNECTOR = BankCsv()

__all__ = ["CONNECTOR"]
