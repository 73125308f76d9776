"""Formulas are exact, know no code, and take nothing that is missing for zero."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.kernel.formula import FormulaError, evaluate, operands, parse_formula, round_to

NUMBERS = st.decimals(-(10**9), 10**9, places=6)


def test_a_line_costs_what_it_says():
    text = "quantity * unit_price * (100 - discount) / 100"
    values = {"quantity": Decimal("3"), "unit_price": Decimal("9.99"), "discount": Decimal("12.5")}
    assert round_to(evaluate(text, values), 2) == Decimal("26.22")
    assert operands(text) == {"quantity", "unit_price", "discount"}
    assert evaluate(text, {"quantity": Decimal(3)}) is None
    assert evaluate("a / b", {"a": Decimal(1), "b": Decimal(0)}) is None
    assert evaluate("0.1 + 0.2", {}) == Decimal("0.3")
    assert round_to(Decimal("2.5"), 0) == 3
    assert round_to(Decimal("2.5"), 0, "half_even") == 2


@pytest.mark.parametrize(
    "text",
    ["", "a +", "a ** b", "f(a)", "a.b", "a[0]", "__import__('os')", "'x'", "True", "a if b else c",
     "1e999", "a // b", "a % b", "lambda: 1", "(" * 400, "a" * 501, "\x00", "a\nb"],
)  # fmt: skip
def test_nothing_but_arithmetic_is_a_formula(text):
    with pytest.raises(FormulaError):
        parse_formula(text)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_it_is_exact_arithmetic(a, b, c):
    found = evaluate("(a + b) * c - a", {"a": a, "b": b, "c": c})
    assert Fraction(found) == (Fraction(a) + Fraction(b)) * Fraction(c) - Fraction(a)
