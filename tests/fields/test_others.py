"""Dates, choices, references, JSON and roll-ups: what is their own."""

from datetime import UTC, datetime

import pytest

from appliance.base import limits
from appliance.fields import type_of
from appliance.fields.base import ValueFault
from appliance.kernel.kind import Policy
from tests.fields.samples import CHOICES, ID, field, nest

DATE, MOMENT, CHOICE, MULTI, JSON, ROLLUP = (
    type_of(n) for n in ("date", "moment", "choice", "multi_choice", "json", "rollup")
)


def refusal(type_, definition, value):
    with pytest.raises(ValueFault) as caught:
        type_.accept(definition, value)
    return caught.value.code


def faults(type_, **rest):
    return [f.pointer for f in type_.check_definition(field(type_.name, **rest))]


def test_bounds_of_dates_include_their_ends():
    day = field("date", min="2026-01-01", max="2026-12-31")

    assert ["2026-01-01", "2026-12-31"] == [
        DATE.accept(day, d) for d in ("2026-01-01", "2026-12-31")
    ]
    assert "too_early" == refusal(DATE, day, "2025-12-31")
    assert "too_late" == refusal(DATE, day, "2027-01-01")
    assert datetime(2025, 12, 31, tzinfo=UTC) == DATE.operand(day, "2025-12-31")


def test_moment_needs_an_offset_and_says_so():
    with pytest.raises(ValueFault, match="offset"):
        MOMENT.accept(field("moment"), "2026-11-20T10:00:00")


def test_moment_in_a_session_zone_comes_back_in_utc():
    assert "2026-11-20T08:00:00.000Z" == MOMENT.from_slot(field("moment"), "2026-11-20 10:00:00+02")


@pytest.mark.parametrize("type_", [DATE, MOMENT])
def test_bounds_that_are_no_dates_are_faults(type_):
    good = "2026-01-01" if type_ is DATE else "2026-01-01T00:00:00Z"

    assert ["/min"] == faults(type_, min="2026-02-30")
    assert ["/max"] == faults(type_, min=good, max=good.replace("2026", "2025"))


def test_archived_choice_reads_but_is_not_chosen():
    stage = field("choice", options={"choices": CHOICES})

    assert "choice_unknown" == refusal(CHOICE, stage, "lost")
    assert "lost" == CHOICE.operand(stage, "lost")
    assert "lost" == CHOICE.text(stage, "lost", "uk")


def test_labels_fall_back_to_english_and_then_to_the_key():
    stage = field("choice", options={"choices": CHOICES})

    assert ["Новая", "Нова", "New"] == [CHOICE.text(stage, "new", x) for x in ("ru", "uk", "de")]
    assert ["Won", "gone"] == [CHOICE.text(stage, k, "ru") for k in ("won", "gone")]
    assert "New Новая Нова" == CHOICE.search_text(stage, "new")
    several = field("multi_choice", options={"choices": CHOICES})
    assert "Нова, Won" == MULTI.text(several, ["new", "won"], "uk")


def test_two_fields_with_their_own_choices_do_not_meet():
    for key in ("a", "b", "c") * 3:
        own = field("choice", options={"choices": [{"key": key}]})
        assert key == CHOICE.accept(own, key)
        assert "choice_unknown" == refusal(CHOICE, own, "z")


@pytest.mark.parametrize(
    "entry",
    [
        "new", {}, {"key": ""}, {"key": "A"}, {"key": "a b"}, {"key": 1}, {"key": "a\n"}, {"key": "a" * 41},
        {"key": "a", "labels": ["A"]}, {"key": "a", "labels": {"en": 1}}, {"key": "a", "labels": {"xx": "A"}},
        {"key": "a", "archived": "no"}, {"key": "a", "color": 7}, {"key": "a", "extra": 1}, {"key": "new"},
    ],
)  # fmt: skip
def test_malformed_choice_is_named_by_its_place(entry):
    assert ["/options/choices/1"] == faults(CHOICE, options={"choices": [{"key": "new"}, entry]})


@pytest.mark.parametrize(
    "choices", [None, [], "new", {"key": "new"}, [{"key": f"k{n}"} for n in range(501)]]
)
def test_choices_are_a_list_of_bounded_length(choices):
    assert ["/options/choices"] == faults(CHOICE, options={"choices": choices})


@pytest.mark.parametrize("name", ["reference", "references"])
def test_reference_names_its_target(name):
    assert ["/options/target"] == faults(type_of(name))
    assert ["/options/target"] == faults(type_of(name), options={"target": 5})


def test_json_is_bounded_in_depth_and_size():
    assert nest(16) == JSON.accept(field("json"), nest(16))
    assert "too_deep" == refusal(JSON, field("json"), nest(17))
    assert "too_long" == refusal(JSON, field("json"), ["x" * limits.JSON_FIELD_BYTES_MAX])
    assert "character_refused" == refusal(JSON, field("json"), {"a\x00": 1})


def test_roll_up_is_read_only_and_complete():
    good = {"kind": "invoice", "via": "customer", "op": "sum", "field": "total"}

    assert "read_only" == refusal(ROLLUP, field("rollup", options=good), "1")
    assert ["/options/kind", "/options/via", "/options/op"] == faults(ROLLUP)
    assert ["/options/field"] == faults(ROLLUP, options={**good, "field": None})
    assert ["/required"] == faults(ROLLUP, options=good, required=True)
    assert not ROLLUP.stored


@pytest.mark.parametrize(
    ("policy", "able", "unable"),
    [
        (Policy.MAX, "date", "text"), (Policy.MIN, "integer", "choice"), (Policy.OR, "yes_no", "integer"),
        (Policy.COUNTER, "quantity", "date"), (Policy.TEXT3, "text", "number"),
    ],
)  # fmt: skip
def test_merge_policy_fits_the_type(policy, able, unable):
    options = {"choice": {"choices": CHOICES}}

    assert [] == faults(type_of(able), policy=policy)
    assert ["/policy"] == faults(type_of(unable), policy=policy, options=options.get(unable, {}))


def test_id_of_a_reference_is_lower_case():
    assert ID == type_of("reference").accept(field("reference"), ID.upper())
