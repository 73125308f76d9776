"""One walk over a document: each element to its reader, each block to the facts and holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from connectors.formats.xml import LOCAL, XmlFile
from connectors.formats.xml_templates import iter_records
from connectors.sdk.contract import Fault, Place, Summary
from connectors.systems.commerceml.classifier import (
    read_categories,
    read_group,
    read_price_types,
    read_property,
    read_units,
    read_warehouses,
)
from connectors.systems.commerceml.documents import read_document
from connectors.systems.commerceml.goods import read_product
from connectors.systems.commerceml.offers import read_offer
from connectors.systems.commerceml.people import read_counterparty
from connectors.systems.commerceml.plans import shapes_of
from connectors.systems.commerceml.stream import Package
from connectors.systems.commerceml.survey import OFFER_RANKS, Part, Rank, facts_of

_Reader = Callable[[XmlFile, Any, Package], None]
_LISTS = frozenset((Rank.CLASSIFIER,))
_WHEN: dict[str, tuple[_Reader, frozenset[Rank]]] = {
    "Группа": (read_group, _LISTS),
    "Категории": (read_categories, _LISTS),
    "Свойство": (read_property, _LISTS),
    "СвойствоНоменклатуры": (read_property, _LISTS),
    "ЕдиницыИзмерения": (read_units, _LISTS),
    "ТипыЦен": (read_price_types, _LISTS),
    "Склады": (read_warehouses, _LISTS),
    "Товар": (read_product, frozenset((Rank.GOODS,))),
    "Предложение": (read_offer, OFFER_RANKS),
    "Контрагент": (read_counterparty, frozenset((Rank.DOCUMENTS,))),
    "Документ": (read_document, frozenset((Rank.DOCUMENTS,))),
}
_WHOLE = ("Документ", "Контрагент", "Категории", "Товар", "Предложение")


def read_part(part: Part, ranks: frozenset[Rank] | None, package: Package) -> Iterator[None]:
    """Stage what the elements of these ranks say; pauses after each element. Raises Refused."""
    file = part.file
    taken = ranks
    if ranks is not None and ranks & OFFER_RANKS and Rank.CLASSIFIER not in part.ranks:
        # Lists of a package of offers; with a classifier before it they were taken with that.
        taken = ranks | _LISTS
    readers = {tag: read for tag, (read, when) in _WHEN.items() if taken is None or taken & when}
    shapes = shapes_of(file, package, frozenset(readers))
    for found in iter_records(file, *readers, whole=_WHOLE, shapes=shapes):
        if found is not None:
            readers[LOCAL[found.tag]](file, found, package)
        yield
    for fault in file.late_warnings:
        package.warn(fault.code, fault.expected, fault.found, fault.place)


def summary_of(package: Package, parts: list[Part], warnings: Iterable[Fault]) -> Summary:
    """What the whole of it shows: counts of records, holds of packages that would remove all."""
    facts = facts_of(parts)
    facts |= {f"{name}_count": str(n) for name, n in sorted(package.records.items())}
    holds = []
    for kind, records in (("catalogue", "goods"), ("offers", "offers")):
        if facts.get(f"{kind}_full") == "yes" and not package.records[records]:
            found = f"a full package of {kind} without any"
            holds.append(Fault("mass-removal", "records in a full package", found, Place()))
    return Summary(
        entities=dict(package.entities),
        holds=tuple(holds),
        warnings=(*warnings, *package.warnings()),
        facts=facts,
    )
