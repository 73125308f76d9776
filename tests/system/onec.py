"""1C as a client of the exchange with a web site, step by step as its own module does it, and
packages as it writes them (CommerceML 2.08).
"""

import io
import time
import zipfile

import httpx

HEAD = ('<?xml version="1.0" encoding="UTF-8"?>\n<КоммерческаяИнформация ВерсияСхемы="2.08" '
        'ДатаФормирования="{made}">')  # fmt: skip
UNIT = '<БазоваяЕдиница Код="796" НаименованиеПолное="Штука">шт</БазоваяЕдиница>'


def catalogue(ids, *, made, only_changes=False, names=None):
    flag = str(only_changes).lower()
    goods = "".join(
        f"<Товар><Ид>p-{n}</Ид><Артикул>A-{n:05}</Артикул><Наименование>{(names or {}).get(n, f'Болт {n}')}"
        f"</Наименование>{UNIT}<Группы><Ид>g-1</Ид></Группы></Товар>"
        for n in ids
    )
    return (
        HEAD.format(made=made)
        + "<Классификатор><Ид>c-1</Ид><Наименование>Классификатор</Наименование>"
        "<Группы><Группа><Ид>g-1</Ид><Наименование>Крепёж</Наименование></Группа></Группы></Классификатор>"
        f'<Каталог СодержитТолькоИзменения="{flag}"><Ид>k-1</Ид><ИдКлассификатора>c-1</ИдКлассификатора>'
        f"<Наименование>Каталог</Наименование><Товары>{goods}</Товары></Каталог></КоммерческаяИнформация>"
    ).encode()


def offers(ids, *, made, price, stock, only_changes=False):
    flag = str(only_changes).lower()
    rows = "".join(
        f"<Предложение><Ид>p-{n}</Ид><Наименование>Болт {n}</Наименование>{UNIT}<Цены><Цена>"
        f"<ИдТипаЦены>t-1</ИдТипаЦены><ЦенаЗаЕдиницу>{price(n)}</ЦенаЗаЕдиницу><Валюта>UAH</Валюта>"
        f'</Цена></Цены><Склад ИдСклада="w-1" КоличествоНаСкладе="{stock(n)}"/></Предложение>'
        for n in ids
    )
    return (
        HEAD.format(made=made) + f'<ПакетПредложений СодержитТолькоИзменения="{flag}"><Ид>k-1#</Ид>'
        "<Наименование>Предложения</Наименование><ИдКаталога>k-1</ИдКаталога><ТипыЦен><ТипЦены><Ид>t-1</Ид>"
        "<Наименование>Розничная</Наименование><Валюта>UAH</Валюта></ТипЦены></ТипыЦен><Склады><Склад>"
        "<Ид>w-1</Ид><Наименование>Главный склад</Наименование></Склад></Склады>"
        f"<Предложения>{rows}</Предложения></ПакетПредложений></КоммерческаяИнформация>"
    ).encode()


def packed(**files):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files.items():
            archive.writestr(
                zipfile.ZipInfo(name.replace("__", "."), (2026, 11, 20, 10, 0, 0)), body
            )
    return held.getvalue()


class OneC:
    """A base that exchanges under one login. `lines` of an answer are what 1C reads."""

    def __init__(self, url, key):
        self.url, self.auth = f"{url}/exchange/1c", ("exchange", key)
        self.cookies = {}

    def ask(self, mode, *, method="GET", signed=False, body=None, **more):
        params = {"type": "catalog", "mode": mode, **more}
        cookie = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
        headers = {"User-Agent": "1C+Enterprise/8.3", **({"Cookie": cookie} if cookie else {})}
        answer = httpx.request(
            method, self.url, params=params, content=body, headers=headers, timeout=30,
            auth=self.auth if signed else None,
        )  # fmt: skip
        media = "application/xml" if mode == "query" else "text/plain"
        assert answer.headers["content-type"].startswith(media), answer.text
        return answer.text.splitlines()

    def sign_in(self):
        said = self.ask("checkauth", signed=True)
        assert said[0] == "success", said
        self.cookies = {said[1]: said[2]}
        return said

    def send(self, name, content, part):
        for start in range(0, len(content), part):
            assert self.ask(
                "file", method="POST", body=content[start : start + part], filename=name
            ) == ["success"]  # fmt: skip

    def load(self, name, seconds=180):
        """Ask until it is no longer in progress."""
        end = time.monotonic() + seconds
        while (said := self.ask("import", filename=name))[0] == "progress":
            assert time.monotonic() < end, said
            time.sleep(0.2)
        return said

    def exchange(self, content, *names, part=2_000):
        """A whole session, as 1C's module does it."""
        self.sign_in()
        assert self.ask("init")[0] == "zip=yes"
        self.send("v8_1A2B_3c.zip", content, part)
        return [self.load(name) for name in names]
