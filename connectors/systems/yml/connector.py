"""The connector: one feed, of the dialect that its root and its first offers show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from connectors.formats.xml import LOCAL, Element, XmlFile
from connectors.sdk.contract import (
    Fault,
    Found,
    Inspection,
    Mapping,
    Place,
    Progress,
    Refused,
    Rows,
    Summary,
)
from connectors.sdk.manifest import read_manifest
from connectors.systems.yml.categories import Categories
from connectors.systems.yml.offers import Feed, read_offer

BLOCK = 1_000
_FORMATS = {"yml_catalog": "yml", "shop": "prom", "price": "hotline", "kaspi_catalog": "kaspi"}
# `shop` and `price` are words of others too.
_SURE = {"yml_catalog": 1.0, "kaspi_catalog": 1.0, "shop": 0.5, "price": 0.5}
_ROOT = re.compile(
    rb"\A(?:[^<]|<\?[^>]*>|<!--.*?-->|<!DOCTYPE[^>]*>)*<(yml_catalog|kaspi_catalog|shop|price)[\s>]"
)
_OLD = timedelta(days=10)


class Feeds:
    """Feeds of every dialect."""

    def open(self, path: Path) -> FeedFile:
        """See sdk.contract.Connector."""
        return FeedFile(path)

    def recognises(self, head: bytes, name: str) -> float:
        """See sdk.contract.Recogniser: by its root."""
        start = head[:8_192].replace(b"\0", b"")
        found = _ROOT.search(start)
        return 0.0 if found is None else _SURE[found[1].decode()]


class FeedFile:
    """One feed. It is always the whole offer of its shop."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = _open(path, "")

    def inspect(self, learned: dict[str, str]) -> Found:
        """See sdk.contract.Source. No column is mapped: the constants are the settings."""
        head = self._file.head
        warnings = list(head.warnings)
        made = _made_at(head.attributes.get("date", ""))
        if made is not None and made < datetime.now(UTC).replace(tzinfo=None) - _OLD:
            found = head.attributes["date"]
            warnings.append(Fault("old-feed", "a feed of the last 10 days", found, Place("", 1)))
        inspection = Inspection(
            _FORMATS[head.root], head.encoding, warnings=tuple(warnings), facts=self._facts()
        )
        return Found(inspection, Mapping(constants=read_manifest("yml").settings))

    def read(self, mapping: Mapping) -> Iterator[Rows | Progress | Summary]:
        """See sdk.contract.Source."""
        file = self._file
        if mapping.encoding != file.head.encoding and mapping.encoding:
            file = _open(self._path, mapping.encoding)
        feed = Feed(_FORMATS[file.head.root], mapping.constants.get("price_type") or "feed")
        categories = Categories()
        yield Progress(0)
        seen = 0
        tags = ("category", "currency", "shop", "offers", "items", "offer", "item")
        for element in file.iter_elements(*tags, whole=("offer", "item")):
            _take(file, element, feed, categories)
            if len(feed.rows) >= BLOCK:
                seen += len(feed.rows)
                yield feed.take()
                yield Progress(seen)
        categories.stage_late(feed)
        _close(file, feed, categories)
        if feed.rows:
            seen += len(feed.rows)
            yield feed.take()
        yield Progress(seen, seen)
        yield self._summary(file, feed)

    def _facts(self) -> dict[str, str]:
        date = self._file.head.attributes.get("date", "")
        return {"full": "yes", **({"made_at": date} if date else {})}

    def _summary(self, file: XmlFile, feed: Feed) -> Summary:
        facts = self._facts() | feed.facts
        facts |= {f"{name}_count": str(n) for name, n in sorted(feed.records.items())}
        holds: tuple[Fault, ...] = ()
        if not feed.records["offers"]:
            fault = Fault("mass-removal", "offers in a feed", "a feed without any", Place())
            holds = (fault,)
        warnings = (*file.warnings, *feed.warnings())
        return Summary(dict(feed.entities), holds=holds, warnings=warnings, facts=facts)


def _take(file: XmlFile, element: Element, feed: Feed, categories: Categories) -> None:
    name = LOCAL[element.tag]
    if name == "category":
        categories.take(file, element, feed)
    elif name == "currency":
        feed.take_currency(element)
    elif name in ("offer", "item"):
        categories.stage(feed)
        read_offer(file, element, feed, categories)
    else:
        feed.blocks.add(name)


def _close(file: XmlFile, feed: Feed, categories: Categories) -> None:
    place = Place("", 1)
    if not feed.records["offers"] and not feed.blocks & {"shop", "offers", "items"}:
        expected = "a shop with offers"
        raise Refused(Fault("missing-shop", expected, f"<{file.head.root}> without", place))
    if not feed.blocks & {"offers", "items"}:
        feed.warn("missing-offers", "a list of offers", "none", place)
    if not feed.records["categories"] and feed.format != "kaspi":
        feed.warn("missing-categories", "a list of categories", "none", place)


def _open(path: Path, encoding: str) -> XmlFile:
    return XmlFile(path, roots=_FORMATS, allow_doctype=True, encoding=encoding)


def _made_at(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found
