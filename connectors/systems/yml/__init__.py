"""Product feeds: Yandex Market YML and what Rozetka, Prom, Hotline and Kaspi made of it."""

from connectors.sdk.feeds import FeedWriter
from connectors.systems.yml.connector import Feeds
from connectors.systems.yml.dialects import PROM, ROZETKA, YML
from connectors.systems.yml.others import HOTLINE, KASPI

CONNECTOR = Feeds()
# By the names that a node asks for them with.
FEEDS: dict[str, FeedWriter] = {
    "yml": YML, "rozetka": ROZETKA, "prom": PROM, "hotline": HOTLINE, "kaspi": KASPI,
}  # fmt: skip

__all__ = ["CONNECTOR", "FEEDS"]
