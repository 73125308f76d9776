"""A base of 1C that speaks its OData dialect over a real socket, keeps state, and misbehaves.

As 1C does: references cannot be compared, sorting by one sorts by what people see, balances of
nothing have no row, a seat is taken by each session until it is finished, a refusal is HTTP 500.
"""

import atexit
import contextlib
import functools
import http.server
import json
import re
import shutil
import socket
import tempfile
import threading
import time
import uuid
from base64 import b64decode, b64encode
from collections import defaultdict, deque
from decimal import Decimal
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.connectors.servers import make_certificate

ZERO = "00000000-0000-0000-0000-000000000000"
PRICES, STOCK = "InformationRegister_ЦеныНоменклатуры_RecordType", "AccumulationRegister_ТоварыНаСкладах"  # fmt: skip
GOODS, VARIANTS = "Catalog_Номенклатура", "Catalog_ХарактеристикиНоменклатуры"
ORDERS, BUYERS, CURRENCIES = "Document_ЗаказКлиента", "Catalog_Контрагенты", "Catalog_Валюты"
UNITS, TYPES, STORES = "Catalog_УпаковкиЕдиницыИзмерения", "Catalog_ВидыЦен", "Catalog_Склады"
LOGIN = b"<!DOCTYPE html><html><body><form method='post'>Sign in</form></body></html>"
_PROPERTIES = {
    UNITS: "Code Description Числитель Знаменатель", CURRENCIES: "Code Description",
    GOODS: "Code Description Parent_Key IsFolder НаименованиеПолное Артикул ЕдиницаИзмерения_Key СтавкаНДС Описание ТипНоменклатуры",
    VARIANTS: "Description Owner Owner_Type", STORES: "Description IsFolder",
    TYPES: "Description ЦенаВключаетНДС ВалютаЦены_Key",
    BUYERS: "Description НаименованиеПолное ИНН КПП ЮрФизЛицо КонтактнаяИнформация Партнер_Key",
    ORDERS: "Number Date Posted Контрагент_Key Партнер_Key Организация_Key Валюта_Key СуммаДокумента Статус Комментарий НомерПоДаннымКлиента Товары",
    PRICES: "Period Номенклатура_Key Характеристика_Key ВидЦены_Key Цена Валюта_Key Упаковка_Key",
    STOCK: "Номенклатура_Key Характеристика_Key Склад_Key ВНаличии",
}  # fmt: skip


class Refusal(Exception):
    """What 1C says no to, with its status."""

    def __init__(self, said, status=500, code="-1"):
        super().__init__(said)
        self.said, self.status, self.code = said, status, code


