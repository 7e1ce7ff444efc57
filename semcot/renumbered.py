"""Many problems out of each real one: its numbers, and the names in it, drawn anew.

A template is a real arithmetic problem whose solution is understood: one to three equations over the numbers of its
question. The problem's own reasoning tells which of the possible solutions is meant; one that stays ambiguous gives no
template. A real problem belongs to "eval" or to "train" with all its variants, and with the other real problems of its
wording: by the SHA-256 of their first question, as synthetic ones do.
"""

import ast
import itertools
import operator
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

from semcot.synthetic import FEMALE_NAMES, MALE_NAMES, draw, in_eval

# Not those that are often other words: months, flowers, verbs.
_OTHER_WORDS = set("April Daisy Dean Frank Grace Iris Ivy Lily Mark May Penny Rose Ruby Violet Will".split())
_NAMES = tuple(tuple(name for name in names if name not in _OTHER_WORDS) for names in (FEMALE_NAMES, MALE_NAMES))
_NAME = re.compile(rf"\b({'|'.join(itertools.chain(*_NAMES))})\b")
_NUMBER = re.compile(r"(?<![\w.,])[0-9]+(?![\w]|[.,]\d)")  # other scripts' digits are not written anew
_PRONOUN = re.compile(r"\b(?:he|she|him|his|hers?)\b", re.IGNORECASE)
# What plain numbers do not tell: shares, factors in words, a change of units.
_MORE_THAN_NUMBERS = re.compile(
    r"%|\d/\d|\b(?:averages?|hal(?:f|ves)|twice|thrice|doubled?s?|tripled?s?|thirds?|quarters?|fourths?|fifths?"
    r"|times (?:as|the|more)|percent(?:age)?|minutes?\b.*\bhours?|hours?\b.*\bminutes?)\b",
    re.IGNORECASE | re.DOTALL,
)
_WRITTEN_OUT = re.compile(r"[^(]*(\([\d\s.+*/()-]+\))\s*(?:= \d+)?")  # the end as in SVAMP's own records
_OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
_AST_OPERATIONS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}


class Template(NamedTuple):
    """A worked problem, to be filled with other numbers."""

    question: str
    equations: tuple[tuple[str, str, str], ...]
    """(left, operation, right) of each step; an operand is "n0", "n1", … for a number of the question in the order of
    telling, or "r0", "r1", … for the result of a step."""


def find_template(problem: dict[str, str]) -> Template | None:
    """The template of a problem (question, reasoning, condensed_reasoning, answer); `None` if it is not understood.

    Two ways lead to the equations. Where the reasoning ends with the solution, "( ( 64.0 - 36.0 ) / 4.0 )", it is
    read. Elsewhere every solution that uses each number of the question once is tried. It must have all its results
    in the reasoning, and a step of its own there; those are preferred that have most. What is left must compute the
    same thing for other numbers too. Many numbers come to an answer in a way that is not the problem's: one that tells
    more than plain numbers gives no template.
    """
    question = problem["question"]
    values = [int(number) for number in _NUMBER.findall(question)]
    if not problem["answer"].isdecimal() or not values or max(values) > 999:
        return None
    answer = int(problem["answer"])
    if written := _WRITTEN_OUT.fullmatch(problem["reasoning"]):
        equations = _parse_expression(written[1], values)
        return Template(question, equations) if equations and _solve(equations, values)[-1:] == [answer] else None

    solutions = [equations for equations in _chains(len(values)) if _solve(equations, values)[-1:] == [answer]]
    reasoning = f"{problem['reasoning']} {problem['condensed_reasoning']}"
    seen, formulas = set(map(int, _NUMBER.findall(reasoning))), _formulas(reasoning)

    def steps_told(equations: tuple[tuple[str, str, str], ...]) -> int:
        return sum(_is_told(equation, formulas) for equation in _written(equations, values))

    if _MORE_THAN_NUMBERS.search(question):
        return None
    solutions = [equations for equations in solutions if seen.issuperset(_solve(equations, values))]
    most = max(map(steps_told, solutions), default=0)
    solutions = [equations for equations in solutions if 0 < most == steps_told(equations)]
    templates = [Template(question, equations) for equations in solutions]
    return templates[0] if len(set(map(_meaning, templates))) == 1 else None


