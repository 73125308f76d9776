"""Entries: folding is deterministic, hashes depend on everything, histories read back."""

from uuid import UUID

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from appliance.kernel.change import Body, Entry, EntryOp, chain_hash, decode_body, encode_body
from appliance.kernel.record import fold

KEY = b"k" * 32
STREAM, OTHER, ACTOR = UUID(int=1), UUID(int=2), UUID(int=3)


def entry(n, op=EntryOp.PUT, stream=STREAM, **body):
    return Entry(
        stream=stream, origin=1, oseq=n, tx=n, hlc=(1_000 + n) << 16, actor=ACTOR, door="http",
        kind="deal", record_id=UUID(int=9), op=op, schema_rev=1, change_set=UUID(int=n),
        body=Body(**body),
    )  # fmt: skip


def test_a_life_of_a_record():
    born = entry(1, EntryOp.NEW, fields={"name": "A", "@unit": str(STREAM), "@number": "D-1"})
    edited = entry(2, fields={"name": "B"}, base={"name": ["1.1"]})
    tagged = entry(3, sets={"tags": (["x", "y"], [])}, base={"tags/x": ["1.1"], "tags/y": ["1.1"]})
    counted = entry(4, deltas={"visits": "2"}, base={})
    gone = entry(5, EntryOp.DEL, base={"!": ["1.1"]}, seen=["1.1", "1.2", "1.3"])
    state = None
    for step in (born, edited, tagged, counted, gone):
        state = fold(state, step)
    assert state.data == {"name": "B", "tags": ["x", "y"], "visits": "2"}
    assert str(state.stamps) == "1.1;!=1.5;name=1.2;tags/x=1.3;tags/y=1.3"
    assert state.deleted_by == ACTOR
    assert fold(state, entry(6, EntryOp.UNDEL, base={"!": ["1.5"]})).deleted_at is None


def test_a_move_keeps_the_causal_past():
    born = entry(1, EntryOp.NEW, fields={"name": "A", "@unit": str(STREAM)})
    left = entry(2, EntryOp.MOVE)
    came = entry(
        1,
        EntryOp.ARRIVE,
        stream=OTHER,
        fields={"@unit": str(OTHER)},
        base={"@unit": [f"1.1@{STREAM.hex}"]},
    )
    state = fold(fold(fold(None, born), left), came)
    assert state.stream == OTHER
    assert str(state.stamps) == f"1.1@{STREAM.hex};@unit=1.1"


def test_a_null_clears():
    born = entry(1, EntryOp.NEW, fields={"name": "A"})
    assert (
        fold(fold(None, born), entry(2, fields={"name": None}, base={"name": ["1.1"]})).data == {}
    )


@given(
    st.dictionaries(
        st.sampled_from("abc"), st.none() | st.booleans() | st.text(max_size=5), max_size=3
    ),
    st.dictionaries(st.sampled_from("abc"), st.lists(st.just("1.1"), max_size=2)),
)
def test_bodies_round_trip(fields, base):
    body = Body(fields=fields, base=base)
    assert decode_body(encode_body(body)) == body


@given(st.integers(0, 10_000))
def test_any_difference_changes_the_hash(seed):
    whole = entry(1, fields={"name": "A", "amount": "1.00"}, base={"name": ["1.1"]})
    parts = [
        {"oseq": 2}, {"origin": 2}, {"hlc": 5}, {"actor": OTHER}, {"kind": "lead"},
        {"record_id": OTHER}, {"op": EntryOp.DEL}, {"schema_rev": 2}, {"change_set": OTHER},
        {"stream": OTHER}, {"door": "sync"}, {"tx": 7},
        {"body": Body(fields={"name": "A", "amount": "1.01"}, base={"name": ["1.1"]})},
        {"body": Body(fields={"name": "A", "amount": "1.00"}, base={"name": ["1.2"]})},
        {"body": Body(fields={"name": "A"}, base={"name": ["1.1"]})},
    ]  # fmt: skip
    other = msgspec.structs.replace(whole, **parts[seed % len(parts)])
    assert chain_hash(KEY, b"", whole) != chain_hash(KEY, b"", other)
    assert chain_hash(KEY, b"p", whole) != chain_hash(KEY, b"", whole)
    assert chain_hash(b"x" * 32, b"", whole) != chain_hash(KEY, b"", whole)
