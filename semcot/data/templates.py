"""Template augmentation: symbolic variants of real problems, with their numbers, and the names in them, drawn anew.

A template is a real arithmetic problem whose solution is understood: equations over the numbers of its question, what
its words imply (twice, half, a dozen, a week) and earlier results. The problem's own reasoning tells which of the
possible solutions is meant; one that stays ambiguous gives no template. A real problem belongs to "eval" or to "train"
with all its variants, and with the other real problems that differ in numbers, names and pronouns alone: by the SHA-256
of their first question, as synthetic ones do.
"""

import functools
import itertools
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

from semcot.data.drawing import draw, in_eval
from semcot.data.equations import (
    RESULTS,
    Equation,
    Equations,
    Number,
    exact,
    parse_expression,
    solve,
    work_out,
    worked_problem,
)
from semcot.data.language import WORDS

# Not those that are often other words: months, flowers, verbs.
_OTHER_WORDS = set("April Daisy Dean Frank Grace Iris Ivy Lily Mark May Penny Rose Ruby Violet Will".split())
_NAMES = tuple(tuple(name for name in names if name not in _OTHER_WORDS) for names in (WORDS.women, WORDS.men))
_NAME = re.compile(rf"\b({'|'.join(itertools.chain(*_NAMES))})\b")
_NUMBER = re.compile(r"(?<![\w.,])[0-9]+(?![\w]|[.,]\d)")  # other scripts' digits are not written anew
_WORDS = (
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen twenty"
).split()
_QUANTITY = re.compile(
    rf"{_NUMBER.pattern}|(?<!ty-)(?<!hundred )(?<!hundred and )\b(?:{'|'.join(_WORDS)})\b"
    rf"(?!-(?:one|{'|'.join(_WORDS[:8])})\b)",
    re.IGNORECASE,
)
_PRONOUN = re.compile(r"\b(?:he|she|him|his|hers?)\b", re.IGNORECASE)
# What plain numbers do not tell: shares, factors in words, a change of units.
_MORE_THAN_NUMBERS = re.compile(
    r"%|\d/\d|\b(?:averages?|hal(?:f|ves)|twice|thrice|doubled?s?|tripled?s?|thirds?|quarters?|fourths?|fifths?"
    r"|times (?:as|the|more)|percent(?:age)?|minutes?\b.*\bhours?|hours?\b.*\bminutes?)\b",
    re.IGNORECASE | re.DOTALL,
)
_WRITTEN_OUT = re.compile(r"[^(]*(\([\d\s.+*/()-]+\))\s*(?:= \d+)?")  # the end as in SVAMP's own records
# What words imply: the numbers that a solution may take without their being told.
_IMPLIED = {
    value: re.compile(rf"\b(?:{words})\b", re.IGNORECASE)
    for value, words in {
        2: r"hal(?:f|ves)|twice|doubl\w*|both|couples?|pairs?|twins?|round[ -]trip|each other|biweekly|pints?"
        r"|(?-i:[A-Z])\w* and (?:his|her|their|(?-i:[A-Z])\w*)",  # two people
        3: r"thirds?|3rds?|tripl\w*|thrice|trios?|yards?|(?-i:[A-Z])\w*, (?-i:[A-Z])\w*,? and",
        4: r"quarters?|fourths?|4ths?|quadrupl\w*|months?|quarts?|gallons?",
        5: r"fifths?|5ths?|nickels?",
        6: r"sixths?|6ths?|half a dozen",
        7: r"weeks?|weekly|daily|days?|every day",
        8: r"eighths?|8ths?",
        10: r"tenths?|10ths?|dimes?|decades?|millimeters?",
        12: r"dozens?|years?|yearly|annual\w*|monthly|months?|foot|feet|inch(?:es)?",
        16: r"pounds?|ounces?",
        24: r"hours?|hourly|days?",
        25: r"quarters?",
        30: r"months?|monthly",
        52: r"years?|yearly|annual\w*|weekly",
        60: r"minutes?|hours?|seconds?",
        100: r"percent\w*|per ?cent|cents?|cm|(?:centi)?meters?|pennies|dimes?|nickels?|quarters?|century|half|third",
        365: r"years?|yearly|annual\w*",
        1000: r"thousands?|kilo\w*|kg|km|grams?|liters?|ml|milliliters?",
    }.items()
}
_ANY_NUMBER = re.compile(r"(?<![\w.])(?:\d[\d,]*\d|\d)?(?:\.?\d+)(?![\w]|[.,]\d)")
# Numbers that are no count of the problem's own: shares, ratios, times of day, and what a week or a day has of them.
_FIXED = re.compile(
    rf"(?<=[/:-])\d+|\b(?:grade|page|room|number|no\.|level|route) \d+|(?<!\$)\b(?:19|20)\d\d\b|\$\d+ bills?"
    rf"|(?:\d+|\b(?:{'|'.join(_WORDS)}))(?:[/:%]|[ -]?(?:percent|per cent|hundred|thousand|million|billion|thirds?|half"
    r"|halves|fourths?|fifths?|sixths?|sevenths?|eighths?|ninths?|tenths?|quarters?|o'clock|[ap]\.?m\b)"
    r"|[ -](?:day|week|hour|month|minute|time)s? (?:a|per|of the|in a|each|every|in the) (?:day|week|month|year|hour))",
    re.IGNORECASE,
)
# A number that may follow from others, or from how many things are named: "all three", "the other 4".
_DERIVED = re.compile(
    rf"\b(?:the|other|others|remaining|these|those|all|last|final|both) (\d|1[0-2]|{'|'.join(_WORDS)})\b(?!-)",
    re.IGNORECASE,
)
# Parents' ages, which must be far enough from their children's, without being told so.
_PARENTS_AGE = re.compile(
    r"(?=.*\b(?:ages?|years (?:old|older|younger))).*\b(?:father|dad|mother|mom|grand\w+|uncle|aunt|son|daughter)s?\b",
    re.IGNORECASE | re.DOTALL,
)
_SHARE_ASKED = re.compile(r"\bwhat (?:percent|is the percent)", re.IGNORECASE)
_ARTICLE = re.compile(rf"\b(a)n?(?= (?:((?:8\d*|11|18|eight|eleven|eighteen)\b)|\d|(?:{'|'.join(_WORDS)})\b))", re.I)
_LARGEST = 9999  # of the numbers and results that a template may have
_MOST_TRIES = 1000