def find_templates(problems: Iterable[dict[str, str]], split: str) -> list[Template]:
    """
    The templates of a split, "train" or "eval"; those of one wording are all in the same one, and mean the same: of
    several meanings, the one that most of them have.
    """
    templates = [template for problem in problems if (template := find_template(problem))]
    first: dict[str, str] = {}
    meanings: dict[str, Counter[Fraction]] = defaultdict(Counter)
    for template in sorted(templates):
        first.setdefault(wording(template.question), template.question)
        meanings[wording(template.question)][_meaning(template)] += 1
    return [
        template
        for template in templates
        if in_eval(first[wording(template.question)]) == (split == "eval")
        and meanings[wording(template.question)].most_common(1)[0][0] == _meaning(template)
    ]


def _meaning(template: Template) -> Fraction:
    """What a template computes for some other numbers: the same for two that mean the same."""
    rng = random.Random(0)
    return _results(template.equations, [rng.randint(1, 10**6) for _ in _NUMBER.findall(template.question)])[-1]


def renumbered(
    problems: Iterable[dict[str, str]], num_samples: int, seed: int = 0, split: str = "train"
) -> Iterator[dict[str, str]]:
    """Variants of real arithmetic problems, each of a template drawn evenly.

    Args:
        problems: the real ones, with question, reasoning, condensed_reasoning and answer.
        num_samples: how many variants to draw; no question comes twice in one draw.
        seed: the seed of the draw.
        split: "train" or "eval"; those of one wording are all in the same one.

    Yields:
        question, reasoning (the equations and the answer), condensed_reasoning ("64 - 36 = 28, 28 / 4 = 7"), answer.
        Numbers keep their magnitude; every result is a whole number of at least 1.

    Raises:
        ValueError: too few templates for so many samples, or none.
    """
    templates = find_templates(problems, split)
    if not templates:
        raise ValueError(f"no problem of the {split} split is understood well enough to draw its numbers anew")
    rng = random.Random(seed)
    yield from draw(lambda: _fill(rng.choice(templates), rng), num_samples)


def with_other_numbers(texts: Sequence[str], rng: random.Random) -> list[str]:
    """The texts with other whole numbers in them, as long as before, the same one for the same one in all texts.

    0 and 1, often not quantities, stay, and so does what is no plain number: decimals, leading zeros, ten digits or
    more. What the texts compute no longer comes out right; they differ in their numbers alone, which is what an encoder
    has to look at to tell them apart.
    """
    found = dict.fromkeys(number for text in texts for number in _NUMBER.findall(text))
    new: dict[str, str] = {}
    for length in range(1, 10):
        given = [number for number in found if len(number) == length and number[0] != "0" and number != "1"]
        drawn = rng.sample(range(max(2, 10 ** (length - 1)), 10**length), len(given))
        new |= zip(given, map(str, drawn), strict=True)
    return [_NUMBER.sub(lambda match: new.get(match[0], match[0]), text) for text in texts]


def wording(question: str) -> str:
    """A question with its numbers, names and pronouns taken out: the same for problems that differ in these alone."""
    text = _PRONOUN.sub("_", _NUMBER.sub("0", question))
    names: dict[str, int] = {}  # any word with a capital, since nobody lists all names
    return re.sub(r"\b[A-Z]\w*", lambda match: f"N{names.setdefault(match[0], len(names))}", text)


