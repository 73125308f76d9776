"""The open way to a marketplace, as its place says: to ask, or to give prices and stocks."""

from __future__ import annotations

from connectors.markets.kaspi import KaspiPages, KaspiPlace
from connectors.markets.kaspi import open_api as open_kaspi
from connectors.markets.ozon import OzonPages, OzonPlace
from connectors.markets.ozon import open_api as open_ozon
from connectors.markets.ozon_selling import OzonMarket
from connectors.markets.prom import PromMarket, PromPages, PromPlace
from connectors.markets.prom import open_api as open_prom
from connectors.markets.rozetka import Rozetka, RozetkaMarket, RozetkaPages, RozetkaPlace
from connectors.markets.selling import Market
from connectors.markets.wildberries import Wildberries, WildberriesPages, WildberriesPlace
from connectors.markets.wildberries_selling import WildberriesMarket
from connectors.markets.yandex_market import YandexPages, YandexPlace
from connectors.markets.yandex_market import open_api as open_yandex
from connectors.markets.yandex_selling import YandexMarket
from connectors.transports.capture import Pages

SellingPlace = YandexPlace | OzonPlace | WildberriesPlace | RozetkaPlace | PromPlace
MarketPlace = SellingPlace | KaspiPlace


def open_pages(place: MarketPlace, known: dict[str, str]) -> Pages:
    """What one look asks for. Raises sdk.retry.Trouble."""
    match place:
        case YandexPlace():
            return YandexPages(place, known, open_yandex(place))
        case OzonPlace():
            return OzonPages(place, known, open_ozon(place))
        case WildberriesPlace():
            return WildberriesPages(place, known, Wildberries(place))
        case RozetkaPlace():
            return RozetkaPages(place, known, Rozetka(place))
        case PromPlace():
            return PromPages(place, known, open_prom(place))
        case KaspiPlace():
            return KaspiPages(place, known, open_kaspi(place))


def open_market(place: SellingPlace) -> Market:
    """Where prices and stocks go. Raises sdk.retry.Trouble."""
    match place:
        case YandexPlace():
            return YandexMarket(place, open_yandex(place))
        case OzonPlace():
            return OzonMarket(place, open_ozon(place))
        case WildberriesPlace():
            return WildberriesMarket(place, Wildberries(place))
        case RozetkaPlace():
            return RozetkaMarket(Rozetka(place))
        case PromPlace():
            return PromMarket(open_prom(place))


def system_of(place: MarketPlace) -> str:
    """The key of the system, which is also that of its connector."""
    return str(place.__struct_config__.tag)
