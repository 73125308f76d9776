"""Categories of a feed: a parent may come after its child, be missing, or close a loop."""

from __future__ import annotations

from typing import Any

from connectors.formats.staging import controls_in
from connectors.formats.xml import LOCAL, XmlFile
from connectors.sdk.contract import Fault, Place, Refused, Value
from connectors.systems.yml.offers import Feed

CATEGORIES_MAX = 200_000


class Categories:
    """Categories are few and stand before offers: they are kept until the first offer."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[str, str, Place, tuple[Fault, ...]]] = {}
        self._staged = 0

    def __contains__(self, id_: object) -> bool:
        return id_ in self.known

    def __bool__(self) -> bool:
        return bool(self.known)

    def take(self, file: XmlFile, element: Any, feed: Feed) -> None:
        """One category; its id, parent and name stand in attributes, or in children (Hotline)."""
        place = file.place_of(element)
        said = {LOCAL[c.tag]: (c.text or "").strip() for c in element}
        id_ = (element.get("id") or said.get("id") or "").strip()
        parent = element.get("parentId") or element.get("parent_id") or said.get("parentId", "")
        name = said.get("name") or (element.text or "").strip()
        feed.records["categories"] += 1
        faults = [] if name else [Fault("missing-name", "a name", id_, place)]
        faults += controls_in(file, {"name": name}, place)
        parent = parent.strip()
        if not feed.is_new(place, "category", id_, (name, parent), faults):
            return
        if id_ in self.known:
            feed.stage(place, "category", id_, {"name": name}, faults)
            return
        if len(self.known) >= CATEGORIES_MAX:
            expected = f"at most {CATEGORIES_MAX} categories"
            raise Refused(Fault("too-large", expected, "more", place))
        self.known[id_] = (name, "" if parent == "0" else parent, place, tuple(faults))

    def stage(self, feed: Feed) -> None:
        """Stage those that wait, now that the first offer is here."""
        if self._staged < len(self.known):
            for id_ in list(self.known)[self._staged :]:
                self._stage_one(feed, id_)
            self._staged = len(self.known)

    def stage_late(self, feed: Feed) -> None:
        """Stage those that came after every offer."""
        self.stage(feed)

    def _stage_one(self, feed: Feed, id_: str) -> None:
        name, parent, place, faults = self.known[id_]
        values: dict[str, Value] = {"name": name} if name else {}
        if parent and parent not in self.known:
            expected = "parents that the feed lists (the root is taken)"
            feed.warn("parent-missing", expected, f"{parent} of {id_}", place)
        elif parent and self._loops(id_):
            expected = "a category above another (the root is taken)"
            feed.warn("category-loop", expected, id_, place)
        elif parent:
            values["parent_id"] = parent
        feed.stage(place, "category", id_, values, list(faults))

    def _loops(self, id_: str) -> bool:
        """Whether the way up from a category comes back to it."""
        met = set()
        above = self.known[id_][1]
        while above and above in self.known and above not in met:
            if above == id_:
                return True
            met.add(above)
            above = self.known[above][1]
        return False
