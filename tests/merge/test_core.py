"""The merge core by itself: order plays no role, what was not seen is kept, what was is replaced."""

from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.kernel.change import Body, Entry, EntryOp
from appliance.kernel.kind import Field, Kind, Policy
from appliance.kernel.record import fold
from appliance.kernel.registers import Registers, merge
from appliance.kernel.shown import ConflictSort, show
from appliance.kernel.stamps import EXISTS, Stamps
from tests.merge import model

WHO = UUID(int=1)


def entry(origin, oseq, body, op=EntryOp.PUT, hlc=0):
    return Entry(
        stream=model.STREAM, origin=origin, oseq=oseq, tx=oseq, hlc=hlc or oseq << 16, actor=WHO,
        door="http", kind="card", record_id=model.RECORDS[0], op=op, schema_rev=1,
        change_set=model.SET, body=body,
    )  # fmt: skip


def taken(*entries):
    record, known = Registers(), set()
    for one in entries:
        merge(record, one, known.__contains__)
        known.add(f"{one.dot}@{one.stream.hex}")
    return record


def kind(policy, name="a", **more):
    field = Field(fid=name, name=name, type="text", policy=policy, **more)
    return Kind(key="card", fields=(field,))


BORN = entry(1, 1, Body(fields={"a": "0"}), EntryOp.NEW)


def put(origin, oseq, value, base=("1.1",), hlc=0):
    return entry(origin, oseq, Body(fields={"a": value}, base={"a": list(base)}), hlc=hlc)


def test_a_concurrent_edit_keeps_both_values_until_somebody_decides():
    ours, theirs = put(1, 2, "1"), put(2, 1, "2")
    record = taken(BORN, ours, theirs)
    found = show(record, kind(Policy.ASK))
    (conflict,) = found.conflicts
    assert conflict.sort is ConflictSort.FIELD
    assert {s.values["a"] for s in conflict.sides} == {"1", "2"} and found.data["a"] in ("1", "2")
    decided = put(2, 2, "2", base=("1.2", "2.1"))
    found = show(taken(BORN, ours, theirs, decided), kind(Policy.ASK))
    assert (found.data, found.conflicts) == ({"a": "2"}, ())
    same = show(taken(BORN, ours, put(2, 1, "1")), kind(Policy.ASK))
    assert (same.data, same.conflicts) == ({"a": "1"}, ()), "equal values collapse"


def test_two_deciders_who_did_not_see_each_other_conflict_again():
    apart = [BORN, put(1, 2, "1"), put(2, 1, "2")]
    twice = [put(1, 3, "1", ("1.2", "2.1")), put(2, 2, "2", ("1.2", "2.1"))]
    assert show(taken(*apart, *twice), kind(Policy.ASK)).conflicts


@given(
    st.permutations(range(5)), st.sampled_from([Policy.ASK, Policy.NEWEST, Policy.MAX, Policy.MIN])
)
@settings(max_examples=300)
def test_the_order_of_arrival_plays_no_role(order, policy):
    entries = [
        BORN, put(1, 2, "1"), put(2, 1, "2"), put(3, 1, "3", ("2.1",)), put(4, 1, "4", ("1.2", "3.1")),
    ]  # fmt: skip
    straight = taken(*entries)
    shuffled = taken(*(entries[n] for n in order))
    assert show(shuffled, kind(policy)) == show(straight, kind(policy))
    assert not any(shuffled.pending.values())


def test_policies_that_decide_by_themselves():
    def shown(policy, *values):
        edits = [put(n + 2, 1, v, hlc=(n + 1) << 20) for n, v in enumerate(values)]
        found = show(taken(BORN, *edits), kind(policy))
        assert not found.conflicts
        return found.data.get("a")

    assert shown(Policy.NEWEST, "9", "1") == "1"
    assert shown(Policy.MAX, "9", "10", "2") == "10"
    assert shown(Policy.MIN, "9", "10", "2") == "2"
    assert shown(Policy.OR, False, True) is True
    assert shown(Policy.AND, False, True) is False


def test_the_owner_s_word_stands_and_the_other_is_a_proposal():
    born = entry(1, 1, Body(fields={"a": "0", "@unit": "south"}), EntryOp.NEW)
    words = [
        entry(n, 2, Body(fields={"a": said}, base={"a": ["1.1"]}, ext={"by": unit}))
        for n, said, unit in ((1, "hub", "office"), (2, "branch", "south"))
    ]
    found = show(taken(born, *words), kind(Policy.OWNER))
    assert found.data["a"] == "branch"
    assert found.conflicts[0].sort is ConflictSort.PROPOSAL


