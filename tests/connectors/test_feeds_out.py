"""Feeds out, dialect by dialect: read back by our own reader they are the offers that went in."""

import asyncio

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from connectors.sdk.contract import Refused
from connectors.sdk.feeding import write_feed
from connectors.sdk.feeds import Begin, Category, Counts, Left, Offer, Piece, Shop
from connectors.systems.yml import FEEDS
from tests.connectors.test_yml import read

SHOP = Shop(
    "S & Co", "ТОВ С", "https://s.example", "2026-11-20T10:00:00+02:00", {"UAH": "1", "KZT": "0.09"},
    merchant="M1", store="PP1",
)  # fmt: skip
GROUPS = [
    Category("1", "A"),
    Category("2", "B <b>", "1"),
    Category("1", "again"),
    Category("3", "C", "9"),
]
CURRENCY = {"kaspi": "KZT"}
# What a dialect has no element for.
UNSAID = {
    "rozetka": {"barcodes", "minimum_quantity", "weight"}, "prom": {"minimum_quantity", "weight"},
    "hotline": {"quantity", "group_id", "country", "weight", "minimum_quantity"},
    "kaspi": {
        "old_price", "vendor_code", "barcodes", "pictures", "description", "country", "weight", "group_id",
        "minimum_quantity", "params", "category_id",
    },
    "yml": set(),
}  # fmt: skip


def offer(dialect, n, **more):
    full = {
        "vendor": "V & V", "vendor_code": "C1", "quantity": "3", "pictures": ("https://s.example/1.jpg",),
        "url": f"https://s.example/{n}", "name_ua": f"Чайник {n}", "description_ua": "<p>опис</p>",
    }  # fmt: skip
    return Offer(**{
        "id": f"o{n}", "name": f"Чайник & <{n}>", "price": "10", "currency": CURRENCY.get(dialect, "UAH"),
        "category_id": "2", **full, **more,
    })  # fmt: skip


def write(dialect, offers, shop=SHOP, path=None):
    frames = list(FEEDS[dialect].write(shop, GROUPS, offers))
    data = b"".join(f.data for f in frames if isinstance(f, Piece))
    counts = frames[-1]
    assert isinstance(counts, Counts) and counts.bytes == len(data)
    assert counts.left == sum(isinstance(f, Left) for f in frames)
    if path is not None:
        path.write_bytes(data)
    return data, counts, {f.id: [x.code for x in f.faults] for f in frames if isinstance(f, Left)}


def back(path):
    """Offers as our reader sees them."""
    rows, summary = read(path)
    assert not [f for r in rows for f in r.faults] and not summary.holds
    prices = {r.values["product_id"]: r.values for r in rows if r.entity == "price"}
    stock = {r.values["product_id"]: r.values["quantity"] for r in rows if r.entity == "stock"}
    found = []
    for row in (r for r in rows if r.entity == "product"):
        v, price = row.values, prices[row.key]
        properties = msgspec.json.decode(str(v.get("properties", "{}")))
        found.append({
            "id": row.key, "name": v["name"], "price": price["amount"], "currency": price["currency"],
            "old_price": price.get("old_amount", ""), "category_id": v.get("category_id", ""),
            "minimum_quantity": price.get("minimum_quantity", ""), "is_available": v["is_available"],
            "quantity": stock.get(row.key, ""), "vendor": v.get("brand", ""),
            "vendor_code": v.get("sku", v.get("code", "")), "country": v.get("country", ""),
            "barcodes": tuple(filter(None, str(v.get("barcodes", v.get("barcode", ""))).split("\n"))),
            "pictures": tuple(filter(None, str(v.get("images", "")).split("\n"))),
            "description": v.get("description", ""), "weight": v.get("weight", ""),
            "group_id": v.get("group_id", ""),
            "params": {k: t for k, t in properties.items() if k in ("Колір", "Розмір")},
        })  # fmt: skip
    return found, summary