class Base1C:
    """The state. `mishaps`: what goes wrong with the next questions; `before`: called before each
    page of rows is made; `may_post`: raises Refusal.
    """

    def __init__(self, seats=2):
        self.objects = {name: {} for name in _PROPERTIES if name not in (PRICES, STOCK)}
        self.prices, self.stock = [], defaultdict(Decimal)
        self.mishaps, self.before, self.asked = deque(), lambda: None, []
        self.may_post, self.keeps_ids = (lambda document: None), True
        self.sessions, self.seats, self.most = set(), seats, 0
        self.user, self.password = "Обмен", "пароль: да"
        self.hidden, self.wrong_properties = set(), set()
        self._version, self.lock = 0, threading.RLock()

    def put(self, name, key=None, **held):
        """Make an object, or change one; its key."""
        with self.lock:
            key = key or str(uuid.uuid1())
            self._version += 1
            before = self.objects[name].get(key, {"Ref_Key": key, "DeletionMark": False})
            version = b64encode(self._version.to_bytes(8, "big")).decode()
            self.objects[name][key] = {**before, **held, "DataVersion": version}
            return key

    def price(self, product, sort, amount, currency, at="2026-11-01T00:00:00", variant=ZERO, package=ZERO):  # fmt: skip
        self.prices.append(
            {"Period": at, "Номенклатура_Key": product, "Характеристика_Key": variant, "ВидЦены_Key": sort,
             "Цена": amount, "Валюта_Key": currency, "Упаковка_Key": package}
        )  # fmt: skip

    def move(self, product, store, quantity, variant=ZERO):
        self.stock[(product, variant, store)] += Decimal(quantity)

    def rows(self, name, tail):
        if name == PRICES and tail == "SliceLast":
            last = {}
            for entry in sorted(self.prices, key=lambda p: p["Period"]):
                last[tuple(entry[k] for k in ("Номенклатура_Key", "Характеристика_Key", "ВидЦены_Key"))] = entry  # fmt: skip
            return list(last.values())
        if name == STOCK and tail.startswith("Balance("):
            return [
                {"Номенклатура_Key": p, "Характеристика_Key": v, "Склад_Key": w, "ВНаличииBalance": float(q)}
                for (p, v, w), q in self.stock.items() if q
            ]  # fmt: skip
        if name not in self.objects or name in self.hidden or tail:
            raise Refusal(f'Сущность "{name}" не найдена', 404, "8")
        return list(self.objects[name].values())

    def post(self, document):
        self.may_post(document)
        self.put(ORDERS, document["Ref_Key"], Posted=True)

    def metadata(self):
        types = "".join(
            f'<EntityType Name="{name}"><Key><PropertyRef Name="Ref_Key"/></Key>'
            + "".join(
                f'<Property Name="{p}" Type="Edm.String"/>'
                for p in f"Ref_Key DataVersion DeletionMark {held}".split()
                if p not in self.wrong_properties
            ) + "</EntityType>"
            for name, held in _PROPERTIES.items() if name not in self.hidden
        )  # fmt: skip
        return (
            '<?xml version="1.0" encoding="UTF-8"?><edmx:Edmx Version="1.0" xmlns:edmx='
            '"http://schemas.microsoft.com/ado/2007/06/edmx"><edmx:DataServices><Schema Namespace='
            f'"StandardODATA" xmlns="http://schemas.microsoft.com/ado/2009/11/edm">{types}</Schema>'
            "</edmx:DataServices></edmx:Edmx>"
        ).encode()


def _shown(name, row):
    """What 1C sorts a reference by."""
    if name.startswith("Document_"):
        return (row.get("Date", ""), row.get("Number", ""))
    return (str(row.get("Description", "")), row.get("Code", ""))


def _matches(row, filter_):
    if re.search(r"_Key (gt|lt|ge|le) guid", filter_):
        raise Refusal("Нельзя сравнивать поля неограниченной длины и поля несовместимых типов")
    for clause in filter_.split(" and "):
        if not any(_holds(row, part) for part in clause.split(" or ")):
            return False
    return True


