"""Arithmetic stories, told from the blocks of stories.txt; that file says how they are written."""

import itertools
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from string import Formatter
from typing import NamedTuple

from semcot.data.drawing import draw
from semcot.data.equations import RESULTS, Equation, Equations, Number, parse_chain, parse_steps, worked_problem
from semcot.data.language import WORDS, draw_words, expand, join_clauses, plural, polish

NUMBERS = "ABabcdefghiklmstu"
_SLOTS = {*NUMBERS, "n", "o", "o2", "he", "him", "his", "rel", "t1", "t2"}
_SLOTS_OF_KIND = {"thing", "things", "box", "boxes", "gain", "lose", "x1", "x2"}
_Sizes = tuple[int, int, int]  # how often results may go up to 100, 150 and 500
_REAL_SIZES: _Sizes = (80, 15, 5)
_LARGER_SIZES: _Sizes = (40, 30, 30)


class Story(NamedTuple):
    """One question about a scene, with all that is needed to tell and to solve it."""

    kinds: tuple[str, ...]
    words: dict[str, tuple[str, ...]]
    facts: tuple[tuple[str, bool], ...]  # and whether it is always told
    conditions: tuple[Equations, ...]
    equations: Equations
    question: str
    reasoning: tuple[str, ...] = ()


def slots(text: str) -> set[str]:
    """The names of the slots in a text, {"n", "a"} of "{n} had {a}"."""
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def operands(equations: Iterable[Equation]) -> list[str]:
    return [name for equation in equations for name in (equation.left, equation.right)]


def read_stories(path: Path, reasoned: bool) -> list[Story]:
    """
    The stories of a file: reasoned ones, which use all that they tell, as stories.txt has them, or scenes, of which a
    question takes a part, as in variations.txt. Raises `ValueError`, with file and line, for what the file gets wrong.
    """
    stories: list[Story] = []
    block: list[tuple[int, str]] = []
    for number, line in enumerate([*path.read_text("utf-8").splitlines(), ""], 1):
        if line.strip() and not line.startswith("#"):
            block.append((number, line))
        elif block and not line.strip():
            stories += _read_block(path, block, reasoned)
            block = []
    return stories


