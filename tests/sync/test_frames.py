"""Frames: nothing is lost on the way, they are small, whole transactions, and their chains proved."""

from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.base.errors import Malformed, TooLarge
from appliance.kernel.change import Body, Entry, EntryOp, Logged
from appliance.sync import frames
from appliance.sync.frames import cut, decode_frame, encode_frame, encode_frames
from tests.sync.sample import LOG_KEY, Life

STREAM = UUID(int=5 << 64)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAME = st.text("abcdefghij_@!/é", min_size=1, max_size=6)
VALUE = st.recursive(
    st.none() | st.booleans() | TEXT | st.floats(allow_nan=False)
    | st.integers(-(2**63), 2**64 - 1),
    lambda deeper: st.lists(deeper, max_size=3) | st.dictionaries(TEXT, deeper, max_size=3),
    max_leaves=6,
)  # fmt: skip
DOT = (
    st.tuples(st.integers(1, 40), st.integers(1, 2**62)).map(lambda d: f"{d[0]}.{d[1]}")
    | st.integers(1, 2**40).map(lambda n: f"3.{n}@{STREAM.hex}")
    | TEXT
)
DOTS = st.lists(DOT, max_size=3)
BODY = st.builds(
    Body, fields=st.dictionaries(NAME, VALUE, max_size=4), base=st.dictionaries(NAME, DOTS, max_size=4),
    groups=st.dictionaries(NAME, st.lists(NAME, max_size=2), max_size=2), seen=DOTS,
    sets=st.dictionaries(NAME, st.tuples(st.lists(TEXT, max_size=2), st.lists(TEXT, max_size=2)), max_size=2),
    deltas=st.dictionaries(NAME, TEXT, max_size=2), ext=st.dictionaries(NAME, VALUE, max_size=2),
)  # fmt: skip
BIG = st.integers(1, 2**63 - 1) | st.integers(1, 2**16)
IDS = st.uuids() | st.sampled_from([UUID(int=n) for n in range(3)]) | st.builds(
    lambda ms, low: UUID(int=ms << 80 | 7 << 76 | low), st.integers(0, 2**34), st.integers(0, 2**70)
)  # fmt: skip
ENTRY = st.builds(
    Entry, stream=st.just(STREAM), origin=st.integers(1, 3) | st.integers(1, 2**32 - 1), oseq=BIG,
    tx=BIG, hlc=BIG, actor=IDS, door=NAME, kind=NAME, record_id=IDS,
    op=st.sampled_from(EntryOp) | NAME, schema_rev=st.integers(0, 2**63 - 1), change_set=IDS,
    body=BODY,
)  # fmt: skip
LOGGED = st.builds(
    Logged, entry=ENTRY, hash=st.just(b"") | st.binary(min_size=32, max_size=32), ehlc=BIG,
    parked=st.just("") | NAME,
)  # fmt: skip


def rising(entries):
    """With numbers that rise for each origin, as in any log."""
    last, found = {}, []
    for one in entries:
        origin = one.entry.origin
        last[origin] = last.get(origin, one.entry.oseq % 2**40) + 1 + one.entry.tx % 2
        entry = msgspec.structs.replace(one.entry, oseq=last[origin])
        found.append(msgspec.structs.replace(one, entry=entry))
    return found


def bare(entries):
    return [msgspec.structs.replace(one, hash=b"") for one in entries]


@given(st.lists(LOGGED, min_size=1, max_size=12).map(rising))
@settings(max_examples=150)
def test_nothing_but_the_hash_is_lost(entries):
    data = encode_frame(STREAM, entries)
    frame = decode_frame(data)
    assert frame.stream == STREAM
    assert list(frame.entries) == bare(entries)
    for one, other in zip(frame.entries, entries, strict=True):
        assert type(one.entry.op) is (EntryOp if other.entry.op in list(EntryOp) else str)
        assert repr(one.entry.body.fields) == repr(other.entry.body.fields), (
            "1 is not true, nor 1.0"
        )
    assert frame.stripped == {n for n, one in enumerate(entries) if not one.hash}
    assert encode_frame(STREAM, entries) == data, "the same entries are the same bytes"


@pytest.mark.parametrize("seed", range(30))
def test_what_a_company_writes_comes_back_as_it_was(seed):
    life = Life(seed)
    entries = life.live(1 + seed * 7)
    assert decode_frame(encode_frame(life.stream, entries), LOG_KEY).entries == tuple(entries)


