"""1CClientBankExchange: statements in, payment orders out."""

from connectors.systems.client_bank.connector import ClientBank
from connectors.systems.client_bank.orders import OrderWriter, write_orders

CONNECTOR = ClientBank()

__all__ = ["CONNECTOR", "OrderWriter", "write_orders"]
