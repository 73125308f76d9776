"""What a peer may send instead of a frame: refused with its place, at a bounded cost."""

import random
import tracemalloc

import google_crc32c
import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.base.errors import Malformed
from appliance.sync import frames
from appliance.sync.batch import pack_batch
from appliance.sync.frames import decode_frame, encode_frame
from tests.sync.sample import LOG_KEY, Life

LIFE = Life(21, 4)
ENTRIES = [*LIFE.live(25), LIFE.delete()]
GOOD = encode_frame(LIFE.stream, ENTRIES)
BATCH = msgspec.msgpack.decode(msgspec.msgpack.encode(pack_batch(LIFE.stream, ENTRIES, {})))
WEIRD = st.recursive(
    st.none() | st.booleans() | st.binary(max_size=5) | st.text(max_size=3) | st.floats()
    | st.integers(-(2**63), 2**64 - 1) | st.integers(-3, 40)
    | st.just(msgspec.msgpack.Ext(5, b"x")),
    lambda deeper: st.lists(deeper, max_size=4) | st.dictionaries(st.integers(-9, 99) | st.text(max_size=2), deeper, max_size=2),
    max_leaves=8,
)  # fmt: skip


def sealed(content, *, form=1, dictionary=1, size=None):
    """Any content in a frame whose outside is right."""
    packed = bytes((form, dictionary)) + (
        content if size == "raw" else frames._compress(content, len(content))
    )
    return frames._HEAD.pack(len(packed) + 4, google_crc32c.value(packed), *packed[:2]) + packed[2:]


def packed(batch):
    return sealed(msgspec.msgpack.encode(batch))


def refused_or_read(data):
    """Malformed, or entries that can be read; nothing else may leave."""
    try:
        frame = decode_frame(data, LOG_KEY)
    except Malformed as error:
        assert error.code in ("sync.frame", "sync.chain") and str(error)
        return
    again = decode_frame(encode_frame(frame.stream, frame.entries))
    assert [e.entry for e in again.entries] == [e.entry for e in frame.entries]


def test_the_example_itself_is_read():
    assert decode_frame(packed(BATCH), LOG_KEY).entries == tuple(ENTRIES)


@given(st.binary(max_size=300))
def test_any_bytes(data):
    with pytest.raises(Malformed):
        decode_frame(data)


@given(st.binary(max_size=200))
def test_any_content(data):
    with pytest.raises(Malformed):
        decode_frame(sealed(data))
    with pytest.raises(Malformed):
        decode_frame(sealed(data, size="raw"))


@pytest.mark.parametrize("length", [*range(0, 60), len(GOOD) - 1])
def test_cut_off(length):
    with pytest.raises(Malformed):
        decode_frame(GOOD[:length])


def test_every_flipped_byte_is_found():
    for place in range(len(GOOD)):
        bad = bytearray(GOOD)
        bad[place] ^= 1 + place % 255
        with pytest.raises(Malformed):
            decode_frame(bytes(bad))
    with pytest.raises(Malformed):
        decode_frame(GOOD + b"\0")


@given(st.integers(0, 2**30), st.integers(1, 255))
@settings(max_examples=300)
def test_flipped_bytes_under_a_right_checksum(place, by):
    content = bytearray(msgspec.msgpack.encode(BATCH))
    content[place % len(content)] ^= by
    refused_or_read(sealed(bytes(content)))
    inner = bytearray(GOOD[10:])
    inner[place % len(inner)] ^= by
    refused_or_read(sealed(bytes(inner), size="raw"))


def places(value, path=()):
    """Every place inside a decoded batch."""
    yield path
    items = enumerate(value) if isinstance(value, list) else ()
    items = value.items() if isinstance(value, dict) else items
    for key, inner in items:
        yield from places(inner, (*path, key))


PLACES = list(places(BATCH))


@given(st.sampled_from(PLACES), WEIRD)
@settings(max_examples=800)
def test_anything_in_any_place(path, value):
    batch = msgspec.msgpack.decode(msgspec.msgpack.encode(BATCH))
    inner = [batch]
    at = inner
    for key in (0, *path[:-1]) if path else ():
        at = at[key]
    at[path[-1] if path else 0] = value
    refused_or_read(packed(inner[0]))


@given(st.sampled_from(PLACES), st.sampled_from(["drop", "double", "swap"]), st.randoms())
@settings(max_examples=400)
def test_columns_of_other_lengths(path, how, dice):
    batch = msgspec.msgpack.decode(msgspec.msgpack.encode(BATCH))
    at = batch
    for key in path:
        at = at[key]
    if isinstance(at, list) and at:
        n = dice.randrange(len(at))
        match how:
            case "drop":
                del at[n]
            case "double":
                at.insert(n, at[n])
            case "swap":
                at[0], at[n] = at[n], at[0]
    refused_or_read(packed(batch))


