"""Template augmentation: symbolic variants of real problems, with their numbers, and the names in them, drawn anew.

A template is a real arithmetic problem whose solution is understood: one to three equations over the numbers of its
question. The problem's own reasoning tells which of the possible solutions is meant; one that stays ambiguous gives no
template. A real problem belongs to "eval" or to "train" with all its variants, and with the other real problems that
differ in numbers, names and pronouns alone: by the SHA-256 of their first question, as synthetic ones do.
"""

import itertools
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from semcot.data.drawing import draw, in_eval
from semcot.data.equations import RESULTS, Equation, Equations, Number, parse_expression, solve, worked_problem
from semcot.data.language import WORDS

# Not those that are often other words: months, flowers, verbs.
_OTHER_WORDS = set("April Daisy Dean Frank Grace Iris Ivy Lily Mark May Penny Rose Ruby Violet Will".split())
_NAMES = tuple(tuple(name for name in names if name not in _OTHER_WORDS) for names in (WORDS.women, WORDS.men))
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


class Template(NamedTuple):
    """A worked problem, to be filled with other numbers."""

    question: str
    equations: Equations
    """The numbers of the question are "n0", "n1", … in the order of telling."""


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
        names = {value: f"n{i}" for i, value in enumerate(values) if values.count(value) == 1}
        try:
            equations = parse_expression(written[1], names)
        except ValueError:
            return None
        return Template(question, equations) if _results(equations, values)[-1:] == [answer] else None

    if _MORE_THAN_NUMBERS.search(question):
        return None
    reasoning = f"{problem['reasoning']} {problem['condensed_reasoning']}"
    seen, formulas = set(map(int, _NUMBER.findall(reasoning))), _formulas(reasoning)
    told: dict[Equations, int] = {}  # how many of a solution's steps stand in the reasoning
    for equations in _chains(len(values)):
        results = _results(equations, values)
        if results[-1:] == [answer] and seen.issuperset(results):
            slots = solve(equations, _named(values))
            told[equations] = sum(_is_told(equation.write(slots), formulas) for equation in equations)
    most = max(told.values(), default=0)
    templates = [Template(question, equations) for equations, steps in told.items() if 0 < most == steps]
    return templates[0] if len(set(map(_meaning, templates))) == 1 else None


def find_templates(problems: Iterable[dict[str, str]], split: str) -> list[Template]:
    """
    The templates of a split, "train" or "eval"; those whose questions are the same when masked are all in the same one,
    and mean the same: of several meanings, the one that most of them have.
    """
    templates = [template for problem in problems if (template := find_template(problem))]
    alike: dict[str, list[Template]] = defaultdict(list)
    for template in sorted(templates):
        alike[masked(template.question)].append(template)

    def is_chosen(template: Template) -> bool:
        group = alike[masked(template.question)]
        meaning = Counter(map(_meaning, group)).most_common(1)[0][0]
        return in_eval(group[0].question) == (split == "eval") and _meaning(template) == meaning

    return list(filter(is_chosen, templates))


def _meaning(template: Template) -> Number:
    """The result for some other numbers: the same for two that mean the same."""
    rng = random.Random(0)
    values = [rng.randint(1, 10**6) for _ in _NUMBER.findall(template.question)]
    return solve(template.equations, _named(values))[RESULTS[len(template.equations) - 1]]


def augment(
    problems: Iterable[dict[str, str]], num_samples: int, seed: int = 0, split: str = "train"
) -> Iterator[dict[str, str]]:
    """Variants of real arithmetic problems, each of a template drawn evenly.

    Args:
        problems: the real ones, with question, reasoning, condensed_reasoning and answer.
        num_samples: how many variants to draw; no question comes twice in one draw.
        seed: the seed of the draw.
        split: "train" or "eval"; variants of one problem are all in the same one.

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


def masked(question: str) -> str:
    """A question with its numbers, names and pronouns taken out: the same for problems that differ in these alone."""
    text = _PRONOUN.sub("_", _NUMBER.sub("0", question))
    names: dict[str, int] = {}  # any word with a capital, since nobody lists all names
    return re.sub(r"\b[A-Z]\w*", lambda match: f"N{names.setdefault(match[0], len(names))}", text)


def _fill(template: Template, rng: random.Random) -> dict[str, str]:
    given = [int(number) for number in _NUMBER.findall(template.question)]
    limit = max(100, 1.5 * max(*given, *_results(template.equations, given)))
    while True:
        numbers = [value if value < 2 else rng.randint(2, max(12, value * 3 // 2)) for value in given]
        results = _results(template.equations, numbers)
        if results and max(results) <= limit:
            break
    new = iter(numbers)
    question = _NUMBER.sub(lambda _: str(next(new)), template.question)
    names: dict[str, str] = {}
    for name in dict.fromkeys(_NAME.findall(question)):
        same_sort = next(sort for sort in _NAMES if name in sort)
        names[name] = rng.choice([other for other in same_sort if other not in names.values()])
    question = _NAME.sub(lambda match: names[match[0]], question)
    return worked_problem(question, template.equations, solve(template.equations, _named(numbers)))


def _named(numbers: Sequence[int]) -> dict[str, Number]:
    return {f"n{i}": number for i, number in enumerate(numbers)}


def _results(equations: Equations, numbers: Sequence[int]) -> list[Number]:
    """The result of each step; none when one is not a whole number of at least 1."""
    try:
        values = solve(equations, _named(numbers))
    except ZeroDivisionError:
        return []
    results = [values[name] for name in RESULTS[: len(equations)]]
    return results if all(value >= 1 and value.denominator == 1 for value in results) else []


def _formulas(reasoning: str) -> str:
    """The numbers and signs of a reasoning as [`Equation.write`] sets them: units, words and marks of LaTeX dropped."""
    text = re.sub(r"\\[dt]?frac\{(.*?)\}\{(.*?)\}", r"\1 / \2", reasoning)
    text = re.sub(r"\\text\s*\{[^}]*\}", "", text)
    for sign, marks in {"*": r"\\times|\\cdot|×", "/": r"\\div|÷", "-": "−|–"}.items():
        text = re.sub(marks, f" {sign} ", text)
    return " " + " ".join(re.findall(r"(?<![\w.,])\d+|[+*/=-]|[.:;\n]", text))


def _is_told(equation: str, formulas: str) -> bool:
    """True if the left side of "64 - 36 = 28" is among the formulas, a sum or a product either way round."""
    left = equation.partition(" = ")[0]
    sides = [left, " ".join(reversed(left.split()))] if set(left) & set("+*") else [left]
    return any(f" {side} " in f"{formulas} " for side in sides)


def _chains(count: int) -> Iterator[Equations]:
    """Every solution in which each of one to three numbers is used once, step upon step, plainest first."""
    if not 2 <= count <= 3:
        return
    for order in itertools.permutations(range(count)):
        for operations in itertools.product("+-*/", repeat=count - 1):
            first, *others = (f"n{i}" for i in order)
            steps = zip((first, *RESULTS), operations, others, strict=False)
            equations = tuple(Equation(*step) for step in steps)
            yield equations
            if count == 3 and operations[1] in "-/":
                left, operation, right = equations[1]
                yield equations[0], Equation(right, operation, left)
