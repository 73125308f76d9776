"""A base of 1C over OData against a whole node: its goods come in by looks, our orders go out once."""

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import time

import pytest

import connectors.__main__
from appliance.runtime.account import service_account
from appliance.runtime.engines import locate_clamd
from tests.connectors.odata_server import GOODS, ORDERS, Base1C, Refusal, fill, serve
from tests.faults.node import ROOT

pytestmark = pytest.mark.skipif(
    locate_clamd(service_account()) is None, reason="clamd is not installed"
)
SOURCES = """
[[source]]
key = "trade"
connector = "onec_odata"
name = "1C trade"
every_s = 1
options = {{ four_eyes = false }}

[source.place]
type = "onec_odata"
base = "{address}"
secrets_file = "{folder}/secrets"
memory_file = "{folder}/trade.sqlite"
allowed = ["127.0.0.1"]
windows = {{ sweep_every_s = 1 }}
orders = {{ constants = {{ "Статус" = "КОбеспечению" }} }}
"""


class Room:
    """The accounting room: a base of 1C, and a worker beside it that knows a node and a key."""

    def __init__(self, node, owner, base, address, folder):
        self.node, self.owner, self.base, self.folder = node, owner, base, folder
        (folder / "secrets").write_text(f"name = {base.user}\npassword = {base.password}\n")
        (folder / "sources.toml").write_text(SOURCES.format(address=address, folder=folder))
        self.key = owner.post("/keys", {"label": "1C", "profile": "owner"}, 201)["token"]
        (folder / "key").write_text(self.key)
        (folder / "key").chmod(0o600)
        self.child = None

    def command(self, *more):
        return [
            sys.executable, "-m", "connectors", *more, "--node", self.node.url, "--key-file",
            str(self.folder / "key"), "--sources", str(self.folder / "sources.toml"),
        ]  # fmt: skip

    def start(self):
        words = self.command("work", "--name", "room", "--data", str(self.folder / "data"))
        with (self.folder / "log").open("ab") as log:
            self.child = subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)  # fmt: skip

    def stop(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait(30)

    def write_orders(self, monkeypatch, capsys):
        """One round of the command: the exit code, and what was told of each order."""
        words = self.command("orders", "--source", "trade", "--once")[2:]
        monkeypatch.setattr(sys, "argv", words)
        code = connectors.__main__.main()
        lines = capsys.readouterr().err.splitlines()
        told = [json.loads(line) for line in lines if line.startswith("{")]
        return code, [(t["event"], t.get("what") or t["code"]) for t in told]

    def runs(self):
        return self.owner.get("/intake/runs", limit=20)["runs"]

    def wait(self, found, seconds=90):
        end = time.monotonic() + seconds
        while not (value := found()):
            assert time.monotonic() < end, ((self.folder / "log").read_text()[-2_000:], self.runs()[:1])  # fmt: skip
            time.sleep(0.2)
        return value

    def apply(self, count):
        """The run of that number, approved and applied."""
        run = self.wait(lambda: len(self.runs()) == count and self.runs()[0]["state"] in ("planned", "failed") and self.runs()[0])  # fmt: skip
        assert run["state"] == "planned" and not run["held_by"], run
        self.owner.post(f"/intake/runs/{run['id']}/approve", {}, 202)
        return self.wait(lambda: (r := self.runs()[0])["state"] == "applied" and r)

    def document(self, order):
        return self.base.objects[ORDERS].get(order)


@pytest.fixture(scope="module")
def room(node, new_tenant, tmp_path_factory):
    owner = new_tenant("odata")
    owner.post("/templates/multi_branch_sales:install", {})
    base = Base1C(seats=1)
    base.ids = fill(base)
    with serve(base) as address:
        found = Room(node, owner, base, address, tmp_path_factory.mktemp("odata"))
        found.start()
        yield found
        found.stop()


def test_goods_come_in_and_only_what_has_changed_comes_again(room):
    owner, ids = room.owner, room.base.ids
    first = room.apply(1)
    assert first["counts"].get("faulty", 0) == 0, owner.get(f"/intake/runs/{first['id']}/plan", sort="faulty")  # fmt: skip
    goods = {p["fields"]["sku"]: p for p in owner.rows("product limit 200")}
    assert sorted(goods) == ["B0", "B1", "B2", "B3", "B4"]
    prices = {p["fields"]["price"] for p in owner.rows(f'price where product = "{goods["B1"]["id"]}"')}  # fmt: skip
    moves = [m["fields"]["quantity"] for m in owner.rows(f'stock_move where product = "{goods["B2"]["id"]}"')]  # fmt: skip
    assert (prices, moves) == ({"11.500000"}, ["7.000"])
    assert len(owner.rows("variant limit 20")) == 2
    # Further looks find nothing: there is no run of them.
    asked = len(room.base.asked)
    room.wait(lambda: len(room.base.asked) > asked + 25)
    assert len(room.runs()) == 1
    room.base.put(GOODS, ids["products"][3], Description="Болт переименован")
    second = room.apply(2)
    assert {s: n for s, n in second["counts"].items() if s in ("new", "changed", "gone", "faulty") and n} == {"changed": 1}  # fmt: skip
    after = {p["fields"]["sku"]: p for p in owner.rows("product limit 200")}
    assert after["B3"]["fields"]["name"] == "Болт переименован"
    assert [s for s in after if after[s] != goods[s]] == ["B3"]


def test_an_order_goes_out_once_though_its_answer_is_lost(room, monkeypatch, capsys):
    owner, base = room.owner, room.base
    write = functools.partial(room.write_orders, monkeypatch, capsys)
    product = owner.rows('product where sku = "B1"')[0]
    customer = owner.rows('customer where name = "Иванов"')[0]
    (own,) = owner.get("/exchange/orders", source="1C trade")["orders"]
    assert own["external_id"] == base.ids["order"] and own["lines"][0]["external_id"]
    room.stop()
    brought = len(base.objects[ORDERS])
    order = owner.make("order", customer=customer["id"])["id"]
    line = {"order": order, "product": product["id"], "quantity": "2", "unit_price": "5.50"}
    owner.make("order_line", text="Болт", **line)
    page = owner.get("/exchange/orders", source="1C trade", limit=1)
    assert [o["id"] for o in page["orders"]] == [own["id"]] and page["next"] == own["id"]
    (told,) = owner.get("/exchange/orders", source="1C trade", after=page["next"])["orders"]
    assert (told["id"], told["external_id"], told["amount"]) == (order, None, "11.00")
    # Another version is not this one, and what is no order is not noted.
    for ident in (order, product["id"]):
        owner.post("/exchange/orders/confirm", {"orders": [{"id": ident, "version": "f" * 32}]})
    assert owner.get("/exchange/orders", source="1C trade", after=page["next"])["orders"] == [told]
    base.mishaps.extend([lambda method, path: "lost" if (method, path) == ("POST", ORDERS) else None] * 30)  # fmt: skip

    def short(_document):
        raise Refusal("Недостаточно товара на складе")

    base.may_post = short
    code, told = write()
    # What 1C has brought itself is its own.
    assert (code, told) == (2, [("order.told", "nothing"), ("order.failed", "refused-by-1c")]), told
    assert room.document(order)["Posted"] is False
    base.may_post = lambda _document: None
    assert write()[0] == 0
    held = room.document(order)
    assert held["Posted"] is True and held["СуммаДокумента"] == 11
    assert held["Товары"][0]["Номенклатура_Key"] == base.ids["products"][1]
    assert write() == (0, []) and len(base.objects[ORDERS]) == brought + 1
    assert [p for m, p, _, _ in base.asked if (m, p) == ("POST", ORDERS)] == [ORDERS]
    assert not base.sessions
    owner.make("order_line", text="Ещё", **line)
    assert write() == (0, [("order.told", "written")])
    assert (len(room.document(order)["Товары"]), room.document(order)["СуммаДокумента"]) == (2, 22)
    # Told to stop it ends by itself; its seat was given back long before.
    child = subprocess.Popen(room.command("orders", "--source", "trade"), cwd=ROOT)
    try:
        owner.make("order_line", text="Третя", **line)
        room.wait(lambda: len(room.document(order)["Товары"]) == 3)
        child.terminate()
        assert child.wait(30) == 0 and not base.sessions
    finally:
        child.kill()
