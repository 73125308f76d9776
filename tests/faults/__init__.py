"""A whole node under load while its parts are killed, and with its disk full."""
