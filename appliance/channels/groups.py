"""Which category an offer goes under: the channel's own where it is mapped, else ours by a number.

Feeds want numbers as ids and ours are UUIDs: a number of 56 bits is derived from each, which stays
the same for ever and on every node.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

from appliance.base import limits
from appliance.channels.channel import Channel
from appliance.channels.look import Row, look_all, look_words
from appliance.db.database import Database
from appliance.db.values import text_of
from appliance.kernel.context import Ctx
from connectors.sdk.feeds import Category

_NAMES = ("name", "parent")


class Groups:
    """The catalogue's sections as one channel knows them."""

    def __init__(self, channel: Channel, sections: list[Row]) -> None:
        self._mapped = channel.categories
        self._sections = {row["id"]: row for row in sections}
        # Categories that are words of products, as far as they were met.
        self._words: dict[str, str] = {}

    def of(self, section: str, word: str, own: str) -> tuple[str, str]:
        """Id and name of a product's category: `own` is said for the item itself."""
        row = self._sections.get(section)
        name = row["name"] if row else word.strip()
        if own:
            self._words.setdefault(own, name or own)
            return own, name
        mapped = self._mapped.get(section) or self._mapped.get(name.casefold())
        if mapped:
            return mapped, name
        if row:
            return derived(section), name
        if not name:
            return "", ""
        found = derived(name.casefold())
        self._words.setdefault(found, name)
        return found, name

    def listed(self) -> Iterator[Category]:
        """All sections, and the words that were met so far; an id may come twice."""
        for ident, row in self._sections.items():
            mapped = self._mapped.get(ident) or self._mapped.get(row["name"].casefold())
            if mapped:
                yield Category(mapped, row["name"])
                continue
            parent = row["parent"] if row["parent"] in self._sections else ""
            yield Category(derived(ident), row["name"], self._parent(parent))
        for name, mapped in self._mapped.items():
            if name not in self._sections:
                yield Category(mapped, name)
        for ident, name in self._words.items():
            yield Category(ident, name)

    def _parent(self, section: str) -> str:
        if not section:
            return ""
        name = self._sections[section]["name"].casefold()
        return self._mapped.get(section) or self._mapped.get(name) or derived(section)


async def read_groups(
    db: Database, ctx: Ctx, channel: Channel, *, is_whole: bool = False
) -> Groups:
    """The sections that the reader sees; `is_whole`: and every word that any product or item has,
    for a file whose categories stand before its offers.
    """
    look = look_all(ctx, "product_category", _NAMES)
    rows = look.read((await db.read(ctx.tenant, look.call))[0]) if look else []
    found = Groups(channel, rows)
    if is_whole:
        for kind in ("product", "channel_item"):
            call = look_words(ctx, kind, "category")
            if call is None:
                continue
            (words,) = await db.read(ctx.tenant, call, timeout_ms=limits.EXPORT_TIMEOUT_MS)
            for word in filter(None, map(text_of, words.column())):
                own = word if kind == "channel_item" else ""
                found.of("", word, own)
    return found


def derived(text: str) -> str:
    """A number that stands for an id, at most 17 digits."""
    spread = blake2b(text.encode(), digest_size=7, person=b"channel category")
    return str(int.from_bytes(spread.digest()))
