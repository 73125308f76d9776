"""1C and BAS over their standard OData interface: what talks to a base, and orders to it."""
