"""CommerceML is read whole and exactly: samples against an independent count, every form of it."""

import asyncio
import json
import zipfile
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest
from lxml import etree

from connectors.sdk import parent
from connectors.sdk.contract import Done, Mapping, Progress, Refused, Rows, Summary
from connectors.sdk.manifest import faults_of, read_manifest, read_vocabulary
from connectors.systems.commerceml import CONNECTOR
from tests.connectors import commerceml_files as made

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "samples" / "commerceml"
VOCABULARY = read_vocabulary("goods")
SETTINGS = Mapping(constants=read_manifest("commerceml").settings)


def read(path, mapping=SETTINGS):
    """The rows and the summary of an input."""
    frames = list(CONNECTOR.open(path).read(mapping))
    rows = [r for f in frames if isinstance(f, Rows) for r in f.rows]
    assert isinstance(frames[0], Progress) and isinstance(frames[-1], Summary)
    return rows, frames[-1]


def read_text(tmp_path, text, mapping=SETTINGS):
    path = tmp_path / "input.xml"
    path.write_text(text, encoding="utf-8")
    return read(path, mapping)


def zipped(path, files, **options):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def offers_of(tmp_path, body, flag='СодержитТолькоИзменения="true"', name="ПакетПредложений"):
    text = made.document(f"<{name} {flag}><Предложения>{body}</Предложения></{name}>")
    return read_text(tmp_path, text)


def same(rows):
    """Rows for comparing, whatever their place and their order."""
    return sorted((r.entity, r.key, str(r.values), str([f.code for f in r.faults])) for r in rows)


def by_entity(rows, entity):
    return [r for r in rows if r.entity == entity]


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the samples are not part of the repository")
@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.xml")), ids=lambda p: p.name)
def test_samples_agree_with_an_independent_count(path):
    rows, summary = read(path)
    tree = etree.fromstring(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))

    def count(path):
        steps = "".join(
            f"//*[local-name()='{p}']" if p.isalpha() else p.replace("'", '"') for p in path.split()
        )
        return tree.xpath(steps)

    def texts(path, *names):
        tests = " or ".join(f"local-name()='{n}'" for n in names)
        found = tree.xpath(f"{path}/*[{tests}]/text()")
        return sum((Decimal(t.strip()) for t in found if t.strip()), Decimal(0))

    def total(entity, name):
        return sum((Decimal(r.values[name]) for r in by_entity(rows, entity)), Decimal(0))

    offer, document = "//*[local-name()='Предложение']", "//*[local-name()='Документ']"
    named = "*[local-name()='{}']"
    lines = f"{document}/{named.format('Товары')}/{named.format('Товар')}"
    by_place = tree.xpath(f"{offer}/{named.format('Склад')}[@ИдСклада]")
    rests = tree.xpath("//*[local-name()='Остаток']")
    totals_only = tree.xpath(
        f"{offer}[{named.format('Количество')}][not({named.format('Склад')}|{named.format('Остатки')})]"
    )
    people = tree.xpath(
        "//*[local-name()='Контрагенты']/*[local-name()='Контрагент']/*[local-name()='Ид']/text()"
    )
    expected = {
        "category": len(count("Группа")) + len(tree.xpath("//*[local-name()='Категории']/*")),
        "product": len(tree.xpath("//*[local-name()='Каталог']/*[local-name()='Товары']/*")),
        "price": len(tree.xpath(f"{offer}//*[local-name()='Цена']")),
        "price_type": len(count("ТипЦены")),
        "stock": len(by_place) + len(rests) + len(totals_only),
        "order": len(tree.xpath(document)),
        "order_line": len(tree.xpath(lines)),
        "counterparty": len(set(people)),
        "unit": len(count("ЕдиницаИзмерения")),
        "warehouse": len(
            tree.xpath("//*[local-name()='ПакетПредложений']/*[local-name()='Склады']/*")
        ),
    }
    if "Предложение" in path.read_bytes().decode("utf-8", "ignore"):
        ids = [t.strip() for t in tree.xpath(f"{offer}/{named.format('Ид')}/text()")]
        described = f"{offer}[{named.format('Наименование')}]/{named.format('Ид')}/text()"
        described = [t.strip() for t in tree.xpath(described)]
        assert summary.facts["offers_count"] == str(len(ids))
        expected["product"] = sum("#" not in i for i in described)
        expected["variant"] = sum("#" in i for i in described)
    assert {k: n for k, n in expected.items() if n} == summary.entities
    assert Counter(r.entity for r in rows) == summary.entities
    assert total("price", "amount") == texts("//*[local-name()='Цена']", "ЦенаЗаЕдиницу")
    assert total("order", "amount") == texts(document, "Сумма")
    assert total("order_line", "amount") == texts(lines, "Сумма")
    stock = sum((Decimal(e.get("КоличествоНаСкладе")) for e in by_place), Decimal(0))
    stock += sum(
        texts(tree.getroottree().getpath(r) + "/descendant-or-self::*", "Количество") for r in rests
    )
    stock += sum(Decimal(e.findtext("{*}Количество")) for e in totals_only)
    assert total("stock", "quantity") == stock
    assert not [f for r in rows for f in r.faults] and not summary.warnings and not summary.holds
    assert not [found for r in rows for found in faults_of(r, VOCABULARY)]
    assert all(r.place.row for r in rows) and len({(r.entity, r.key) for r in rows}) == len(rows)


