"""Product feeds: Yandex Market YML and what Rozetka, Prom, Hotline and Kaspi made of it."""

from connectors.systems.yml.connector import Feeds

CONNECTOR = Feeds()

__all__ = ["CONNECTOR"]
