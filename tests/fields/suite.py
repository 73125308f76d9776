"""What every field type must fulfil. A type inherits all of it by its entry in samples.py."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from appliance.fields import TYPES, type_of
from appliance.fields.base import FieldType, ValueFault
from appliance.kernel.kind import Field, Json, Policy
from tests.fields.samples import HOSTILE, SAMPLES, Sample

NAMES = sorted(TYPES)
STORED = [n for n in NAMES if SAMPLES[n].pairs]
SLOT_TYPES: dict[str, tuple[type, ...]] = {"t": (str,), "n": (int,), "d": (datetime,), "r": (UUID,)}
BIGINT = 2**63
modest = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
).filter(lambda value: value is not None)


def pick(name: str) -> tuple[FieldType, Field, Sample]:
    sample = SAMPLES[name]
    return type_of(name), sample.field, sample


def accepted(type_: FieldType, field: Field, value: Any) -> Json | None:
    """The canonical form, None when refused; any other exception is the test's failure."""
    try:
        return type_.accept(field, value)
    except ValueFault as bad:
        assert bad.code, "a fault has a code"
        assert bad.code.replace("_", "").isalnum(), "of words"
        assert bad.detail.endswith((".", "?")), "and a sentence"
        assert len(bad.detail) < 500, "of bounded length"
        bad.detail.encode()
        return None


def order_key(name: str, canonical: Json) -> Any:
    """What people mean by the order of canonical values."""
    if name in ("number", "money", "quantity"):
        return Decimal(str(canonical))
    if name in ("date", "moment"):
        text = str(canonical)
        return datetime.fromisoformat(text if "T" in text else f"{text}T00:00:00+00:00").astimezone(
            UTC
        )
    return canonical


@pytest.mark.parametrize("name", NAMES)
def test_registry_holds_a_stateless_type_of_that_name(name: str) -> None:
    type_ = type_of(name)

    assert name == type_.name
    assert {} == vars(type_)
    assert type_.slot in {"", "t", "n", "d", "r", "link"}
    assert (type_.slot == "link") == (type_.policy is Policy.SET)
    assert type_.sortable <= (type_.slot in {"t", "n", "d"})
    assert type_.stored == bool("is_null" in type_.operators)


@pytest.mark.parametrize("name", NAMES)
def test_definition_of_the_sample_has_no_fault(name: str) -> None:
    type_, field, _ = pick(name)

    assert [] == type_.check_definition(field)


@pytest.mark.parametrize("name", STORED)
def test_sent_values_become_canonical(name: str) -> None:
    type_, field, sample = pick(name)

    assert [c for _, c in sample.pairs] == [type_.accept(field, sent) for sent, _ in sample.pairs]


@pytest.mark.parametrize("name", NAMES)
def test_bad_values_are_refused_by_value_fault(name: str) -> None:
    type_, field, sample = pick(name)

    taken = [v for v in sample.refused if accepted(type_, field, v) is not None]

    assert [] == taken


@pytest.mark.parametrize("name", NAMES)
def test_hostile_values_never_end_in_another_exception(name: str) -> None:
    type_, field, _ = pick(name)
    for value in HOSTILE:
        found = accepted(type_, field, value)
        if found is not None:
            assert_storable(found)
            assert_reads(type_, field, found)
        try:
            type_.operand(field, value)
        except ValueFault:
            continue


@pytest.mark.parametrize("name", NAMES)
@modest
@given(value=json_like)
def test_any_json_is_taken_or_refused(name: str, value: Any) -> None:
    type_, field, _ = pick(name)

    found = accepted(type_, field, value)

    if found is not None:
        assert_storable(found)
        assert found == type_.accept(field, found)


@pytest.mark.parametrize("name", STORED)
@modest
@given(data=st.data())
def test_accept_is_idempotent_and_the_value_reads_everywhere(
    name: str, data: st.DataObject
) -> None:
    type_, field, sample = pick(name)
    value = data.draw(sample.values)

    once = accepted(type_, field, value)
    assume(once is not None)

    assert once == type_.accept(field, once)
    assert_storable(once)
    assert_reads(type_, field, once)


@pytest.mark.parametrize("name", [n for n in STORED if TYPES[n].slot in ("n", "d")])
@modest
@given(data=st.data())
def test_order_of_slots_is_order_of_values(name: str, data: st.DataObject) -> None:
    type_, field, sample = pick(name)
    a, b = (type_.accept(field, data.draw(sample.values)) for _ in range(2))

    slot_a, slot_b = type_.slot_value(field, a), type_.slot_value(field, b)

    assert (order_key(name, a) < order_key(name, b)) == (slot_a < slot_b)  # type: ignore[operator]
    assert (a == b) == (slot_a == slot_b)


@pytest.mark.parametrize("name", [n for n in STORED if TYPES[n].slot in ("n", "d")])
@modest
@given(data=st.data())
def test_slot_leads_back_to_the_canonical_value(name: str, data: st.DataObject) -> None:
    type_, field, sample = pick(name)
    canonical = type_.accept(field, data.draw(sample.values))

    slot = type_.slot_value(field, canonical)
    returned = slot.isoformat(" ") if isinstance(slot, datetime) else Decimal(str(slot))

    assert canonical == type_.from_slot(field, returned)


