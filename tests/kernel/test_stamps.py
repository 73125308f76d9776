"""Dots and stamps: the algebra that versions, conflicts and later replication stand on."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from appliance.kernel.stamps import Stamps

A, B = UUID(int=0xA), UUID(int=0xB)
dots = st.builds("{}.{}".format, st.integers(1, 9), st.integers(1, 999))
registers = st.sampled_from(["name", "amount", "tags/blue", "@unit", "!", "colour~7"])
stamps = st.builds(
    Stamps,
    st.tuples(dots),
    st.dictionaries(registers, st.lists(dots, min_size=1, max_size=3, unique=True).map(tuple)),
)


@given(stamps)
def test_text_form_round_trips(found):
    again = Stamps.parse(str(found))
    assert again is not None
    assert (found.born, found.live) == (again.born, again.live)


@given(stamps, dots, st.lists(registers, unique=True))
def test_an_entry_covers_exactly_its_registers(found, dot, written):
    after = found.with_(dot, written)
    for register in ["name", "amount", "tags/blue", "@unit", "!", "other"]:
        expected = (dot,) if register in written else found.of(register)
        assert expected == after.of(register)


@given(stamps)
def test_moving_away_and_back_restores_the_dots(found):
    there = found.qualified(leaving=A, entering=B)
    assert all("@" in d for d in there.all_dots())
    back = there.qualified(leaving=B, entering=A)
    assert str(found) == str(back)


@given(stamps, dots)
def test_dots_of_two_streams_stay_apart(found, dot):
    moved = found.qualified(leaving=A, entering=B).with_(dot, ["name"])
    assert moved.of("name") == (dot,)
    assert dot not in moved.of("never-written")


@given(st.text(max_size=60))
def test_any_text_is_a_token_or_none(text):
    found = Stamps.parse(text)
    assert found is None or str(Stamps.parse(str(found))) == str(found)


def test_hidden_registers_leave_no_trace():
    seen = Stamps.parse("1.1;margin=1.9;name=1.3;tags/blue=1.4")
    assert str(seen.without(["margin", "tags"])) == "1.1;name=1.3"


def test_a_record_of_many_members_is_read_again():
    """Each member that ever was in a set stays a register: a record must not end of that."""
    live = {f"watchers/01a1fe11-8eda-7000-a2ba-{n:012x}": (f"1.{n + 2}",) for n in range(3_000)}
    text = str(Stamps(("1.1",), live))
    found = Stamps.parse(text)
    assert found is not None and str(found) == text
