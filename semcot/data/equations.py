"""Equations of one operation each: parsed, solved and written; the arithmetic of every problem here."""

import ast
import operator
import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import NamedTuple, Self

RESULTS = "pqrvwx"
"""The names of the results of up to six equations, in their order; stories have up to three."""
_EQUATION = re.compile(r"(\w+) ([-+*/]) (\w+)(?: = (\d+))?")
_AST_OPERATIONS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
Number = int | Fraction


def _quotient(left: Number, right: Number) -> Number:
    whole, rest = divmod(left, right)
    return Fraction(left, right) if rest else whole


OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": _quotient}


def exact(text: str) -> Number:
    """The exact value of "24" or "0.25". Raises `ValueError`."""
    value = Fraction(text)
    return int(value) if value.denominator == 1 else value


def written(value: Number) -> str:
    """The number as a text, "24" or "0.25"; "1/3" where four decimals cannot tell it."""
    places = next((places for places in range(1, 5) if 10**places % value.denominator == 0), 0)
    return f"{float(value):.{places}f}" if places and value.denominator > 1 else str(value)


class Equation(NamedTuple):
    """One step, `left operation right`. An operand is a name, such as that of an earlier result, or a number."""

    left: str
    operation: str
    right: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads "a - b", or "64 - 36 = 28". Raises `ValueError` where it is no equation, or not a true one."""
        match = _EQUATION.fullmatch(text)
        if not match:
            raise ValueError(f"{text!r} is no equation; two operands with a sign between them are: a - b")
        equation, result = cls(*match.groups()[:3]), match[4]
        if result and (equation.operation == "/" and not int(equation.right) or equation.solve() != int(result)):
            raise ValueError(f"{text!r} is not true")
        return equation

    def solve(self, values: Mapping[str, Number] = MappingProxyType({})) -> Number:
        """The exact result, from the values of its names. Raises `ZeroDivisionError`."""
        left = values[self.left] if self.left in values else exact(self.left)
        right = values[self.right] if self.right in values else exact(self.right)
        return OPERATIONS[self.operation](left, right)

    def write(self, values: Mapping[str, Number] = MappingProxyType({})) -> str:
        """The equation in numbers, "64 - 36 = 28"."""
        left, right = (written(values[name]) if name in values else name for name in (self.left, self.right))
        return f"{left} {self.operation} {right} = {written(self.solve(values))}"


Equations = tuple[Equation, ...]


def parse_steps(text: str) -> Equations:
    """Reads "a - b, p * k", the results named `RESULTS`. Raises `ValueError` as [`Equation.parse`] does."""
    return tuple(map(Equation.parse, text.split(", ")))


def parse_chain(text: str) -> Equations:
    """Reads "a - b - c", which is worked out from left to right, whatever the signs."""
    left, *rest = text.split(" ")
    names = (left, *RESULTS)
    return tuple(
        Equation.parse(f"{name} {' '.join(rest[i : i + 2])}")
        for name, i in zip(names, range(0, len(rest), 2), strict=False)
    )


def parse_expression(text: str) -> Equations:
    """
    Reads "( ( 64.0 - 36.0 ) / 4.0 )", the equations of its operations in their order. Raises `ValueError` where it is
    no such expression, or has more operations than `RESULTS` can name.
    """
    equations: list[Equation] = []

    def operand(node: ast.expr) -> str:
        if isinstance(node, ast.BinOp) and type(node.op) in _AST_OPERATIONS:
            equations.append(Equation(operand(node.left), _AST_OPERATIONS[type(node.op)], operand(node.right)))
            return RESULTS[len(equations) - 1 : len(equations)]
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            return written(exact(str(node.value)))
        raise ValueError(f"{text!r} is no expression of numbers")

    try:
        operand(ast.parse(text.strip(), mode="eval").body)
    except SyntaxError as error:
        raise ValueError(f"{text!r} is no expression") from error
    if not 1 <= len(equations) <= len(RESULTS):
        raise ValueError(f"{text!r} has {len(equations)} operations; 1 to {len(RESULTS)} can be read")
    return tuple(equations)


def work_out(expression: str) -> list[str]:
    """
    The steps of "( ( 64.0 - 36.0 ) / 4.0 )": ["64 - 36 = 28", "28 / 4 = 7"]. Raises as [`parse_expression`] and `solve`
    do.
    """
    equations = parse_expression(expression)
    values = solve(equations, {})
    return [equation.write(values) for equation in equations]


def solve(equations: Iterable[Equation], numbers: Mapping[str, Number]) -> dict[str, Number]:
    """The numbers by their names, and with them the results. Raises `ZeroDivisionError`."""
    values = dict(numbers)
    for name, equation in zip(RESULTS, equations, strict=False):
        values[name] = equation.solve(values)
    return values


def worked_problem(
    question: str, equations: Equations, values: Mapping[str, Number], reasoning: str | None = None
) -> dict[str, str]:
    """The problem in four columns; its reasoning is the equations, with the numbers in them, unless it is told."""
    steps = [equation.write(values) for equation in equations]
    answer = written(values[RESULTS[len(equations) - 1]])
    return {
        "question": question,
        "reasoning": f"{reasoning or '. '.join(steps)}. The answer is {answer}.",
        "condensed_reasoning": ", ".join(steps),
        "answer": answer,
    }