def test_chains_of_several_origins_are_proved_each_from_where_it_stood():
    lives = [Life(1, n, oseq=n * 100, previous=bytes([n]) * 32) for n in (1, 2, 3)]
    for life in lives:
        life.stream = STREAM
    before = {life.origin: life.hash for life in lives}
    entries = [e for _ in range(20) for life in lives for e in life.live(3)]
    data = encode_frame(STREAM, entries, before=before)
    assert decode_frame(data, LOG_KEY).entries == tuple(entries)
    with pytest.raises(Malformed, match="do not make the hash") as found:
        decode_frame(data, b"x" * 32)
    assert found.value.code == "sync.chain"
    wrong = encode_frame(STREAM, entries, before={**before, 2: b"z" * 32})
    with pytest.raises(Malformed, match="node 2"):
        decode_frame(wrong, LOG_KEY)
    unknown = decode_frame(encode_frame(STREAM, entries, before={1: before[1]}), LOG_KEY)
    assert {bool(e.hash) for e in unknown.entries if e.entry.origin == 1} == {True}
    assert {bool(e.hash) for e in unknown.entries if e.entry.origin != 1} == {False}


def test_a_changed_entry_breaks_its_chain():
    life = Life(2)
    entries = life.live(40)
    changed = msgspec.structs.replace(
        entries[20], entry=msgspec.structs.replace(entries[20].entry, schema_rev=1)
    )
    data = encode_frame(life.stream, [*entries[:20], changed, *entries[21:]])
    with pytest.raises(Malformed, match="do not make the hash"):
        decode_frame(data, LOG_KEY)


@pytest.mark.parametrize("place", [0, 7, 39])
def test_from_the_first_stripped_entry_on_there_is_the_senders_word_alone(place):
    life = Life(3, 4, oseq=500, previous=b"p" * 32)
    entries = life.live(40)[:40]
    given = [*entries]
    entry = msgspec.structs.replace(entries[place].entry, body=Body(fields={"left": 1}))
    given[place] = Logged(entry=entry, hash=b"", ehlc=entries[place].ehlc)
    frame = decode_frame(encode_frame(life.stream, given, before={4: b"p" * 32}), LOG_KEY)
    assert frame.stripped == {place}
    assert frame.entries[:place] == tuple(entries[:place])
    assert frame.entries[place:] == tuple(bare(given[place:]))
    # The next frame is proved again, from the hash as it was logged.
    made = encode_frames(life.stream, given, {4: b"p" * 32}, [e.hash for e in entries])
    assert [count for _, count in made] == [40]


def test_a_gap_is_passed_on_as_it_is_for_the_receiver_to_see():
    life = Life(4)
    entries = life.live(30)
    some = entries[:10] + entries[12:]
    frame = decode_frame(encode_frame(life.stream, some), LOG_KEY)
    assert list(frame.entries) == entries[:10] + bare(entries[12:])


def test_frames_hold_whole_transactions_and_stay_small():
    life = Life(5, known=500)
    entries = []
    for size in (1, 400, 700, 2, 1_000, 1_001, 3, 999, 1, 1):
        entries += life.create(size)
        entries += life.live(50)
    assert [e for part in cut(entries) for e in part] == entries
    found, before = [], {}
    for data, count in encode_frames(life.stream, entries):
        part = decode_frame(data, LOG_KEY).entries
        assert len(part) == count
        whole = {e.entry.tx for e in part}
        assert len(whole) == 1 or (
            count <= frames.FRAME_ENTRIES and len(data) <= frames.FRAME_BYTES
        )
        assert not whole & before.keys()
        before.update(dict.fromkeys(whole))
        found += part
    assert found == entries


def test_texts_that_do_not_shrink_are_cut_again():
    life = Life(6)
    noise = [
        life.log(EntryOp.PUT, life.records[n], Body(fields={"x": life.dice.randbytes(1_500).hex()}))
        for n in range(100)
    ]
    made = list(encode_frames(life.stream, noise))
    assert all(len(data) <= frames.FRAME_BYTES for data, _ in made)
    assert [e for data, _ in made for e in decode_frame(data, LOG_KEY).entries] == noise


def test_a_transaction_larger_than_any_frame_is_refused_by_name():
    life = Life(7, known=1)
    bodies = [Body(fields={"x": "y" * 3_000_000}) for _ in range(6)]
    huge = [life.log(EntryOp.PUT, life.records[0], body, tx=1) for body in bodies]
    with pytest.raises(TooLarge, match="from number 1 of node 1"):
        list(encode_frames(life.stream, huge))


def test_the_largest_transaction_of_one_call_travels():
    life = Life(8)
    entries = life.create(10_000)
    ((data, count),) = encode_frames(life.stream, entries)
    assert count == 10_000 and decode_frame(data, LOG_KEY).entries == tuple(entries)


@pytest.mark.parametrize(("count", "most"), [(1, 175), (10, 58), (100, 40), (1_000, 36)])
def test_an_edit_of_one_field_costs_little_more_than_what_it_says(count, most):
    life = Life(9, 3, known=5_000, oseq=20_000, previous=b"p" * 32)
    money = [{"name": "amount", "type": "money"}]
    chosen = [life.dice.choice(life.records) for _ in range(count)]
    entries = [life.edit([r[0], "deal", money, r[3]]) for r in chosen]
    assert len(encode_frame(life.stream, entries, before={3: b"p" * 32})) / count < most