@contextmanager
def _at(path: Path, number: int) -> Iterator[None]:
    """An error says in which line it is."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: {error}") from error


def _read_block(path: Path, block: list[tuple[int, str]], reasoned: bool) -> list[Story]:
    scene = Story((), {}, (), (), (), "", ())
    asked: dict[int, Story] = {}  # by the line of the question
    for number, line in block:
        mark, text = line[:2], line[2:].strip()
        with _at(path, number):
            if (mark == ": ") != (number == block[0][0]):
                raise ValueError("a block begins with ':' and its kinds, and there alone")
            if mark == ": ":
                kinds, *words = (part.strip() for part in text.split(";"))
                scene = scene._replace(kinds=tuple(kinds.split()), words=dict(map(_read_word, words)))
            elif mark in (". ", "~ ") and not asked:
                scene = scene._replace(facts=(*scene.facts, (text, mark == ". ")))
            elif mark == "! " and not asked:
                scene = scene._replace(conditions=(*scene.conditions, *map(parse_chain, text.split(", "))))
            elif mark == "= ":
                equations, _, question = text.partition(" ? ")
                asked[number] = scene._replace(equations=parse_steps(equations), question=question)
            elif mark == "> " and asked:
                last = max(asked)
                asked[last] = asked[last]._replace(reasoning=(*asked[last].reasoning, text))
            else:
                raise ValueError(
                    "a line begins with one of : . ~ ! = > and a blank; > stands after =, all others before"
                )
    with _at(path, number):
        if not asked:
            raise ValueError("the block asks no question; give it a line that begins with =")
    for number, story in asked.items():
        with _at(path, number):
            _check(story, reasoned)
    return list(asked.values())


def _read_word(text: str) -> tuple[str, tuple[str, ...]]:
    name, colon, choices = text.partition(": ")
    if not colon:
        raise ValueError(f"{text!r} is no word with its choices, as in item: ticket|sandwich")
    return name, tuple(choices.split("|"))


def _check(story: Story, reasoned: bool) -> None:
    """Raises `ValueError` for a story that could not be told, or not be solved from what it tells."""
    if not story.facts or not story.question:
        raise ValueError("a block needs a fact, a line that begins with '.', and after '= a - b ? ' a question")
    if unknown := set(story.kinds) - WORDS.kinds.keys():
        raise ValueError(f"words.yaml has no kind {_names(unknown)}")
    known = _SLOTS | _SLOTS_OF_KIND if story.kinds else _SLOTS
    if taken := story.words.keys() & {*known, *RESULTS}:
        raise ValueError(f"{_names(taken)} has its meaning already; name the word otherwise")
    texts = [fact for fact, _ in story.facts] + [story.question]
    for text in (*texts, *story.reasoning):
        if text.count("[") != text.count("]"):
            raise ValueError(f"a bracket is open in {text!r}")
    told, results = set().union(*map(slots, texts)), RESULTS[: len(story.equations)]
    known = known | story.words.keys() | {f"{name}s" for name in story.words}
    if unknown := told - known | set().union(*map(slots, story.reasoning)) - known - set(results):
        raise ValueError(f"nothing fills the slot {_names(unknown)}")
    for i, equation in enumerate(story.equations):
        if unknown := set(operands([equation])) - told - set(results[:i]):
            raise ValueError(f"{_names(unknown)} in the equations is neither told nor an earlier result")
    if unused := set(results[:-1]) - set(operands(story.equations)):
        raise ValueError(f"no equation goes on from {_names(unused)}")
    if unknown := set(operands(itertools.chain(*story.conditions))) - {*NUMBERS, *RESULTS}:
        raise ValueError(f"{_names(unknown)} in a condition is no number")
    if len(story.reasoning) != reasoned * len(results):
        raise ValueError(f"there must be {reasoned * len(results)} lines of reasoning, one for each equation")
    for name, text in zip(results, story.reasoning, strict=False):
        if name not in slots(text):
            raise ValueError(f"{text!r} does not tell the equation {{{name}}}")
    idle = told & {*NUMBERS} - set(operands(story.equations))
    if reasoned and (idle or story.conditions or not all(always for _, always in story.facts)):
        raise ValueError("a scene with numbers that no equation takes, with ~ or with ! belongs into variations.txt")


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


STORIES = read_stories(Path(__file__).with_name("stories.txt"), reasoned=True)


def check_steps(steps: tuple[int, int]) -> None:
    """Raises `ValueError` for a smallest and largest number of equations that cannot be."""
    low, high = steps
    if not 1 <= low <= high <= 3:
        raise ValueError(f"steps is {steps}; give two whole numbers with 1 <= first <= second <= 3")


def of_length(stories: list[Story], steps: tuple[int, int]) -> list[Story]:
    """The stories whose number of equations lies within `steps`, both ends included. Raises as [`check_steps`]."""
    check_steps(steps)
    low, high = steps
    return [story for story in stories if low <= len(story.equations) <= high]


def result_told(equation: Equation, values: Mapping[str, Number]) -> Number:
    """The result; 0 where a story cannot have it: not above 0, with more decimals than before, or a quotient of 1."""
    result = equation.solve(values)
    finest = max(values[name].denominator for name in (equation.left, equation.right))
    return 0 if result <= 0 or result.denominator > finest or (equation.operation == "/" and result == 1) else result


def draw_numbers(equations: Equations, rng: random.Random, sizes: _Sizes = _REAL_SIZES) -> dict[str, int]:
    """Draws numbers until every division is exact and every result fits; only the last result may be 1."""
    limit = rng.choices((100, 150, 500), sizes)[0]
    large = rng.choice((20, 50, 99)) if limit <= 150 else 300
    small = 15 if limit <= 150 else 30
    ranges = dict.fromkeys("abcdef", (2, large)) | dict.fromkeys("stu", (2, small)) | dict.fromkeys("kl", (2, 10))
    ranges["m"] = (3, 10)
    names = [name for name in operands(equations) if name in ranges]
    while True:
        values = {name: rng.randint(*ranges[name]) for name in names}
        for i, (name, equation) in enumerate(zip(RESULTS, equations, strict=False), 1):
            values[name] = result = result_told(equation, values)
            if not (1 if i == len(equations) else 2) <= result <= limit:
                break
            # As in the real sets, most quotients come from the multiplication table.
            if equation.operation == "/" and result > 12 and rng.random() < 0.85:
                break
        else:
            return values


def tell_story(story: Story, rng: random.Random, sizes: _Sizes = _REAL_SIZES) -> dict[str, str]:
    """A problem of this story: question, reasoning, condensed_reasoning, answer."""
    values = draw_numbers(story.equations, rng, sizes)
    filled = values | draw_words(story.kinds, story.words, rng)
    facts = [expand(fact, rng) for fact, _ in story.facts]
    aside = [rng.choice(WORDS.asides)] if "{n}" in facts[0] and rng.random() < 0.07 else []
    facts, aside = ([text.format_map(filled) for text in texts] for texts in (facts, aside))
    question = join_clauses(facts, aside, expand(story.question, rng).format_map(filled), rng)

    results = RESULTS[: len(story.equations)]
    written = {name: step.write(values) for name, step in zip(results, story.equations, strict=True)}
    reasoning = ". ".join(expand(sentence, rng).format_map(filled | written) for sentence in story.reasoning)
    if values[results[-1]] == 1:
        singulars = {plural(unit): unit for unit in WORDS.units}
        singulars |= {filled[f"{name}s"]: word for name, word in filled.items() if f"{name}s" in filled}
        reasoning = re.sub(r"(?<== 1 )[A-Za-z -]+", lambda match: singulars.get(match[0], match[0]), reasoning)
    return worked_problem(polish(question), story.equations, values, polish(reasoning))


def arithmetic_stories(
    num_samples: int, seed: int = 0, steps: tuple[int, int] = (1, 3), split: str = "train"
) -> Iterator[dict[str, str]]:
    """Word problems in the manner of MultiArith, each of a family drawn evenly from those of the wanted length.

    Args:
        num_samples: how many to draw; no question comes twice in one draw.
        seed: the seed of the draw.
        steps: the smallest and the largest number of equations, both included, within 1 to 3.
        split: "train" or "eval"; the two never share a question.

    Yields:
        question, reasoning (sentences with the equations), condensed_reasoning ("11 - 9 = 2, 2 + 8 = 10") and answer
        (the last result). Every number is a positive integer.

    Raises:
        ValueError: for an unknown split, steps outside 1 to 3, or more samples than there are questions.
    """
    rng = random.Random(seed)
    stories = of_length(STORIES, steps)
    yield from draw(lambda: tell_story(rng.choice(stories), rng), num_samples, split)


def arithmetic_shapes(
    num_samples: int, seed: int = 0, steps: tuple[int, int] = (1, 3), split: str = "train"
) -> Iterator[dict[str, str]]:
    """The stories again, each shape of arithmetic equally often, however few tell it, and with larger numbers.

    A shape is the equations with their operands: 17 families divide a difference, most shapes have a single one.
    Arguments, columns and errors as for [`arithmetic_stories`].
    """
    rng = random.Random(seed)
    shapes: dict[Equations, list[Story]] = {}
    for story in of_length(STORIES, steps):
        shapes.setdefault(story.equations, []).append(story)
    told = list(shapes.values())
    yield from draw(lambda: tell_story(rng.choice(rng.choice(told)), rng, _LARGER_SIZES), num_samples, split)