@pytest.mark.parametrize("name", [n for n in STORED if TYPES[n].slot in SLOT_TYPES])
@modest
@given(data=st.data())
def test_operand_of_a_value_is_its_slot(name: str, data: st.DataObject) -> None:
    type_, field, sample = pick(name)
    canonical = accepted(type_, field, data.draw(sample.values))
    assume(canonical is not None)

    assert type_.slot_value(field, canonical) == type_.operand(field, canonical)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_type_lacks_is_a_fault_of_the_definition(name: str) -> None:
    type_, field, _ = pick(name)
    impossible = {
        "/options/nonsense": {"options": {**field.options, "nonsense": 1}},
        "/options/~1~0": {"options": {**field.options, "/~": 1}},
        "/labels": {"labels": {"xx": "?"}},
        "/help": {"help": {"en": "x" * 1_001}},
    }
    if not type_.slot:
        impossible["/filterable"] = {"filterable": True}
    if not type_.searchable:
        impossible["/searchable"] = {"searchable": True}
    if type_.slot not in ("t", "n") or name == "yes_no":
        impossible["/unique"] = {"unique": True}
    if not type_.bounded:
        impossible["/min"], impossible["/max"] = {"min": "1"}, {"max": "1"}
    if not type_.patterned:
        impossible["/pattern"] = {"pattern": "a"}
    if type_.slot == "link":
        impossible["/group"] = {"group": "g"}
    else:
        impossible["/policy"] = {"policy": Policy.SET}

    for pointer, change in impossible.items():
        changed: Field = msgspec.structs.replace(field, **change)
        assert [pointer] == [f.pointer for f in type_.check_definition(changed)]


@pytest.mark.parametrize("name", NAMES)
def test_bad_bounds_and_defaults_are_faults_and_never_exceptions(name: str) -> None:
    type_, field, sample = pick(name)
    bad = ["", "x", "NaN", "1e9", "²", "-", "\x00", "9" * 50, "٣"]

    for text in bad:
        for bound in ("min", "max"):
            changed = msgspec.structs.replace(field, default="1", **{bound: text})
            assert f"/{bound}" in [f.pointer for f in type_.check_definition(changed)], text
    for value in sample.refused:
        changed = msgspec.structs.replace(field, default=value)
        assert ["/default"] == [f.pointer for f in type_.check_definition(changed)]
    for value in HOSTILE:
        type_.check_definition(msgspec.structs.replace(field, default=value))


@pytest.mark.parametrize("name", NAMES)
def test_hostile_options_are_faults_and_never_exceptions(name: str) -> None:
    type_, field, _ = pick(name)

    for option in sorted(type_.options):
        for value in [*HOSTILE, None, True, 0, -1]:
            changed = msgspec.structs.replace(field, options={**field.options, option: value})
            for fault in type_.check_definition(changed):
                assert fault.pointer.startswith("/")
                assert fault.detail.endswith((".", "?"))


@pytest.mark.parametrize("name", STORED)
def test_mask_shows_less_than_the_value(name: str) -> None:
    type_, field, sample = pick(name)

    for _, canonical in sample.pairs:
        masked = str(type_.mask(field, canonical))
        assert "•••" in masked
        assert str(canonical) not in masked


@pytest.mark.parametrize("name", NAMES)
def test_schema_of_the_value_is_json(name: str) -> None:
    type_, field, _ = pick(name)

    assert isinstance(msgspec.json.decode(msgspec.json.encode(type_.json_schema(field))), dict)


@pytest.mark.parametrize("name", [n for n in STORED if TYPES[n].slot == "link"])
def test_set_is_sorted_whatever_the_order_sent(name: str) -> None:
    type_, field, sample = pick(name)
    sent, canonical = sample.pairs[0]
    assert isinstance(sent, list)

    shuffled = random.Random(1).sample(sent, len(sent))

    assert canonical == type_.accept(field, shuffled)
    assert canonical == type_.members(field, canonical)


def test_every_type_has_a_sample() -> None:
    assert SAMPLES.keys() == TYPES.keys()


def assert_storable(value: Json) -> None:
    """jsonb takes it and gives the same back."""
    encoded = msgspec.json.encode(value)
    assert b"\\u0000" not in encoded
    assert value == msgspec.json.decode(encoded)


def assert_reads(type_: FieldType, field: Field, value: Json) -> None:
    """Slot, members, search, display, cell and mask of a canonical value hold their promises."""
    slot = type_.slot_value(field, value)
    if type_.slot in SLOT_TYPES:
        assert isinstance(slot, SLOT_TYPES[type_.slot])
    else:
        assert slot is None
    if isinstance(slot, int):
        assert -BIGINT <= slot < BIGINT
    if isinstance(slot, str):
        assert len(slot.encode()) <= 2_100, "fits a B-tree entry with its kind and id"
    if isinstance(slot, datetime):
        assert slot.tzinfo is UTC
    members = type_.members(field, value)
    assert bool(members) == (type_.slot == "link")
    for locale in ("en", "ru", "uk", "xx"):
        assert isinstance(type_.text(field, value, locale), str)
    cell = type_.cell(field, value)
    assert cell is None or isinstance(cell, str | bool | int | Decimal | datetime)
    assert not isinstance(cell, float) or math.isfinite(cell)
    assert isinstance(type_.search_text(field, value), str)
    msgspec.json.encode(type_.mask(field, value))