def with_place(path, value):
    batch = msgspec.msgpack.decode(msgspec.msgpack.encode(BATCH))
    at = batch
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return packed(batch)


BODIES = 17
MIB = 1 << 20
DEEP = b"\x91" * 200_000 + b"\xc0"


@pytest.mark.parametrize(
    ("bomb", "most"),
    {
        "zeros of 15 MiB": (sealed(b"\xc0" * (15 * MIB)), 40),
        "more than may be": (sealed(b"\0" * (17 * MIB)), 1),
        "count": (with_place((0,), 2**62), 2),
        "all the same of too many": (with_place((0,), 20_001), 2),
        "runs": (with_place((5,), [2, 1, 2**40]), 2),
        "runs that make up for each other": (with_place((5,), [2, 1, 2**60, 1, 26 - 2**60]), 2),
        "empty runs": (with_place((5,), [2] + [1, 0] * 19_999), 4),
        "steps": (with_place((5,), [3, 2**62, 26]), 2),
        "seen": (with_place((BODIES, 0, 0, 4), 2**62), 2),
        "registers": (with_place((BODIES, 0, 0, 2), 400_000), 2),
        "ids": (with_place((8, 0), 2**62), 2),
        "shapes": (with_place((BODIES, 0), [[[], [], 0]] * 20_001), 8),
        "origins": (with_place((1,), [[n, 0, 3] for n in range(1, 20_001)]), 16),
        "deep": (sealed(msgspec.msgpack.encode(BATCH)[:-2] + DEEP), 4),
        "a size that is claimed": (
            sealed(
                zstandard.ZstdCompressor(
                    compression_params=zstandard.ZstdCompressionParameters.from_level(
                        3, format=zstandard.FORMAT_ZSTD1_MAGICLESS
                    )
                ).compress(b"\0" * (900 * MIB)),
                size="raw",
            ),
            1,
        ),
    }.values(),
    ids=lambda v: "" if isinstance(v, bytes) else None,
)  # fmt: skip
def test_bombs_cost_little(bomb, most):
    decode_frame(GOOD)
    tracemalloc.start()
    try:
        with pytest.raises(Malformed):
            decode_frame(bomb, LOG_KEY)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most * MIB


VALUE = next(p for p in PLACES if len(p) == 4 and p[:2] == (BODIES, 2))


def held(value, depth=1):
    """A list or mapping as a frame carries it."""
    for _ in range(depth):
        value = [msgspec.msgpack.encode(value)]
    return value


def test_deep_values_are_refused_and_not_a_crash():
    assert decode_frame(with_place(VALUE, held([1, "x"])))
    for depth in (99, 101, 2_000):
        deep = 1
        for _ in range(depth):
            deep = held([deep])
        if depth < 100:
            assert decode_frame(with_place(VALUE, deep))
            continue
        with pytest.raises(Malformed, match="a value"):
            decode_frame(with_place(VALUE, deep))


@pytest.mark.parametrize(
    "odd",
    [b"bytes", msgspec.msgpack.Ext(1, b""), [1], [], {"a": 1}, [b"x"], [b"", b""], held([b"x"]),
     held({"a": held({"b": [b""]})}), held({1: "x"}), held("x"), held([[]])],
)  # fmt: skip
def test_values_are_what_json_holds(odd):
    with pytest.raises(Malformed):
        decode_frame(with_place(VALUE, odd))


@pytest.mark.parametrize(
    ("value", "most"),
    [
        (held([held([])] * 1_000_000), 200),
        (held([None] * 15_000_000), 160),
        (held(["ab"] * 5_000_000), 400),
        (held({f"{n:x}": n for n in range(600_000)}), 120),
    ],
    ids=["lists", "nothing", "texts", "mapping"],
)
def test_a_few_kilobytes_do_not_become_a_gigabyte(value, most):
    data = with_place(VALUE, value)
    tracemalloc.start()
    try:
        with pytest.raises(Malformed, match="a value"):
            decode_frame(data)
        assert tracemalloc.get_traced_memory()[1] < most * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("form", [(2, 1), (1, 2), (0, 0), (255, 255)])
def test_a_format_of_another_time(form):
    with pytest.raises(Malformed, match="format"):
        decode_frame(sealed(b"", form=form[0], dictionary=form[1]))


def test_many_random_frames_one_after_another():
    dice = random.Random(3)
    content = msgspec.msgpack.encode(BATCH)
    for _ in range(1_500):
        bad = bytearray(content)
        for _ in range(dice.randrange(1, 4)):
            n = dice.randrange(len(bad))
            match dice.randrange(3):
                case 0:
                    bad[n] = dice.randrange(256)
                case 1:
                    del bad[n : n + dice.randrange(1, 9)]
                case 2:
                    bad[n:n] = dice.randbytes(dice.randrange(1, 5))
        refused_or_read(sealed(bytes(bad)))