@pytest.mark.parametrize("dialect", FEEDS)
def test_what_goes_out_is_read_back_equal(dialect, tmp_path):
    full = offer(
        dialect, 1, old_price="12", barcodes=("46",), description="<p>текст</p>", country="UA",
        weight="1.5", minimum_quantity="2", group_id="g", params={"Колір": "білий"}, is_available=False,
    )  # fmt: skip
    several = offer(
        dialect, 2, quantity="0", pictures=("https://s.example/2.jpg", "https://s.example/3.jpg")
    )
    path = tmp_path / "feed.xml"
    _, counts, left = write(dialect, [full, several], path=path)
    assert (counts.offers, left) == (2, {})
    found, summary = back(path)
    for given_, got in zip([full, several], found, strict=True):
        wanted = {k: v for k, v in msgspec.structs.asdict(given_).items() if k in got}
        wanted |= {k: type(v)() for k, v in wanted.items() if k in UNSAID[dialect]}
        assert got == wanted
    assert not [w for w in summary.warnings if w.code != "old-feed"]
    assert summary.entities.get("category", 0) == (0 if dialect == "kaspi" else 3)


CASES = [
    ("yml", {"name": "x" * 151}, "too-long"), ("yml", {"category_id": "7"}, "unknown-category"),
    ("yml", {"price": "0"}, "number-malformed"), ("yml", {"old_price": "1"}, "old-price"),
    ("yml", {"sales_notes": "n" * 51}, "too-long"), ("yml", {"id": "i" * 81}, "too-long"),
    ("rozetka", {"quantity": ""}, "missing"), ("rozetka", {"pictures": ()}, "missing"),
    ("rozetka", {"vendor": " "}, "missing"), ("rozetka", {"name_ua": ""}, "missing"),
    ("rozetka", {"description_ua": ""}, "missing"), ("rozetka", {"state": "good"}, "state"),
    ("rozetka", {"name": "a\x07b"}, "unprintable"), ("rozetka", {"currency": "KZT"}, "unknown-currency"),
    ("prom", {"pictures": ("p",) * 11}, "too-many"), ("prom", {"currency": "USD"}, "unknown-currency"),
    ("hotline", {"vendor": ""}, "missing"), ("hotline", {"url": ""}, "missing"),
    ("kaspi", {"price": "10.50"}, "number-malformed"), ("kaspi", {"id": "s" * 21}, "too-long"),
    ("kaspi", {"vendor": ""}, "missing"), ("kaspi", {"currency": "UAH"}, "unknown-currency"),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "change", "code"), CASES)
def test_who_lacks_something_stays_out_and_the_others_go(dialect, change, code):
    bad = offer(dialect, 1, **change)
    _, counts, left = write(dialect, [bad, offer(dialect, 2), offer(dialect, 2)])
    assert counts.offers == 1 and left == {bad.id: [code], "o2": ["duplicate-id"]}


@pytest.mark.parametrize(
    ("dialect", "field"), [("kaspi", "store"), ("kaspi", "merchant"), ("hotline", "merchant")]
)
def test_a_shop_that_lacks_its_id_has_no_feed(dialect, field):
    with pytest.raises(Refused, match="missing"):
        write(dialect, [], msgspec.structs.replace(SHOP, **{field: ""}))


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(FEEDS)), st.text(max_size=120), st.text(max_size=200))
def test_any_text_is_a_file_that_can_be_read(dialect, name, text):
    data, counts, _ = write(
        dialect, [offer(dialect, 1, name=f"n{name}", description=text, vendor=f"v{text}")]
    )
    tree = etree.fromstring(data)
    assert len(tree.findall(".//{*}offer") + tree.findall(".//{*}item")) == counts.offers


def test_a_child_writes_the_same_and_half_of_the_offers_is_no_feed():
    offers = [offer("yml", n) for n in range(1_000)] + [offer("yml", 3, price="-1")]

    async def blocks(fails=False):
        for start in range(0, len(offers), 300):
            yield offers[start : start + 300]
            if fails:
                raise KeyError("gone")

    async def whole(begin, **how):
        return [frame async for frame in write_feed(begin, blocks(**how))]

    begin = Begin("yml", SHOP, GROUPS)
    frames = asyncio.run(whole(begin))
    assert b"".join(f.data for f in frames if isinstance(f, Piece)) == write("yml", offers)[0]
    assert (frames[-1].offers, frames[-1].left) == (1_000, 1)
    with pytest.raises(KeyError):
        asyncio.run(whole(begin, fails=True))
    with pytest.raises(Refused, match="missing"):
        asyncio.run(whole(Begin("kaspi", msgspec.structs.replace(SHOP, store=""), [])))
