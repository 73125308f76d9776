"""1C and BAS over their standard OData interface: captured answers, as goods and orders."""

from connectors.systems.onec_odata.connector import OneCOData

CONNECTOR = OneCOData()

__all__ = ["CONNECTOR"]
