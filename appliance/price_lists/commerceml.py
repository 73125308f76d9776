"""A price list as CommerceML 2.08: one package of offers (offers.xml), as 1C and shops read it.

UTF-8 without mark, namespace `urn:1C.ru:commerceml_2`, elements in the order of the schema that
1C publishes. Lengths are those of the schema; amounts are exact, so one of more than two digits
behind the point has them, although the schema counts two. The package says that it holds changes
only: nothing that it lacks is to be taken away at the other end.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from xml.sax.saxutils import escape, quoteattr
from zoneinfo import ZoneInfo

from appliance.kernel.context import Ctx
from appliance.price_lists.offers import Measure, Offer, Offers
from appliance.price_lists.rows import Asked, PriceType, written

NAMESPACE = "urn:1C.ru:commerceml_2"
VERSION = "2.08"
_NAME_MAX = 255
_ID_MAX = 80
# What XML 1.0 cannot hold.
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_OKEI = re.compile("[0-9]{3,4}")
_BARCODE = re.compile("[0-9A-Za-z-]{8,14}")
_END = "</Предложения></ПакетПредложений></КоммерческаяИнформация>\n"


async def write_offers(ctx: Ctx, asked: Asked, found: Offers) -> AsyncIterator[bytes]:
    """The file in pieces, one for each block of offers."""
    yield "".join(_head(ctx, asked, found)).encode()
    async for block in found.blocks:
        if block:
            yield "\n".join("".join(_offer(o, found.types)) for o in block).encode()
    yield _END.encode()


def _head(ctx: Ctx, asked: Asked, found: Offers) -> Iterator[str]:
    zone = ZoneInfo(ctx.tz)
    at = asked.at.astimezone(zone)
    made = ctx.at.astimezone(zone).isoformat(timespec="seconds")
    owner = next((u.name for u in ctx.unit_tree.values() if u.parent is None), "") or ctx.tenant.hex
    branch = ctx.unit_tree[asked.unit].name if asked.unit else ""
    note = f"Цены на {at.isoformat(timespec='seconds')}" + (f", {branch}" if branch else "")
    yield '<?xml version="1.0" encoding="UTF-8"?>\n'
    yield f'<КоммерческаяИнформация xmlns="{NAMESPACE}" ВерсияСхемы="{VERSION}" '
    yield f'ДатаФормирования="{made}"><ПакетПредложений СодержитТолькоИзменения="true">'
    yield element("Ид", f"{ctx.tenant}#") + element("Наименование", "Пакет предложений")
    yield element("ИдКаталога", str(ctx.tenant)) + element("Описание", note)
    yield "<Владелец>" + element("Ид", str(ctx.tenant)) + element("Наименование", owner)
    yield element("ОфициальноеНаименование", owner) + "</Владелец><ТипыЦен>"
    for type_ in found.types:
        yield "<ТипЦены>" + element("Ид", type_.id) + element("Наименование", type_.name)
        yield element("Валюта", type_.currency)
        if type_.tax_included is not None:
            included = "true" if type_.tax_included else "false"
            yield f"<Налог>{element('Наименование', 'НДС')}"
            yield f"{element('УчтеноВСумме', included)}</Налог>"
        yield "</ТипЦены>"
    yield "</ТипыЦен>"
    if found.warehouses:
        yield "<Склады>"
        for place in found.warehouses:
            yield f"<Склад>{element('Ид', place.id)}{element('Наименование', place.name)}</Склад>"
        yield "</Склады>"
    yield "<Предложения>\n"


def _offer(offer: Offer, types: list[PriceType]) -> Iterator[str]:
    yield "<Предложение>" + element("Ид", offer.id, _ID_MAX)
    if _BARCODE.fullmatch(offer.barcode):
        yield element("Штрихкод", offer.barcode)
    if offer.sku:
        yield element("Артикул", offer.sku)
    yield element("Наименование", offer.name) + measure_element(offer.measure)
    # The schema knows one barcode of an offer; the others are values of a requisite.
    if codes := [c for c in offer.barcodes if _BARCODE.fullmatch(c)]:
        yield "<ЗначенияРеквизитов><ЗначениеРеквизита>" + element("Наименование", "Штрихкод")
        yield "".join(element("Значение", code) for code in codes)
        yield "</ЗначениеРеквизита></ЗначенияРеквизитов>"
    yield "<Цены>"
    for type_, price in zip(types, offer.prices, strict=True):
        if price is not None:
            yield _price(type_, *price, offer.measure.name)
    yield "</Цены>"
    if offer.stock:
        yield element("Количество", plain_quantity(sum(offer.stock.values(), Decimal(0))))
        for place, amount in offer.stock.items():
            yield f'<Склад ИдСклада="{place}" КоличествоНаСкладе="{plain_quantity(amount)}"/>'
    yield "</Предложение>"


def measure_element(measure: Measure) -> str:
    """БазоваяЕдиница, with the international code where it is one."""
    code = f' Код="{measure.code}"' if _OKEI.fullmatch(measure.code) else ""
    name = _clean(measure.name, _NAME_MAX)
    short = quoteattr(name)
    return f"<БазоваяЕдиница{code} НаименованиеКраткое={short}>{escape(name)}</БазоваяЕдиница>"


def _price(type_: PriceType, amount: Decimal, currency: str, measure: str) -> str:
    currency = currency or type_.currency
    shown = f"{written(amount)} {currency}" + (f" за {measure}" if measure else "")
    return (
        f"<Цена>{element('Представление', shown)}{element('ИдТипаЦены', type_.id)}"
        f"{element('ЦенаЗаЕдиницу', written(amount))}{element('Валюта', currency)}</Цена>"
    )


def plain_quantity(amount: Decimal) -> str:
    """A quantity without zeros at its end."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") or "0" if "." in text else text


def element(name: str, text: str, most: int = _NAME_MAX) -> str:
    """An element with a text that XML can hold, cut to the length of the schema."""
    return f"<{name}>{escape(_clean(text, most))}</{name}>"


def _clean(text: str, most: int) -> str:
    text = _UNWRITABLE.sub("", text)
    return text if len(text) <= most else text[: most - 1] + "…"
