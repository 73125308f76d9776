"""The drop box: parts appended, a repeat known by its bytes, names that are never paths, bounds."""

import os
import time

import pytest

from appliance.base.errors import Invalid, TooLarge
from appliance.base.ids import uuid7
from appliance.exchange.box import Box, forget_left, read_drop

pytestmark = pytest.mark.anyio
MOST = 10_000


async def pieces(*content):
    for piece in content:
        yield piece


async def broken():
    yield b"half"
    raise ConnectionError


@pytest.fixture
def box(tmp_path):
    return Box(tmp_path, uuid7(), uuid7(), "catalog")


async def content(box, name):
    return b"".join([p async for p in read_drop(box.find(name))])


async def test_parts_are_joined_and_the_last_one_again_is_the_last_one(box):
    for part in (b"one", b"two", b"two", b"one"):
        await box.append("a.xml", pieces(part), most=MOST)
    assert await content(box, "a.xml") == b"onetwoone"
    await box.append("a.xml", pieces(b"th", b"ree"), most=MOST)
    assert await content(box, "a.xml") == b"onetwoonethree"
    await box.append("a.xml", pieces(), most=MOST)
    assert box.find("a.xml").size == 14


async def test_a_part_that_did_not_arrive_leaves_nothing(box):
    await box.append("a.xml", pieces(b"one"), most=MOST)
    with pytest.raises(ConnectionError):
        await box.append("a.xml", broken(), most=MOST)
    assert await content(box, "a.xml") == b"one"


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "/tmp/x", "C:\\Temp\\v8_8789_c.xml", "a/../b", "імʼя.xml"]
)
async def test_names_are_keys_and_no_paths(box, tmp_path, name):
    await box.append(name, pieces(b"x"), most=MOST)
    assert [d.name for d in box.drops()] == [name]
    assert {p.relative_to(tmp_path).parts[0] for p in tmp_path.rglob("*")} == {"exchange"}
    box.clear()
    assert box.drops() == [] and box.find(name) is None


async def test_a_name_inside_an_archive_leads_to_the_archive(box):
    await box.append("v8_1.ZIP", pieces(b"PK"), most=MOST)
    await box.append("other.xml", pieces(b"<a/>"), most=MOST)
    assert box.find("import.xml").name == "v8_1.ZIP"
    assert box.find("other.xml").name == "other.xml"


async def test_bounds(box):
    await box.append("a.xml", pieces(b"x" * 6_000), most=MOST)
    with pytest.raises(TooLarge):
        await box.append("b.xml", pieces(b"x" * 3_000, b"y" * 3_000), most=MOST)
    for name in ("", "n" * 401):
        with pytest.raises(Invalid):
            await box.append(name, pieces(b"x"), most=MOST)
    assert [d.size for d in box.drops()] == [6_000]


async def test_what_was_left_goes_after_a_week(box, tmp_path):
    await box.append("a.xml", pieces(b"x"), most=MOST)
    assert forget_left(tmp_path, days=7) == 0 and box.drops()
    old = time.time() - 8 * 86_400
    for path in tmp_path.rglob("*"):
        os.utime(path, (old, old))
    assert forget_left(tmp_path, days=7) == 1 and not box.drops()
