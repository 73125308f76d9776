"""Arithmetic over the fields of one record: what a line costs, computed once, on the server.

`quantity * unit_price * (100 - discount) / 100`: names of fields, decimal numbers, + - * / and
parentheses. Exact until the end, rounded there once. An operand that is missing makes the result
missing; nothing is ever taken for zero, and neither is a division by it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Context, Decimal, InvalidOperation
from functools import lru_cache

FORMULA_CHARS_MAX = 500
ROUNDINGS = {"half_up": ROUND_HALF_UP, "half_even": ROUND_HALF_EVEN}
_EXACT = Context(prec=60)
_SIGNS: dict[type[ast.operator], Callable[[Decimal, Decimal], Decimal]] = {
    ast.Add: _EXACT.add,
    ast.Sub: _EXACT.subtract,
    ast.Mult: _EXACT.multiply,
    ast.Div: _EXACT.divide,
}


class FormulaError(ValueError):
    """A formula cannot be read; the text says where."""


@lru_cache(maxsize=2_000)
def parse_formula(text: str) -> ast.expr:
    """The tree of a formula. Raises FormulaError."""
    if len(text) > FORMULA_CHARS_MAX:
        raise FormulaError(f"A formula has at most {FORMULA_CHARS_MAX} characters.")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise FormulaError("Expected field names, numbers, + - * / and parentheses.") from error
    _check(tree)
    return tree


def operands(text: str) -> frozenset[str]:
    """The names of the fields a formula looks at. Raises FormulaError."""
    return frozenset(n.id for n in ast.walk(parse_formula(text)) if isinstance(n, ast.Name))


def evaluate(text: str, values: Mapping[str, Decimal]) -> Decimal | None:
    """The exact result over `values` by field name; None where something is missing."""
    return _value(parse_formula(text), values)


def round_to(value: Decimal, digits: int, rounding: str = "half_up") -> Decimal:
    """Rounded to fraction digits in one of ROUNDINGS."""
    return value.quantize(Decimal(1).scaleb(-digits), ROUNDINGS[rounding], _EXACT)


def _check(node: ast.expr) -> None:
    match node:
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _SIGNS:
            _check(left)
            _check(right)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            _check(operand)
        case ast.Name():
            pass
        case ast.Constant() if _is_number(node):
            pass
        case _:
            raise FormulaError(f"{type(node).__name__} is nothing a formula may hold.")


def _is_number(node: ast.Constant) -> bool:
    try:
        return Decimal(repr(node.value)).is_finite()
    except InvalidOperation:
        return False


def _value(node: ast.expr, values: Mapping[str, Decimal]) -> Decimal | None:
    match node:
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _value(left, values), _value(right, values)
            if a is None or b is None or (isinstance(op, ast.Div) and not b):
                return None
            return _SIGNS[type(op)](a, b)
        case ast.UnaryOp(operand=operand):
            found = _value(operand, values)
            return -found if found is not None else None
        case ast.Name(id=name):
            return values.get(name)
        case ast.Constant(value=value):
            # The shortest text of a number is what was typed.
            return Decimal(repr(value))
        case _:
            raise AssertionError("parse_formula lets nothing else pass")
