"""1C's own sequence against a whole node: parts, lost answers, repeats, changes, mass removal."""

import struct
import time
import zlib

import httpx
import pytest
from lxml import etree

from tests.system.onec import OneC, catalogue, offers, packed

COUNT = 60
WAITS = ("receiving", "held")


@pytest.fixture(scope="module")
def owner(node, new_tenant):
    found = new_tenant("onec")
    found.post("/templates/multi_branch_sales:install", {})
    return found


@pytest.fixture(scope="module")
def onec(node, owner):
    key = owner.post("/keys", {"label": "1C accounting", "profile": "owner"}, 201)["token"]
    return OneC(node.url, key)


def package(
    ids, *, made, price=lambda n: f"{n}.50", stock=lambda n: n, only_changes=False, names=None
):
    ids = list(ids)
    return packed(
        import__xml=catalogue(ids, made=made, only_changes=only_changes, names=names),
        offers__xml=offers(ids, made=made, price=price, stock=stock, only_changes=only_changes),
    )


def settled(owner, state="applied", seconds=180):
    """The newest run, once it is there."""
    end = time.monotonic() + seconds
    while (run := owner.get("/intake/runs", limit=1)["runs"][0])["state"] != state:
        assert time.monotonic() < end, run
        time.sleep(0.2)
    return run


def test_a_whole_exchange_with_a_lost_answer_and_a_repeat(owner, onec):
    content = package(range(1, COUNT + 1), made="2026-11-20T10:00:00")
    assert len(content) > 4_000
    onec.sign_in()
    assert onec.ask("init") == ["zip=yes", "file_limit=16777216"]
    onec.send("v8_1A2B_3c.zip", content[:2_000], 2_000)
    # The answer to this part was lost: 1C signs in anew and sends it again.
    onec.send("v8_1A2B_3c.zip", content[2_000:4_000], 2_000)
    onec.sign_in()
    onec.send("v8_1A2B_3c.zip", content[2_000:], 2_000)
    assert onec.load("import.xml")[0] == "success"
    assert onec.load("offers.xml")[0] == "success"
    run = settled(owner)
    assert run["source"] == "1C accounting" and run["counts"].get("faulty", 0) == 0, run
    assert len(owner.rows("product limit 200")) == COUNT
    one = owner.rows('product where sku = "A-00007"')[0]
    price = owner.rows(f'price where product = "{one["id"]}"')
    assert [p["fields"]["price"] for p in price] == ["7.500000"]
    moves = owner.rows(f'stock_move where product = "{one["id"]}"')
    assert [m["fields"]["quantity"] for m in moves] == ["7.000"]


def test_the_same_package_again_changes_nothing(owner, onec):
    before = owner.rows("product sort sku limit 200")
    content = package(range(1, COUNT + 1), made="2026-11-20T10:00:00")
    assert [said[0] for said in onec.exchange(content, "import.xml", "offers.xml")] == [
        "success"
    ] * 2
    counts = settled(owner)["counts"]
    assert not counts.get("new") and not counts.get("changed") and not counts.get("gone"), counts
    assert owner.rows("product sort sku limit 200") == before


def test_changes_alone_touch_their_rows(owner, onec):
    before = {p["id"]: p for p in owner.rows("product limit 200")}
    content = package([3, 4], made="2026-11-20T11:00:00", only_changes=True, names={3: "Гайка"},
                      price=lambda n: f"{n}.75")  # fmt: skip
    onec.exchange(content, "import.xml", "offers.xml")
    settled(owner)
    after = {p["id"]: p for p in owner.rows("product limit 200")}
    changed = {after[i]["fields"]["sku"] for i in after if after[i] != before[i]}
    assert changed == {"A-00003"} and len(after) == COUNT


def test_a_full_package_with_much_missing_stops_and_asks(owner, onec):
    content = package(range(1, COUNT // 2), made="2026-11-20T12:00:00")
    said = onec.exchange(content, "import.xml")[0]
    assert said[0] == "success" and "gone" in " ".join(said), said
    run = settled(owner, "planned")
    assert run["held_by"]
    assert not [p for p in owner.rows("product limit 200") if p["fields"].get("archived")]
    owner.post(f"/intake/runs/{run['id']}/cancel", {}, 202)


def test_a_picture_hangs_on_its_product_when_it_is_released(owner, onec):
    seen = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", seen), (b"IDAT", zlib.compress(b"\0\xff\0\0")), (b"IEND", b"")]
    picture = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks
    )
    goods = catalogue([7], made="2026-11-20T11:30:00", only_changes=True).replace(
        "</Артикул>".encode(), "</Артикул><Картинка>import_files/7.png</Картинка>".encode()
    )
    onec.exchange(packed(**{"import__xml": goods, "import_files/7.png": picture}), "import.xml")
    product = owner.rows('product where sku = "A-00007"')[0]["id"]
    end = time.monotonic() + 60
    files = []
    while not files or files[0]["state"] in ("receiving", "held"):
        assert time.monotonic() < end, files
        time.sleep(0.2)
        files = owner.get("/files", record=product)["files"]
    assert [(f["name"], f["state"]) for f in files] == [("7.png", "released")]


def test_orders_are_told_until_they_are_confirmed(owner, onec):
    customer = owner.make("customer", name="Dovzhenko Interiors", tax_id="12345678")
    product = owner.rows('product where sku = "A-00005"')[0]
    order = owner.make("order", customer=customer["id"])
    line = {"order": order["id"], "product": product["id"], "quantity": "2", "unit_price": "5.50"}
    owner.make("order_line", text="Болт", **line)
    first, again = (told(onec) for _ in range(2))
    assert first == again == {order["id"]: ("Новый", "11.00", ["p-5"])}
    assert onec.ask("success", type="sale") == ["success"]
    assert told(onec) == {}
    owner.make("order_line", text="Ещё", **line)
    assert told(onec) == {order["id"]: ("Новый", "22.00", ["p-5", "p-5"])}
    assert onec.ask("success", type="sale") == ["success"] and told(onec) == {}


def told(onec):
    """What a query answers, by order: state, amount, products."""
    text = "\n".join(onec.ask("query", type="sale"))
    root = etree.fromstring(text.encode())
    space = "{urn:1C.ru:commerceml_2}"
    found = {}
    for one in root.iter(f"{space}Документ"):
        details = {d.findtext(f"{space}Наименование"): d.findtext(f"{space}Значение")
                   for d in one.find(f"{space}ЗначенияРеквизитов")}  # fmt: skip
        goods = [g.findtext(f"{space}Ид") for g in one.iter(f"{space}Товар")]
        found[one.findtext(f"{space}Ид")] = (
            details["Статус заказа"], one.findtext(f"{space}Сумма"), goods,
        )  # fmt: skip
    return found


def test_what_1c_shows_when_it_is_refused(node, onec):
    anonymous = httpx.get(f"{node.url}/exchange/1c?type=catalog&mode=checkauth")
    assert anonymous.status_code == 401 and anonymous.text.startswith("failure\n")
    assert anonymous.headers["www-authenticate"].startswith("Basic")
    wrong = OneC(node.url, "nxk_" + "0" * 32)
    assert wrong.ask("checkauth", signed=True)[0] == "failure"
    onec.sign_in()
    onec.ask("init")
    assert onec.ask("import", filename="никогда.xml")[0] == "failure"
    assert onec.ask("guess")[0] == "failure"
    onec.send("broken.zip", b"PK\x03\x04" + bytes(3_000), 2_000)
    said = onec.load("import.xml")
    assert said[0] == "failure" and len(said) > 1, said