def test_a_set_of_files_is_read_in_one_order(tmp_path):
    count = 30
    rows, summary = read(zipped(tmp_path / "set.zip", made.a_set(count)))
    assert summary.entities == {
        "category": made.GROUPS, "price_type": 2, "warehouse": 2, "product": count,
        "price": 2 * count, "stock": 2 * count,
    }  # fmt: skip
    order = list(dict.fromkeys(r.entity for r in rows))
    assert order == ["category", "price_type", "warehouse", "product", "price", "stock"]
    assert summary.facts["catalogue_full"] == summary.facts["offers_full"] == "yes"
    assert summary.facts["version"] == "2.10" and summary.facts["catalogue_id"] == made.CATALOGUE
    assert not summary.warnings and not summary.holds
    (first,) = [r for r in rows if r.key == made.id_of(3) and r.entity == "product"]
    assert first.place.sheet == "webdata/goods/1/import___3.xml"
    assert first.values["unit_code"] == "796" and first.values["tax"] == "20"
    assert json.loads(first.values["properties"]) == {
        "Свойство 0": "Слово 3",
        "Свойство 1": "Слово 3",
    }


def test_blocks_in_any_order_in_one_file(tmp_path):
    straight = [
        made.classifier(),
        made.catalogue(range(9)),
        made.offers(range(9), made.prices, made.stock),
    ]
    rows, summary = read_text(tmp_path, made.document(*straight))
    turned, other = read_text(tmp_path, made.document(*reversed(straight)))
    assert summary.entities == other.entities and not other.warnings
    assert same(turned) == same(rows)
    # Lists of a package of offers come with the classifier, before goods.
    order = list(dict.fromkeys(r.entity for r in turned))
    assert order[-3:] == ["product", "price", "stock"]


def test_stock_in_all_three_forms(tmp_path):
    rows, summary = offers_of(
        tmp_path,
        "<Предложение><Ид>a</Ид><Количество>-12,5</Количество></Предложение>"
        '<Предложение><Ид>b#v</Ид><Количество>7</Количество><Склад ИдСклада="1" КоличествоНаСкладе="3"/>'
        '<Склад ИдСклада="2" КоличествоНаСкладе="5"/></Предложение>'
        "<Предложение><Ид>c</Ид><Остатки><Остаток><Склад><Ид>1</Ид><Количество>4</Количество></Склад>"
        "</Остаток><Остаток><Количество>4</Количество></Остаток></Остатки></Предложение>",
    )
    assert [r.values for r in rows] == [
        {"product_id": "a", "quantity": "-12.5"},
        {"product_id": "b", "variant_id": "b#v", "warehouse_id": "1", "quantity": "3"},
        {"product_id": "b", "variant_id": "b#v", "warehouse_id": "2", "quantity": "5"},
        {"product_id": "c", "warehouse_id": "1", "quantity": "4"},
    ]
    assert [w.code for w in summary.warnings] == ["stock-differs"]