class Template(NamedTuple):
    """A worked problem, to be filled with other numbers."""

    question: str
    equations: Equations
    """
    The numbers of the question, in digits or words, are "n0", "n1", … in the order of telling; equal ones, which stay
    equal, have the first one's name. A number that stands for itself stays, in the question too.
    """


def find_template(problem: dict[str, str]) -> Template | None:
    """The template of a problem (question, reasoning, condensed_reasoning, answer); `None` if it is not understood.

    Two ways lead to the equations. Where the solution is told, as the condensed reasoning, "48 / 2 = 24, 48 + 24 = 72",
    or at the end of the reasoning, "( ( 64.0 - 36.0 ) / 4.0 )", it is read: each of its numbers must be told, be
    implied by a word or be an earlier result, each result must be used, and what its numbers are must be clear.
    Elsewhere every solution that uses each number of the question once is tried. It must have all its results
    in the reasoning, and a step of its own there; those are preferred that have most. What is left must compute the
    same thing for other numbers too. Many numbers come to an answer in a way that is not the problem's: one that tells
    more than plain numbers gives no template. Nor does one for which no other numbers can be found.
    """
    question = problem["question"]
    if not problem["answer"].isdecimal() or max(_quantities(question), default=_LARGEST + 1) > _LARGEST:
        return None
    written = _WRITTEN_OUT.fullmatch(problem["reasoning"])
    steps = _told_steps(problem, written and written[1])
    solutions = _read(question, steps, idle=bool(written)) if steps else _searched(problem)
    templates = [Template(question, equations) for equations in solutions]
    understood = len(set(map(_meaning, templates))) == 1 and _new_numbers(templates[0], random.Random(0))
    return templates[0] if understood else None


def worked_steps(problem: dict[str, str]) -> str:
    """
    The steps of a problem, "34 - 3 = 31, 31 + 48 = 79": its condensed reasoning or, where it has none, those that its
    reasoning tells, as [`find_template`] understands it; empty where it does not.
    """
    if problem["condensed_reasoning"]:
        return problem["condensed_reasoning"]
    if not (template := find_template(problem)):
        return ""
    values = solve(template.equations, {name: value for value, name in _names(template.question).items()})
    return ", ".join(equation.write(values) for equation in template.equations)


def _told_steps(problem: dict[str, str], expression: str | None) -> list[Equation]:
    """The steps of the expression, or else the condensed reasoning; none if they are not true or end elsewhere."""
    try:
        told = work_out(expression) if expression else problem["condensed_reasoning"].split(", ")
        sides = [step.split(" = ") for step in told]
        steps = [(*parse_expression(left), exact(result)) for left, result in sides]
        true = all(step.solve() == result for step, result in steps)
    except (ValueError, ZeroDivisionError):
        return []
    return [step for step, _ in steps] if true and steps[-1][1] == int(problem["answer"]) else []


