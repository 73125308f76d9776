"""1C's OData interface as a source: looks, what is told again, what goes wrong, what is gone."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.formats.captured import Page, read_head, read_pages, write_capture
from connectors.onec import client, place
from connectors.onec.client import Base
from connectors.onec.looks import Looks
from connectors.onec.memory import Memory
from connectors.onec.sweep import Sweep
from connectors.sdk.contract import Refused, Rows, Summary
from connectors.sdk.retry import Policy, Trouble
from connectors.systems.onec_odata import CONNECTOR
from connectors.systems.onec_odata.profile import Map, read_profile
from connectors.transports import rates
from connectors.transports.fetch import fetch
from connectors.transports.places import Place, open_place
from tests.connectors.odata_server import (
    BUYERS,
    CURRENCIES,
    GOODS,
    ORDERS,
    PRICES,
    STOCK,
    VARIANTS,
    ZERO,
    Base1C,
    Refusal,
    fill,
    serve,
    small_trust,
)

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
QUICK = Policy(tries=4, first_s=0.01, most_s=0.02, deadline_s=10.0)
DAY = 86_400


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setattr(client, "POLICY", QUICK)
    base = Base1C()
    ids = fill(base)
    with serve(base) as address:
        yield World(base, ids, address, tmp_path)


class World:
    """A base, and looks at it."""

    def __init__(self, base, ids, address, folder):
        self.base, self.ids, self.address, self.folder = base, ids, address, folder
        self.now = NOW
        rates._BUCKETS.clear()

    def open(self, **more):
        one = Base(self.address, self.base.user, self.base.password, allowed=("127.0.0.1",), ca_file=small_trust(), policy=QUICK, rate=rates.Rate(5_000, 5_000))  # fmt: skip
        memory = Memory(self.folder / "memory.sqlite")
        profile = more.pop("profile", None) or small(read_profile("trade11"), page=2)
        looks = Looks(one, memory, profile, name="1c/trade", now=lambda: self.now, **more)
        return place.OneC(looks, {})

    def look(self, *, keep=True, **more):
        """One look: its rows by entity and key, and its facts; None without news."""
        way = self.open(**more)
        try:
            listing = way.entries()
            if not listing.entries:
                return None
            (entry,) = listing.entries
            with way.open(entry) as pieces:
                path = self.folder / "look.ndjson"
                path.write_bytes(b"".join(pieces))
            if keep:
                way.finish(entry, is_failed=False)
        finally:
            way.close()
        return read(path)


def small(profile, page):
    entity = {n: msgspec.structs.replace(m, page=page) for n, m in profile.entity.items()}
    return msgspec.structs.replace(profile, entity=entity)


def read_all(path):
    """Rows and the summary, in this process: tests of every system read in children enough."""
    source = CONNECTOR.open(path)
    rows, summary = [], None
    for frame in source.read(source.inspect({}).proposal):
        rows += frame.rows if isinstance(frame, Rows) else ()
        summary = frame if isinstance(frame, Summary) else summary
    return rows, summary


def read(path):
    """Rows by entity and key, and the summary; none is faulty."""
    rows, summary = read_all(path)
    assert not [r for r in rows if r.faults], [r for r in rows if r.faults]
    return {(r.entity, r.key): r.values for r in rows}, summary


def kinds(rows):
    found = {}
    for entity, _ in rows:
        found[entity] = found.get(entity, 0) + 1
    return found


def test_a_first_look_tells_everything_and_says_so(world):
    rows, summary = world.look()
    ids = world.ids
    first, second = ids["products"][:2]
    assert kinds(rows) == {
        "unit": 1, "category": 1, "price_type": 1, "warehouse": 1, "counterparty": 1, "product": 5,
        "variant": 2, "price": 6, "stock": 7, "order": 1, "order_line": 1,
    }  # fmt: skip
    assert (summary.facts["look"], summary.facts["catalogue_full"], summary.facts["offers_full"]) == ("full", "yes", "yes")  # fmt: skip
    assert summary.warnings == ()
    assert rows["product", first] == {
        "name": "Болт М000", "is_deleted": False, "sku": "B0", "code": "00000", "unit": "шт",
        "unit_code": "796", "category_id": ids["group"], "tax": "20",
    }  # fmt: skip
    # The forms are those of CommerceML: a variant is p#v, also one of a shared characteristic.
    red, large = f"{first}#{ids['red']}", f"{second}#{ids['large']}"
    assert rows["variant", red] == {"product_id": first, "name": "Красный", "is_deleted": False}
    assert rows["variant", large]["name"] == "Большой"
    assert rows["price", f"{red}|{ids['retail']}"] == {
        "product_id": first, "variant_id": red, "price_type_id": ids["retail"], "amount": "12",
        "currency": "980",
    }  # fmt: skip
    assert rows["price", f"{first}|{ids['retail']}"]["amount"] == "10.5"
    assert rows["stock", f"{large}|{ids['store']}"]["quantity"] == "1.5"
    assert rows["counterparty", ids["buyer"]]["phone"] == "+380501234567"
    assert rows["counterparty", ids["buyer"]]["is_person"] is True
    line = rows["order_line", f"{ids['order']}|{first}|1"]
    assert (line["quantity"], line["price"], line["order_id"]) == ("2", "10.5", ids["order"])
    assert rows["order", ids["order"]]["moment"] == "2026-11-20T10:00:00"
    # One seat, begun and given back; every address short; nobody's rows that may not be seen asked.
    assert (world.base.most, world.base.sessions) == (1, set())
    assert all(g.get("allowedOnly") == "true" for _, p, g, _ in world.base.asked if p and p != "$metadata")  # fmt: skip


def test_what_has_changed_is_told_and_nothing_else(world):
    world.look()
    assert world.look() is None
    base, ids = world.base, world.ids
    first = ids["products"][0]
    base.put(GOODS, first, Description="Болт новый")
    # Catalogues have no date of a change: the window tells prices, balances and documents.
    base.price(ids["products"][1], ids["retail"], 99, ids["currency"], at="2026-11-21T00:00:00")
    base.move(ids["products"][2], ids["store"], -7)
    base.put(ORDERS, ids["order"], Статус="Закрыт")
    rows, summary = world.look()
    gone = ("stock", f"{ids['products'][2]}|{ids['store']}")
    assert {k for k in rows if k[0] != "unit"} == {
        ("price", f"{ids['products'][1]}|{ids['retail']}"), gone,
        ("order", ids["order"]), ("order_line", f"{ids['order']}|{first}|1"),
    }  # fmt: skip
    assert rows[gone]["quantity"] == "0" and summary.facts["catalogue_full"] == "no"
    world.now += DAY
    before = len(base.asked)
    rows, summary = world.look()
    assert {k for k in rows if k[0] != "unit"} == {("product", first)}
    assert (rows["product", first]["unit"], summary.facts["look"]) == ("шт", "sweep")
    wholes = [g for _, p, g, _ in base.asked[before:] if p == GOODS and "Description" in g["$select"]]  # fmt: skip
    assert len(wholes) == 1 and "Ref_Key eq guid" in wholes[0]["$filter"]
    assert world.look() is None


def test_marks_of_deletion_and_what_is_gone_for_good(world):
    world.look()
    base, ids = world.base, world.ids
    base.put(GOODS, ids["products"][0], DeletionMark=True)
    del base.objects[GOODS][ids["products"][4]]
    world.now += DAY
    rows, summary = world.look()
    assert rows["product", ids["products"][0]]["is_deleted"] is True
    # A sweep knows that something is not there; only a full look says what is gone.
    assert summary.facts["catalogue_full"] == "no"
    rows, summary = world.look()
    assert summary.facts["catalogue_full"] == "yes" and ("product", ids["products"][4]) not in rows
    assert kinds(rows)["product"] == 4
    assert world.look() is None


def test_a_look_that_was_not_handed_over_is_told_again(world):
    first, _ = world.look(keep=False)
    again, summary = world.look()
    assert again == first and summary.facts["look"] == "full"
    world.base.move(world.ids["products"][0], world.ids["store"], 1)
    told, _ = world.look(keep=False)
    assert told == world.look()[0] and world.look() is None
    # Fetched twice by one way (a cut disk), it is a look of its own again.
    world.base.move(world.ids["products"][0], world.ids["store"], 1)
    way = world.open()
    (entry,) = way.entries().entries
    read_twice = []
    for _ in range(2):
        with way.open(entry) as pieces:
            read_twice.append(b"".join(pieces))
    way.close()
    assert read_twice[0] == read_twice[1]
    (world.folder / "memory.sqlite").unlink()
    assert world.look()[1].facts["look"] == "full"


def test_entities_left_out_and_objects_that_are_not_published(world):
    world.base.hidden = {VARIANTS}
    world.base.wrong_properties = {"Артикул"}
    with pytest.raises(Trouble, match="Catalog_ХарактеристикиНоменклатуры is not published") as told:  # fmt: skip
        world.look()
    assert told.value.is_permanent and "Catalog_Номенклатура has no Артикул (product)" in told.value.detail  # fmt: skip
    assert "СоставСтандартногоИнтерфейсаOData" in told.value.detail and not world.base.sessions
    world.base.wrong_properties = set()
    rows, summary = world.look(left_out=("variant", "order"))
    assert "order" not in kinds(rows)
    assert summary.facts["offers_full"] == "no" and summary.facts["catalogue_full"] == "yes"
    assert [(w.code, w.found) for w in summary.warnings] == [("left-out", "variant, order")]
    # Taken away later: the question itself names it.
    world.base.hidden.add(STOCK)
    world.base.rows = lambda name, tail, rows=world.base.rows: rows("X", "") if name == STOCK else rows(name, tail)  # fmt: skip
    with pytest.raises(Trouble, match="AccumulationRegister_ТоварыНаСкладах.* is not published"):
        world.look(left_out=("variant", "order"))


@pytest.mark.parametrize("mishap", ["503", "html", "cut", "drop", "lost"])
def test_what_is_wrong_for_now_is_outlived(world, mishap):
    world.base.mishaps.extend([None, None, None, mishap, None, mishap, mishap])
    rows, summary = world.look()
    assert kinds(rows)["product"] == 5 and summary.facts["catalogue_full"] == "yes"
    assert not world.base.sessions or mishap in ("lost", "drop")


def test_what_is_wrong_for_good_says_so_at_once_and_gives_the_seat_back(world):
    original = world.base.rows

    def broken(name, tail):
        if name == PRICES:
            raise Refusal("{ОбщийМодуль.Цены(12)}: Деление на 0")
        return original(name, tail)

    world.base.rows = broken
    with pytest.raises(Trouble, match="Деление на 0") as told:
        world.look()
    assert told.value.is_permanent and told.value.code == "refused-by-1c"
    assert sum(p.startswith(PRICES) for _, p, _, _ in world.base.asked) == 1
    assert not world.base.sessions
    world.base.rows = original
    way = world.open()
    world.base.password = "changed"
    asked = len(world.base.asked)
    with pytest.raises(Trouble) as told:
        way.entries()
    way.close()
    assert (told.value.code, told.value.is_permanent) == ("http-401", True)
    # Not tried again: names are locked after some wrong passwords.
    assert len(world.base.asked) == asked + 1
    elsewhere = Base(f"{world.address}/other", "x", "y", allowed=("127.0.0.1",), ca_file=small_trust(), policy=QUICK)  # fmt: skip
    world.base.user, world.base.password = "x", "y"
    with pytest.raises(Trouble, match="not at this address"):
        elsewhere.metadata()
    elsewhere.close()


def test_a_seat_that_comes_free_is_waited_for(world):
    world.base.seats = 1
    world.base.sessions.add("somebody")

    def leave(_command, _path):
        if len(world.base.asked) >= 3:
            world.base.sessions.discard("somebody")

    world.base.mishaps.extend([leave] * 3)
    assert kinds(world.look()[0])["product"] == 5
    assert (world.base.most, world.base.sessions) == (1, set())


def test_the_place_of_a_source(world, tmp_path):
    (tmp_path / "secrets").write_text(f"name = {world.base.user}\npassword = {world.base.password}\n")  # fmt: skip
    told = {
        "type": "onec_odata", "base": world.address, "secrets_file": str(tmp_path / "secrets"),
        "memory_file": str(tmp_path / "m.sqlite"), "windows": {"days": 3},
    }  # fmt: skip
    (tmp_path / "in").mkdir()
    way = open_place(msgspec.convert(told, Place), {})
    with pytest.raises(Trouble, match="allow it if it is meant"):
        way.entries()
    way.close()
    way = open_place(msgspec.convert({**told, "allowed": ["127.0.0.1"]}, Place), {})
    (entry,) = way.entries().entries
    got = fetch(way, entry, tmp_path / "in")
    way.finish(entry, is_failed=False)
    way.close()
    assert kinds(read(got.path)[0])["product"] == 5
    for wrong, said in (({"profile": "nothing"}, "trade11"), ({"leave_out": ["boat"]}, "boat")):
        with pytest.raises(Trouble, match=said):
            open_place(msgspec.convert({**told, **wrong}, Place), {})


def test_a_profile_of_ones_own_is_checked_as_it_is_read(tmp_path):
    own = tmp_path / "own.toml"
    head = 'key = "own"\nlabel = "Own"\n'
    good = head + '[entity.product]\nobject = "Catalog_Товары"\nfields = { name = "Description" }\n'
    own.write_text(good)
    assert read_profile(str(own)).entity["product"].path == "Catalog_Товары"
    wrong = (
        ("[entity.boat]\nobject = 'X'", "entity boat is none of"),
        ("[entity.stock]\nobject = 'X'", "registers have keys"),
        ("[entity.product]\nobject = 'X'\nfields = { colour = 'Цвет' }", "product has no field colour"),
        ("[entity.product]\nobject = 'X/../Y'", "object"),
        ("[entity.product]\nobject = 'X'\nfields = { name = 'a,b' }", "fields"),
        ("[entity.product]\nobject = 'X'\nrefs = { unit = 'boat' }", "boat is none of"),
        ("[entity.product]\nobject = ", "own.toml"),
    )  # fmt: skip
    for body, said in wrong:
        own.write_text(head + body + "\n")
        with pytest.raises(ValueError, match=said):
            read_profile(str(own))
    for shipped in ("trade11", "bas_trade", "accounting30"):
        assert read_profile(shipped).key == shipped


def test_an_answer_that_is_too_large_is_asked_for_in_smaller_pages(world, monkeypatch):
    monkeypatch.setattr("connectors.transports.api.ANSWER_MAX", 9_000)
    for n in range(100):
        world.base.put(GOODS, Description=f"Гайка {n:03}", IsFolder=False, Parent_Key=ZERO, Описание="х" * 200)  # fmt: skip
    rows, _ = world.look(profile=small(read_profile("trade11"), page=1_000))
    assert kinds(rows)["product"] == 105


BOMB = b'<?xml version="1.0"?><!DOCTYPE Edmx [<!ENTITY a "aaaa">]><Edmx>&a;</Edmx>'


@pytest.mark.parametrize(
    ("path", "answer", "code"),
    [
        (GOODS, b'{"value":[7]}', "answer-unknown"), (GOODS, b"[]", "answer-unknown"),
        (GOODS, b'{"value":[{"Ref_Key":5}]}', "answer-unknown"),
        (GOODS, b'{"value":[],"odata.count":"x"}', "answer-unknown"),
        (GOODS, b'{"value":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}", "too-deep"),
        ("$metadata", BOMB, "metadata-unreadable"), ("$metadata", b"{}", "metadata-unreadable"),
        ("$metadata", b"", "metadata-unreadable"),
    ],
)  # fmt: skip
def test_answers_of_no_known_form_end_the_look_and_say_so(world, path, answer, code):
    world.base.mishaps.extend([lambda _, asked: answer if asked == path else None] * 60)
    with pytest.raises(Trouble) as told:
        world.look()
    assert (told.value.code, told.value.is_permanent) == (code, True)
    assert not world.base.sessions


def test_of_a_base_that_is_never_at_rest_nothing_is_taken_for_gone(world):
    world.base.before = lambda: world.base.put(GOODS, Description="Новый", IsFolder=False, Parent_Key=ZERO)  # fmt: skip
    rows, summary = world.look(profile=small(read_profile("trade11"), page=3))
    assert summary.facts["catalogue_full"] == "no"
    (warned,) = summary.warnings
    assert warned.code == "restless" and "product" in warned.found
    world.base.before = lambda: None
    # It is tried again after a day, not after a week.
    world.now += DAY
    assert world.look()[1].facts["catalogue_full"] == "yes"


def test_a_memory_that_is_in_use_or_damaged_is_told(world):
    first, second = world.open(), world.open()
    first.entries()
    second._looks._memory._db.execute("PRAGMA busy_timeout = 1")
    with pytest.raises(Trouble, match="another worker") as told:
        second.entries()
    assert not told.value.is_permanent
    first.close()
    second.close()
    (world.folder / "memory.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(Trouble, match="remove it"):
        world.open()


STEPS = st.lists(
    st.tuples(st.sampled_from(["rename", "insert", "delete", "change", "rest"]), st.integers(0, 99), st.integers(0, 99)),
    max_size=40,
)  # fmt: skip


@settings(max_examples=60, deadline=None)  # fmt: skip
@given(count=st.integers(0, 14), page=st.integers(1, 5), steps=STEPS)
def test_nothing_is_lost_or_doubled_while_people_work(count, page, steps):
    """Between two pages somebody renames, makes or deletes one: a sweep that is believed has all."""
    store = Base1C()
    keys = [store.put(GOODS, Description=f"{n:03}") for n in range(count)]
    stayed, waiting = set(keys), list(steps)

    def work():
        if not waiting:
            return
        what, which, where = waiting.pop(0)
        live = sorted(store.objects[GOODS])
        if what == "insert":
            store.put(GOODS, Description=f"{where:03}")
        elif live and what == "delete":
            gone = live[which % len(live)]
            del store.objects[GOODS][gone]
            stayed.discard(gone)
        elif live and what == "rename":
            store.put(GOODS, live[which % len(live)], Description=f"{where:03}")
        elif live and what == "change":
            store.put(GOODS, live[which % len(live)])

    class Direct:
        """The dialect without its socket."""

        def rows(self, path, select, *, filter_="", order="", top=0, skip=0):
            work()
            rows = sorted(store.objects[GOODS].values(), key=lambda r: (r["Description"], r["Ref_Key"]))  # fmt: skip
            value = [msgspec.Raw(msgspec.json.encode(r)) for r in rows[skip : skip + top]]
            return client.Feed(value, str(len(rows)))

    memory = Memory(Path(":memory:"))
    memory.begin()
    sweep = Sweep(Direct(), memory, "product", Map(object=GOODS, page=page))
    seen = [r.key for rows in sweep.rows() for r in rows]
    memory.close()
    assert len(seen) == len(set(seen))
    if sweep.is_quiet:
        assert stayed <= set(seen)
    if not steps:
        assert sweep.is_quiet and sweep.turn == 1


def test_captures_that_are_not_right_are_refused(tmp_path, world):
    world.look()
    lines = (world.folder / "look.ndjson").read_bytes().splitlines(keepends=True)
    path = tmp_path / "wrong.ndjson"

    def write(pages):
        path.write_bytes(b"".join(write_capture(read_head(world.folder / "look.ndjson", "onec_odata"), pages)))  # fmt: skip

    pages = [p for _, p in read_pages(world.folder / "look.ndjson")]
    unknown = [*pages[:-1], Page("boat", msgspec.Raw(b'{"value":[]}')), pages[-1]]
    shapes = (b'{"value":{}}', b"[]", b'{"value":[7]}', b'{"value":[{"Ref_Key":7,"Description":[1]}]}')  # fmt: skip
    for wrong in (pages[:-1], pages[1:], [*pages, pages[1]], unknown):
        write(wrong)
        with pytest.raises(Refused) as told:
            read(path)
        assert told.value.fault.code in ("damaged", "truncated")
    for body in shapes:
        write([*pages[:-1], Page("product", msgspec.Raw(body)), pages[-1]])
        try:
            rows, _ = read_all(path)
        except Refused as refused:
            assert refused.fault.code == "damaged"
        else:
            assert any(r.faults for r in rows)
    assert len(lines) == len(pages) + 2
