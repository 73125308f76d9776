"""What peers send is looked at in its stored form: whatever a node accepts passes, nothing else."""

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.fields import type_of
from appliance.fields.base import ValueFault
from appliance.kernel.kind import Policy
from tests.fields.samples import HOSTILE, SAMPLES
from tests.fields.suite import NAMES, STORED, accepted, assert_storable, json_like, pick

modest = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def passes(name, value, **changes):
    type_, field, _ = pick(name)
    try:
        type_.stored_check(msgspec.structs.replace(field, **changes))(value)
    except ValueFault as bad:
        assert bad.code and bad.detail.endswith((".", "?"))
        return False
    return True


@pytest.mark.parametrize("name", STORED)
def test_what_is_accepted_passes_under_any_bounds(name):
    for sent, canonical in SAMPLES[name].pairs:
        assert passes(name, canonical), canonical
        assert passes(name, canonical, min="9999", max="9998", pattern="x")
        if sent != canonical and name not in ("number", "money", "quantity", "json"):
            assert not passes(name, sent), sent


@pytest.mark.parametrize("name", NAMES)
@modest
@given(value=json_like)
def test_what_passes_can_be_stored_and_read(name, value):
    type_, field, _ = pick(name)
    if (found := accepted(type_, field, value)) is not None:
        assert passes(name, found)
    if passes(name, value):
        assert_storable(value)
        type_.slot_value(field, value)
        type_.search_text(field, value)
        type_.cell(field, value)
        type_.text(field, value, "en")
    type_.slot_or_none(field, value)


@pytest.mark.parametrize("name", NAMES)
def test_hostile_values_break_no_projection(name):
    type_, field, _ = pick(name)
    for value in HOSTILE:
        passes(name, value)
        type_.slot_or_none(field, value)


@modest
@given(st.lists(st.from_regex(r"[a-z0-9][a-z0-9_]{0,5}", fullmatch=True), min_size=1, max_size=9))
def test_a_set_is_in_order_with_each_member_once(members):
    assert passes("multi_choice", sorted(set(members)))
    assert not passes("multi_choice", [*sorted(set(members)), members[0]])


def test_a_sum_of_several_nodes_may_have_more_digits():
    long = "123456789012345678901.123456789"
    assert not passes("number", long)
    assert passes("number", long, policy=Policy.COUNTER)
    assert passes("integer", "12", policy=Policy.COUNTER) and not passes("integer", "12")


def test_a_kind_of_the_program_has_no_other_choices():
    type_, field, _ = pick("choice")
    assert passes("choice", "was_there_once")
    assert not passes("choice", "was_there_once", system=True)
    assert type_ is type_of("choice") and field.type == "choice"
