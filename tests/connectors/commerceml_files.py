"""CommerceML as 1C writes it, of any size: one catalogue with its offers, or a 3.x set of files."""

HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<КоммерческаяИнформация xmlns="urn:1C.ru:commerceml_210" '
    'xmlns:xs="http://www.w3.org/2001/XMLSchema" ВерсияСхемы="2.10" '
    'ДатаФормирования="2026-11-20T16:36:52">\n'
)
TAIL = "</КоммерческаяИнформация>\n"
CATALOGUE = "bcb4206a-d129-4dd3-bc1e-b8f10d1b8e9b"
TYPES = ("f909c5b1-a338-11e5-91f2-001e675c35ed", "f909c5b2-a338-11e5-91f2-001e675c35ed")
WAREHOUSES = ("b6112590-41ba-11dd-ac9d-0015e9b8c48d", "b6112591-41ba-11dd-ac9d-0015e9b8c48d")
GROUPS, PROPERTIES, WORDS = 40, 5, 30


def id_of(n):
    return f"{n:08x}-927c-11e7-8781-00155d46f506"


def group_id(n):
    return f"{n:08x}-85e4-11e7-80c3-0cc47ab4062f"


def property_id(n):
    return f"{n:08x}-7ec2-11e7-80cb-0cc47ab4051b"


def word_id(n, k):
    return f"{n:04x}{k:04x}-7ec3-11e7-80cb-0cc47ab4051b"


def block(name, body, changes="false"):
    return f'\t<{name} СодержитТолькоИзменения="{changes}">\n{body}\t</{name}>\n'


def classifier():
    groups = "".join(
        f"\t\t\t<Группа>\n\t\t\t\t<Ид>{group_id(n)}</Ид>\n"
        f"\t\t\t\t<Наименование>Группа {n}</Наименование>\n\t\t\t</Группа>\n"
        for n in range(GROUPS)
    )
    properties = "".join(
        f"<Свойство><Ид>{property_id(n)}</Ид><Наименование>Свойство {n}</Наименование>"
        "<ТипЗначений>Справочник</ТипЗначений><ВариантыЗначений>"
        + "".join(
            f"<Справочник><ИдЗначения>{word_id(n, k)}</ИдЗначения><Значение>Слово {k}</Значение></Справочник>"
            for k in range(WORDS)
        )
        + "</ВариантыЗначений></Свойство>\n"
        for n in range(PROPERTIES)
    )
    return (
        f"\t<Классификатор>\n\t\t<Ид>{CATALOGUE}</Ид>\n"
        "\t\t<Наименование>Классификатор (Основной каталог товаров)</Наименование>\n"
        f"\t\t<Группы>\n{groups}\t\t</Группы>\n\t\t<Свойства>\n{properties}\t\t</Свойства>\n"
        "\t</Классификатор>\n"
    )


def product(n):
    values = "".join(
        f"\t\t\t\t\t<ЗначенияСвойства>\n\t\t\t\t\t\t<Ид>{property_id(k)}</Ид>\n"
        f"\t\t\t\t\t\t<Значение>{word_id(k, n % WORDS)}</Значение>\n\t\t\t\t\t</ЗначенияСвойства>\n"
        for k in range(2)
    )
    return (
        f"\t\t\t<Товар>\n\t\t\t\t<Ид>{id_of(n)}</Ид>\n\t\t\t\t<Артикул>ART-{n:07}</Артикул>\n"
        f"\t\t\t\t<Наименование>Светильник потолочный накладной {n}</Наименование>\n"
        '\t\t\t\t<БазоваяЕдиница Код="796 " НаименованиеПолное="Штука">шт</БазоваяЕдиница>\n'
        f"\t\t\t\t<Группы>\n\t\t\t\t\t<Ид>{group_id(n % GROUPS)}</Ид>\n\t\t\t\t</Группы>\n"
        f"\t\t\t\t<Картинка>import_files/{n % 256:02x}/{n:08x}.jpg</Картинка>\n"
        f"\t\t\t\t<ЗначенияСвойств>\n{values}\t\t\t\t</ЗначенияСвойств>\n"
        "\t\t\t\t<СтавкиНалогов>\n\t\t\t\t\t<СтавкаНалога>\n\t\t\t\t\t\t<Наименование>НДС</Наименование>\n"
        "\t\t\t\t\t\t<Ставка>20</Ставка>\n\t\t\t\t\t</СтавкаНалога>\n\t\t\t\t</СтавкиНалогов>\n"
        "\t\t\t</Товар>\n"
    )


def catalogue(numbers, changes="false"):
    return block(
        "Каталог",
        f"\t\t<Ид>{CATALOGUE}</Ид>\n\t\t<Наименование>Каталог</Наименование>\n\t\t<Товары>\n"
        + "".join(map(product, numbers))
        + "\t\t</Товары>\n",
        changes,
    )