def _read(question: str, steps: Sequence[Equation], idle: bool) -> Iterator[Equations]:
    """
    Every way to understand the numbers of these steps in which each result but the last is used, and so is each number
    that the question tells, unless those may be `idle`: an unused one often says what others must add up to. In words
    it may be unused where it is no result: "three buckets, the first with 5".
    """
    names, stays = _names(question), _staying(question)
    derived = {names.get(value) for value in map(_value, _DERIVED.findall(question))}
    told = {*map(int, _NUMBER.findall(question)), *(step.solve() for step in steps)}
    needed = {*RESULTS[: len(steps) - 1], *(name for value, name in names.items() if value in told and not idle)}
    results: list[Number] = []
    meanings: list[list[str]] = []  # of each number
    for step in steps:
        for text in (step.left, step.right):
            value = exact(text)
            told = [text] if value in stays else [names[value]] if value in names else []
            meanings.append([name for name, result in zip(RESULTS, results, strict=False) if result == value] + told)
        results.append(step.solve())
    unclear = (
        (not idle and "average" in question)  # of how many things: that may be said by naming them
        or _PARENTS_AGE.match(question)
        or (_SHARE_ASKED.search(question) and not any("100" in step for step in steps))  # a step is missing
    )
    if unclear or len(steps) > len(RESULTS) or math.prod(map(len, meanings)) > _MOST_TRIES:
        return
    for chosen in itertools.product(*meanings):
        if needed.issubset(chosen) and derived.isdisjoint(chosen):
            yield tuple(Equation(chosen[2 * i], step.operation, chosen[2 * i + 1]) for i, step in enumerate(steps))


def _searched(problem: dict[str, str]) -> Iterator[Equations]:
    """The solutions that use each number in digits once and of which most steps stand in the reasoning."""
    question = problem["question"]
    if _MORE_THAN_NUMBERS.search(question):
        return
    reasoning = f"{problem['reasoning']} {problem['condensed_reasoning']}"
    seen, formulas = set(map(int, _NUMBER.findall(reasoning))), _formulas(reasoning)
    names = _names(question)
    given = {name: value for value, name in names.items()}
    operands = [names.get(int(text), text) for text in _NUMBER.findall(question)]
    told: dict[Equations, int] = {}  # how many of a solution's steps stand in the reasoning
    for equations in _chains(operands):
        results = _results(equations, given)
        if results[-1:] == [int(problem["answer"])] and seen.issuperset(results):
            told[equations] = sum(_is_told(equation.write(solve(equations, given)), formulas) for equation in equations)
    most = max(told.values(), default=0)
    yield from (equations for equations, steps in told.items() if 0 < most == steps)


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
    values = {f"n{i}": rng.randint(1, 10**6) for i in range(len(_quantities(template.question)))}
    return solve(template.equations, values)[RESULTS[len(template.equations) - 1]]


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
    text = _ANY_NUMBER.sub("0", _QUANTITY.sub("0", question))
    text = _PRONOUN.sub("_", re.sub(r"\b([Aa])n 0", r"\1 0", text))
    names: dict[str, int] = {}  # any word with a capital, since nobody lists all names
    return re.sub(r"\b[A-Z]\w*", lambda match: f"N{names.setdefault(match[0], len(names))}", text)


def _plain(text: str) -> Number:
    """The value of "1,200" or "0.5"."""
    return exact(text.replace(",", ""))


def _value(quantity: str) -> int:
    return int(quantity) if quantity.isdecimal() else _WORDS.index(quantity.lower()) + 2


def _quantities(question: str) -> list[int]:
    """The plain numbers of a question, in digits or in words."""
    return list(map(_value, _QUANTITY.findall(question)))


def _names(question: str) -> dict[int, str]:
    """The values that may vary, wherever they stand, with their names: that of their first place."""
    fixed = [match.span() for match in _FIXED.finditer(question)]
    counts = {match.start() for match in _QUANTITY.finditer(question)}
    others = [match for match in _ANY_NUMBER.finditer(question) if match.start() not in counts]  # 3rd, $3.00
    names: dict[int, str] = {int(value): "" for match in others if (value := _plain(match[0])).denominator == 1}
    for i, match in enumerate(_QUANTITY.finditer(question)):
        names.setdefault(_value(match[0]), f"n{i}")
        if any(start <= match.start() < end for start, end in fixed) or _value(match[0]) < 2:
            names[_value(match[0])] = ""
    return {value: name for value, name in names.items() if name}