def test_changes_of_a_package_and_ids_that_repeat_themselves(tmp_path):
    rows, _ = offers_of(
        tmp_path,
        "<Предложение><Ид>a</Ид><ИдХарактеристики>v</ИдХарактеристики>"
        "<КодЕдиницыИзмерения>796</КодЕдиницыИзмерения><Цены><Цена><ИдТипаЦены>t</ИдТипаЦены>"
        "<ЦенаЗаЕдиницу>1\N{NO-BREAK SPACE}719,00</ЦенаЗаЕдиницу><МинКоличество>10</МинКоличество></Цена></Цены>"
        "<Количество>2</Количество></Предложение>"
        "<Предложение><Ид>b#b</Ид><Количество>1</Количество></Предложение>",
        name="ИзмененияПакетаПредложений",
    )
    assert [(r.entity, r.key, r.values) for r in rows] == [
        ("price", "a#v|t|10", {"product_id": "a", "variant_id": "a#v", "price_type_id": "t",
                               "amount": "1719.00", "minimum_quantity": "10", "unit": "796"}),
        ("stock", "a#v", {"product_id": "a", "variant_id": "a#v", "quantity": "2"}),
        ("stock", "b#b", {"product_id": "b", "quantity": "1"}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("mark", "removed"),
    [
        ('<Товар Статус="Удален"><Ид>a</Ид></Товар>', True),
        ("<Товар><Ид>a</Ид><Статус>Удален</Статус></Товар>", True),
        ("<Товар><Ид>a</Ид><ПометкаУдаления>true</ПометкаУдаления></Товар>", True),
        ("<Товар><Ид>a</Ид><ПометкаУдаления>Да</ПометкаУдаления></Товар>", True),
        ("<Товар><Ид>a</Ид><ПометкаУдаления>1</ПометкаУдаления></Товар>", True),
        ("<Товар><Ид>a</Ид><ПометкаУдаления>false</ПометкаУдаления></Товар>", False),
        (
            "<Товар><Ид>a</Ид><ЗначенияРеквизитов><ЗначениеРеквизита><Наименование>Статус</Наименование>"
            "<Значение>Удален</Значение></ЗначениеРеквизита></ЗначенияРеквизитов></Товар>",
            True,
        ),
        ("<Товар><Ид>a</Ид></Товар>", None),
    ],
)
def test_every_mark_of_deletion(tmp_path, mark, removed):
    (row,), _ = read_text(tmp_path, made.document(f"<Каталог><Товары>{mark}</Товары></Каталог>"))
    assert row.values.get("is_deleted") is removed and not row.faults


@pytest.mark.parametrize(
    ("flag", "full"),
    [
        ('СодержитТолькоИзменения="false"', "yes"), ('СодержитТолькоИзменения="0"', "yes"),
        ('СодержитТолькоИзменения="true"', "no"), ("СодержитТолькоИзменения='Да'", "no"), ("", "no"),
    ],
)  # fmt: skip
def test_full_and_changes_only(tmp_path, flag, full):
    path = tmp_path / "p.xml"
    path.write_text(
        made.document(f"<Каталог {flag}><Ид>7</Ид><Товары/></Каталог>"), encoding="utf-8"
    )
    facts = CONNECTOR.open(path).inspect({}).inspection.facts
    assert facts["catalogue_full"] == full and facts["catalogue_id"] == "7"
    _, summary = read(path)
    assert [h.code for h in summary.holds] == (["mass-removal"] if full == "yes" else [])


def test_prices_and_rests_alone_never_blank_a_product(tmp_path):
    files = made.a_set(3, "true")
    alone = {n: t for n, t in files.items() if "prices" in n or "rests" in n}
    rows, summary = read(zipped(tmp_path / "part.zip", alone))
    assert summary.entities == {"price": 6, "stock": 6} and summary.facts["offers_full"] == "no"
    assert not summary.holds


def test_zero_and_negative_prices(tmp_path):
    def price(text):
        return (
            f"<Предложение><Ид>{text}</Ид><Цены><Цена><ИдТипаЦены>t</ИдТипаЦены>"
            f"<ЦенаЗаЕдиницу>{text}</ЦенаЗаЕдиницу></Цена></Цены></Предложение>"
        )

    body = "".join(map(price, ("0", "-5", "0.00", "3")))
    rows, summary = offers_of(tmp_path, body)
    assert [(r.key, [f.code for f in r.faults]) for r in rows] == [
        ("-5|t", ["negative-price"]),
        ("3|t", []),
    ]
    assert [(w.code, w.found) for w in summary.warnings] == [("zero-price", "0 (2)")]
    faulty, _ = read(tmp_path / "input.xml", Mapping(constants={"price_zero_is_none": "no"}))
    assert [f.code for r in faulty for f in r.faults] == [
        "zero-price",
        "negative-price",
        "zero-price",
    ]


def test_a_generated_catalogue_through_a_child(tmp_path):
    count = 400
    path = made.write_large(tmp_path / "large.xml", count)

    async def go():
        async with parent.open_input("commerceml", path) as reading:
            found = await reading.inspect({})
            frames = [f async for f in reading.read(found.proposal)]
        return found.inspection, frames

    inspection, frames = asyncio.run(go())
    assert inspection.format == "commerceml" and inspection.facts["offers_full"] == "yes"
    assert isinstance(frames[0], Progress) and isinstance(frames[-1], Done)
    assert frames[-1].faulty == 0 and frames[-1].rows == made.GROUPS + 4 + 5 * count
    assert frames[-1].summary.entities["stock"] == 2 * count


def test_pictures_of_a_package(tmp_path):
    files = made.a_set(2) | {"webdata/import_files/00/00000000.jpg": b"\xff\xd8picture" * 20_000}
    path = zipped(tmp_path / "set.zip", files)
    rows, summary = read(path)
    names = [r.values["images"] for r in by_entity(rows, "product")]
    assert [w.code for w in summary.warnings] == ["image-missing"]

    async def go():
        async with parent.open_input("commerceml", path) as reading:
            async for piece in reading.fetch(names[0]):
                assert piece
                break
            with pytest.raises(Refused, match="image-missing"):
                await anext(reading.fetch(names[1]))
            return b"".join([p async for p in reading.fetch(names[0])])

    assert asyncio.run(go()) == b"\xff\xd8picture" * 20_000