def price_types():
    return (
        "\t\t<ТипыЦен>\n"
        + "".join(
            f"\t\t\t<ТипЦены><Ид>{t}</Ид><Наименование>Цена {n}</Наименование><Валюта>UAH</Валюта></ТипЦены>\n"
            for n, t in enumerate(TYPES)
        )
        + "\t\t</ТипыЦен>\n"
    )


def warehouses():
    return (
        "\t\t<Склады>\n"
        + "".join(
            f"\t\t\t<Склад><Ид>{w}</Ид><Наименование>Склад {n}</Наименование></Склад>\n"
            for n, w in enumerate(WAREHOUSES)
        )
        + "\t\t</Склады>\n"
    )


def price(n, k):
    return (
        f"\t\t\t\t\t<Цена>\n\t\t\t\t\t\t<Представление>{n % 900 + 10 + k},50 UAH за шт</Представление>\n"
        f"\t\t\t\t\t\t<ИдТипаЦены>{TYPES[k]}</ИдТипаЦены>\n"
        f"\t\t\t\t\t\t<ЦенаЗаЕдиницу>{n % 900 + 10 + k}.50</ЦенаЗаЕдиницу>\n"
        "\t\t\t\t\t\t<Валюта>UAH</Валюта>\n\t\t\t\t\t\t<Единица>шт</Единица>\n"
        "\t\t\t\t\t\t<Коэффициент>1</Коэффициент>\n\t\t\t\t\t</Цена>\n"
    )


def prices(n):
    return "\t\t\t\t<Цены>\n" + price(n, 0) + price(n, 1) + "\t\t\t\t</Цены>\n"


def stock(n):
    return "".join(
        f'\t\t\t\t<Склад ИдСклада="{w}" КоличествоНаСкладе="{n % 50 + k}"/>\n'
        for k, w in enumerate(WAREHOUSES)
    )


def rests(n):
    return (
        "\t\t\t\t<Остатки>\n"
        + "".join(
            f"\t\t\t\t\t<Остаток><Склад><Ид>{w}</Ид><Количество>{n % 50 + k}</Количество></Склад></Остаток>\n"
            for k, w in enumerate(WAREHOUSES)
        )
        + "\t\t\t\t</Остатки>\n"
    )


def offer(n, *bodies, named=True):
    name = (
        f"\t\t\t\t<Наименование>Светильник потолочный накладной {n}</Наименование>\n"
        if named
        else ""
    )
    return (
        f"\t\t\t<Предложение>\n\t\t\t\t<Ид>{id_of(n)}</Ид>\n{name}"
        + "".join(b(n) for b in bodies)
        + "\t\t\t</Предложение>\n"
    )


def offers(numbers, *bodies, changes="false", lists=True, named=True):
    return block(
        "ПакетПредложений",
        f"\t\t<Ид>{CATALOGUE}#</Ид>\n\t\t<ИдКаталога>{CATALOGUE}</ИдКаталога>\n"
        + (price_types() + warehouses() if lists else "")
        + "\t\t<Предложения>\n"
        + "".join(offer(n, *bodies, named=named) for n in numbers)
        + "\t\t</Предложения>\n",
        changes,
    )


def document(*blocks):
    return HEAD + "".join(blocks) + TAIL


def write_large(path, count):
    """One file of `count` products and as many offers, written in pieces: about 1.5 KB for each."""
    with path.open("w", encoding="utf-8") as file:
        file.write(HEAD + classifier())
        opened, closed = catalogue(()).split("\t\t<Товары>\n")
        file.write(opened + "\t\t<Товары>\n")
        for n in range(count):
            file.write(product(n))
        opened_offers, closed_offers = offers(()).split("\t\t<Предложения>\n")
        file.write(closed + opened_offers + "\t\t<Предложения>\n")
        for n in range(count):
            file.write(offer(n, prices, stock))
        file.write(closed_offers + TAIL)
    return path


def a_set(count, changes="false"):
    """A 3.x set: each sort of block in a file of its own, by name."""
    numbers = range(count)
    return {
        "webdata/import___1.xml": document(classifier()),
        "webdata/priceLists___2.xml": document(
            block(
                "ПакетПредложений",
                f"<ИдКаталога>{CATALOGUE}</ИдКаталога>" + price_types() + warehouses(),
                changes,
            )
        ),
        "webdata/goods/1/import___3.xml": document(catalogue(numbers, changes)),
        "webdata/offers___4.xml": document(offers(numbers, changes=changes, lists=False)),
        "webdata/prices___5.xml": document(
            offers(numbers, prices, changes=changes, lists=False, named=False)
        ),
        "webdata/rests___6.xml": document(
            offers(numbers, rests, changes=changes, lists=False, named=False)
        ),
    }