def _staying(question: str) -> set[Number]:
    """The numbers that a solution may take as they are: 1, implied ones, and those told that are no plain counts."""
    told = list(map(_plain, _ANY_NUMBER.findall(question)))
    names = _names(question)
    told = [value for value in (*told, *_quantities(question)) if value not in names]
    shares = [100, *(Fraction(value, 100) for value in told)] if "%" in question or "percent" in question else []
    return {1, *told, *shares, *(value for value, words in _IMPLIED.items() if words.search(question))}


class _Own(NamedTuple):
    """A template's own numbers."""

    numbers: dict[str, Number]  # by name, from the smallest to the largest
    results: list[Number]
    varying: set[str]  # the names of those that can be others


@functools.cache
def _own(template: Template) -> _Own:
    operands = {operand for equation in template.equations for operand in equation[::2]}
    digits = set(map(int, _NUMBER.findall(template.question)))
    numbers = {name: value for value, name in sorted(_names(template.question).items())}
    varying = {name for name, value in numbers.items() if value in digits and str(value) not in operands}
    return _Own(numbers, _results(template.equations, numbers), varying | operands & numbers.keys())


def _new_numbers(template: Template, rng: random.Random) -> dict[str, Number]:
    """Other numbers for a template, by their names, in the order of size of its own; none where none are found."""
    own = _own(template)
    largest = max([*own.numbers.values(), *own.results])
    for _ in range(_MOST_TRIES if own.results and largest <= _LARGEST else 0):
        new = {name: _near(value, rng) if name in own.varying else value for name, value in own.numbers.items()}
        if new == own.numbers or any(small >= large for small, large in itertools.pairwise(new.values())):
            continue
        results = _results(template.equations, new)
        as_whole = all(new.denominator <= old.denominator for new, old in zip(results, own.results, strict=False))
        if results and max(results) <= max(100, 1.5 * largest) and as_whole:
            return new
    return {}


def _near(value: int, rng: random.Random) -> int:
    """A number of the same magnitude, often as round."""
    low, high = max(2, value // 3), max(value * 3 // 2, min(12, value + 5))
    step = next((step for step in (100, 10, 5) if value % step == 0 and value >= 3 * step and rng.random() < 0.7), 1)
    return step * rng.randint(-(-low // step), high // step)


def _fill(template: Template, rng: random.Random) -> dict[str, str]:
    numbers: dict[str, Number] = {}
    while not numbers:  # found before, with other draws
        numbers = _new_numbers(template, rng)
    new = {value: numbers[name] for name, value in _own(template).numbers.items()}

    def anew(match: re.Match[str]) -> str:
        number = new.get(_value(match[0]), _value(match[0]))
        if number == _value(match[0]):
            return match[0]
        if match[0].isdecimal() or number > len(_WORDS) + 1:
            return str(number)
        word = _WORDS[number - 2]
        return word.capitalize() if match[0][0].isupper() else word

    question = _ARTICLE.sub(lambda match: match[1] + "n" * bool(match[2]), _QUANTITY.sub(anew, template.question))
    names: dict[str, str] = {}
    for name in dict.fromkeys(_NAME.findall(question)):
        same_sort = next(sort for sort in _NAMES if name in sort)
        names[name] = rng.choice([other for other in same_sort if other not in names.values()])
    question = _NAME.sub(lambda match: names[match[0]], question)
    return worked_problem(question, template.equations, solve(template.equations, numbers))


def _results(equations: Equations, numbers: dict[str, Number]) -> list[Number]:
    """The result of each step; none when one is not above 0 or has more than two decimals."""
    try:
        values = solve(equations, numbers)
    except ZeroDivisionError:
        return []
    results = [values[name] for name in RESULTS[: len(equations)]]
    return results if all(value > 0 and 100 % value.denominator == 0 for value in results) else []


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


def _chains(operands: Sequence[str]) -> Iterator[Equations]:
    """Every solution in which each of two or three operands is used once, step upon step, plainest first."""
    if not 2 <= len(operands) <= 3:
        return
    for first, *others in itertools.permutations(operands):
        for operations in itertools.product("+-*/", repeat=len(others)):
            equations = tuple(map(Equation, (first, *RESULTS), operations, others))
            yield equations
            if len(others) == 2 and operations[1] in "-/":
                left, operation, right = equations[1]
                yield equations[0], Equation(right, operation, left)
