"""Feeds of every dialect, against an independent count; a feed out is read back the same."""

import json
import re
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest
from lxml import etree

from connectors.sdk.contract import Mapping, Refused, Rows, Summary
from connectors.sdk.manifest import faults_of, read_manifest, read_vocabulary
from connectors.systems.yml import CONNECTOR

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "samples" / "yml-feeds"
VOCABULARY = read_vocabulary("goods")
SETTINGS = Mapping(constants=read_manifest("yml").settings)
HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE yml_catalog SYSTEM "shops.dtd">\n'
    '<yml_catalog date="2026-11-20T10:00:00+03:00"><shop><name>S</name>'
    '<currencies><currency id="RUR" rate="1"/></currencies>'
)
TAIL = "</offers></shop></yml_catalog>"
CATEGORIES = '<categories><category id="1">A</category></categories><offers>'


def read(path, mapping=SETTINGS):
    frames = list(CONNECTOR.open(path).read(mapping))
    rows = [r for f in frames if isinstance(f, Rows) for r in f.rows]
    assert isinstance(frames[-1], Summary)
    assert not [found for r in rows for found in faults_of(r, VOCABULARY)]
    return rows, frames[-1]


def read_text(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "feed.xml"
    path.write_bytes(text.encode(encoding))
    return read(path)


def offer(body, id_="1", attributes=""):
    return f'<offer id="{id_}" {attributes}><name>N</name><price>5</price><categoryId>1</categoryId>{body}</offer>'


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the samples are not part of the repository")
@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.xml")), ids=lambda p: p.name)
def test_samples_agree_with_an_independent_count(path):
    text = path.read_text(encoding="utf-8")
    if "<shop>" not in text:
        with pytest.raises(Refused, match="missing-shop"):
            read(path)
        return
    rows, summary = read(path)
    tree = etree.fromstring(re.sub("<!DOCTYPE[^>]*>", "", text).encode())
    expected = {
        "category": len(tree.findall(".//category")), "product": len(tree.findall(".//offer")),
        "price": len(tree.findall(".//offer/price")), "stock": len(tree.findall(".//outlet[@instock]")),
    }  # fmt: skip
    assert {k: n for k, n in expected.items() if n} == summary.entities
    assert Counter(r.entity for r in rows) == summary.entities
    total = sum((Decimal(r.values["amount"]) for r in rows if r.entity == "price"), Decimal(0))
    assert total == sum((Decimal(e.text) for e in tree.findall(".//offer/price")), Decimal(0))
    pictures = [p for r in rows if "images" in r.values for p in r.values["images"].split("\n")]
    assert pictures == [e.text.strip() for e in tree.findall(".//offer/picture")]
    listed = {e.get("id") for e in tree.findall(".//category")}
    orphans = [e for e in tree.findall(".//offer") if e.findtext("categoryId") not in listed]
    assert any(w.code == "unknown-category" for w in summary.warnings) == bool(orphans)
    assert [h.code for h in summary.holds] == ([] if expected["product"] else ["mass-removal"])
    assert not [f for r in rows for f in r.faults]


def test_rows_that_wait_and_what_is_told(tmp_path):
    body = (
        offer("<oldprice>4</oldprice>", "a") + offer("", "b", 'available="false"') + offer("", "b")
        + offer("", "c").replace("<price>5<", "<price>по запросу<") + offer("<count>-1</count>", "d")
        + offer("", "e").replace(">1</categoryId>", ">7</categoryId>") + offer("", "a-copy") * 2
    )  # fmt: skip
    rows, summary = read_text(tmp_path, HEAD + CATEGORIES + body + TAIL)
    faulty = [(r.entity, r.key, [f.code for f in r.faults]) for r in rows if r.faults]
    assert faulty == [
        ("product", "b", ["duplicate-id"]), ("price", "b|feed", ["duplicate-id"]),
        ("price", "c|feed", ["number-malformed"]), ("stock", "d", ["negative-quantity"]),
    ]  # fmt: skip
    assert {w.code for w in summary.warnings} == {
        "old-price", "duplicate-id", "duplicate-collapsed", "unknown-category",
    }  # fmt: skip


def test_categories_without_a_parent_or_in_a_loop(tmp_path):
    categories = (
        '<categories><category id="2" parentId="1">B</category><category id="1">A</category>'
        '<category id="3" parentId="9">C</category><category id="4" parentId="5">D</category>'
        '<category id="5" parentId="4">E</category></categories><offers>'
    )
    rows, summary = read_text(tmp_path, HEAD + categories + offer("") + TAIL)
    parents = {r.key: r.values.get("parent_id") for r in rows if r.entity == "category"}
    assert parents == {"2": "1", "1": None, "3": None, "4": None, "5": None}
    assert {w.code for w in summary.warnings} == {"parent-missing", "category-loop"}


def test_rozetka_in_windows_1251(tmp_path):
    body = (
        "<name_ua>Назва</name_ua><stock_quantity>7</stock_quantity><price_old>9</price_old><article>A1</article>"
        '<param name="Вага" unit="кг">2</param><vendor>V</vendor><currencyId>UAH</currencyId>'
    )
    text = (
        HEAD.replace("UTF-8", "windows-1251") + CATEGORIES + offer(body, "7", 'group_id="g"') + TAIL
    )
    rows, summary = read_text(tmp_path, text, "cp1251")
    _, product, price, stock = rows
    assert product.values["sku"] == "A1" and product.values["group_id"] == "g"
    assert json.loads(product.values["properties"]) == {"name_ua": "Назва", "Вага": "2 кг"}
    assert price.values["old_amount"] == "9" and price.values["currency"] == "UAH"
    assert stock.values == {"product_id": "7", "quantity": "7"} and not summary.warnings


def test_hotline(tmp_path):
    rows, summary = read_text(
        tmp_path,
        "<price><date>2026-11-20 10:00</date><firmName>F</firmName><categories><category><id>1</id>"
        "<name>A</name></category><category><id>2</id><parentId>1</parentId><name>B</name></category>"
        "</categories><items><item><id>5</id><categoryId>2</categoryId><code>X1</code><vendor>V</vendor>"
        "<name>N</name><url>u</url><image>i</image><priceRUAH>10.50</priceRUAH><priceRUSD>0.25</priceRUSD>"
        "<stock>В наявності</stock></item></items></price>",
    )
    assert summary.entities == {"category": 2, "product": 1, "price": 2} and not summary.warnings
    assert (
        rows[1].values == {"name": "B", "parent_id": "1"} and rows[2].values["is_available"] is True
    )
    assert [(r.values["amount"], r.values["currency"]) for r in rows[3:]] == [
        ("10.50", "UAH"),
        ("0.25", "USD"),
    ]


def test_kaspi(tmp_path):
    rows, summary = read_text(
        tmp_path,
        '<kaspi_catalog date="d" xmlns="kaspiShopping"><company>C</company><merchantid>M</merchantid><offers>'
        '<offer sku="S1"><model>Чайник</model><brand>B</brand><availabilities>'
        '<availability available="yes" storeId="PP1" stockCount="4"/><availability available="no" storeId="PP2"/>'
        '</availabilities><cityprices><cityprice cityId="750000000">6418</cityprice></cityprices></offer>'
        "</offers></kaspi_catalog>",
    )
    assert [(r.entity, r.key) for r in rows] == [
        ("product", "S1"), ("price", "S1|city:750000000"), ("stock", "S1|PP1"),
    ]  # fmt: skip
    assert rows[0].values["name"] == "Чайник" and rows[0].values["is_available"] is True
    assert rows[1].values["currency"] == "KZT" and not summary.warnings


def test_prom(tmp_path):
    rows, summary = read_text(
        tmp_path,
        '<shop><catalog><category id="1">A</category></catalog><items><item id="3" selling_type="r" available="true">'
        "<name>N</name><categoryId>1</categoryId><priceuah/><price>7,5</price><currencyId>UAH</currencyId>"
        "<image>i</image><quantity_in_stock>2</quantity_in_stock><vendorCode>C</vendorCode></item></items></shop>",
    )
    assert summary.entities == {"category": 1, "product": 1, "price": 1, "stock": 1}
    assert rows[2].values["amount"] == "7.5" and not summary.warnings


def test_a_feed_that_is_none(tmp_path):
    for text, code in (("<html></html>", "not-this-format"), ("", "not-this-format"),
                       (HEAD + CATEGORIES + offer(""), "truncated"),
                       (HEAD + "<offers>&nbsp;" + TAIL, "undefined-entity")):  # fmt: skip
        with pytest.raises(Refused) as caught:
            read_text(tmp_path, text)
        assert caught.value.fault.code == code
