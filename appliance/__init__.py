"""Nexus: a CRM and business platform that runs as an appliance."""

__version__ = "0.1.0"
