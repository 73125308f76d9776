"""Records as nodes store them: opened, merged, closed again, and always what the core says."""

import random
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.kernel.change import Body, Entry, EntryOp
from appliance.kernel.record import conflicts_of, fold
from appliance.kernel.replay import Replay
from appliance.kernel.registers import Registers, join, merge
from appliance.kernel.shown import show
from tests.merge import model


class World:
    """Three authors who exchange now and then; what each has seen is the base of their edits."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.seen = {n: [] for n in (1, 2, 3)}
        self.written = []
        self.add(1, EntryOp.NEW, model._creation(self.rng))
        for n in (2, 3):
            self.seen[n] = list(self.written)

    def record(self, node):
        record, known = Registers(), set()
        for one in self.seen[node]:
            merge(record, one, known.__contains__)
            known.add(dot(one))
        return record

    def add(self, node, op, body):
        oseq = sum(e.origin == node for e in self.written) + 1
        entry = Entry(
            stream=model.STREAM, origin=node, oseq=oseq, tx=oseq,
            hlc=(1_000 + len(self.written) * 3 + self.rng.randrange(5)) << 16,
            actor=model.PEOPLE[node], door="http", kind="card", record_id=model.RECORDS[0], op=op,
            schema_rev=1, change_set=UUID(int=len(self.written) + 1), body=body,
        )  # fmt: skip
        self.written.append(entry)
        self.seen[node].append(entry)

    def step(self):
        node = self.rng.choice((1, 2, 3))
        if self.rng.random() < 0.4:
            other = self.rng.choice((1, 2, 3))
            self.seen[node] += [e for e in self.seen[other] if e not in self.seen[node]]
            return
        record = self.record(node)
        body, op = model._edit(self.rng, record)
        # Nobody edits what they see deleted.
        if op is EntryOp.PUT and show(record, model.KIND).is_deleted:
            return
        self.add(node, op, body)


def dot(entry):
    return f"{entry.dot}@{entry.stream.hex}"


def world(seed, steps=14):
    found = World(seed)
    for _ in range(steps):
        found.step()
    return found


def replayed(entries):
    replay = Replay(model.KIND)
    for one in entries:
        replay.take(one)
    return replay.state


@settings(max_examples=1000)
@given(st.integers(0, 10**9), st.randoms(use_true_random=False))
def test_a_stored_record_says_what_the_core_says_in_any_order(seed, rng):
    written = world(seed).written
    shuffled = list(written)
    rng.shuffle(shuffled)
    record, known = Registers(), set()
    for one in shuffled:
        merge(record, one, known.__contains__)
        known.add(dot(one))
    expected = show(record, model.KIND)
    straight, other = replayed(written), replayed(shuffled)
    for state in (straight, other):
        # A counter stands at its number, whichever way it was written.
        assert state.data == {k: v for k, v in expected.data.items() if v is not None}
        assert (state.deleted_at is not None) == expected.is_deleted
        assert conflicts_of(state, model.KIND) == expected.conflicts
    assert str(straight.stamps) == str(other.stamps)
    assert (straight.updated_at, straight.updated_by) == (other.updated_at, other.updated_by)
    assert (straight.open is None) == (other.open is None)


@settings(max_examples=300)
@given(st.integers(0, 10**9))
def test_a_state_from_elsewhere_joins_with_what_is_here(seed):
    """Two nodes with different parts of the log: joined, they have what both would have."""
    found = world(seed)
    a, b = found.seen[2], found.seen[3]
    mine, theirs = found.record(2), found.record(3)
    for record in (mine, theirs):
        # Counters are no matter of joining: they add up by entries.
        record.sums.clear()
    join(mine, theirs, {dot(e) for e in a}.__contains__, {dot(e) for e in b}.__contains__)
    both = Registers()
    known = set()
    for one in [*a, *(e for e in b if e not in a)]:
        merge(both, one, known.__contains__)
        known.add(dot(one))
    both.sums.clear()
    registers = {*mine.cells, *both.cells}
    assert {r: set(mine.cell(r)) for r in registers} == {r: set(both.cell(r)) for r in registers}
    assert show(mine, model.KIND) == show(both, model.KIND)


def test_a_form_that_saw_both_values_closes_the_record_again():
    found = World(3)
    for node, value in ((1, "x"), (2, "y")):
        record = found.record(1) if node == 1 else Registers()
        base = {"name": sorted((record if record.born else found.record(2)).cell("name"))}
        found.add(node, EntryOp.PUT, Body(fields={"name": value}, base=base))
    state = replayed(found.written)
    assert state.open is not None
    (conflict,) = conflicts_of(state, model.KIND)
    assert {side.values["name"] for side in conflict.sides} == {"x", "y"}
    base = list(state.stamps.of("name"))
    assert len(base) == 2
    decided = Entry(
        stream=model.STREAM, origin=3, oseq=1, tx=1, hlc=9_999 << 16, actor=model.PEOPLE[0],
        door="http", kind="card", record_id=model.RECORDS[0], op=EntryOp.PUT, schema_rev=1,
        change_set=model.SET, body=Body(fields={"name": "x"}, base={"name": base}),
    )  # fmt: skip
    after = fold(state, decided, model.KIND)
    assert (after.open, after.data["name"]) == (None, "x")


@pytest.mark.parametrize("seed", range(40))
def test_an_author_who_has_seen_everything_never_meets_a_conflict(seed):
    found = World(seed)
    for _ in range(10):
        record = found.record(1)
        body, op = model._edit(found.rng, record)
        if op is EntryOp.PUT and show(record, model.KIND).is_deleted:
            continue
        found.add(1, op, body)
    state = replayed(found.written)
    assert state.open is None or not conflicts_of(state, model.KIND)
