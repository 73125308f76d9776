"""Exactness, bounds and currencies: what money and its kin promise beyond the generic suite."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.fields import type_of
from appliance.fields.base import ValueFault
from appliance.kernel.money import (
    currency_digits,
    format_decimal,
    parse_decimal,
    split_decimal,
    to_slot,
)
from tests.fields.samples import field

NUMBER, MONEY, INTEGER, QUANTITY = (type_of(n) for n in ("number", "money", "integer", "quantity"))


def refusal(type_, definition, value):
    with pytest.raises(ValueFault) as caught:
        type_.accept(definition, value)
    return caught.value.code


def test_float_is_refused_with_what_to_send_instead():
    with pytest.raises(ValueFault, match="Send a decimal string") as caught:
        MONEY.accept(field("money"), 10.5)

    assert "float_refused" == caught.value.code


@pytest.mark.parametrize(
    ("currency", "sent", "canonical", "too_fine"),
    [
        ("UAH", "10.5", "10.50", "10.505"),
        ("JPY", "10.0", "10", "10.5"),
        ("KWD", "10.5", "10.500", "10.0005"),
    ],
)
def test_money_has_the_digits_of_its_currency(currency, sent, canonical, too_fine):
    money = field("money", options={"currency": currency})

    assert canonical == MONEY.accept(money, sent)
    assert "too_precise" == refusal(MONEY, money, too_fine)


def test_money_of_different_currencies_compares_in_the_index():
    yen = field("money", options={"currency": "JPY"})
    dinar = field("money", options={"currency": "KWD"})

    assert MONEY.slot_value(yen, "10") == MONEY.slot_value(dinar, "10.000") == 100_000


@pytest.mark.parametrize("scale", range(7))
def test_number_keeps_its_scale_and_refuses_a_finer_value(scale):
    number = field("number", options={"scale": scale})
    finest = f"0.{'1'.rjust(scale, '0')}" if scale else "1"

    assert finest == NUMBER.accept(number, finest)
    assert 1 == NUMBER.slot_value(number, finest)
    assert "too_precise" == refusal(NUMBER, number, f"0.{'0' * scale}1")


@pytest.mark.parametrize("value", ["900000000000000000.000000000001", "0.999999999999"])
def test_reading_never_rounds(value):
    assert "too_precise" == refusal(NUMBER, field("number", options={"scale": 0}), value)


def test_eighteen_digits_are_taken_and_nineteen_refused():
    number = field("number", options={"scale": 6})

    assert "999999999999.999999" == NUMBER.accept(number, "999999999999.999999")
    assert "out_of_range" == refusal(NUMBER, number, "1000000000000")


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("-0.01", "too_small"),
        ("0", None),
        ("10.005", "too_precise"),
        ("10", None),
        ("10.01", "too_large"),
    ],
)
def test_bounds_include_their_ends(value, code):
    number = field("number", min="0", max="10.005")

    if code:
        assert code == refusal(NUMBER, number, value)
    else:
        NUMBER.accept(number, value)


def test_query_literal_knows_no_bounds():
    assert -500 == NUMBER.operand(field("number", min="0"), "-5")
    assert 7 == INTEGER.operand(field("integer", max="3"), "7")


def test_sum_and_average_come_back_canonical():
    money = field("money", options={"currency": "UAH"})

    assert "30000000000000000000.50" == MONEY.from_slot(money, Decimal("300000000000000000005000"))
    assert "0.34" == MONEY.from_slot(money, Decimal(3350))
    assert "-0.34" == MONEY.from_slot(money, Decimal(-3350))
    assert "0.00" == MONEY.from_slot(money, Decimal("-0.0001"))
    assert 3 == INTEGER.from_slot(field("integer"), Decimal(3))
    assert "2.500000" == INTEGER.from_slot(field("integer"), Decimal("2.5"))


@pytest.mark.parametrize(
    ("type_", "change", "pointer"),
    [
        (NUMBER, {"options": {"scale": 7}}, "/options/scale"),
        (NUMBER, {"options": {"scale": True}}, "/options/scale"),
        (NUMBER, {"options": {"scale": "2"}}, "/options/scale"),
        (NUMBER, {"min": "2", "max": "1"}, "/max"),
        (NUMBER, {"min": "2", "default": "1"}, "/default"),
        (MONEY, {"options": {"currency": "XXZ"}}, "/options/currency"),
        (MONEY, {"options": {"currency": ["UAH"]}}, "/options/currency"),
        (MONEY, {"options": {"currency_field": 1}}, "/options/currency_field"),
        (MONEY, {"options": {"currency": "UAH", "currency_field": "c"}}, "/options/currency_field"),
        (MONEY, {"options": {"currency": "JPY"}, "default": "1.5"}, "/default"),
        (QUANTITY, {"options": {"unit": ""}}, "/options/unit"),
        (INTEGER, {"options": {"scale": 2}}, "/options/scale"),
    ],
)
def test_definition_faults_name_their_place(type_, change, pointer):
    assert [pointer] == [f.pointer for f in type_.check_definition(field(type_.name, **change))]


def test_display_names_currency_and_unit():
    assert "5.00 UAH" == MONEY.text(field("money", options={"currency": "UAH"}), "5.00", "uk")
    assert "1.500 kg" == QUANTITY.text(field("quantity", options={"unit": "kg"}), "1.500", "uk")
    assert ["да", "ні", "yes"] == [
        type_of("yes_no").text(field("yes_no"), v, locale)
        for v, locale in ((True, "ru"), (False, "uk"), (True, "de"))
    ]


@given(st.integers(-(10**18) + 1, 10**18 - 1), st.integers(0, 6))
def test_decimal_text_round_trips_through_the_index(scaled, scale):
    text = format_decimal(Decimal(scaled).scaleb(-scale), scale)

    assert scaled == to_slot(Decimal(text), scale)
    assert Decimal(text) == parse_decimal(text)
    assert "-0" != text.rstrip("0").rstrip(".")


def test_helpers_refuse_what_is_not_a_decimal():
    assert [None] * 4 == [parse_decimal(v) for v in (1.5, "NaN", True, 10**18)]
    assert ("-12", "5") == split_decimal("-12.50")
    assert None is split_decimal("1e5")
    assert None is to_slot(Decimal(10**19), 0)
    assert [2, 0, 3] == [currency_digits(c) for c in ("EUR", "JPY", "BHD")]