def _holds(row, part):
    name, sign, value = part.strip("() ").split(" ", 2)
    if name not in row and name not in ("IsFolder", "Description"):
        raise Refusal(f'Свойство "{name}" не найдено', 400, "14")
    value = re.sub(r"^(guid|datetime)?'(.*)'$", r"\2", value)
    value = {"true": True, "false": False}.get(value, value)
    held = row.get(name, False if name == "IsFolder" else "")
    return held == value if sign == "eq" else held >= value


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body together, or each answer waits for an acknowledgement
    base = None

    def log_message(self, *args):
        pass

    def _serve(self):
        base = self.base
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        path = unquote(parts.path).partition("/odata/standard.odata/")[2]
        given = dict(parse_qsl(parts.query.replace("+", "%2B")))
        base.asked.append((self.command, path, given, dict(self.headers)))
        mishap = base.mishaps.popleft() if base.mishaps else None
        if callable(mishap):
            mishap = mishap(self.command, path)
        if mishap == "slow":
            time.sleep(1.5)
        if mishap == "drop":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        if mishap == "503":
            return self._say(503, b"", {"Retry-After": "0"})
        if isinstance(mishap, bytes):
            return self._say(200, mishap)
        if mishap == "html":
            return self._say(200, LOGIN, {"Content-Type": "text/html"})
        try:
            with base.lock:
                cookies = self._sign_in()
                status, content = self._answer(path, given, body)
        except Refusal as refusal:
            error = {"code": refusal.code, "message": {"lang": "ru", "value": refusal.said}}
            return self._say(refusal.status, json.dumps({"odata.error": error}, ensure_ascii=False).encode())  # fmt: skip
        if mishap == "lost":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return None
        if mishap == "cut":
            content = content[: len(content) * 2 // 3]
        return self._say(status, content, cookies)

    do_GET = do_POST = do_PATCH = _serve

    def _sign_in(self):
        base, more = self.base, {}
        _, _, coded = (self.headers.get("Authorization") or "").partition(" ")
        if b64decode(coded).decode() != f"{base.user}:{base.password}":
            raise Refusal("Идентификация пользователя не выполнена", 401)
        found = re.search(r"ibsession=([\w-]+)", self.headers.get("Cookie") or "")
        wanted = self.headers.get("IBSession")
        if wanted == "finish":
            base.sessions.discard(found[1] if found else "")
        elif found is None or found[1] not in base.sessions:
            if len(base.sessions) >= base.seats:
                raise Refusal("Не обнаружено свободной лицензии!")
            if wanted == "start":
                session = str(uuid.uuid1())
                base.sessions.add(session)
                more["Set-Cookie"] = f"ibsession={session}; path=/trade"
        base.most = max(base.most, len(base.sessions))
        return more

    def _answer(self, path, given, body):
        base = self.base
        if not self.path.startswith("/trade/odata/standard.odata/"):
            raise Refusal("Not found", 404)
        if path == "$metadata":
            return 200, base.metadata()
        if not path:
            return 200, b'{"value":[]}'
        found = re.fullmatch(r"(\w+)\(guid'([0-9a-f-]{36})'\)(?:/(\w+))?", path)
        if found:
            return self._one(*found.groups(), given, body)
        name, _, tail = path.partition("/")
        if self.command == "POST":
            held = json.loads(body)
            key = held.get("Ref_Key") if base.keeps_ids else None
            if key in base.objects[name]:
                raise Refusal("Нарушена уникальность ключа")
            key = base.put(name, **{"Posted": False, "Number": f"НФ-{len(base.objects[name]) + 1:06}", **{k: v for k, v in held.items() if k != "Ref_Key"}}, key=key)  # fmt: skip
            return 201, json.dumps(base.objects[name][key]).encode()
        base.before()
        return 200, self._rows(name, tail, given)

    def _rows(self, name, tail, given):
        rows = self.base.rows(name, tail)
        if given.get("$filter"):
            rows = [r for r in rows if _matches(r, given["$filter"])]
        order = given.get("$orderby", "").split(",")
        if order == ["Ref_Key"]:
            rows.sort(key=lambda r: (_shown(name, r), r["Ref_Key"]))
        elif order != [""]:
            rows.sort(key=lambda r: [r[o] for o in order])
        answer = {"odata.metadata": "…"}
        if given.get("$inlinecount") == "allpages":
            answer["odata.count"] = str(len(rows))
        skip = int(given.get("$skip", 0))
        rows = rows[skip : skip + int(given.get("$top", len(rows)))]
        names = given["$select"].split(",")
        for missing in set(names) & self.base.wrong_properties:
            raise Refusal(f'Свойство "{missing}" не найдено', 400, "14")
        answer["value"] = [{n: r.get(n) for n in names} for r in rows]
        return json.dumps(answer, ensure_ascii=False).encode()

    def _one(self, name, key, action, given, body):
        base = self.base
        held = base.objects[name].get(key)
        if held is None:
            raise Refusal("Экземпляр сущности не найден", 404, "9")
        if action in ("Post", "Unpost"):
            base.post(held) if action == "Post" else base.put(name, key, Posted=False)
            return 200, b"{}"
        if self.command == "PATCH":
            if self.headers.get("If-Match") not in (None, held["DataVersion"]):
                raise Refusal("Объект был изменен", 412)
            base.put(name, key, **json.loads(body))
        return 200, json.dumps(base.objects[name][key]).encode()

    def _say(self, status, content, more=None):
        if len(self.path) > 2_048:
            status, content = 414, b""
        self.send_response(status)
        for name, value in {"Content-Type": "application/json; charset=utf-8", **(more or {})}.items():  # fmt: skip
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextlib.contextmanager
def serve(base):
    """The address of the base."""
    handler = type("Handler", (_Handler,), {"base": base})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/trade"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@functools.cache
def small_trust():
    """A file of one certificate: plain questions need none, and the system's own are slow to load."""
    folder = Path(tempfile.mkdtemp(prefix="nexus-odata-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return str(make_certificate(folder)[1])


def fill(base, goods=5):
    """A small trade: units, a group, goods with variants, prices, balances, a buyer, an order."""
    put = base.put
    piece = put(UNITS, Code="796 ", Description="шт", Числитель=1, Знаменатель=1)
    box = put(UNITS, Code="00-0001", Description="упак (10 шт)", Числитель=10, Знаменатель=1)
    hryvnia = put(CURRENCIES, Code="980", Description="UAH")
    group = put(GOODS, Description="Болты", IsFolder=True, Parent_Key=ZERO)
    retail = put(TYPES, Description="Розничная", ЦенаВключаетНДС=True, ВалютаЦены_Key=hryvnia)
    store = put(STORES, Description="Главный", IsFolder=False)
    products = []
    for n in range(goods):
        one = put(GOODS, Description=f"Болт М{n:03}", IsFolder=False, Parent_Key=group, Code=f"{n:05}",
            Артикул=f"B{n}", ЕдиницаИзмерения_Key=piece, СтавкаНДС="НДС20")  # fmt: skip
        products.append(one)
        base.price(one, retail, 10.5 + n, hryvnia)
        base.move(one, store, 5 + n)
    red = put(
        VARIANTS, Description="Красный", Owner=products[0], Owner_Type=f"StandardODATA.{GOODS}"
    )
    large = put(VARIANTS, Description="Большой", Owner=str(uuid.uuid1()), Owner_Type="StandardODATA.Catalog_ВидыНоменклатуры")  # fmt: skip
    base.price(products[0], retail, 12, hryvnia, variant=red)
    base.move(products[0], store, 2, variant=red)
    base.move(products[1], store, "1.5", variant=large)
    buyer = put(BUYERS, Description="Иванов", ИНН="1234567890", ЮрФизЛицо="ФизЛицо", Партнер_Key=str(uuid.uuid1()),
        КонтактнаяИнформация=[{"Тип": "Телефон", "Представление": "+380501234567"}])  # fmt: skip
    line = {"LineNumber": "1", "Номенклатура_Key": products[0], "Характеристика_Key": ZERO, "Количество": 2, "Цена": 10.5,
        "Сумма": 21, "СтавкаНДС": "БезНДС", "СуммаНДС": 0, "Упаковка_Key": ZERO}  # fmt: skip
    order = put(ORDERS, Number="УТ-000001", Date="2026-11-20T10:00:00", Posted=True, Контрагент_Key=buyer,
        Валюта_Key=hryvnia, СуммаДокумента=21, Статус="КВыполнению", Товары=[line])  # fmt: skip
    return {"piece": piece, "box": box, "currency": hryvnia, "group": group, "retail": retail, "store": store,
        "products": products, "red": red, "large": large, "buyer": buyer, "order": order}  # fmt: skip