def test_texts_are_merged_by_lines_and_asked_about_where_they_meet():
    base = "one\ntwo\nthree\nfour\nfive\n"
    born = entry(1, 1, Body(fields={"a": base}), EntryOp.NEW)

    def shown(ours, theirs):
        edits = [
            entry(n, 2, Body(fields={"a": text}, base={"a": ["1.1"]}, ext={"was": {"a": base}}))
            for n, text in ((1, ours), (2, theirs))
        ]
        return show(taken(born, *edits), kind(Policy.TEXT3))

    found = shown(base.replace("one", "ONE"), base.replace("five", "FIVE"))
    assert found.data["a"] == "ONE\ntwo\nthree\nfour\nFIVE\n" and not found.conflicts
    assert shown(base.replace("two", "2"), base.replace("two", "zwei")).conflicts


def test_an_add_wins_over_a_removal_that_had_not_seen_it():
    tags = Kind(
        key="card", fields=(Field(fid="t", name="t", type="multi_choice", policy=Policy.SET),)
    )
    born = entry(1, 1, Body(fields={"t": ["x"]}), EntryOp.NEW)
    gone = entry(1, 2, Body(sets={"t": ([], ["x"])}, base={"t/x": ["1.1"]}))
    again = entry(2, 1, Body(sets={"t": (["x"], [])}, base={"t/x": ["1.1"]}))
    assert show(taken(born, gone), tags).data == {}
    assert show(taken(born, gone, again), tags).data == {"t": ["x"]}
    assert show(taken(born, again, gone), tags).data == {"t": ["x"]}
    seen = entry(1, 3, Body(sets={"t": ([], ["x"])}, base={"t/x": ["1.2", "2.1"]}))
    assert show(taken(born, gone, again, seen), tags).data == {}


def test_deleted_against_an_edit_that_was_not_seen():
    gone = entry(1, 2, Body(base={EXISTS: ["1.1"]}, seen=["1.1"]), EntryOp.DEL)
    assert show(taken(BORN, gone), kind(Policy.ASK)).is_deleted
    edited = show(taken(BORN, gone, put(2, 1, "2")), kind(Policy.ASK))
    assert edited.is_deleted and edited.conflicts[0].sort is ConflictSort.EDIT_VS_DELETE
    knew = entry(1, 2, Body(base={EXISTS: ["1.1"]}, seen=["1.1", "2.1"]), EntryOp.DEL)
    assert show(taken(BORN, put(2, 1, "2"), knew), kind(Policy.ASK)).conflicts == ()
    back = entry(3, 1, Body(base={EXISTS: ["1.2"]}), EntryOp.UNDEL)
    assert not show(taken(BORN, gone, back), kind(Policy.ASK)).is_deleted


def test_counters_add_up_once_for_each_entry():
    stock = Kind(
        key="card", fields=(Field(fid="s", name="s", type="number", policy=Policy.COUNTER),)
    )
    born = entry(1, 1, Body(fields={"s": "5"}), EntryOp.NEW)
    steps = [entry(o, 1 + (o == 1), Body(deltas={"s": d})) for o, d in ((1, "-2"), (2, "3.5"))]
    assert show(taken(born, *steps), stock).data == {"s": "6.5"}


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "del"]), st.text("xyz", max_size=2)), max_size=12)
)
@settings(max_examples=200)
def test_a_history_of_one_hand_is_what_the_write_path_folds(steps):
    """Local edits go by the same rule: their base is all that is live, so nothing conflicts."""
    both = Kind(key="card", fields=tuple(Field(fid=f, name=f, type="text") for f in "ab"))
    first = entry(1, 1, Body(fields={"a": "0"}), EntryOp.NEW)
    state, entries = fold(None, first), [first]
    for number, (what, value) in enumerate(steps, 2):
        # Who sees a deleted record can only bring it back.
        if what == "del" or state.deleted_at:
            op = EntryOp.UNDEL if state.deleted_at else EntryOp.DEL
            body = Body(base={EXISTS: list(state.stamps.of(EXISTS))}, seen=state.stamps.all_dots())
        else:
            op = EntryOp.PUT
            body = Body(fields={what: value or None}, base={what: list(state.stamps.of(what))})
        entries.append(entry(1, number, body, op))
        state = fold(state, entries[-1])
    found = show(taken(*entries), both)
    assert (found.data, found.is_deleted) == (state.data, state.deleted_at is not None)
    assert not found.conflicts
    assert Stamps.parse(str(state.stamps)) is not None