def _fill(template: Template, rng: random.Random) -> dict[str, str]:
    given = [int(number) for number in _NUMBER.findall(template.question)]
    limit = max(100, 1.5 * max(*given, *_solve(template.equations, given)))
    while True:
        numbers = [value if value < 2 else rng.randint(2, max(12, value * 3 // 2)) for value in given]
        results = _solve(template.equations, numbers)
        if results and max(results) <= limit:
            break
    new = iter(numbers)
    question = _NUMBER.sub(lambda _: str(next(new)), template.question)
    names: dict[str, str] = {}
    for name in dict.fromkeys(_NAME.findall(question)):
        same_sort = next(sort for sort in _NAMES if name in sort)
        names[name] = rng.choice([other for other in same_sort if other not in names.values()])
    question = _NAME.sub(lambda match: names[match[0]], question)
    equations = _written(template.equations, numbers)
    return {
        "question": question,
        "reasoning": f"{'. '.join(equations)}. The answer is {results[-1]}.",
        "condensed_reasoning": ", ".join(equations),
        "answer": str(results[-1]),
    }


def _results(equations: tuple[tuple[str, str, str], ...], numbers: list[int]) -> list[Fraction]:
    """The result of each step."""
    slots = {f"n{i}": Fraction(number) for i, number in enumerate(numbers)}
    for i, (left, operation, right) in enumerate(equations):
        slots[f"r{i}"] = _OPERATIONS[operation](slots[left], slots[right])
    return [slots[f"r{i}"] for i in range(len(equations))]


def _solve(equations: tuple[tuple[str, str, str], ...], numbers: list[int]) -> list[int]:
    """The result of each step; none when one is not a whole number of at least 1."""
    try:
        results = _results(equations, numbers)
    except ZeroDivisionError:
        return []
    return [int(value) for value in results] if all(v >= 1 and v.denominator == 1 for v in results) else []


def _written(equations: tuple[tuple[str, str, str], ...], numbers: list[int]) -> list[str]:
    """Each step as "64 - 36 = 28"."""
    results = _solve(equations, numbers)
    slots = {f"n{i}": number for i, number in enumerate(numbers)} | {f"r{i}": value for i, value in enumerate(results)}
    return [
        f"{slots[left]} {operation} {slots[right]} = {result}"
        for (left, operation, right), result in zip(equations, results, strict=True)
    ]


def _formulas(reasoning: str) -> str:
    """The numbers and signs of a reasoning in the manner of `_written`: its units, words and marks of LaTeX dropped."""
    text = re.sub(r"\\[dt]?frac\{(.*?)\}\{(.*?)\}", r"\1 / \2", reasoning)
    text = re.sub(r"\\text\s*\{[^}]*\}", "", text)
    for sign, marks in {"*": r"\\times|\\cdot|×", "/": r"\\div|÷", "-": "−|–"}.items():
        text = re.sub(marks, f" {sign} ", text)
    return " " + " ".join(re.findall(r"(?<![\w.,])\d+|[+*/=-]|[.:;\n]", text))


def _is_told(equation: str, formulas: str) -> bool:
    """Whether the left side of "64 - 36 = 28" is among the formulas, a sum or a product either way round."""
    left = equation.partition(" = ")[0]
    sides = [left, " ".join(reversed(left.split()))] if set(left) & set("+*") else [left]
    return any(f" {side} " in f"{formulas} " for side in sides)


def _chains(count: int) -> Iterator[tuple[tuple[str, str, str], ...]]:
    """Every solution in which each of one to three numbers is used once, step upon step, plainest first."""
    if not 2 <= count <= 3:
        return
    for order in itertools.permutations(range(count)):
        for operations in itertools.product("+-*/", repeat=count - 1):
            operands, equations = [f"n{i}" for i in order], []
            for i, operation in enumerate(operations):
                left = operands[0] if i == 0 else f"r{i - 1}"
                equations.append((left, operation, operands[i + 1]))
            yield tuple(equations)
            if count == 3 and operations[1] in "-/":
                (left, operation, right) = equations[1]
                yield equations[0], (right, operation, left)


def _parse_expression(text: str, values: list[int]) -> tuple[tuple[str, str, str], ...] | None:
    """The equations of "( ( 64.0 - 36.0 ) / 4.0 )"; `None` unless each number stands once in the question."""
    equations: list[tuple[str, str, str]] = []

    def operand(node: ast.expr) -> str:
        if isinstance(node, ast.BinOp) and type(node.op) in _AST_OPERATIONS:
            step = operand(node.left), _AST_OPERATIONS[type(node.op)], operand(node.right)
            equations.append(step)
            return f"r{len(equations) - 1}"
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and node.value == int(node.value):
            if values.count(int(node.value)) != 1:
                raise ValueError("the question does not tell it, or twice")
            return f"n{values.index(int(node.value))}"
        raise ValueError("not an expression of numbers")

    try:
        operand(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError):
        return None
    return tuple(equations) if 1 <= len(equations) <= 3 else None
