"""Which blocks a package brings, before any of it is read: names of files say nothing.

One look over the bytes (a tenth of the time that parsing takes) finds the blocks in their order,
their ids and whether each is full, so that files and blocks of any order are read in one order:
classifier, units, price types, warehouses, goods, offers, prices, rests, documents. Reading a zip
once here proves its sums before a row is staged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import IntEnum

import msgspec
from msgspec.structs import replace

from connectors.formats.xml import XmlFile
from connectors.sdk.contract import Fault, Place, Refused
from connectors.systems.commerceml.words import CHANGES_ONLY, ROOT, is_yes

_WINDOW = 4_096
BLOCKS_MAX = 1_000
_KINDS = {
    "Классификатор": "classifier",
    "Каталог": "catalogue",
    "ПакетПредложений": "offers",
    "ИзмененияПакетаПредложений": "offers",
    "Контрагенты": "counterparties",
    "Документ": "documents",
    "ТипыЦен": "lists",
    "Склады": "lists",
    "ЕдиницыИзмерения": "lists",
}
# One literal start keeps the look fast; blocks with a prefix are read in the order they come.
_BLOCK = re.compile(f"<({'|'.join(_KINDS)})(?=[\\s>/])([^<>]*)>".encode())
_PREFIXED = re.compile(f":(?:{'|'.join(_KINDS)})[\\s>/]".encode())
_ITEM = re.compile("<(?:Предложение|Товар|Группа|Контрагент)[\\s>]".encode())
_ID = re.compile("<Ид(?:\\s[^<>]*)?>([^<]*)</Ид>".encode())
_CATALOGUE = re.compile("<ИдКаталога(?:\\s[^<>]*)?>([^<]*)</ИдКаталога>".encode())
_FLAG = re.compile(f"{CHANGES_ONLY}\\s*=\\s*[\"']([^\"']*)[\"']".encode())
_FLAG_CHILD = re.compile(f"<{CHANGES_ONLY}(?:\\s[^<>]*)?>([^<]*)</".encode())
_VERSION = re.compile(r"2\.\d+|3\.\d+")
_PACKAGE = "ПакетПредложений>".encode()
_NAMED = "<Наименование".encode()
_PRICED = "<Цена".encode()
_STOCKED = ("<Остат".encode(), "<Количество".encode(), "<Склад ".encode())


class Rank(IntEnum):
    """The order that blocks are read in."""

    CLASSIFIER = 0
    GOODS = 1
    OFFERS = 2
    PRICES = 3
    RESTS = 4
    DOCUMENTS = 5


OFFER_RANKS = frozenset((Rank.OFFERS, Rank.PRICES, Rank.RESTS))
_RANKS = {
    "classifier": Rank.CLASSIFIER,
    "lists": Rank.CLASSIFIER,
    "catalogue": Rank.GOODS,
    "counterparties": Rank.DOCUMENTS,
    "documents": Rank.DOCUMENTS,
}


class Block(msgspec.Struct, frozen=True):
    """One block: what it is, when it is read, its id, whether it says that it is full."""

    kind: str
    rank: Rank
    id: str = ""
    is_full: bool = False


class Part(msgspec.Struct, frozen=True):
    """One document of the package and its blocks in their order there (each sort once)."""

    file: XmlFile
    blocks: tuple[Block, ...]

    @property
    def ranks(self) -> list[Rank]:
        """The ranks of its blocks, in its own order."""
        return [b.rank for b in self.blocks]


def look_at(file: XmlFile) -> Part:
    """The blocks of a document. Raises Refused where its bytes end the look."""
    found: list[Block] = []
    for window, start in _windows(file):
        if _PREFIXED.search(window):
            return Part(file, ())
        for match in _BLOCK.finditer(window, 0, start):
            kind = _KINDS[match[1].decode()]
            last = found[-1].kind if found else ""
            inner = kind == "lists" and last not in ("", "lists")
            again = kind == "counterparties" and last == "documents"
            if inner or again or (kind == last and kind in ("documents", "lists")):
                continue
            if len(found) >= BLOCKS_MAX:
                place = Place(file.name, offset=file.read_bytes)
                expected = f"at most {BLOCKS_MAX} blocks"
                raise Refused(Fault("too-large-node", expected, "more", place))
            found.append(_block(kind, match, window[match.end() : match.end() + _WINDOW]))
    # Offers of one document are read in one go.
    offers = [b.rank for b in found if b.rank in OFFER_RANKS]
    if offers:
        lowest = min(offers)
        found = [replace(b, rank=lowest) if b.rank in OFFER_RANKS else b for b in found]
    return Part(file, tuple(found))


def in_order(parts: Iterable[Part]) -> Iterator[tuple[Part, frozenset[Rank] | None]]:
    """Parts with the ranks to take of each now (None: all there is).

    Parts that follow each other in the one order, each in that order itself, are read once; else
    each is read once for every rank that it holds.
    """
    known = sorted(parts, key=lambda p: (min(p.ranks, default=Rank.DOCUMENTS), natural(p)))
    ranks = [rank for part in known for rank in part.ranks]
    if ranks == sorted(ranks):
        yield from ((part, None) for part in known)
        return
    for rank in Rank:
        yield from ((p, frozenset((rank,))) for p in sorted(known, key=natural) if rank in p.ranks)
    yield from ((part, None) for part in known if not part.blocks)


def natural(part: Part) -> tuple[tuple[int, str], ...]:
    """The name of a part for sorting: import2 before import10."""
    pieces = re.split(r"(\d+)", part.file.name)
    return tuple((int(p), "") if p.isdigit() else (-1, p) for p in pieces)


def facts_of(parts: Iterable[Part]) -> dict[str, str]:
    """What the heads say: version, made at, ids of catalogues, and of each block if it is full."""
    facts: dict[str, str] = {}
    ids: list[str] = []
    full: dict[str, bool] = {}
    versions, made = set(), set()
    for part in parts:
        versions.add(part.file.head.attributes.get("ВерсияСхемы", ""))
        made.add(part.file.head.attributes.get("ДатаФормирования", ""))
        for block in part.blocks:
            if block.kind not in ("documents", "lists"):
                full[block.kind] = full.get(block.kind, True) and block.is_full
            if block.id and block.kind in ("catalogue", "offers") and block.id not in ids:
                ids.append(block.id)
    for name, texts in (("version", versions - {""}), ("made_at", made - {""})):
        if texts:
            facts[name] = "\n".join(sorted(texts))
    if ids:
        facts["catalogue_id"] = "\n".join(sorted(ids))
    facts.update({f"{kind}_full": "yes" if yes else "no" for kind, yes in sorted(full.items())})
    return facts


def warnings_of(parts: Iterable[Part]) -> list[Fault]:
    """What the heads show: encodings that lie, versions that nobody knows, parts without blocks."""
    found: list[Fault] = []
    for part in parts:
        found += part.file.head.warnings
        version = part.file.head.attributes.get("ВерсияСхемы", "")
        place = Place(part.file.name)
        if not _VERSION.fullmatch(version):
            found.append(Fault("unknown-version", "CommerceML 2.x or 3.x", version, place))
        if not part.blocks:
            found.append(Fault("no-block", "a block of CommerceML", f"only <{ROOT}>", place))
    return found


def _windows(file: XmlFile) -> Iterator[tuple[bytes, int]]:
    """Bytes, and how many of them a match may start in (the rest comes again)."""
    kept = b""
    for chunk in file.iter_bytes():
        window = kept + chunk
        start = max(0, len(window) - _WINDOW)
        yield window, start
        kept = window[start:]
    yield kept, len(kept)


def _block(kind: str, match: re.Match[bytes], after: bytes) -> Block:
    first = _ITEM.search(after)
    head = after[: first.start()] if first else after
    said = _FLAG.search(match[2]) or _FLAG_CHILD.search(head)
    is_full = said is not None and not is_yes(said[1].decode()) and said[1].strip() != b""
    id_ = (kind == "offers" and _CATALOGUE.search(head)) or _ID.search(head)
    rank = _RANKS.get(kind) if kind != "offers" else _rank_of_offers(after)
    assert rank is not None
    text = id_[1].decode().strip().rstrip("#") if id_ else ""
    return Block(kind, rank, text, is_full)


def _rank_of_offers(after: bytes) -> Rank:
    """Offers with names come before those with prices only, and these before rests; a package of
    lists alone is a classifier.
    """
    offer = after.find("<Предложение".encode())
    if offer < 0:
        return Rank.CLASSIFIER if b"</" + _PACKAGE in after else Rank.OFFERS
    body = after[offer:]
    if _NAMED in body:
        return Rank.OFFERS
    if _PRICED in body:
        return Rank.PRICES
    return Rank.RESTS if any(mark in body for mark in _STOCKED) else Rank.OFFERS
