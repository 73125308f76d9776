"""Payment orders as 1CClientBankExchange text."""


def write_orders() -> None:
    """Nothing yet."""
