"""1CClientBankExchange: statements in, payment orders out."""

from connectors.systems.client_bank.connector import ClientBank
from connectors.systems.client_bank.orders import write_orders

CONNECTOR = ClientBank()

__all__ = ["CONNECTOR", "write_orders"]
